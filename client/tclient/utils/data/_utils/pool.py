"""The worker processes of one loader: started, told what to take, asked in turn, and ended whatever happens.

The processes are of this program and speak by multiprocessing's queues. Knows what a worker does; does not know in
which order indices come.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import time
import weakref
from typing import Any

from tclient.utils.data._utils.worker import Exhausted, Failure, Task, Work, run

_LOOK_S = 1.0
_PATIENCE_S = 5.0


class Pool:
    """Workers, each with a queue of tasks of its own, and one queue of results."""

    def __init__(self, work: Work, context: Any, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._results = context.Queue()
        self._tasks: list[Any] = []
        self._processes: list[Any] = []
        # Workers that have no more to give in this pass.
        self.exhausted: set[int] = set()
        self._end = weakref.finalize(self, _end, os.getpid(), self._processes, self._tasks, self._results)
        for number in range(work.num_workers):
            tasks = context.Queue()
            # A task that nobody takes must not hold up the end of this process.
            tasks.cancel_join_thread()
            process = context.Process(target=run, args=(work, number, tasks, self._results), daemon=True)
            process.start()
            self._tasks.append(tasks)
            self._processes.append(process)

    def begin(self) -> None:
        """Begin another pass: streams start anew."""
        self.exhausted.clear()
        for tasks in self._tasks:
            tasks.put(Task(-1, is_new_pass=True))

    def put(self, worker: int, number: int, indices: Any) -> None:
        """Give a worker a task."""
        self._tasks[worker].put(Task(number, indices))

    def get(self) -> tuple[int, int, bytes]:
        """The worker, the number of the task and the result that comes next.

        Raises: RuntimeError if none comes in time, or a worker has died.
        """
        latest = time.monotonic() + self._timeout_s if self._timeout_s else None
        while True:
            left_s = _LOOK_S if latest is None else min(_LOOK_S, latest - time.monotonic())
            try:
                result: tuple[int, int, bytes] = self._results.get(timeout=max(0.0, left_s))
            except queue.Empty:
                dead = [str(process.pid) for process in self._processes if not process.is_alive()]
                if dead:
                    self.close()
                    raise RuntimeError(f"DataLoader worker (pid(s) {', '.join(dead)}) exited unexpectedly") from None
                if latest is not None and time.monotonic() >= latest:
                    self.close()
                    raise RuntimeError(f"DataLoader timed out after {self._timeout_s} seconds") from None
            else:
                return result

    def close(self) -> None:
        """End the workers, and wait for them."""
        self._end()


def opened(data: bytes) -> Any:
    """A result as the value that the worker sent. Raises the error that the worker sent instead."""
    value = pickle.loads(data)  # noqa: S301 of a process of this program, as multiprocessing does it
    if isinstance(value, Failure):
        value.reraise()
    return value


def is_end(value: Any) -> bool:
    """Whether it says that the stream of the worker is at its end."""
    return isinstance(value, Exhausted)


def _end(owner: int, processes: list[Any], tasks: list[Any], results: Any) -> None:
    if os.getpid() != owner:
        return  # a worker's copy of the pool
    for each in tasks:
        with contextlib.suppress(OSError, ValueError):
            each.put(None)
    latest = time.monotonic() + _PATIENCE_S
    for process in processes:
        # One that waits until its results are taken would wait for ever.
        while process.is_alive() and time.monotonic() < latest:
            with contextlib.suppress(Exception):
                while True:
                    results.get_nowait()
            process.join(0.02)
        if process.is_alive():
            process.terminate()
            process.join(_PATIENCE_S)
    for each in (*tasks, results):
        each.cancel_join_thread()
        each.close()
