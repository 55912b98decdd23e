"""torch.utils.hooks: what takes a hook away again."""

from __future__ import annotations

from tclient.nn._hooks import RemovableHandle

__all__ = ["RemovableHandle"]
