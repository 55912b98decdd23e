"""ModelStreamInfer: many requests on one stream, run at the same time and answered in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

# What one stream may have under way, with the answers that the caller has not taken yet: further requests are left with
# gRPC, which holds back the sender.
_MAX_REQUESTS = 512
_MAX_BYTES = 64 << 20

Begin = Callable[[bytes], tuple[int, Callable[[], Coroutine[Any, Any, bytes]]]]
"""Looks at a request: the bytes that its answer will have, and what makes the answer."""


class RequestStream:
    """The requests of one stream that are under way."""

    def __init__(self, begin: Begin, write: Callable[[bytes], Awaitable[None]]) -> None:
        """What is raised in making an answer ends the stream."""
        self._begin = begin
        self._write = write
        # In the order of the requests, each with the bytes that it takes until its answer is written.
        self._under_way: asyncio.Queue[tuple[asyncio.Task[bytes], int] | None] = asyncio.Queue(_MAX_REQUESTS)
        self._tasks: set[asyncio.Task[bytes]] = set()
        self._bytes = 0
        self._room = asyncio.Event()

    async def run(self, messages: AsyncIterator[bytes]) -> None:
        """Answer all messages; when this ends, none is under way any more."""
        reading = asyncio.create_task(self._read(messages))
        try:
            while (first := await self._under_way.get()) is not None:
                task, size = first
                await self._write(await task)
                # Let go of the answer before waiting for the next one.
                del first, task
                self._bytes -= size
                self._room.set()
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
                # Room is given in the order of the requests, so that the first one never waits for those behind it.
                answer_bytes, answer = self._begin(data)
                size = len(data) + answer_bytes
                while self._bytes and self._bytes + size > _MAX_BYTES:
                    self._room.clear()
                    await self._room.wait()
                self._bytes += size
                task = asyncio.create_task(answer())
                self._tasks.add(task)
                task.add_done_callback(self._done)
                await self._under_way.put((task, size))
        finally:
            await self._under_way.put(None)

    def _done(self, task: asyncio.Task[bytes]) -> None:
        self._tasks.discard(task)
        # Looked at here, since nobody waits for those behind one that ended the stream.
        if not task.cancelled():
            task.exception()
