"""RPCs that another process of the house answers: they are forwarded to it as they come, and its answers as they are.

Messages stay bytes. What belongs to an RPC goes along: its deadline, its end by either side, metadata, and the status
with its details. Each direction has one message under way here, so that a slow reader holds back who sends to it. Knows
no servicer, and not why an engine is chosen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from tserver.errors import ServerError, Unreachable
from tserver.front import status
from tserver.front.rpc import HOUSE_ENGINE, HOUSE_HEADERS, OF_HOUSE, Rpc, house_metadata
from tserver.identity import Identity
from tserver.tracing.context import HEADER
from tserver.tracing.traced import current

_OPTIONS = (
    # What is too large is refused by the listener before this, and by the engine behind it.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # As listeners have them.
    ("grpc.http2.max_frame_size", 1 << 20),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.use_local_subchannel_pool", 1),
    # It is of this house, whatever proxies the environment names.
    ("grpc.enable_http_proxy", 0),
)
# What belongs to one connection: the next one has its own. Who calls is told in our words, and its token to nobody.
_HOP_HEADERS = HOUSE_HEADERS | {"user-agent", "authorization"}
_HOP_PREFIX = "grpc-"

Gone = Callable[[], ServerError | Awaitable[ServerError]]


class Target:
    """One run of an engine, or another process of the house: the connection to it, and what is forwarded over that.

    The methods forward an RPC of the path. They raise what its caller is to be told: AioRpcError, which the interceptor
    passes on as it is, or a ServerError where the engine is gone.
    """

    def __init__(self, address: str, *, key: str = "", gone: Gone | None = None, is_near: bool = True) -> None:
        """`address` is as gRPC names it, and `key` that of the house. `gone` says what callers are told when
        there is no connection or it breaks; it may wait until that is known.
        """
        self.address = address
        self._key = key
        self._gone = gone
        self._is_near = is_near
        self._is_closed = False
        self._channel: Any = grpc.aio.insecure_channel(address, options=_OPTIONS)

    @property
    def channel(self) -> grpc.aio.Channel:
        """The connection, for requests in this process's own name."""
        channel: grpc.aio.Channel = self._channel
        return channel

    async def close(self) -> None:
        """Close the connection. Callers that wait for answers are told that the engine is gone."""
        self._is_closed = True
        await self._channel.close()

    async def ask(self, path: str, request: bytes, *, timeout_s: float, identity: Identity = OF_HOUSE) -> bytes:
        """One request in this process's own name, or in that of a caller, and its response. Raises: AioRpcError."""
        headers = house_metadata(self._key, identity)
        answer: bytes = await self._channel.unary_unary(path)(request, timeout=timeout_s, metadata=headers)
        return answer

    async def unary_unary(self, path: str, request: bytes, rpc: Rpc) -> bytes:
        """One request, one response."""
        await self._check()
        return await self._response(self._channel.unary_unary(path)(request, **self._terms(rpc)), rpc)

    async def unary_stream(self, path: str, request: bytes, rpc: Rpc) -> None:
        """One request, many responses."""
        await self._check()
        call = self._channel.unary_stream(path)(request, **self._terms(rpc))
        try:
            await self._responses(call, rpc)
        finally:
            call.cancel()

    async def stream_unary(self, path: str, first: Any, rpc: Rpc) -> bytes:
        """Many requests, of which the first has been read, or the end; one response."""
        await self._check()
        call = self._channel.stream_unary(path)(**self._terms(rpc))
        sending = asyncio.create_task(_send(call, first, rpc))
        try:
            return await self._response(call, rpc)
        finally:
            sending.cancel()
            call.cancel()

    async def stream_stream(self, path: str, first: Any, rpc: Rpc) -> None:
        """Many requests, of which the first has been read, or the end; many responses."""
        await self._check()
        call = self._channel.stream_stream(path)(**self._terms(rpc))
        sending = asyncio.create_task(_send(call, first, rpc))
        try:
            await self._responses(call, rpc)
        finally:
            sending.cancel()
            call.cancel()

    def _terms(self, rpc: Rpc) -> dict[str, Any]:
        """What an RPC is begun with."""
        deadline = rpc.deadline
        headers = tuple(pair for pair in rpc.metadata if not _is_of_hop(pair[0]))
        if (traced := current()) is not None:
            # What is traced of it there is a part of what is traced here.
            headers = (*(pair for pair in headers if pair[0] != HEADER), (HEADER, str(traced.context)))
        if self._key:
            headers += house_metadata(self._key, rpc.identity if self._is_near else rpc.identity.from_afar())
            if rpc.engine:
                headers += ((HOUSE_ENGINE, rpc.engine),)
        return {
            "timeout": None if deadline is None else max(0.0, deadline - time.monotonic()),
            "metadata": headers,
        }

    async def _response(self, call: Any, rpc: Rpc) -> bytes:
        """The one response, with what goes before and behind it. Raises: what the caller is told."""
        try:
            response: bytes = await call
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            if isinstance(error, grpc.aio.AioRpcError):
                await _send_head(call, rpc)
            raise await self._ended(error) from None
        await _send_head(call, rpc)
        await _keep_trailer(call, rpc)
        return response

    async def _responses(self, call: Any, rpc: Rpc) -> None:
        """Pass responses on until the engine ends the RPC. Raises: what the caller is told."""
        read, write = call.read, rpc.write
        try:
            await _send_head(call, rpc)
            while (response := await read()) is not grpc.aio.EOF:
                await write(response)
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            raise await self._ended(error) from None
        await _keep_trailer(call, rpc)

    async def _check(self) -> None:
        if self._is_closed:
            raise await self._lost("its connection was closed")

    async def _ended(self, error: grpc.aio.AioRpcError | asyncio.CancelledError) -> BaseException:
        """What the caller is told of an RPC that failed."""
        if isinstance(error, grpc.aio.AioRpcError):
            return await self._lost(error.details() or "") if status.is_of_connection(error) else error
        task = asyncio.current_task()
        if self._is_closed and task is not None and not task.cancelling():
            return await self._lost("its connection was closed")
        # The caller is gone.
        return error

    async def _lost(self, details: str) -> ServerError:
        if self._gone is None:
            return Unreachable(f"the engine at {self.address} does not answer: {details}; try again")
        gone = self._gone()
        return gone if isinstance(gone, ServerError) else await gone


