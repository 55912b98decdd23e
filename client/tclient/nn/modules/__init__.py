"""torch.nn.modules, where torch keeps its modules: what is asked for here is looked up in tclient.nn."""

from __future__ import annotations

from typing import Any

from tclient.nn.modules import utils as utils


def __getattr__(name: str) -> Any:
    import tclient.nn

    if name.startswith("__") or not hasattr(tclient.nn, name):
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(tclient.nn, name)
