"""Forward passes of one caller over a stream or a lane: many requests and answers are under way at once.

Requests that come in one message join the queue together; answers of one batch leave in one message.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.front.data_endpoint import Takes
from tserver.front.forwards import Forwards
from tserver.models.owners import Owners
from tserver.session.lane import Lane

if TYPE_CHECKING:
    from tserver.config import Config
    from tserver.engines.port import ModelManager, ServedModel, Session
    from tserver.front.replicas.elsewhere import Elsewhere
    from tserver.front.rpc import Rpc
    from tserver.identity import Identity

Requests = AsyncIterator[ms.MlpForwardStreamRequest] | AsyncIterator[ms.ModelForwardStreamRequest]


class ForwardStream:
    """The requests of one stream of gRPC's."""

    def __init__(self, models: ModelManager, rpc: Rpc, config: Config, elsewhere: Elsewhere | None) -> None:
        self._rpc = rpc
        registry, relay = models.registry, None
        if elsewhere is not None and not rpc.acts_here:
            relay = partial(elsewhere.relay, _at_once, rpc.identity)
        find: Callable[[str, int], ServedModel] = registry.find_here if relay is None else registry.find
        if not rpc.acts_here:
            find = Owners(registry.has).finder(find, rpc.identity)
        share = models.share_of(rpc.identity.principal)
        self._forwards = Forwards(models, config, self._tell, find=find, share=share, relay=relay)
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._is_closed = False
        self._failure: Exception | None = None

    async def run(self, requests: Requests) -> None:
        """Answer requests until the client has closed its side and has all answers."""
        reading = asyncio.create_task(self._read(requests))
        try:
            await self._write()
        finally:
            reading.cancel()
            self._forwards.take_back()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    async def _read(self, requests: Requests) -> None:
        try:
            async for message in requests:
                for call in message.calls:
                    while not self._forwards.has_room:
                        self._room.clear()
                        await self._room.wait()
                    self._forwards.begin(call)
        except Exception as error:
            self._failure = error
        self._is_closed = True
        self._changed.set()

    async def _write(self) -> None:
        forwards = self._forwards
        while not (self._is_closed and forwards.is_idle):
            await self._changed.wait()
            self._changed.clear()
            while (taken := forwards.take()) is not None:
                message, room = taken
                await self._rpc.write(message)
                forwards.sent(room)
                self._room.set()
            if self._failure is not None:
                raise self._failure

    def _tell(self) -> None:
        self._changed.set()
        self._room.set()


def _at_once(function: Callable[[], None]) -> None:
    function()


class ForwardLanes(Takes):
    """What a ticket for such a lane stands for."""

    def __init__(self, session: Session, open_lane: Callable[[socket.socket], ForwardLane]) -> None:
        self._session, self._open_lane = session, open_lane

    def take(self, connection: socket.socket) -> None:
        """See Takes."""
        lane = self._open_lane(connection)
        self._session.add_lane(lane)
        lane.start()


class ForwardLane(Lane):
    """The requests of one lane: they are read, run and answered by the engine's thread."""

    def __init__(
        self,
        session: Session,
        identity: Identity,
        models: ModelManager,
        config: Config,
        elsewhere: Elsewhere | None,
        connection: socket.socket,
    ) -> None:
        super().__init__(connection, session.queue.ready, session.queue.share, config.max_message_bytes)
        relay = None if elsewhere is None else partial(elsewhere.relay, models.by_engine, identity)
        find = Owners(models.registry.has).finder(models.registry.find, identity)
        self._forwards = Forwards(models, config, self._tell, find=find, share=self.share, relay=relay, on_engine=True)
        self._session = session
        self._is_told = False

    def _go_on(self) -> None:
        """Send the answers of what was run together, and take what has waited for room."""
        self._is_told = False
        while (taken := self._forwards.take()) is not None:
            message, room = taken
            self.send(message)
            self._forwards.sent(room)
        super()._go_on()

    def _receive(self, message: bytes) -> None:
        for call in ms.MlpForwardStreamRequest.FromString(message).calls:
            self._forwards.begin(call)

    def _has_room(self) -> bool:
        return self._forwards.has_room

    def _has(self, request_id: int) -> bool:
        return self._forwards.has(request_id)

    def _ended(self) -> None:
        self._forwards.take_back()
        self._session.remove_lane(self)

    def _tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._ready.put(self)
