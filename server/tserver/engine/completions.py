"""Threads that wait for the device, so that the engine's thread need not.

There is one for each pair of streams (streams.py), started when it is first needed: what is on one pair arrives in
order, so whoever is behind waits for nothing that is not before it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from tserver.engine.failures import DeviceFailure, is_device_lost

log = logging.getLogger("tserver.engine")


class Awaited(Protocol):
    """What is to arrive."""

    def wait(self) -> None:
        """Return when it is there."""


_Entry = tuple[Sequence[Awaited], Callable[[], None]]


class Completions:
    """What is done when something has arrived, in the order given for each pair."""

    def __init__(self, on_fatal: Callable[[str], None]) -> None:
        self._on_fatal = on_fatal
        self._queues: dict[int, queue.SimpleQueue[_Entry | None]] = {}
        self._threads: list[threading.Thread] = []

    def put(self, pair: int, awaited: Sequence[Awaited], finish: Callable[[], None]) -> None:
        """Call `finish` when all is there, on the pair's thread, behind what was put before. From the engine's."""
        found = self._queues.get(pair)
        if found is None:
            found = self._queues[pair] = queue.SimpleQueue()
            thread = threading.Thread(target=self._loop, args=(found,), name=f"arrivals-{pair}", daemon=True)
            self._threads.append(thread)
            thread.start()
        found.put((awaited, finish))

    def stop(self) -> None:
        """Return when all that was put is finished."""
        for each in self._queues.values():
            each.put(None)
        for thread in self._threads:
            thread.join()

    def _loop(self, entries: queue.SimpleQueue[_Entry | None]) -> None:
        while (entry := entries.get()) is not None:
            try:
                for awaited in entry[0]:
                    awaited.wait()
                entry[1]()
            except DeviceFailure as error:
                self._on_fatal(f"the device failed: {error}")
                return
            except Exception as error:
                if is_device_lost(error):
                    self._on_fatal(f"the device failed: {error}")
                else:
                    log.exception("the engine failed while it waited for the device")
                    self._on_fatal("the engine failed; its log says why")
                return
            # Until the next one comes, this one's memory must not be held.
            del entry
