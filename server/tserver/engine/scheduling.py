"""Who is given time on the engine's thread, and what those need of the engine. Knows neither sessions nor models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tserver.engine.completions import Awaited
from tserver.engine.ready import ReadyQueue, Runnable
from tserver.engine.streams import StreamPair


class Scheduler(Protocol):
    """What a runnable needs of the engine."""

    # Who is ready, and the sockets that are waited for.
    ready: ReadyQueue

    def schedule(self, runnable: Runnable) -> None:
        """Give it a time slice. From any thread."""

    def wake_at(self, runnable: Runnable, when: float) -> None:
        """Give it a time slice at that moment of time.monotonic. From the engine's thread."""

    def when_arrived(self, pair: StreamPair | None, awaited: Sequence[Awaited], finish: Callable[[], None]) -> None:
        """Call a function when all is there that a pair of streams brings, behind those before it. From the engine's
        thread.
        """
