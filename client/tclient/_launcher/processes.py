"""Processes that multiprocessing begins go on as the program does: with its torch, and with the tensors they are given.

What a process that begins anew is told first goes through a pickle, and reading that is what gives it the alias. A
forked process has the alias, and gets tensors by value.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

# What the server of forks is told of the program, which it would run before anyone could tell it of the alias.
_OF_THE_PROGRAM = frozenset({"main_path", "init_main_from_path", "init_main_from_name"})
_FOR_THE_FORK_SERVER = "ignore"
# Whose processes are given functions later, by their names: these find what the program had when the process forked.
_POOLS = ("multiprocessing.pool", "concurrent.futures.process")


class _Beginning:
    """Stands among what a new process is told; read there, it begins the process."""

    def __reduce__(self) -> Any:
        from tclient._session import current

        return begin, (current.synchronous_default,)


def begin(synchronous: bool) -> None:
    """The beginning of a process: as in the one that begins it."""
    import tclient

    tclient.as_torch()
    if synchronous:
        tclient.synchronous(True)


def tell_processes() -> None:
    """From here on, in this process, those that it begins anew have the alias. Imports nothing."""
    _when_imported("multiprocessing.spawn", _tell)


def hand_over() -> None:
    """From here on, in this process, those that it forks get the tensors that they are given. Imports nothing."""
    _when_imported("multiprocessing.popen_fork", _hand_over)


_changed: set[str] = set()


def _when_imported(name: str, change: Callable[[Any], None]) -> None:
    """Change a module once: now, or when it is imported."""
    if name in _changed:
        return
    _changed.add(name)
    if name in sys.modules:
        change(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, change))


class _Finder(importlib.abc.MetaPathFinder):
    """Changes a module of multiprocessing when it is imported."""

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


def _tell(spawn: Any) -> None:
    plain = spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        """As multiprocessing has it, and the beginning of the process."""
        told: dict[str, Any] = {"tclient": _Beginning(), **plain(name)}
        if name == _FOR_THE_FORK_SERVER:
            told = {key: value for key, value in told.items() if key not in _OF_THE_PROGRAM}
        return told

    spawn.get_preparation_data = get_preparation_data


def _hand_over(popen_fork: Any) -> None:
    plain = popen_fork.Popen._launch

    def _launch(self: Any, process: Any) -> None:
        from tclient import _inherited

        given: list[Any] = [vars(process)]
        if getattr(process._target, "__module__", None) in _POOLS:
            given.append(vars(sys.modules["__main__"]))
        values = _inherited.read(given)
        bootstrap = process._bootstrap

        def begin_forked(*args: Any, **kwargs: Any) -> Any:
            _inherited.inherit(values)
            return bootstrap(*args, **kwargs)

        process._bootstrap = begin_forked
        try:
            plain(self, process)
        finally:
            del process._bootstrap

    popen_fork.Popen._launch = _launch
