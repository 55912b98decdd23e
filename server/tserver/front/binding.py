"""Binds the methods of a servicer to the RPCs of its proto service.

Requests arrive as bytes and are parsed here, so that what is not a message gets INVALID_ARGUMENT, as every other bad
input does. What becomes of errors is the interceptor's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from tensorcompute.v1 import model_service_pb2, storage_service_pb2, tensor_service_pb2
from tserver.errors import InvalidArgument
from tserver.front.rpc import Rpc

# The services of the contract.
SERVICES: tuple[ServiceDescriptor, ...] = (
    tensor_service_pb2.DESCRIPTOR.services_by_name["TensorService"],
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
    storage_service_pb2.DESCRIPTOR.services_by_name["StorageService"],
)

Method = Callable[[Any, Rpc], Awaitable[Any]]


def bind(
    service: ServiceDescriptor,
    servicer: object,
    by_bytes: frozenset[str] = frozenset(),
    *,
    only: Collection[str] | None = None,
) -> grpc.GenericRpcHandler:
    """Handlers for all RPCs of a service, or for some; the servicer has a coroutine method of each RPC's name.

    Unary requests are handed over parsed; of a streaming request the method gets an iterator of parsed messages. A
    method of a unary RPC returns the response, one of a streaming RPC sends with `Rpc.write`. Those that are named in
    `by_bytes` get bytes instead of messages. The handlers take an Rpc where gRPC's take a context.
    """
    handlers = {
        method.name: _handler(method, getattr(servicer, method.name), by_bytes=method.name in by_bytes)
        for method in service.methods
        if only is None or method.name in only
    }
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def parse(kind: type[Message], data: bytes) -> Any:
    """A message from its bytes. Raises: InvalidArgument."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidArgument(
            f"the {len(data)} bytes of the request are not a {kind.DESCRIPTOR.full_name}: {error}"
        ) from None


class Messages(AsyncIterator[Any]):
    """The parsed requests of a stream. Read from its RPC: gRPC's own iterator is two generators more to go through.

    Raises: InvalidArgument for what is not a message.
    """

    __slots__ = ("_kind", "_read", "_rpc")

    def __init__(self, kind: type[Message], rpc: Rpc) -> None:
        self._kind = kind
        self._rpc = rpc
        self._read: Callable[[], Awaitable[Any]] = self._first

    async def __anext__(self) -> Any:
        data: Any = await self._read()
        if data is grpc.aio.EOF:
            raise StopAsyncIteration
        return parse(self._kind, data)

    async def _first(self) -> Any:
        self._read = self._rpc.read
        return await self._rpc.first()


def _handler(method: MethodDescriptor, function: Method, *, by_bytes: bool) -> grpc.RpcMethodHandler[Any, Any]:
    kind = message_factory.GetMessageClass(method.input_type)

    async def unary_unary(data: bytes, rpc: Rpc) -> bytes:
        response = await function(parse(kind, data), rpc)
        return response if isinstance(response, bytes) else response.SerializeToString()

    async def unary_stream(data: bytes, rpc: Rpc) -> None:
        await function(parse(kind, data), rpc)

    async def stream_unary(_: AsyncIterator[bytes], rpc: Rpc) -> bytes:
        response = await function(Messages(kind, rpc), rpc)
        return bytes(response.SerializeToString())

    async def stream_stream(_: AsyncIterator[bytes], rpc: Rpc) -> None:
        await function(Messages(kind, rpc), rpc)

    if method.client_streaming:
        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(function if by_bytes else stream_stream)
        return grpc.stream_unary_rpc_method_handler(stream_unary)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(unary_stream)
    return grpc.unary_unary_rpc_method_handler(function if by_bytes else unary_unary)
