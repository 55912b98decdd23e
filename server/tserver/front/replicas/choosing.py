"""Which replica runs a request: the one with the fewest rows under way. One that ends meanwhile is no failure.

A forward pass by value changes nothing, so it may be asked for again: once of each replica.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from tserver.errors import DeadlineExceeded, ModelNotReady, NotFound, QueueFull, ServerError, Stopping, Unreachable

if TYPE_CHECKING:
    from tserver.engines.directory import Entry
    from tserver.front.replicas.coordinator import ModelCoordinator
    from tserver.front.replicas.records import Record, Replica

T = TypeVar("T")

# How long it is waited for a replica to come, where there is none.
_WAIT_S = 30.0
# What a request counts for at most: a shape may say anything.
_MOST_ROWS = 1 << 20
# What one replica may refuse a request with while another one runs it.
_ANOTHER_MAY = (Unreachable, Stopping, NotFound, ModelNotReady, QueueFull)
ANOTHER_MAY = frozenset(kind.reason for kind in _ANOTHER_MAY)


class Choosing:
    """Requests on their way to replicas."""

    def __init__(self, coordinator: ModelCoordinator) -> None:
        self._coordinator = coordinator
        self._turn = itertools.count()
        # When a replica was chosen last: of those that are equal, each has its turn.
        self._chosen: dict[str, int] = {}

    async def run(self, record: Record, rows: int, deadline: float | None, ask: Callable[[Entry], Awaitable[T]]) -> T:
        """What a replica answers. Raises: ServerError, as the last one refuses it."""
        tried: list[str] = []
        refusal: ServerError | None = None
        while True:
            replica, entry = await self.choose(record, tried, deadline, refusal)
            tried.append(replica.boot_id)
            replica.rows += rows
            try:
                return await ask(entry)
            except _ANOTHER_MAY as error:
                refusal = error
                if isinstance(error, Unreachable):
                    self._coordinator.lost(replica)
            finally:
                replica.rows -= rows

    async def choose(
        self, record: Record, tried: Sequence[str], deadline: float | None, refusal: ServerError | None = None
    ) -> tuple[Replica, Entry]:
        """The replica with the least to do, of those that were not tried. Where there is none now, one is waited for.

        Raises: ServerError where none comes, and what the last one refused it with.
        """
        until = min(time.monotonic() + _WAIT_S, math.inf if deadline is None else deadline)
        while True:
            if record.state != "READY":
                raise record.not_ready()
            found = self.best(record, tried)
            if found is not None:
                return found
            # One that was asked and is gone has a successor; but a request that ends engines is not to end them all.
            if refusal is not None and not (isinstance(refusal, Unreachable) and len(tried) < 2):
                raise refusal
            if not record.replicas:
                self._coordinator.call_for(record)
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    await self._coordinator.news()
            except TimeoutError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise DeadlineExceeded("the deadline passed before the request was run; allow more time") from None
                raise (refusal or record.not_ready()) from None

    def best(self, record: Record, tried: Sequence[str]) -> tuple[Replica, Entry] | None:
        """The same of those that there are now; None where there is none."""
        coordinator = self._coordinator
        there = [
            (replica, entry)
            for replica in record.serving()
            if replica.boot_id not in tried and (entry := coordinator.entry_of(replica)) is not None
        ]
        if not there:
            return None
        key = f"{record.name}/{record.version}"

        def busy(each: tuple[Replica, Entry]) -> tuple[int, int]:
            """How much it has to do; of those that are equal, the one that was chosen longest ago."""
            replica, entry = each
            # What others than the front have asked of it, it tells now and then.
            waiting = (entry.told or {}).get("waiting", {}).get(key, 0)
            return max(replica.rows, waiting), self._chosen.get(replica.engine, -1)

        found = min(there, key=busy)
        self._chosen[found[0].engine] = next(self._turn)
        return found


def rows_of(shape: Sequence[int], *, by_name: bool) -> int:
    """How many rows inputs of that shape are, as far as that is seen from outside: by name, as many as come first."""
    rows = math.prod(shape[:1] if by_name else shape[:-1])
    return max(1, min(rows, _MOST_ROWS))
