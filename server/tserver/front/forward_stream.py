"""One stream of forward passes: many requests and answers under way at once, several in a message.

Requests that come in one message join the queue together; answers of one batch leave in one message.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tserver.errors import Exhausted, InvalidArgument, ServerError
from tserver.front.status import code_number

if TYPE_CHECKING:
    from tserver.config import Config
    from tserver.engines.port import ModelManager, ServedModel
    from tserver.front.rpc import Rpc
    from tserver.models.requests import Request

# Requests of one stream that may be under way, and the bytes of their outputs and of answers that the caller has not
# taken yet; beyond either the stream is not read, and gRPC holds back the sender.
_WINDOW = 4096
_MAX_BYTES = 64 << 20
# An answer, but for the elements.
_ANSWER_BYTES = 256
# The size of a message of answers, about.
_MESSAGE_BYTES = 1 << 20


class ForwardStream:
    """The requests of one stream."""

    def __init__(self, models: ModelManager, rpc: Rpc, config: Config) -> None:
        self._models = models
        self._rpc = rpc
        self._config = config
        self._under_way: dict[int, tuple[ServedModel, Request]] = {}
        # Answers that are to be sent, and what each takes of _MAX_BYTES.
        self._answers: list[tuple[ms.MlpForwardAnswer, int]] = []
        self._bytes = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._is_closed = False
        self._failure: Exception | None = None

    async def run(self, requests: AsyncIterator[ms.MlpForwardStreamRequest]) -> None:
        """Answer requests until the client has closed its side and has all answers."""
        reading = asyncio.create_task(self._read(requests))
        try:
            await self._write()
        finally:
            reading.cancel()
            for served, request in self._under_way.values():
                self._models.take_back(served, request)
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    async def _read(self, requests: AsyncIterator[ms.MlpForwardStreamRequest]) -> None:
        try:
            async for message in requests:
                for call in message.calls:
                    while len(self._under_way) >= _WINDOW or self._bytes > _MAX_BYTES:
                        self._room.clear()
                        await self._room.wait()
                    self._begin(call)
        except Exception as error:
            self._failure = error
        self._is_closed = True
        self._changed.set()

    async def _write(self) -> None:
        while not (self._is_closed and not self._under_way and not self._answers):
            await self._changed.wait()
            self._changed.clear()
            while self._answers:
                size = count = taken = 0
                for answer, room in self._answers:
                    size += len(answer.output.data) + 64
                    if count and size > _MESSAGE_BYTES:
                        break
                    taken += room
                    count += 1
                message = ms.MlpForwardStreamResponse(answers=[answer for answer, _ in self._answers[:count]])
                del self._answers[:count]
                await self._rpc.write(message.SerializeToString())
                self._bytes -= taken
                self._room.set()
            if self._failure is not None:
                raise self._failure

    def _begin(self, call: ms.MlpForwardCall) -> None:
        number = call.id
        try:
            if number in self._under_way:
                raise InvalidArgument(f"a request with the id {number} is under way; choose another id")
            data = call.inputs
            elements = data.data
            check_inputs(len(elements), self._config)
            served = self._models.registry.find(call.name, call.version)
            shape = list(data.shape)
            request = self._models.request(served, data.dtype, shape, elements)
            request.priority, request.timeout_us = call.priority, call.timeout_us
            if call.deadline_us:
                request.deadline = time.monotonic() + call.deadline_us / 1e6
            shape[-1] = served.out_features
            room = _ANSWER_BYTES + served.check_outputs(request.rows, self._config.max_output_bytes)
            request.on_done = lambda request: self._end(number, served, shape, request, room)
            self._models.put(served, request)
        except ServerError as error:
            answer = ms.MlpForwardAnswer(id=number, failure=_failure(error))
            self._bytes += (room := _ANSWER_BYTES + len(answer.failure.message))
            self._tell(answer, room)
            return
        self._bytes += room
        self._under_way[number] = (served, request)

    def _end(self, number: int, served: ServedModel, shape: list[int], request: Request, room: int) -> None:
        del self._under_way[number]
        self._room.set()
        answer = ms.MlpForwardAnswer(id=number, version=served.version)
        error = request.error
        if error is not None:
            answer.failure.CopyFrom(_failure(error))
        else:
            data = pb.TensorData(dtype=served.dtype, shape=shape, data=bytes(request.output))
            answer.output.CopyFrom(data)
        self._tell(answer, room)

    def _tell(self, answer: ms.MlpForwardAnswer, room: int) -> None:
        self._answers.append((answer, room))
        self._changed.set()


def check_inputs(size_bytes: int, config: Config) -> None:
    """Raises: InvalidArgument for inputs by value that are too large for a message."""
    if size_bytes > config.max_inline_bytes:
        raise InvalidArgument(
            f"inputs of {size_bytes} bytes are too large for a message (limit {config.max_inline_bytes}); "
            "use Upload, or send fewer rows"
        )


def _failure(error: ServerError) -> ms.ForwardFailure:
    retry_after_s = float(error.details.get("retry_after_s", 0)) if isinstance(error, Exhausted) else 0.0
    return ms.ForwardFailure(
        code=code_number(error), reason=error.reason, message=error.message[:2000], retry_after_s=retry_after_s
    )
