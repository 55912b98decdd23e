"""How much memory the messages of the protocol's clients take together, before it is known how large they are.

A message comes whole, and out of its compression: a few kilobytes may be as much as one may have. gRPC begins to take
one when it is asked for it. So only some are asked for at once; the others wait with their callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import grpc

from tserver import host
from tserver.config import Config
from tserver.errors import DeadlineExceeded, Exhausted, InvalidArgument
from tserver.front.oip.tensors import MAX_MESSAGE_BYTES
from tserver.front.rpc import Rpc

# Of the memory, what one message may have where that is not said; and what all together may have.
_MESSAGE_PART = 256
_LEAST_BYTES = 64 << 20
_TOTAL_PART = 4
# A message is there twice for a moment: as gRPC has it, and as one row of bytes.
_COPIES = 2
_LEAST_TURNS = 4
# Who has a turn and sends nothing whole for so long gives it up, if others wait.
_TURN_S = 30.0


def max_message_bytes(config: Config) -> int:
    """What one message may have."""
    share = max(_LEAST_BYTES, host.total_bytes() // _MESSAGE_PART)
    return min(config.oip_max_message_bytes or share, MAX_MESSAGE_BYTES)


class Inference(Protocol):
    """What runs the requests."""

    async def ModelInfer(self, data: bytes, rpc: Rpc) -> bytes:
        """One request."""

    async def ModelStreamInfer(self, messages: AsyncIterator[bytes], rpc: Rpc) -> None:
        """A stream of them."""


class Gate:
    """Those whose messages are taken now."""

    def __init__(self, inference: Inference, config: Config, turn_s: float = _TURN_S) -> None:
        self._inference, self._turn_s = inference, turn_s
        self._total_bytes = (config.max_memory_bytes or host.total_bytes()) // _TOTAL_PART
        self.turns = max(_LEAST_TURNS, self._total_bytes // (_COPIES * max_message_bytes(config)))
        self._free = asyncio.Semaphore(self.turns)
        self._waiting = 0
        self._streams = 0
        # Of the messages that have been taken, until they are answered.
        self._held_bytes = 0

    def handlers(self) -> dict[str, Any]:
        """By the method. That of one request reads it itself, in its turn."""
        return {
            "ModelInfer": grpc.stream_unary_rpc_method_handler(self._infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream),
        }

    async def _infer(self, _: AsyncIterator[bytes], rpc: Rpc) -> bytes:
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            data = await self._read(rpc.read)
        finally:
            self._free.release()
        if data is grpc.aio.EOF:
            raise InvalidArgument("the request has no message")
        size = len(data)
        if self._held_bytes and self._held_bytes + size > self._total_bytes:
            raise Exhausted(
                f"the requests under way have {self._held_bytes} bytes, and {size} more are too many (at most "
                f"{self._total_bytes}); retry later",
                limit=str(self._total_bytes),
                used=str(self._held_bytes),
                asked=str(size),
            )
        self._held_bytes += size
        try:
            return await self._inference.ModelInfer(data, rpc)
        finally:
            self._held_bytes -= size

    async def _read(self, read: Callable[[], Awaitable[Any]]) -> Any:
        reading = asyncio.ensure_future(read())
        try:
            while True:
                done, _ = await asyncio.wait({reading}, timeout=self._turn_s)
                if done:
                    return reading.result()
                if self._waiting:
                    raise DeadlineExceeded(
                        f"the message did not come within {self._turn_s:g} s, and others wait; send it again"
                    )
        finally:
            reading.cancel()

    async def _stream(self, messages: AsyncIterator[bytes], rpc: Rpc) -> None:
        if self._streams >= self.turns:
            raise Exhausted(
                f"{self._streams} streams are open, which is the limit for messages of this size; close one, retry "
                "later, or start the server with a smaller --oip-max-message-bytes",
                limit=str(self.turns),
                used=str(self._streams),
            )
        self._streams += 1
        try:
            await self._inference.ModelStreamInfer(messages, rpc)
        finally:
            self._streams -= 1
