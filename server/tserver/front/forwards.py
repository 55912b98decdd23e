"""The forward passes that one caller has under way, and the answers that it has not taken yet.

Where requests come from and answers go to is said by who uses this: a gRPC stream, or a lane.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tserver.errors import Exhausted, InvalidArgument, ModelElsewhere, NotFound, ServerError, TooLarge
from tserver.front.status import code_number
from tserver.models.names import bare
from tserver.models.requests import Given, check_size
from tserver.tracing.tracer import TRACER

if TYPE_CHECKING:
    from tserver.config import Config
    from tserver.engines.port import ModelManager, ServedModel, Share
    from tserver.models.requests import Request

# Requests of one caller that may be under way, and the bytes of their outputs and of answers that it has not taken
# yet; beyond either nothing more is read from it, which holds it back.
_WINDOW = 4096
_MAX_BYTES = 64 << 20
# An answer, but for the elements.
_ANSWER_BYTES = 256
# The size of a message of answers, about.
_MESSAGE_BYTES = 1 << 20


class Passing(Protocol):
    """What takes requests to where their models are."""

    def begin(self, call: ms.MlpForwardCall, done: Callable[[ms.MlpForwardAnswer], None]) -> None:
        """Send a request; `done` gets the answer, on this thread."""

    def cancel(self) -> None:
        """The caller has gone."""


class Forwards:
    """Requests, from their beginning until their answers are sent."""

    def __init__(
        self,
        models: ModelManager,
        config: Config,
        changed: Callable[[], None],
        *,
        find: Callable[[str, int], ServedModel],
        share: Share,
        relay: Callable[[], Passing] | None = None,
        on_engine: bool = False,
    ) -> None:
        """`changed` is called when there is an answer. `find` finds models, and `share` is charged with their time;
        `relay` gives what takes requests for those that are not here to where they are. With `on_engine` all of it is
        on the engine's thread.
        """
        self._models = models
        self._config = config
        self._tell_changed = changed
        self._on_engine = on_engine
        self._find = find
        self._share = share
        self._new_relay = relay
        self._relay: Passing | None = None
        # Requests that are run elsewhere.
        self._relayed: set[int] = set()
        self._under_way: dict[int, tuple[ServedModel, Request]] = {}
        # Answers that are to be sent, and what each takes of _MAX_BYTES.
        self._answers: list[tuple[ms.MlpForwardAnswer, int]] = []
        self._bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether another request may begin."""
        return len(self._under_way) + len(self._relayed) < _WINDOW and self._bytes <= _MAX_BYTES

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, and no answer waits."""
        return not self._under_way and not self._relayed and not self._answers

    def has(self, request_id: int) -> bool:
        """Whether a request is under way. From any thread."""
        return request_id in self._under_way or request_id in self._relayed

    def take(self) -> tuple[bytes, int] | None:
        """The next message of answers, and what to give to `sent` once it is; None if there are none."""
        if not self._answers:
            return None
        size = count = taken = 0
        for _, room in self._answers:
            size += room
            if count and size > _MESSAGE_BYTES:
                break
            taken += room
            count += 1
        message = ms.MlpForwardStreamResponse(answers=[answer for answer, _ in self._answers[:count]])
        del self._answers[:count]
        return message.SerializeToString(), taken

    def sent(self, room: int) -> None:
        """So much of what was taken is on its way."""
        self._bytes -= room

    def take_back(self) -> None:
        """The caller has gone: what waits for its turn leaves the queues."""
        for served, request in self._under_way.values():
            self._models.take_back(served, request)
        self._under_way.clear()
        self._relayed.clear()
        if self._relay is not None:
            self._relay.cancel()

    def begin(self, call: ms.MlpForwardCall) -> None:
        """Queue a request; whatever becomes of it is an answer."""
        number = call.id
        try:
            if number in self._under_way or number in self._relayed:
                raise InvalidArgument(f"a request with the id {number} is under way; choose another id")
            try:
                served = self._find(call.name, call.version)
            except (ModelElsewhere, NotFound):
                if self._new_relay is None:
                    raise
                self._pass_on(call, self._new_relay)
                return
            shape: list[int] | None = None
            if call.tensors:
                given = by_name((each.name, each.data) for each in call.tensors)
                check_inputs(sum(len(each.data) for each in given.values()), self._config)
                request = self._models.request_by_name(served, given)
            else:
                data = call.inputs
                elements = data.data
                check_inputs(len(elements), self._config)
                shape = list(data.shape)
                request = self._models.request(served, data.dtype, shape, elements)
                shape[-1] = served.out_features
            request.priority, request.timeout_us = call.priority, call.timeout_us
            if call.deadline_us:
                request.deadline = time.monotonic() + call.deadline_us / 1e6
            room = _ANSWER_BYTES + served.check_outputs(request, self._config.max_output_bytes)
            request.on_done = lambda request: self._end(number, served, shape, request, room)
            request.on_engine, request.share = self._on_engine, self._share
            if TRACER.is_on:
                request.traced = TRACER.request(f"forward {bare(served.name)}", call.traceparent)
            try:
                self._models.put(served, request)
            except ServerError as error:
                if request.traced is not None:
                    request.traced.end(error.reason)
                raise
        except ServerError as error:
            answer = ms.MlpForwardAnswer(id=number, failure=failure_of(error))
            self._bytes += (room := _ANSWER_BYTES + len(answer.failure.message))
            self._tell(answer, room)
            return
        self._bytes += room
        self._under_way[number] = (served, request)

    def _pass_on(self, call: ms.MlpForwardCall, new_relay: Callable[[], Passing]) -> None:
        """Have a request run where the model is."""
        relay = self._relay = self._relay or new_relay()
        size = call.ByteSize()
        self._relayed.add(call.id)
        self._bytes += size

        def done(answer: ms.MlpForwardAnswer) -> None:
            if call.id in self._relayed:
                self._relayed.discard(call.id)
                room = _ANSWER_BYTES + answer.ByteSize()
                self._bytes += room - size
                self._tell(answer, room)

        relay.begin(call, done)

    def _end(self, number: int, served: ServedModel, shape: list[int] | None, request: Request, room: int) -> None:
        if self._under_way.pop(number, None) is None:
            return
        answer = ms.MlpForwardAnswer(id=number, version=served.version)
        error = request.error
        if error is None and shape is None:
            try:
                answer.outputs.tensors.extend(outputs_by_name(served, request, self._config.max_output_bytes))
                # Of some outputs it is known only now how large they are.
                more = max(0, _ANSWER_BYTES + answer.outputs.ByteSize() - room)
                room += more
                self._bytes += more
            except TooLarge as refusal:
                error = refusal
        if error is not None:
            answer.failure.CopyFrom(failure_of(error))
        elif request.outputs is not None and shape is not None:
            data = pb.TensorData(dtype=served.dtype, shape=shape, data=bytes(request.outputs[0]))
            answer.output.CopyFrom(data)
        self._tell(answer, room)

    def _tell(self, answer: ms.MlpForwardAnswer, room: int) -> None:
        self._answers.append((answer, room))
        self._tell_changed()


def by_name(tensors: Iterable[tuple[str, pb.TensorData]]) -> dict[str, Given]:
    """Inputs by their names. Raises: InvalidArgument where one is there twice."""
    given: dict[str, Given] = {}
    for name, data in tensors:
        if name in given:
            raise InvalidArgument(f"the input {name[:100]!r} is given twice")
        given[name] = Given(data.dtype, data.shape[:], data.data)
    return given


def outputs_by_name(served: ServedModel, request: Request, max_bytes: int) -> list[ms.NamedTensor]:
    """What has become of a request, as messages. Raises: TooLarge, of what was not known before it was run."""
    assert request.outputs is not None
    check_size(sum(map(len, request.outputs)), max_bytes)
    return [
        ms.NamedTensor(name=spec.name, data=pb.TensorData(dtype=spec.dtype, shape=shape, data=bytes(output)))
        for spec, shape, output in zip(served.outputs, request.output_shapes, request.outputs, strict=True)
    ]


def check_inputs(size_bytes: int, config: Config) -> None:
    """Raises: InvalidArgument for inputs by value that are too large for a message."""
    if size_bytes > config.max_inline_bytes:
        raise InvalidArgument(
            f"inputs of {size_bytes} bytes are too large for a message (limit {config.max_inline_bytes}); "
            "use Upload, or send fewer rows"
        )


def failure_of(error: ServerError) -> ms.ForwardFailure:
    """Why a request of a stream was not run."""
    retry_after_s = float(error.details.get("retry_after_s", 0)) if isinstance(error, Exhausted) else 0.0
    return ms.ForwardFailure(
        code=code_number(error), reason=error.reason, message=error.message[:2000], retry_after_s=retry_after_s
    )
