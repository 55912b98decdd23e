"""torch.multiprocessing: Python's, with torch's names beside.

A process has a session of its own, and gets tensors by value: those that are sent to it, and those that a forked one
inherits with its arguments.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

from tclient._launcher.processes import hand_over

_sharing = "file_descriptor"


def get_all_sharing_strategies() -> set[str]:
    """The names that are taken."""
    return {"file_descriptor", "file_system"}


def get_sharing_strategy() -> str:
    """What this program has set; no memory is shared."""
    return _sharing


def set_sharing_strategy(new_strategy: str) -> None:
    """Note it: no memory is shared. Raises: AssertionError for an unknown name."""
    global _sharing
    if new_strategy not in get_all_sharing_strategies():
        raise AssertionError(f"unknown sharing strategy {new_strategy!r}")
    _sharing = new_strategy


def spawn(
    fn: Callable[..., Any],
    args: tuple[Any, ...] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> list[Any] | None:
    """Run fn(i, *args) in nprocs processes, and wait for them unless told otherwise.

    Raises: RuntimeError if one of them fails.
    """
    context: Any = multiprocessing.get_context(start_method)
    started = [context.Process(target=fn, args=(number, *args), daemon=daemon) for number in range(nprocs)]
    for process in started:
        process.start()
    if not join:
        return started
    for process in started:
        process.join()
    for number, process in enumerate(started):
        if process.exitcode:
            raise RuntimeError(f"process {number} terminated with exit code {process.exitcode}")
    return None


hand_over()


def __getattr__(name: str) -> Any:
    return getattr(multiprocessing, name)
