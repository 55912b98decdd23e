"""Where threads enter gRPC, so that none is inside it at the moment when the process forks.

gRPC survives a fork in both processes, and without a word, if no thread is inside it then, be it only to wait for a
message. Elsewhere both processes go on with one and the same epoll set, and either may crash. So a fork closes the
gate, asks those who stay long to step aside, and waits for the others. Knows threads; does not know gRPC.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

# How long a fork waits for the others: they are in an RPC that cannot be interrupted.
_PATIENCE_S = 10.0


class Stay:
    """One thread, or one RPC, that is inside gRPC."""

    __slots__ = ("asked", "make_way", "thread")

    def __init__(self, make_way: Callable[[], object] | None) -> None:
        self.thread = threading.get_ident()
        self.make_way = make_way
        # Whether it is about to leave.
        self.asked = make_way is None


class Gate:
    """Counts who is inside. A thread that is inside may go in again."""

    def __init__(self) -> None:
        # Whether someone was inside when this process was made by a fork: gRPC's state is that of nobody then.
        self.is_torn = False
        self._tears = False
        self.after_in_child()

    @contextlib.contextmanager
    def inside(self, make_way: Callable[[], object] | None = None) -> Iterator[Stay]:
        """Within it the thread may call gRPC. `make_way` has it leave soon; another thread calls that before a fork."""
        stay = self.enter(make_way)
        try:
            yield stay
        finally:
            self.leave(stay)

    def enter(self, make_way: Callable[[], object] | None = None) -> Stay:
        """As `inside`, until `leave`."""
        stay = Stay(make_way)
        with self._changed:
            while self._closed and all(other.thread != stay.thread for other in self._stays):
                self._changed.wait()
            self._stays.add(stay)
        return stay

    def leave(self, stay: Stay) -> None:
        """The end of what `enter` began."""
        with self._changed:
            self._stays.discard(stay)
            self._changed.notify_all()

    def step_aside(self, stay: Stay) -> None:
        """Leave while the gate is closed, and come back. Not within another stay."""
        with self._changed:
            self._stays.discard(stay)
            stay.asked = False
            self._changed.notify_all()
            while self._closed:
                self._changed.wait()
            self._stays.add(stay)

    def begin(self, start: Callable[[], Any], *, may_cancel: bool = False) -> Any:
        """What `start` gives, an RPC of gRPC's with threads of its own, which is inside until it is over."""
        with self.inside():
            began = start()
            stay = self.enter(began.cancel if may_cancel else None)
            if not began.add_callback(lambda: self.leave(stay)):
                self.leave(stay)
        return began

    # ---- the fork ------------------------------------------------------------------------------------------------

    def before(self) -> None:
        """In the thread that forks: close the gate, and wait until nobody else is inside.

        One fork at a time: gRPC prepares for one, and another in the midst of that would copy it half prepared.
        """
        me = threading.get_ident()
        latest = time.monotonic() + _PATIENCE_S
        with self._changed:
            while self._closed and (left_s := latest - time.monotonic()) > 0:
                self._changed.wait(left_s)
            self._closed += 1
            while any(stay.thread != me for stay in self._stays) and (left_s := latest - time.monotonic()) > 0:
                if stays := [stay for stay in self._stays if not stay.asked]:
                    self._ask(stays)
                else:
                    self._changed.wait(left_s)
            self._tears = any(stay.thread != me for stay in self._stays)

    def after_in_parent(self) -> None:
        """Open it again."""
        with self._changed:
            self._closed -= 1
            self._changed.notify_all()

    def after_in_child(self) -> None:
        """Begin anew: of the threads only the one that forked is here."""
        self._changed = threading.Condition()
        self._stays: set[Stay] = set()
        # How many forks are under way.
        self._closed = 0
        self.is_torn = self.is_torn or self._tears

    def _ask(self, stays: list[Stay]) -> None:
        """Not in the thread that forks, where an exception out of a signal handler could leave gRPC's locks locked."""
        asking = Stay(None)
        asking.thread = -1

        def ask() -> None:
            asking.thread = threading.get_ident()
            try:
                for stay in stays:
                    if stay.make_way is not None:
                        stay.make_way()
            finally:
                self.leave(asking)

        for stay in stays:
            stay.asked = True
        self._stays.add(asking)
        try:
            threading.Thread(target=ask, name="tclient-fork", daemon=True).start()
        except RuntimeError:  # at the end of the interpreter no thread can be started any more
            self._stays.discard(asking)


GATE = Gate()
