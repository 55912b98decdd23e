"""torch.ops: operators of compiled libraries, which only the machine that runs torch could load."""

from __future__ import annotations

from typing import Any, NoReturn

from tclient._namespace import missing


def load_library(path: Any) -> NoReturn:
    """Always raises ImportError, as for a library that does not fit: libraries then go on without their operators."""
    raise ImportError(f"{path}: compiled operators of a library are not loaded into a server")


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())
