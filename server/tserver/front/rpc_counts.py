"""Counts of RPCs, for the metrics: how many, how long, how large, how they ended. Plain numbers, cheap to keep.

Without metrics nothing is counted. Knows no servicers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import grpc

from tserver.front.authentication import Authenticator
from tserver.front.recent_errors import RecentErrors
from tserver.front.rpc import OPEN, Context, Rpc
from tserver.models.statistics import Histogram


@dataclass(slots=True)
class MethodCounts:
    """The RPCs of one method. Bytes are those of messages, without what HTTP/2 and TLS add."""

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
    """The RPCs of all servers of a process, by service and method, and the last errors among them."""

    def __init__(self) -> None:
        self.by_method: dict[tuple[str, str], MethodCounts] = {}
        self.recent = RecentErrors()

    def method(self, service: str, method: str) -> MethodCounts:
        """The counts of a method, which may be served by several servers."""
        return self.by_method.setdefault((service, method), MethodCounts())


class CountedRpc(Rpc):
    """A streaming RPC, with the bytes of its messages counted."""

    __slots__ = ("_counts",)

    def __init__(
        self, context: Context, key: str = "", authenticator: Authenticator = OPEN, *, counts: MethodCounts
    ) -> None:
        super().__init__(context, key, authenticator)
        self._counts = counts
        self.read = self._read
        self.write = self._write

    async def _read(self) -> Any:
        message: Any = await self._context.read()
        if message is not grpc.aio.EOF:
            self._counts.bytes_in += len(message)
        return message

    async def _write(self, message: bytes) -> None:
        self._counts.bytes_out += len(message)
        await self._context.write(message)


def size_of(message: Any) -> int:
    """The bytes of a message: our services take and give bytes, gRPC's own message objects."""
    return len(message) if isinstance(message, bytes) else message.ByteSize()
