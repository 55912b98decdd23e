"""What went over a channel, counted. Knows nothing else."""

from __future__ import annotations


class Stats:
    """Counters of a session: waits (of a thread for an answer), batches, calls, uploads, downloads."""

    __slots__ = ("batches", "calls", "downloads", "uploads", "waits")

    def __init__(self) -> None:
        self.waits = self.batches = self.calls = self.uploads = self.downloads = 0

    def __repr__(self) -> str:
        return (
            f"Stats(waits={self.waits}, batches={self.batches}, calls={self.calls}, "
            f"uploads={self.uploads}, downloads={self.downloads})"
        )
