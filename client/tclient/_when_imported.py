"""Modules of others that are changed when a program imports them, and not imported for that."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

_changed: set[str] = set()


def when_imported(name: str, change: Callable[[Any], None]) -> None:
    """Change a module once: now, or when it is imported."""
    if name in _changed:
        return
    _changed.add(name)
    if name in sys.modules:
        change(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, change))


class _Finder(importlib.abc.MetaPathFinder):
    """Changes one module when it is imported."""

    def __init__(self, name: str, change: Callable[[Any], None]) -> None:
        self._name, self._change = name, change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        found = importlib.machinery.PathFinder.find_spec(fullname, path)
        if found is not None and found.loader is not None:
            run: Any = found.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                self._change(module)

            found.loader.exec_module = exec_module  # type: ignore[method-assign]
        return found
