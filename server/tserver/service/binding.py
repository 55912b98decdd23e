"""Binds the methods of a servicer to the RPCs of its proto service.

Requests arrive as bytes and are parsed here, so that what is not a message gets INVALID_ARGUMENT, as every other bad
input does; errors become statuses here, and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from tserver.errors import InvalidArgument
from tserver.service.status import abort

Context = grpc.aio.ServicerContext[bytes, bytes]


def bind(service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
    """Handlers for all RPCs of a service; the servicer has a coroutine method of each RPC's name.

    Unary requests are handed over parsed; of a streaming request the method gets an iterator of parsed messages. A
    method of a unary RPC returns the response, one of a streaming RPC sends with `context.write`.
    """
    handlers = {method.name: _handler(method, getattr(servicer, method.name)) for method in service.methods}
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
    """The parsed requests of a stream. Read from its context: gRPC's own iterator is two generators more to go through.

    Raises: InvalidArgument for what is not a message.
    """

    __slots__ = ("_kind", "_read")

    def __init__(self, kind: type[Message], context: Context) -> None:
        self._kind = kind
        self._read = context.read

    async def __anext__(self) -> Any:
        data: Any = await self._read()
        if data is grpc.aio.EOF:
            raise StopAsyncIteration
        return parse(self._kind, data)


def _handler(method: MethodDescriptor, function: Callable[..., Awaitable[Any]]) -> grpc.RpcMethodHandler[Any, Any]:
    kind = message_factory.GetMessageClass(method.input_type)

    async def guarded(argument: Any, context: Context) -> Any:
        try:
            return await function(argument, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            await abort(context, error)

    async def unary_unary(data: bytes, context: Context) -> bytes:
        try:
            request = parse(kind, data)
        except InvalidArgument as error:
            await abort(context, error)
            raise
        response = await guarded(request, context)
        return response if isinstance(response, bytes) else response.SerializeToString()

    async def unary_stream(data: bytes, context: Context) -> None:
        try:
            request = parse(kind, data)
        except InvalidArgument as error:
            await abort(context, error)
            raise
        await guarded(request, context)

    async def stream_unary(_: AsyncIterator[bytes], context: Context) -> bytes:
        response = await guarded(Messages(kind, context), context)
        return bytes(response.SerializeToString())

    async def stream_stream(_: AsyncIterator[bytes], context: Context) -> None:
        await guarded(Messages(kind, context), context)

    if method.client_streaming:
        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(stream_stream)
        return grpc.stream_unary_rpc_method_handler(stream_unary)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(unary_stream)
    return grpc.unary_unary_rpc_method_handler(unary_unary)
