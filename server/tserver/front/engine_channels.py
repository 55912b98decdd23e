"""The front's connections to its engines, one set for each run of one."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from tserver.engines.fleet import Ended, Event
from tserver.errors import Unreachable
from tserver.front.forwarding import Target
from tserver.front.rpc import OF_HOUSE
from tserver.identity import Identity

if TYPE_CHECKING:
    from tserver.engines.directory import Directory, Entry
    from tserver.engines.fleet import Fleet
    from tserver.errors import ServerError

# How long it may take until it is known that an engine whose connection broke has ended.
_NEWS_S = 2.0


class EngineChannels:
    """The connections to all engines of a house."""

    def __init__(self, directory: Directory, fleet: Fleet) -> None:
        self._directory = directory
        self._fleet = fleet
        self._targets: dict[str, Target] = {}
        self._closing: set[asyncio.Task[None]] = set()
        directory.listen(self._note)

    def target(self, entry: Entry) -> Target:
        """Where what belongs to an engine is forwarded to."""
        boot_id = entry.info.boot_id
        target = self._targets.get(boot_id)
        if target is None:
            target = self._targets[boot_id] = Target(
                entry.info.internal,
                key=self._fleet.key,
                gone=functools.partial(self._gone, boot_id),
                is_near=entry.info.node == self._fleet.node,
            )
        return target

    async def ask(
        self, entry: Entry, path: str, request: bytes, *, timeout_s: float, identity: Identity = OF_HOUSE
    ) -> bytes:
        """Ask an engine something in the front's own name, or in that of a caller. Raises: grpc.aio.AioRpcError."""
        return await self.target(entry).ask(path, request, timeout_s=timeout_s, identity=identity)

    async def close(self) -> None:
        """Close all."""
        targets, self._targets = list(self._targets.values()), {}
        await asyncio.gather(*(target.close() for target in targets), *self._closing)

    async def _gone(self, boot_id: str) -> ServerError:
        """What has become of a run, once that is known."""
        try:
            async with asyncio.timeout(_NEWS_S):
                while self._directory.of_boot(boot_id) is not None:
                    await self._directory.changed()
        except TimeoutError:
            return Unreachable("the engine does not answer; try again")
        return self._directory.gone(boot_id)

    def _note(self, event: Event) -> None:
        if isinstance(event, Ended) and (target := self._targets.pop(event.boot_id, None)) is not None:
            task = asyncio.create_task(target.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
