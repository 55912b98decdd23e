"""Who is ready for the engine's time, and the sockets that the engine waits for meanwhile.

The engine's thread waits for both at once, so that what comes over a socket needs no other thread to be run and
answered. Whose turn it is, shares.py says. Knows descriptors and functions; does not know what is said over a socket.
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
from tserver.engine.shares import Share, Turns

# While there is always somebody who is ready, sockets are looked at so often, and who runs is asked to look whether
# somebody is to go before it.
LOOK_S = 0.0005
# How long a slice lasts while others wait that have used as much.
SLICE_S = 0.005

OnEvents = Callable[[int], None]


class Runnable(Protocol):
    """What is given time slices on the engine's thread: the queue of a session, or the batcher of a model."""

    # By which it takes turns with others.
    share: Share

    @property
    def store(self) -> ObjectStore | None:
        """What the session holds whose state is to be in force; None where that does not matter."""

    def run_slice(self, executor: Executor, others_wait: Callable[[], bool]) -> bool:
        """Work until others are to have their turn, which is asked every LOOK_S; whether there is more to do."""

    def at_work(self) -> str:
        """What is being done, in words. From any thread."""


class ReadyQueue:
    """Runnables that have asked for time, and which of them is next."""

    def __init__(self) -> None:
        # Those that have asked since it was looked; None ends the engine, when those before it had a turn.
        self._arrived: deque[Runnable | None] = deque()
        self.turns: Turns[Runnable] = Turns()
        self._turns_left: int | None = None
        # Who has its turn, and since when (time.perf_counter).
        self._running: Share | None = None
        self._began = 0.0
        # True while the engine's thread sleeps, or is about to: who puts something there wakes it.
        self._asleep = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.epoll()
        self._poll.register(self._wake, select.EPOLLIN)
        self._sockets: dict[int, tuple[OnEvents, Share]] = {}
        self._look_at = 0.0
        # When those of who runs are looked at, too.
        self._own_look_at = 0.0

    # --- from any thread ---

    def put(self, runnable: Runnable | None) -> None:
        """Have it wait for a turn; None ends the engine."""
        self._arrived.append(runnable)
        if self._asleep:
            self._asleep = False
            os.eventfd_write(self._wake, 1)

    def watch(self, descriptor: int, events: int, function: OnEvents, share: Share) -> None:
        """Call a function, which raises nothing, on the engine's thread with the events of a descriptor, as epoll names
        them. The share is charged with its time.
        """
        self._sockets[descriptor] = function, share
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
        """Whether the turn of who runs is over: somebody who has used less waits, or one who has used as much does
        after a whole slice; also by what has come over a socket by now.
        """
        if self._sockets:
            # What has come for who runs can wait: it has enough to do.
            now = time.perf_counter()
            if now < self._own_look_at:
                self._look(0, self._running)
            else:
                self._own_look_at = now + SLICE_S
                self._look(0)
        if not self._arrived and not self.turns:
            return False
        self._sort()
        ran_s = time.perf_counter() - self._began
        if ran_s >= SLICE_S or self._turns_left is not None:
            return True
        return self._running is not None and self.turns.goes_before(self._running, ran_s, SLICE_S)

    def get(self, timeout_s: float | None = None) -> Runnable | None:
        """Who is next. Its time is counted from here to `charge`. Raises: TimeoutError."""
        arrived, turns = self._arrived, self.turns
        if (arrived or turns) and self._sockets and time.monotonic() > self._look_at:
            self._look(0)
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not arrived and not turns and self._turns_left is None:
            self._asleep = True
            if not arrived:
                self._look(-1 if until is None else max(0.0, until - time.monotonic()))
            if not arrived and until is not None and time.monotonic() >= until:
                raise TimeoutError
        found = self._take()
        self._running = None if found is None else found.share
        self._began = time.perf_counter()
        self._own_look_at = self._began + SLICE_S
        return found

    def charge(self) -> float:
        """The turn of who runs is over; the seconds that it took."""
        if self._running is None:
            return 0.0
        took_s = time.perf_counter() - self._began
        self._running.charge(took_s)
        self._running = None
        return took_s

    def _take(self) -> Runnable | None:
        arrived, turns = self._arrived, self.turns
        if len(arrived) == 1 and not turns and (one := arrived[0]) is not None and self._turns_left is None:
            # Alone: nothing to sort.
            arrived.popleft()
            turns.begins(one.share)
            return one
        self._sort()
        if self._turns_left is not None:
            self._turns_left -= 1
            if self._turns_left < 0 or not turns:
                return None
        return turns.take()

    def _sort(self) -> None:
        arrived = self._arrived
        while arrived:
            one = arrived.popleft()
            if one is not None:
                self.turns.add(one)
            elif self._turns_left is None:
                self._turns_left = len(self.turns) + (self._running is not None)

    def _look(self, timeout_s: float, besides: Share | None = None) -> None:
        found = self._poll.poll(timeout_s)
        self._asleep = False
        for descriptor, events in found:
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
                continue
            if (watched := self._sockets.get(descriptor)) is not None:
                function, share = watched
                if timeout_s:
                    # Nobody's turn is taken.
                    function(events)
                    continue
                if share is besides:
                    continue
                began = time.perf_counter()
                function(events)
                took_s = time.perf_counter() - began
                share.charge(took_s)
                # It was not the time of who runs meanwhile.
                self._began += took_s
        self._look_at = time.monotonic() + LOOK_S
