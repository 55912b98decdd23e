"""Notices an engine that does not go on, and tells the supervisor that this process still does.

Knows neither torch nor gRPC. A kernel cannot be interrupted, so an engine that hangs is ended with its process. Where
the kernel keeps the interpreter to itself this thread does not run either: then the supervisor misses the beats.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

TICK_S = 1.0
# The part of the limit after which others are told that the engine is not answering.
_STALLED_AFTER = 0.1


class Watched(Protocol):
    """What goes on, or does not."""

    def progress(self) -> object:
        """Another value whenever work has gone on; None while there is none. From any thread."""

    def at_work(self) -> str:
        """What is being done, in words. From any thread."""


class Watchdog:
    """A thread that looks every second."""

    def __init__(
        self,
        watched: Watched,
        hang_s: float,
        *,
        on_hang: Callable[[str], None],
        on_stall: Callable[[bool], None] = lambda stalled: None,
        beats: int | None = None,
    ) -> None:
        """Call `on_hang` with the cause after `hang_s` without progress (0: never), and `on_stall` with whether there
        has been none for a tenth of that, when that changes. `beats` is a pipe to write to meanwhile.
        """
        self._watched, self._hang_s = watched, hang_s
        self._on_hang, self._on_stall = on_hang, on_stall
        self._beats = beats
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="watchdog", daemon=True)
        if beats is not None:
            os.set_blocking(beats, False)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _loop(self) -> None:
        tick_s = min(TICK_S, self._hang_s / 10) if self._hang_s else TICK_S
        seen: object = None
        since = time.monotonic()
        stalled = False
        # At once: what hangs from its first second on is missed, too.
        self._beat()
        while not self._over.wait(tick_s):
            self._beat()
            progress, now = self._watched.progress(), time.monotonic()
            if progress is None or progress != seen:
                seen, since = progress, now
            if not self._hang_s:
                continue
            waited_s = now - since
            if stalled != (waited_s > self._hang_s * _STALLED_AFTER):
                stalled = not stalled
                self._on_stall(stalled)
            if waited_s > self._hang_s:
                self._on_hang(f"the engine hung in {self._watched.at_work()} for {waited_s:.0f} s")
                return

    def _beat(self) -> None:
        if self._beats is not None:
            with contextlib.suppress(OSError):
                os.write(self._beats, b".")
