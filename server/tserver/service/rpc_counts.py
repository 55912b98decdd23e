"""Counts of RPCs, for the metrics: how many, how long, how large, how they ended. Plain numbers, cheap to keep.

Wraps the handlers of a server; without metrics nothing is wrapped and nothing is counted. Knows no servicer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from tensorcompute.v1 import status_pb2
from tserver.engine.models.statistics import Histogram
from tserver.service.calls import Context
from tserver.service.status import DETAILS_KEY

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(slots=True)
class MethodCounts:
    """The RPCs of one method. Bytes are those of messages, without what HTTP/2 and TLS add."""

    is_stream: bool
    started: int = 0
    # Finished ones, by the name of the status.
    by_code: dict[str, int] = field(default_factory=dict)
    # Failed ones, by the reason in ErrorInfo.
    by_reason: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    latency: Histogram = field(default_factory=Histogram)
    bytes_in: int = 0
    bytes_out: int = 0

    def finish(self, code: str, seconds: float) -> None:
        """Count an end."""
        self.by_code[code] = self.by_code.get(code, 0) + 1
        self.seconds += seconds
        self.latency.add(seconds)


class RpcCounts:
    """The RPCs of all servers of a process, by service and method."""

    def __init__(self) -> None:
        self.by_method: dict[tuple[str, str], MethodCounts] = {}

    def counting(self, handler: grpc.GenericRpcHandler) -> grpc.GenericRpcHandler:
        """A handler that does the same and counts."""
        return _Counting(handler, self.by_method)


class _Counting(grpc.GenericRpcHandler):
    def __init__(self, handler: grpc.GenericRpcHandler, by_method: dict[tuple[str, str], MethodCounts]) -> None:
        self._handler = handler
        self._by_method = by_method
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        path = handler_call_details.method
        wrapped = self._wrapped.get(path)
        if wrapped is None:
            found = self._handler.service(handler_call_details)
            if found is None:
                return None
            # Only paths of methods that there are: a stranger's do not fill the table.
            wrapped = self._wrapped[path] = self._wrap(path, found)
        return wrapped

    def _wrap(self, path: str, found: Any) -> grpc.RpcMethodHandler[Any, Any]:
        service, _, method = path.strip("/").rpartition("/")
        is_stream = found.request_streaming or found.response_streaming
        counts = self._by_method[service, method] = MethodCounts(is_stream)
        if found.request_streaming:
            if found.response_streaming:
                return grpc.stream_stream_rpc_method_handler(_counted(counts, found.stream_stream))
            return grpc.stream_unary_rpc_method_handler(_counted(counts, found.stream_unary))
        if found.response_streaming:
            return grpc.unary_stream_rpc_method_handler(_counted(counts, found.unary_stream))
        return grpc.unary_unary_rpc_method_handler(_counted(counts, found.unary_unary))


def _counted(counts: MethodCounts, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    # A handler takes its requests from this iterator, or from the context: each message is counted once.
    async def messages(iterator: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for message in iterator:
            counts.bytes_in += len(message)
            yield message

    async def counted(argument: Any, context: Context) -> Any:
        counts.started += 1
        began = time.perf_counter()
        code = "OK"
        if isinstance(argument, bytes):
            counts.bytes_in += len(argument)
        else:
            argument = messages(argument)
        try:
            response = await function(argument, _CountingContext(context, counts) if counts.is_stream else context)
            if response is not None:
                counts.bytes_out += len(response)
            return response
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception:
            code, reason = _failure(context)
            counts.by_reason[reason] = counts.by_reason.get(reason, 0) + 1
            raise
        finally:
            counts.finish(code, time.perf_counter() - began)

    return counted


class _CountingContext:
    """What our servicers use of the context of a streaming RPC, with the bytes that are written counted."""

    __slots__ = ("_context", "_counts", "abort", "invocation_metadata", "peer", "time_remaining")

    def __init__(self, context: Context, counts: MethodCounts) -> None:
        self._context = context
        self._counts = counts
        self.abort = context.abort
        self.invocation_metadata = context.invocation_metadata
        self.peer = context.peer
        self.time_remaining = context.time_remaining

    async def read(self) -> Any:
        """As the context does."""
        message: Any = await self._context.read()
        if message is not grpc.aio.EOF:
            self._counts.bytes_in += len(message)
        return message

    async def write(self, message: bytes) -> None:
        """As the context does."""
        self._counts.bytes_out += len(message)
        await self._context.write(message)


def _failure(context: Any) -> tuple[str, str]:
    """The status and the reason of an RPC that was aborted, from the details that each of our statuses carries."""
    for key, value in context.trailing_metadata() or ():
        if key == DETAILS_KEY:
            status = status_pb2.Status.FromString(value)
            if status.details:
                # The first is the ErrorInfo: see status.trailers.
                info = status_pb2.ErrorInfo.FromString(status.details[0].value)
                return _CODES.get(status.code, "UNKNOWN"), info.reason
    return "UNKNOWN", "UNKNOWN"
