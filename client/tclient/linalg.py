"""torch.linalg, run by the server: the functions that the table of operations lists."""

from __future__ import annotations

from typing import Any

from tclient._exceptions import LinAlgError
from tclient._namespace import functions, missing

globals().update(functions("linalg."))

__all__ = ["LinAlgError"]


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())
