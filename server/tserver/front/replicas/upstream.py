"""Forward passes on a stream to another process of the house: from an engine to the front, or from that to an engine.

Knows the contract's messages; does not know where requests come from, nor why they go there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from tensorcompute.v1 import model_service_pb2 as ms

PATH = "/tensorcompute.v1.ModelService/MlpForwardStream"
# The size of a message of requests, about.
_MESSAGE_BYTES = 64 << 10

Answers = Callable[["Upstream", Sequence[ms.MlpForwardAnswer]], Awaitable[None]]
Ended = Callable[["Upstream", Exception | None], None]


class Upstream:
    """One stream. On the event loop alone."""

    def __init__(
        self, channel: grpc.aio.Channel, metadata: Sequence[tuple[str, str | bytes]], answers: Answers, ended: Ended
    ) -> None:
        """`answers` is given those of each message, and waited for before the next is read; `ended` is called when the
        stream has ended by itself, with why.
        """
        method: Any = channel.stream_stream(PATH)
        self._call = method(metadata=tuple(metadata))
        self._answers, self._ended = answers, ended
        self._waiting: list[ms.MlpForwardCall] = []
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def put(self, call: ms.MlpForwardCall) -> None:
        """Send a request, behind those that wait."""
        self._waiting.append(call)
        self._changed.set()

    def cancel(self) -> None:
        """The caller has gone: the other side takes back what waits there."""
        self._task.cancel()

    async def _run(self) -> None:
        writing = asyncio.create_task(self._write())
        failure: Exception | None = None
        try:
            await self._read()
        except grpc.aio.AioRpcError as error:
            failure = error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The connection was closed, by this process.
        finally:
            writing.cancel()
            self._call.cancel()
        self._ended(self, failure)

    async def _read(self) -> None:
        read = self._call.read
        while (data := await read()) is not grpc.aio.EOF:
            await self._answers(self, ms.MlpForwardStreamResponse.FromString(data).answers)

    async def _write(self) -> None:
        write = self._call.write
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                waiting, self._waiting = self._waiting, []
                start = size = 0
                for end, call in enumerate(waiting, 1):
                    size += call.ByteSize()
                    if size > _MESSAGE_BYTES or end == len(waiting):
                        message = ms.MlpForwardStreamRequest(calls=waiting[start:end])
                        await write(message.SerializeToString())
                        start, size = end, 0
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The reader hears of it, too.
            return
