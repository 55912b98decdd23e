"""Forward passes of one caller that come on a stream to the front: each goes to the replica with the least to do.

Answers of one replica leave in messages as it has sent them. Requests of a replica that ends are asked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.errors import InvalidArgument, ServerError, Unreachable
from tserver.front.forwards import failure_of
from tserver.front.replicas.choosing import ANOTHER_MAY, rows_of
from tserver.front.replicas.upstream import Upstream
from tserver.models.owners import Owners

if TYPE_CHECKING:
    from tserver.engines.directory import Entry
    from tserver.front.replicas.choosing import Choosing
    from tserver.front.replicas.coordinator import ModelCoordinator
    from tserver.front.replicas.records import Record, Replica
    from tserver.front.rpc import Rpc

# Requests of one caller that may be under way, and the bytes of their inputs; beyond either nothing more is read.
_WINDOW = 4096
_MAX_BYTES = 64 << 20

Requests = AsyncIterator[ms.MlpForwardStreamRequest] | AsyncIterator[ms.ModelForwardStreamRequest]


@dataclass(slots=True)
class _Pending:
    """A request that is under way."""

    call: ms.MlpForwardCall
    record: Record
    rows: int
    size: int
    # Of time.monotonic.
    deadline: float | None
    replica: Replica | None = None
    tried: list[str] = field(default_factory=list)
    refusal: ServerError | None = None


class ReplicaStream:
    """The requests of one stream."""

    def __init__(self, coordinator: ModelCoordinator, choosing: Choosing, rpc: Rpc) -> None:
        self._coordinator = coordinator
        self._choosing = choosing
        self._rpc = rpc
        records = coordinator.records
        self._find = Owners(records.has).finder(records.find, rpc.identity)
        # By the run of the engine.
        self._upstreams: dict[str, Upstream] = {}
        self._boots: dict[Upstream, str] = {}
        self._pending: dict[int, _Pending] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._room = asyncio.Event()
        self._writing = asyncio.Lock()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_closed = False

    async def run(self, requests: Requests) -> None:
        """Answer requests until the client has closed its side and has all answers."""
        reading = asyncio.create_task(self._read(requests))
        try:
            await self._over
        finally:
            reading.cancel()
            for task in self._sending:
                task.cancel()
            for upstream in self._upstreams.values():
                upstream.cancel()
            for pending in self._pending.values():
                _let_go(pending)
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    async def _read(self, requests: Requests) -> None:
        try:
            async for message in requests:
                for call in message.calls:
                    while len(self._pending) >= _WINDOW or self._bytes > _MAX_BYTES:
                        self._room.clear()
                        await self._room.wait()
                    await self._begin(call)
        except Exception as error:
            self._fail(error)
        self._is_closed = True
        self._look_for_the_end()

    async def _begin(self, call: ms.MlpForwardCall) -> None:
        number = call.id
        try:
            if number in self._pending:
                raise InvalidArgument(f"a request with the id {number} is under way; choose another id")
            record = self._find(call.name, call.version)
            if record.state != "READY":
                raise record.not_ready()
        except ServerError as error:
            await self._write([ms.MlpForwardAnswer(id=number, failure=failure_of(error))])
            return
        by_name = bool(call.tensors)
        shape = call.tensors[0].data.shape if by_name else call.inputs.shape
        deadline = time.monotonic() + call.deadline_us / 1e6 if call.deadline_us else None
        call.name, call.version = record.name, record.version
        pending = _Pending(call, record, rows_of(shape, by_name=by_name), call.ByteSize(), deadline)
        self._pending[number] = pending
        self._bytes += pending.size
        self._send(number, pending)

    def _send(self, number: int, pending: _Pending) -> None:
        """Give a request to a replica: at once where there is one, else as soon as there is."""
        found = self._choosing.best(pending.record, pending.tried) if pending.record.state == "READY" else None
        if found is not None:
            self._give(pending, *found)
            return
        task = asyncio.create_task(self._send_later(number, pending))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send_later(self, number: int, pending: _Pending) -> None:
        try:
            found = await self._choosing.choose(pending.record, pending.tried, pending.deadline, pending.refusal)
        except ServerError as error:
            self._settle(number)
            await self._write([ms.MlpForwardAnswer(id=number, failure=failure_of(error))])
            return
        self._give(pending, *found)

    def _give(self, pending: _Pending, replica: Replica, entry: Entry) -> None:
        pending.replica = replica
        pending.tried.append(replica.boot_id)
        replica.rows += pending.rows
        if pending.deadline is not None:
            pending.call.deadline_us = max(1, int((pending.deadline - time.monotonic()) * 1e6))
        upstream = self._upstreams.get(replica.boot_id)
        if upstream is None:
            links = self._coordinator.links
            upstream = Upstream(links.channel(entry), links.metadata(self._rpc.identity), self._answers, self._ended)
            self._upstreams[replica.boot_id] = upstream
            self._boots[upstream] = replica.boot_id
        upstream.put(pending.call)

    async def _answers(self, upstream: Upstream, answers: Sequence[ms.MlpForwardAnswer]) -> None:
        passed = []
        for answer in answers:
            pending = self._pending.get(answer.id)
            if pending is None:
                continue
            if answer.failure.reason in ANOTHER_MAY and self._choosing.best(pending.record, pending.tried):
                _let_go(pending)
                self._send(answer.id, pending)
                continue
            self._settle(answer.id)
            passed.append(answer)
        if passed:
            await self._write(passed)

    def _ended(self, upstream: Upstream, failure: Exception | None) -> None:
        """A replica is gone: others run what it has not answered."""
        boot_id = self._boots.pop(upstream)
        del self._upstreams[boot_id]
        for number, pending in list(self._pending.items()):
            replica = pending.replica
            if replica is not None and replica.boot_id == boot_id:
                self._coordinator.lost(replica)
                pending.refusal = Unreachable(f"engine {replica.engine} has ended; try again")
                _let_go(pending)
                self._send(number, pending)

    async def _write(self, answers: Sequence[ms.MlpForwardAnswer]) -> None:
        message = ms.MlpForwardStreamResponse(answers=answers).SerializeToString()
        try:
            async with self._writing:
                await self._rpc.write(message)
        except Exception as error:
            self._fail(error)
        self._look_for_the_end()

    def _settle(self, number: int) -> None:
        pending = self._pending.pop(number)
        _let_go(pending)
        self._bytes -= pending.size
        self._room.set()

    def _look_for_the_end(self) -> None:
        if self._is_closed and not self._pending and not self._writing.locked() and not self._over.done():
            self._over.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self._over.done():
            self._over.set_exception(error)


def _let_go(pending: _Pending) -> None:
    if pending.replica is not None:
        pending.replica.rows -= pending.rows
        pending.replica = None
