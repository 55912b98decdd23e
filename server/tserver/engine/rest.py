"""Where the queue of a session comes to rest, for another process to go on. Knows neither torch nor sessions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Rest:
    """Where a queue is to come to rest, and who is told. On the engine's thread."""

    def __init__(self, begin: Callable[[], None], end: Callable[[list[int], dict[str, Any] | None], None]) -> None:
        """`begin` is called when it rests, and has nothing more submitted. `end` is told the numbers of the batches
        that were submitted and not run, and how far the first one of them has come if it was begun.
        """
        self.begin, self.end = begin, end
        self.ask_again_at = 0.0
        # Has it be asked, by the queue, though nothing is under way.
        self.ask: Callable[[], object] = lambda: None
        self._due = threading.Event()

    def is_due(self) -> bool:
        """Whether the next point will do, wherever it is."""
        return self._due.is_set()

    def now(self) -> None:
        """Have the next point do. From any thread."""
        self._due.set()
        self.ask()
