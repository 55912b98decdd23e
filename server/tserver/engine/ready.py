"""Who is ready for the engine's time, and the sockets that the engine waits for meanwhile.

The engine's thread waits for both at once, so that what comes over a socket needs no other thread to be run and
answered. Knows descriptors and functions; does not know what is said over a socket.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from tserver.engine.executor import Executor
from tserver.engine.object_store import ObjectStore

# While there is always somebody who is ready, sockets are looked at so often.
_LOOK_S = 0.001

OnEvents = Callable[[int], None]


class Runnable(Protocol):
    """What is given time slices on the engine's thread: the queue of a session, or the batcher of a model."""

    @property
    def store(self) -> ObjectStore | None:
        """What the session holds whose state is to be in force; None where that does not matter."""

    def run_slice(self, executor: Executor, others_wait: Callable[[], bool]) -> bool:
        """Work for a while; whether there is more to do."""

    def at_work(self) -> str:
        """What is being done, in words. From any thread."""


class ReadyQueue:
    """Runnables in the order in which they asked for time."""

    def __init__(self) -> None:
        self._waiting: deque[Runnable | None] = deque()
        # True while the engine's thread sleeps, or is about to: who puts something there wakes it.
        self._asleep = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.epoll()
        self._poll.register(self._wake, select.EPOLLIN)
        self._sockets: dict[int, OnEvents] = {}
        self._look_at = 0.0

    # --- from any thread ---

    def put(self, runnable: Runnable | None) -> None:
        """Behind those that wait; None ends the engine."""
        self._waiting.append(runnable)
        if self._asleep:
            self._asleep = False
            os.eventfd_write(self._wake, 1)

    def watch(self, descriptor: int, events: int, function: OnEvents) -> None:
        """Call a function, which raises nothing, on the engine's thread with the events of a descriptor, as epoll names
        them.
        """
        self._sockets[descriptor] = function
        self._poll.register(descriptor, events)

    # --- on the engine's thread ---

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events of a descriptor that is watched."""
        self._poll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Watch a descriptor no more. Before it is closed."""
        if self._sockets.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def others_wait(self) -> bool:
        """Whether somebody else is ready, or becomes so by what has come over a socket."""
        if not self._waiting and self._sockets:
            self._look(0)
        return bool(self._waiting)

    def get(self, timeout_s: float | None = None) -> Runnable | None:
        """Who is next. Raises: TimeoutError."""
        waiting = self._waiting
        if waiting:
            if self._sockets and time.monotonic() > self._look_at:
                self._look(0)
            return waiting.popleft()
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._asleep = True
            if not waiting:
                self._look(-1 if until is None else max(0.0, until - time.monotonic()))
            if waiting:
                return waiting.popleft()
            if until is not None and time.monotonic() >= until:
                raise TimeoutError

    def _look(self, timeout_s: float) -> None:
        found = self._poll.poll(timeout_s)
        self._asleep = False
        for descriptor, events in found:
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
                continue
            if (function := self._sockets.get(descriptor)) is not None:
                function(events)
        self._look_at = time.monotonic() + _LOOK_S
