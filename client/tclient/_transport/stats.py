"""What went over a channel, counted; and who is told of each wait. Knows nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Stats:
    """Counters of a session: waits (of a thread for an answer), batches, calls, uploads, downloads, and moves: tensors
    that its server sent to another one.
    """

    __slots__ = ("batches", "calls", "downloads", "moves", "uploads", "waits")

    def __init__(self) -> None:
        self.waits = self.batches = self.calls = self.uploads = self.downloads = self.moves = 0

    def __repr__(self) -> str:
        return (
            f"Stats(waits={self.waits}, batches={self.batches}, calls={self.calls}, "
            f"uploads={self.uploads}, downloads={self.downloads}, moves={self.moves})"
        )


class _Thread(threading.local):
    is_waiting = False


# Who is told of the waits of this process: for what, and how many seconds, in the thread that waited.
WATCHERS: list[Callable[[str, float], None]] = []
_THREAD = _Thread()


class waiting:
    """Within it this thread does nothing but to wait for the server; who watches is told of it at the end."""

    __slots__ = ("_began", "_is_inner", "_what")

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._is_inner = _THREAD.is_waiting
        _THREAD.is_waiting = True
        self._began = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        if not self._is_inner:
            _THREAD.is_waiting = False
            if WATCHERS:
                seconds = time.perf_counter() - self._began
                for tell in tuple(WATCHERS):
                    tell(self._what, seconds)
