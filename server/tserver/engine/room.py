"""How much memory of the host a server takes for all that it holds together, and what it refuses when that is full.

Asked of the operating system, and so whatever takes it counts, once: tensors, uploads under way, graphs, models,
programs, kept replies. A single allocation that does not fit is refused by the system, as torch's error of that call.
What adds up by many small ones is noticed between calls: from then on calls that take memory are refused, and what is
kept in reserve is there for those who read results and let go. Knows no sessions.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

from tserver.errors import Exhausted
from tserver.host import available_bytes, data_bytes, limit_data, reserve_bytes, total_bytes

# Of the memory of the machine or of its cgroup, what a server takes at most where it is not told.
SHARE = 0.9
# How often it is looked.
_LOOK_S = 0.005
_RETURN_S = 1.0
# To look takes at most one part in so many of the time.
_REST = 10


class Room:
    """The memory of this process: how much of it there is for what callers have it hold."""

    def __init__(
        self,
        wanted_bytes: int = 0,
        engines: int = 1,
        measure: Callable[[], int] = data_bytes,
        kept: Callable[[], int] | None = None,
    ) -> None:
        """As many bytes as are wanted, beside what the process has already; 0 is a share of what there is, of which
        each of so many engines has its own.
        """
        self._measure, self._kept = measure, kept or kept_bytes
        base, available = measure(), available_bytes()
        share = int(total_bytes() * SHARE) // max(1, engines)
        most = wanted_bytes or max(0, min(available, share - base) if available else share - base)
        self.reserve_bytes = reserve_bytes(most)
        # What the process may have; 0 where that is not known.
        self.limit_bytes = base + most - (0 if wanted_bytes else self.reserve_bytes) if most else 0
        # Whether calls that take memory are refused; and told when that changes, on the thread that looks.
        self.is_full = False
        self.on_change: Callable[[bool], None] = lambda full: None
        # Gives back memory that is kept for others.
        self.trim: Callable[[], None] = lambda: None
        self._look_at = self._return_at = self._rest_until = 0.0
        self._is_enforced = False
        # What was used when that was looked at last.
        self._seen = base
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """What the process has, but for what it has freed."""
        return self._measure() - self._kept()

    def enforce(self) -> None:
        """Have the operating system refuse what goes beyond it: torch then fails a call, and the process goes on."""
        if self.limit_bytes:
            self._is_enforced = True
            limit_data(self.limit_bytes, 0)

    def look(self) -> None:
        """See whether it is full, if that was not seen just now."""
        now = time.monotonic()
        if now >= self._look_at and self.limit_bytes:
            self._look_at = now + _LOOK_S
            if self.is_full or self._measure() > self.limit_bytes - self._margin:
                self._look()

    def check(self, what: str) -> None:
        """Refuse what takes memory where it is full. Raises: Exhausted."""
        if self.is_full:
            self._look()
            if self.is_full:
                used = self._seen
                raise Exhausted(
                    f"{what}: the server has {used} bytes for all that it holds, of {self.limit_bytes}; free tensors, "
                    "close sessions, or retry later",
                    reason="OUT_OF_MEMORY",
                    limit=str(self.limit_bytes),
                    used=str(used),
                )

    @property
    def _margin(self) -> int:
        """Less than this, and it is full."""
        return self.reserve_bytes // 8

    def _look(self) -> None:
        with self._lock:
            began = time.monotonic()
            if self.is_full and began < self._rest_until:
                return
            limit = self.limit_bytes - self._margin
            kept = self._kept()
            if self._measure() - kept > limit:
                self.trim()
                kept = self._kept()
            if kept > self.reserve_bytes and time.monotonic() > self._return_at:
                self._return_at = time.monotonic() + _RETURN_S
                _give_back()
            # What the C library keeps takes long to count where it is in many pieces.
            self._rest_until = time.monotonic() + (time.monotonic() - began) * _REST
            # Full a little longer than it takes to be, or it would change with every call.
            self._seen = self._measure() - kept
            full = self._seen > limit - self._margin * self.is_full
            if self._is_enforced:
                # What is in reserve is for others than calls, which are refused from then on.
                reserved = self.reserve_bytes * full
                limit_data(self.limit_bytes + kept + reserved, reserved)
            if full == self.is_full:
                return
            self.is_full = full
        self.on_change(full)


class _Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "_1", "_2", "_3", "_4", "_5", "_6", "_7", "free", "_9")]


_LIBRARY: Any = ctypes.CDLL(None)


def kept_bytes() -> int:
    """Memory that was freed, and that the C library keeps for what is allocated next."""
    try:
        tell = _LIBRARY.mallinfo2
    except AttributeError:
        # Another C library.
        return 0
    tell.restype = _Mallinfo
    return int(tell().free)


def _give_back() -> None:
    """Have the C library return the pages of it."""
    with contextlib.suppress(AttributeError):
        _LIBRARY.malloc_trim(0)
