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
        self._tasks: set[asyncio.Task[bytes]] = set()
        self._bytes = 0
        self._room = asyncio.Event()

    async def run(self, messages: AsyncIterator[bytes]) -> None:
        """Answer all messages; when this ends, none is under way any more."""
        reading = asyncio.create_task(self._read(messages))
        try:
            while (first := await self._under_way.get()) is not None:
                await self._write(await first)
            await reading
        finally:
            reading.cancel()
            for task in self._tasks:
                task.cancel()
            # Room for the reader to say that it has ended.
            self._under_way = asyncio.Queue()

    async def _read(self, messages: AsyncIterator[bytes]) -> None:
        try:
            async for data in messages:
                while self._bytes and self._bytes + len(data) > _MAX_BYTES:
                    self._room.clear()
                    await self._room.wait()
                self._bytes += len(data)
                task = asyncio.create_task(self._one(data))
                self._tasks.add(task)
                task.add_done_callback(self._done)
                await self._under_way.put(task)
        finally:
            await self._under_way.put(None)

    def _done(self, task: asyncio.Task[bytes]) -> None:
        self._tasks.discard(task)
        # Looked at here, since nobody waits for those behind one that ended the stream.
        if not task.cancelled():
            task.exception()

    async def _one(self, data: bytes) -> bytes:
        try:
            return await self._answer(data)
        finally:
            self._bytes -= len(data)
            self._room.set()
