"""Whose turn it is: principals take turns, and within each its sessions, by the time that they have used.

Deficit round robin in the terms of time used: whoever has used least is next, so that each of those who always have
work gets an equal part, whatever its pieces are, and short work does not stand behind long. Being idle saves nothing
up: who comes back is taken to have used what the least of the others has, but for a small credit, which lets it go
first. Time is what is charged here and nothing else: knows no clock, no threads, no torch.
"""

from __future__ import annotations

import heapq
import itertools
import weakref
from typing import Generic, Protocol, TypeVar

from tserver.limits.account import Account

# How far ahead of the others one comes back that has rested: work so short goes first.
CREDIT_S = 0.010


class Principal:
    """What the sessions of one principal have used together."""

    __slots__ = ("__weakref__", "floor_s", "is_listed", "name", "total_s", "used_s", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        # Of the engine's time in all; and that by which turns are taken, which leaves out what was not saved up.
        self.total_s = self.used_s = 0.0
        # What the least of its sessions that had work had used.
        self.floor_s = 0.0
        # Its sessions that wait, by what they had used when they came: what they have used since is looked at late.
        self.waiting: list[tuple[float, int, object]] = []
        self.is_listed = False


class Share:
    """What one has used: a session, or a model."""

    __slots__ = ("account", "principal", "total_s", "used_s")

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        # What bounds its principal's time, if anything does.
        self.account: Account | None = None
        self.total_s = self.used_s = 0.0

    def charge(self, took_s: float) -> None:
        """It has used so much more."""
        self.total_s += took_s
        self.used_s += took_s
        principal = self.principal
        principal.total_s += took_s
        principal.used_s += took_s


class Sharing(Protocol):
    """Who takes turns."""

    share: Share


S = TypeVar("S", bound=Sharing)


class Turns(Generic[S]):
    """Those that wait for a turn."""

    def __init__(self) -> None:
        self._principals: weakref.WeakValueDictionary[str, Principal] = weakref.WeakValueDictionary()
        self._waiting: list[tuple[float, int, Principal]] = []
        self._floor_s = 0.0
        self._numbers = itertools.count()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def share(self, principal: str) -> Share:
        """A new share of a principal's. From any thread."""
        found = self._principals.get(principal)
        if found is None:
            found = self._principals.setdefault(principal, Principal(principal))
        return Share(found)

    def add(self, one: S) -> None:
        """It waits for a turn."""
        share = one.share
        self._lift(share)
        principal = share.principal
        heapq.heappush(principal.waiting, (share.used_s, next(self._numbers), one))
        if not principal.is_listed:
            principal.is_listed = True
            heapq.heappush(self._waiting, (principal.used_s, next(self._numbers), principal))
        self._count += 1

    def take(self) -> S:
        """Who is next. Raises: IndexError if nobody waits."""
        principal = self._least()
        one = self._least_of(principal)
        heapq.heappop(principal.waiting)
        self._count -= 1
        if not principal.waiting:
            principal.is_listed = False
            heapq.heappop(self._waiting)
        self.begins(one.share)
        return one

    def begins(self, share: Share) -> None:
        """One has a turn that nobody else waits for."""
        principal = share.principal
        # Written out: this is for each turn of one that is alone.
        if principal.used_s < self._floor_s or share.used_s < principal.floor_s:
            self._lift(share)
        if principal.used_s > self._floor_s:  # noqa: PLR1730
            self._floor_s = principal.used_s
        if share.used_s > principal.floor_s:  # noqa: PLR1730
            principal.floor_s = share.used_s

    def goes_before(self, running: Share, ran_s: float, slice_s: float) -> bool:
        """Whether one that waits is to have its turn before another slice of who has run for so long, uncharged."""
        if not self._count:
            return False
        principal = running.principal
        least = self._least()
        if least is not principal and least.used_s + slice_s <= principal.used_s + ran_s:
            return True
        if not principal.waiting:
            return False
        return self._least_of(principal).share.used_s + slice_s <= running.used_s + ran_s

    def _lift(self, share: Share) -> None:
        principal = share.principal
        principal.used_s = max(principal.used_s, self._floor_s - CREDIT_S)
        share.used_s = max(share.used_s, principal.floor_s - CREDIT_S)

    def _least(self) -> Principal:
        waiting = self._waiting
        while waiting[0][0] < waiting[0][2].used_s:
            heapq.heapreplace(waiting, (waiting[0][2].used_s, next(self._numbers), waiting[0][2]))
        return waiting[0][2]

    def _least_of(self, principal: Principal) -> S:
        waiting = principal.waiting
        while True:
            used_s, _, found = waiting[0]
            one: S = found  # type: ignore[assignment]
            if used_s >= one.share.used_s:
                return one
            heapq.heapreplace(waiting, (one.share.used_s, next(self._numbers), one))
