"""Modules of ours that are compiled, each beside one of pure Python that does the same: which of them is to be used.

Where hatch_build.py has built none, or of a source that has changed since, it is the one of pure Python.
"""

from __future__ import annotations

import importlib
import os
import zlib
from pathlib import Path
from types import ModuleType


def compiled(name: str, setting: str) -> ModuleType | None:
    """The compiled module of that name; None without it, and where the environment sets `setting` to 0."""
    if os.environ.get(setting) == "0":
        return None
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    return module if is_current(module) else None


def is_current(module: ModuleType) -> bool:
    """Whether it was built of the source as it is now; where that is not beside it, it was installed with the rest."""
    source = Path(module.__file__ or "").parent / f"{module.__name__.rpartition('.')[2]}.pyx"
    try:
        return bool(zlib.crc32(source.read_bytes()) == module.SOURCE)
    except FileNotFoundError:
        return True
