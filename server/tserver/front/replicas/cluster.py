"""The models of a cluster, which the front of one host keeps for all: what is asked of models goes there as it is.

Which one that is may change at any time. The front that is to keep them begins with what engines have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tserver.errors import ServerError, Unreachable
from tserver.front.forwarding import Target

if TYPE_CHECKING:
    import grpc

    from tserver.engines.directory import Entry
    from tserver.engines.fleet import Fleet
    from tserver.front.replicas.coordinator import ModelCoordinator
    from tserver.front.rpc import Rpc

log = logging.getLogger("tserver.models")

# How long it may take until another front keeps the models after the one that did is gone, and how often it is looked.
_ANOTHER_S = 30.0
_LOOK_S = 0.5
_TICK_S = 0.1
# How long what is under way may take when another front is to keep them.
_GRACE_S = 2.0


class ClusterModels:
    """In the place of a coordinator, which it has while this front keeps the models."""

    def __init__(
        self,
        fleet: Fleet,
        make: Callable[[], ModelCoordinator],
        serve: Callable[[ModelCoordinator], Awaitable[grpc.aio.Server]],
    ) -> None:
        """`serve` has other fronts reach the coordinator where the fleet says that they reach this front."""
        self._fleet = fleet
        self._make = make
        self._serve = serve
        self._target: Target | None = None
        self._coordinator: ModelCoordinator | None = None
        self._server: grpc.aio.Server | None = None
        self._following: asyncio.Task[None] | None = None

    async def choose(self, path: str, first: bytes, rpc: Rpc) -> Target:
        """The front that keeps the models, once it answers. Raises: Unreachable."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _ANOTHER_S
        while loop.time() < until:
            address = self._fleet.leader or self._fleet.internal
            target = self._target
            if target is None or target.address != address:
                target = self._target = Target(address, key=self._fleet.key, is_near=False)
            try:
                async with asyncio.timeout(_LOOK_S):
                    await target.channel.channel_ready()
            except TimeoutError:
                continue
            return target
        raise Unreachable("the front that keeps the models of this cluster cannot be reached; try again")

    # --- as a coordinator has it ---

    async def start(self) -> None:
        """Keep the models from now on whenever that is to be."""
        self._following = asyncio.create_task(self._follow())

    async def welcomed(self, entry: Entry) -> None:
        """See ModelCoordinator. Elsewhere it is not known; the engine is taken as it is."""
        if self._coordinator is not None:
            await self._coordinator.welcomed(entry)

    def is_welcomed(self, entry: Entry) -> bool:
        """See ModelCoordinator."""
        return self._coordinator is None or self._coordinator.is_welcomed(entry)

    async def leave(self, entry: Entry) -> None:
        """An engine is about to be ended; the front that keeps the models tells when nothing is lost by that."""
        if self._coordinator is not None:
            await self._coordinator.leave(entry)
            self._fleet.left(entry.info.engine)

    def rest(self) -> None:
        """See ModelCoordinator."""
        if self._following is not None:
            self._following.cancel()
        if self._coordinator is not None:
            self._coordinator.rest()

    def stop(self) -> None:
        """See ModelCoordinator."""
        if self._coordinator is not None:
            self._coordinator.stop()

    async def close(self) -> None:
        """Serve other fronts no more."""
        if self._server is not None:
            await self._server.stop(grace=1.0)

    async def _follow(self) -> None:
        while True:
            try:
                if not self._fleet.leader and self._coordinator is None:
                    await self._begin()
                elif self._fleet.leader and self._coordinator is not None:
                    await self._end()
            except (ServerError, OSError) as error:
                log.error("the models of the cluster cannot be kept here", extra={"cause": str(error)})
                await asyncio.sleep(_LOOK_S)
            await asyncio.sleep(_TICK_S)

    async def _begin(self) -> None:
        coordinator = self._make()
        try:
            await coordinator.start()
            self._server = await self._serve(coordinator)
        except BaseException:
            coordinator.stop()
            raise
        self._coordinator = coordinator
        log.info("the models of the cluster are kept here")

    async def _end(self) -> None:
        coordinator, server = self._coordinator, self._server
        self._coordinator = self._server = None
        if server is not None:
            await server.stop(grace=_GRACE_S)
        if coordinator is not None:
            coordinator.stop()
        log.info("the models of the cluster are kept elsewhere")
