"""ModelStreamInfer: many requests on one stream, run at the same time and answered in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

# What one stream may have under way: further requests are left with gRPC, which holds back the sender.
_MAX_REQUESTS = 512
_MAX_BYTES = 64 << 20


class RequestStream:
    """The requests of one stream that are under way."""

    def __init__(self, answer: Callable[[bytes], Awaitable[bytes]], write: Callable[[bytes], Awaitable[None]]) -> None:
        """`answer` makes the response to a request; what it raises ends the stream."""
        self._answer = answer
        self._write = write
        self._under_way: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(_MAX_REQUESTS)
        self._bytes = 0
        self._room = asyncio.Event()

    async def run(self, messages: AsyncIterator[bytes]) -> None:
        """Answer all messages; when this ends, none is under way any more."""
        reading = asyncio.create_task(self._read(messages))
        current: asyncio.Task[bytes] | None = None
        try:
            while (current := await self._under_way.get()) is not None:
                await self._write(await current)
            await reading
        finally:
            reading.cancel()
            if current is not None:
                current.cancel()
            while not self._under_way.empty():
                left = self._under_way.get_nowait()
                if left is not None:
                    left.cancel()

    async def _read(self, messages: AsyncIterator[bytes]) -> None:
        try:
            async for data in messages:
                while self._bytes and self._bytes + len(data) > _MAX_BYTES:
                    self._room.clear()
                    await self._room.wait()
                self._bytes += len(data)
                await self._under_way.put(asyncio.create_task(self._one(data)))
        finally:
            await self._under_way.put(None)

    async def _one(self, data: bytes) -> bytes:
        try:
            return await self._answer(data)
        finally:
            self._bytes -= len(data)
            self._room.set()
