"""A thread on which the outputs of one model are handed out when they have come from the device. Knows no torch."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger("tserver.models")


class Finisher:
    """A thread that waits for the device, so that the engine need not."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._loop, name="outputs", daemon=True).start()

    def put(self, function: Callable[[], None]) -> None:
        """Run the function behind those before it."""
        self._work.put(function)

    def _loop(self) -> None:
        while True:
            function = self._work.get()
            try:
                function()
            except Exception:
                log.exception("outputs of a batch did not reach the host")
