"""Processes that multiprocessing begins go on as the program does: with its torch, and with the tensors they are given.

What a process that begins anew is told first goes through a pickle, and reading that is what gives it the alias. A
forked process has the alias, and gets tensors by value.
"""

from __future__ import annotations

import sys
from typing import Any

from tclient._when_imported import when_imported

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
    when_imported("multiprocessing.spawn", _tell)


def hand_over() -> None:
    """From here on, in this process, those that it forks get the tensors that they are given. Imports nothing."""
    when_imported("multiprocessing.popen_fork", _hand_over)


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
