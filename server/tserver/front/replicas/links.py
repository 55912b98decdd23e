"""The front's side of the RPCs by which it moves models, and has engines do what it decides.

Refusals of engines are raised as errors of ours. Knows engines; does not know which has what.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.errors import ServerError, Unreachable
from tserver.front.replicas.messages import CHUNK_BYTES, batching_told, packed, receive, send, unpacked
from tserver.front.replicas.service import SERVICE
from tserver.front.rpc import HOUSE_HERE, OF_HOUSE, house_metadata
from tserver.front.status import error_of
from tserver.tracing.context import HEADER
from tserver.tracing.traced import current

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tserver.engines.directory import Entry
    from tserver.identity import Identity
    from tserver.models.batching import BatchingConfig

MODEL_SERVICE = "/tensorcompute.v1.ModelService/"
_WITHIN = f"/{SERVICE}/"
# What is asked for that takes an engine no time, even one that is busy with a long kernel.
_SOON_S = 30.0
_LEAST_BYTES = 1 << 10

Answer = TypeVar("Answer", bound="Message")
Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Content:
    """A model on its way: what its manifest says, and its weights as a file."""

    manifest: dict[str, Any]
    data: bytes | memoryview


class Links:
    """The engines of a house, as far as models go."""

    def __init__(self, channel: Callable[[Entry], grpc.aio.Channel], key: str, max_message_bytes: int) -> None:
        """Engines take messages of at most so many bytes."""
        self._channel = channel
        # Also with a head, and what gRPC puts around.
        self._most = min(CHUNK_BYTES, max(_LEAST_BYTES, max_message_bytes // 2))
        self.key = key

    def channel(self, entry: Entry) -> grpc.aio.Channel:
        """A connection to an engine."""
        return self._channel(entry)

    def metadata(self, identity: Identity = OF_HOUSE) -> Metadata:
        """What goes with a request that an engine is to answer by itself."""
        headers = (*house_metadata(self.key, identity), (HOUSE_HERE, "1"))
        traced = current()
        return headers if traced is None else (*headers, (HEADER, str(traced.context)))

    async def ask(
        self, entry: Entry, method: str, request: Message, response: type[Answer], *, identity: Identity = OF_HOUSE
    ) -> Answer:
        """An RPC of ModelService. Raises: ServerError, as the engine refuses it; Unreachable."""
        data = await self.unary(entry, MODEL_SERVICE + method, request.SerializeToString(), identity=identity)
        return response.FromString(data)

    async def unary(
        self, entry: Entry, path: str, request: bytes, *, identity: Identity = OF_HOUSE, timeout_s: float | None = None
    ) -> bytes:
        """The same of bytes."""
        with _refusals(entry):
            method: Any = self._channel(entry).unary_unary(path)
            answer: bytes = await method(request, metadata=self.metadata(identity), timeout=timeout_s)
        return answer

    async def stream(self, entry: Entry, path: str, request: bytes) -> AsyncGenerator[bytes, None]:
        """The answers to one request."""
        method: Any = self._channel(entry).unary_stream(path)
        call = method(request, metadata=self.metadata())
        try:
            while True:
                with _refusals(entry):
                    message = await call.read()
                if message is grpc.aio.EOF:
                    return
                yield message
        finally:
            call.cancel()

    async def export(self, entry: Entry, name: str, version: int) -> Content:
        """What a model of an engine is made of."""
        request = json.dumps({"name": name, "version": version}).encode()
        with _refusals(entry):
            method: Any = self._channel(entry).unary_stream(_WITHIN + "Export")
            call = method(request, metadata=self.metadata())
            try:
                told, data = await receive(call.read)
            finally:
                call.cancel()
        return Content(told["manifest"], data)

    async def prepare(
        self,
        entry: Entry,
        name: str,
        version: int,
        content: Content,
        batching: BatchingConfig,
        replicas: int,
        *,
        is_persistent: bool,
        owner: str,
    ) -> None:
        """Bring a model to the device of an engine, where it does not serve yet."""
        told = {
            "name": name,
            "version": version,
            "manifest": content.manifest,
            "batching": batching_told(batching),
            "replicas": replicas,
            "is_persistent": is_persistent,
            "owner": owner,
        }
        with _refusals(entry):
            method: Any = self._channel(entry).stream_unary(_WITHIN + "Prepare")
            call = method(metadata=self.metadata())
            sending = asyncio.create_task(_send(call, told, [content.data], self._most))
            try:
                await call
            finally:
                sending.cancel()

    async def commit(self, entry: Entry, name: str, version: int) -> ms.MlpSummary:
        """Let what was prepared serve."""
        return ms.MlpSummary.FromString(await self._within(entry, "Commit", {"name": name, "version": version}))

    async def drop(self, entry: Entry, name: str, version: int) -> None:
        """Forget what was prepared."""
        await self._within(entry, "Drop", {"name": name, "version": version})

    async def tell(self, entry: Entry, names: dict[str, Any], *, is_all: bool) -> None:
        """Say what there is in the house."""
        await self._within(entry, "Tell", {"names": names, "is_all": is_all}, _SOON_S)

    async def infer(
        self, entry: Entry, told: dict[str, Any], inputs: Sequence[Any], timeout_s: float | None
    ) -> tuple[list[tuple[int, ...]], Sequence[memoryview]]:
        """Run a model on inputs of any size: the shapes of the outputs, and their elements."""
        # One message is quicker.
        if sum(map(len, inputs)) <= self._most // 2:
            request = packed(told, inputs)
            return _outputs(*unpacked(await self.unary(entry, _WITHIN + "Infer", request, timeout_s=timeout_s)))
        with _refusals(entry):
            method: Any = self._channel(entry).stream_stream(_WITHIN + "InferMuch")
            call = method(metadata=self.metadata(), timeout=timeout_s)
            sending = asyncio.create_task(_send(call, told, inputs, self._most))
            try:
                answer, data = await receive(call.read)
            finally:
                sending.cancel()
                call.cancel()
        return _outputs(answer, data)

    async def _within(self, entry: Entry, method: str, told: dict[str, Any], timeout_s: float | None = None) -> bytes:
        return await self.unary(entry, _WITHIN + method, json.dumps(told).encode(), timeout_s=timeout_s)


def _outputs(told: dict[str, Any], data: memoryview) -> tuple[list[tuple[int, ...]], Sequence[memoryview]]:
    outputs, start = [], 0
    for size in told["bytes"]:
        outputs.append(data[start : start + size])
        start += size
    return [tuple(shape) for shape in told["shapes"]], outputs


async def _send(call: Any, told: dict[str, Any], data: Iterable[Any], chunk_bytes: int) -> None:
    """Send a message of several. How the call ends is told where its answer is waited for: a write waits for ever where
    there has never been a connection.
    """
    with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
        await send(call.write, told, data, chunk_bytes)
        await call.done_writing()


@contextlib.contextmanager
def _refusals(entry: Entry) -> Iterator[None]:
    """What an engine says, as errors of ours. Raises: ServerError."""
    try:
        yield
    except grpc.aio.AioRpcError as told:
        raise error_of(told) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Its connections were closed, since it has ended.
        raise Unreachable(f"engine {entry.info.engine} has ended; try again") from None
    except ServerError:
        raise
    except grpc.aio.UsageError as error:
        # A connection that was closed before it was used.
        raise Unreachable(f"engine {entry.info.engine} has ended: {error}; try again") from None