Choose = Callable[[str, bytes, Rpc], Target | Awaitable[Target]]


def forwarding_handlers(services: Iterable[ServiceDescriptor], choose: Choose) -> tuple[grpc.GenericRpcHandler, ...]:
    """Handlers for all RPCs of the services; as those of `bind` they take an Rpc where gRPC's take a context.

    `choose` finds the target: by the path, the first message (empty where there is none), and the RPC. It may raise a
    ServerError.
    """
    return tuple(
        grpc.method_handlers_generic_handler(
            service.full_name, {method.name: _handler(method, choose) for method in service.methods}
        )
        for service in services
    )


def _handler(method: MethodDescriptor, choose: Choose) -> grpc.RpcMethodHandler[Any, Any]:
    path = f"/{method.containing_service.full_name}/{method.name}"

    async def target_for(first: Any, rpc: Rpc) -> Target:
        chosen = choose(path, b"" if first is grpc.aio.EOF else first, rpc)
        return chosen if isinstance(chosen, Target) else await chosen

    async def unary_unary(request: bytes, rpc: Rpc) -> bytes:
        return await (await target_for(request, rpc)).unary_unary(path, request, rpc)

    async def unary_stream(request: bytes, rpc: Rpc) -> None:
        await (await target_for(request, rpc)).unary_stream(path, request, rpc)

    async def stream_unary(_: AsyncIterator[bytes], rpc: Rpc) -> bytes:
        first: Any = await rpc.first()
        return await (await target_for(first, rpc)).stream_unary(path, first, rpc)

    async def stream_stream(_: AsyncIterator[bytes], rpc: Rpc) -> None:
        first: Any = await rpc.first()
        await (await target_for(first, rpc)).stream_stream(path, first, rpc)

    if method.client_streaming:
        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(stream_stream)
        return grpc.stream_unary_rpc_method_handler(stream_unary)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(unary_stream)
    return grpc.unary_unary_rpc_method_handler(unary_unary)


async def _send(call: Any, message: Any, rpc: Rpc) -> None:
    """Pass requests on, from this one, until the caller has no more. How the RPC ends, its responses tell."""
    read = rpc.read
    try:
        await call.wait_for_connection()
        # Where the engine ends an RPC whose caller still sends, gRPC's own `write` would put an error of its own in the
        # place of the engine's status: https://github.com/grpc/grpc/issues/36066
        write = call._cython_call.send_serialized_message
        while message is not grpc.aio.EOF:
            await write(message)
            message = await read()
        await call.done_writing()
    except (grpc.aio.AioRpcError, grpc.aio.InternalError):
        return


async def _send_head(call: Any, rpc: Rpc) -> None:
    """Send what goes before the responses, once it is there; what is empty goes with the first of them."""
    if head := [pair for pair in await call.initial_metadata() if not _is_of_hop(pair[0])]:
        await rpc.send_initial_metadata(head)


async def _keep_trailer(call: Any, rpc: Rpc) -> None:
    """Say what goes behind the responses of an RPC that has ended well."""
    if trailer := await call.trailing_metadata():
        rpc.set_trailing_metadata(trailer)


def _is_of_hop(key: str) -> bool:
    return key in _HOP_HEADERS or key.startswith(_HOP_PREFIX)
