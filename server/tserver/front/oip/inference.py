"""One request of the protocol: checked, run, answered. The one place where that is done, for every wire form.

Elements are views into the request until the model reads them, and views into the outputs until the answer is sent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tserver.errors import InvalidArgument, PermissionDenied, ServerError, Unimplemented
from tserver.front.oip.regions import AllRegions, Region, Regions
from tserver.front.oip.settings import TraceSettings
from tserver.front.oip.tensors import (
    DATATYPES,
    HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    Answer,
    Datatype,
    GivenTensor,
    InferRequest,
    Output,
    SharedPart,
    WantedOutput,
    datatype_of,
    shorten,
)
from tserver.models.names import bare
from tserver.models.owners import Owners
from tserver.models.requests import Given
from tserver.tracing.traced import answering, current
from tserver.tracing.tracer import TRACER

if TYPE_CHECKING:
    from tserver.engines.port import Models, Served, Spec
    from tserver.identity import Identity

# Larger copies from and to shared memory are made by a thread, so that others are served meanwhile.
_MAX_INLINE_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Caller:
    """What is known of who asks."""

    identity: Identity
    # A moment of time.monotonic.
    deadline: float | None


@dataclass(frozen=True, slots=True)
class _Range:
    """A part of a region that is there."""

    region: Region
    part: SharedPart

    def check(self, needed: int) -> None:
        """Refuse an output that does not fit. Raises: ServerError."""
        if self.part.byte_size < needed:
            raise ServerError(
                f"the output needs {needed} bytes, but its part of the region {self.region.name!r} of shared memory "
                f"has {self.part.byte_size}"
            )


@dataclass(frozen=True, slots=True)
class _Target:
    """An output that is wanted, and where it is to be; without a range, in the answer."""

    index: int
    spec: Spec
    datatype: Datatype
    wanted: WantedOutput
    range: _Range | None


def version_of(text: str) -> int:
    """The number of a version; 0 stands for the server's choice. Raises: InvalidArgument."""
    if not text:
        return 0
    if text.isascii() and text.isdecimal() and len(text) < 19 and int(text):
        return int(text)
    raise InvalidArgument(f"the version {text[:100]!r} is not a number from 1 on; leave it empty for the latest")


class Inferences:
    """Runs requests on the models."""

    def __init__(self, models: Models, regions: AllRegions | None, traces: TraceSettings) -> None:
        """Without regions, shared memory is refused. `traces` says which requests are traced."""
        self._models = models
        self._traces = traces
        self._regions = regions
        self._owners = Owners(models.registry.has)

    def find(self, name: str, version: int, identity: Identity) -> Served:
        """The version of a model that a caller names. Raises: NotFound."""
        found: Served = self._models.registry.find(self._owners.qualified(name, identity), version)
        return found

    async def run(self, name: str, version: str, request: InferRequest, caller: Caller) -> Answer:
        """The answer of a model to a request. Cancelled, it leaves the queue. Raises: ServerError."""
        number = version_of(version)
        served = self.find(name, number, caller.identity)
        if current() is not None or not self._traces.chooses(served.name):
            return await self._run(served, name, number, request, caller)
        traced = TRACER.chosen(f"infer {name}")
        with answering(traced, lambda error: error.reason if isinstance(error, ServerError) else type(error).__name__):
            return await self._run(served, name, number, request, caller)

    async def _run(self, served: Served, name: str, number: int, request: InferRequest, caller: Caller) -> Answer:
        with ExitStack() as used:
            try:
                request.check_parameters()
                priority, timeout_us = request.priority, request.timeout_us
                sources = self._sources(served, request, caller)
                targets = self._targets(served, request, caller)
                for each in (*sources, *(target.range for target in targets)):
                    if isinstance(each, _Range):
                        used.enter_context(each.region.in_use())
                elements = [await _read(source) for source in sources]
            except ServerError as error:
                served.statistics.failed(error.reason)
                raise
            if not number and any(isinstance(source, _Range) for source in sources):
                # The latest version may be another one by now, and this one gone.
                served = self.find(name, 0, caller.identity)
                _check_inputs(served, request.inputs)
                targets = self._targets(served, request, caller)
            given = {
                spec.name: Given(spec.dtype, tensor.shape, data)
                for (spec, tensor), data in zip(_paired(served, request.inputs), elements, strict=True)
            }
            order = self._models.request_by_name(served, given)
            order.priority, order.timeout_us, order.deadline = priority, timeout_us, caller.deadline
            await self._models.run(served, order, caller.identity.principal)
            assert order.outputs is not None
            outputs = [
                await _output(target, tuple(order.output_shapes[target.index]), order.outputs[target.index], request)
                for target in targets
            ]
            _check_message(sum(len(output.elements) for output in outputs))
            return Answer(name, served.version, request.id, outputs)

    def answer_bytes(self, name: str, version: str, request: InferRequest, identity: Identity) -> int:
        """About how many bytes the answer will have, should the request be one that can be run."""
        try:
            served = self.find(name, version_of(version), identity)
            _check_inputs(served, request.inputs)
        except ServerError:
            return 0
        own = {wanted.name for wanted in request.outputs if "shared_memory_region" not in wanted.parameters}
        sizes = _known_bytes(served, request.inputs)
        return sum(sizes[spec.name] for spec in served.outputs if spec.name in own or not request.outputs)

    def regions(self, identity: Identity) -> Regions:
        """The regions of a caller who may have some. Raises: PermissionDenied."""
        if self._regions is None:
            raise PermissionDenied(
                "shared memory is not allowed here; start the server with --oip-shared-memory to allow it"
            )
        if not identity.is_local:
            raise PermissionDenied("shared memory is for callers on this machine, through a loopback address")
        return self._regions.of(identity.principal)

    def _sources(self, served: Served, request: InferRequest, caller: Caller) -> list[memoryview | _Range]:
        """Where the elements of each input are. Raises: InvalidArgument, NotFound, PermissionDenied."""
        _check_inputs(served, request.inputs)
        ranges = [self._range(tensor.part, caller) for tensor in request.inputs]
        sources: list[memoryview | _Range] = []
        for tensor, found, data in zip(request.inputs, ranges, request.elements(), strict=True):
            source = data if found is None else found
            assert source is not None
            needed = math.prod(tensor.shape) * DATATYPES[tensor.datatype].size
            has = source.part.byte_size if isinstance(source, _Range) else len(source)
            if has != needed:
                # Before it is read: a region may be larger than the memory of the server.
                where = f" in the region {source.region.name!r}" if isinstance(source, _Range) else ""
                raise InvalidArgument(
                    f"the input {tensor.name!r} has {has} bytes{where}, but the shape {shorten(tensor.shape)} of "
                    f"{tensor.datatype} needs {needed}"
                )
            sources.append(source)
        return sources

    def _targets(self, served: Served, request: InferRequest, caller: Caller) -> list[_Target]:
        """Where each output that is wanted is to be. Raises: as `_sources`, ServerError if one does not fit."""
        known = {spec.name: (index, spec) for index, spec in enumerate(served.outputs)}
        names = [wanted.name for wanted in request.outputs]
        if not known.keys() >= set(names) or len(set(names)) < len(names):
            raise InvalidArgument(
                f"the request asks for the outputs {shorten(names)}; {bare(served.name)!r} has "
                f"{_exactly(served.outputs)}"
            )
        targets = []
        total, sizes = 0, _known_bytes(served, request.inputs)
        for each in request.outputs or [WantedOutput(name, {}, request.is_text) for name in known]:
            if each.classification:
                raise Unimplemented("the classification of outputs is not served; take the output itself")
            index, spec = known[each.name]
            target = _Target(index, spec, datatype_of(bare(served.name), spec), each, self._range(each.part, caller))
            _check_output(target, sizes[each.name], request)
            total += sizes[each.name] if target.range is None else 0
            targets.append(target)
        _check_message(total)
        return targets

    def _range(self, part: SharedPart | None, caller: Caller) -> _Range | None:
        """The part of shared memory that a tensor is in. Raises: InvalidArgument, NotFound, PermissionDenied."""
        if part is None:
            return None
        region = self.regions(caller.identity).find(part.region)
        region.check(part.offset, part.byte_size)
        return _Range(region, part)


def _check_inputs(served: Served, inputs: Sequence[GivenTensor]) -> None:
    """Refuse inputs that are none of the model's. Raises: InvalidArgument, Unimplemented for no datatypes of the
    protocol.
    """
    names = [tensor.name for tensor in inputs]
    if sorted(names) != sorted(spec.name for spec in served.inputs):
        raise InvalidArgument(
            f"the request has the inputs {shorten(names)}; {bare(served.name)!r} has {_exactly(served.inputs)}"
        )
    for spec, tensor in _paired(served, inputs):
        datatype = datatype_of(bare(served.name), spec).name
        if tensor.datatype != datatype:
            raise InvalidArgument(
                f"the input {tensor.name!r} has the datatype {tensor.datatype[:20]!r}, but {bare(served.name)!r} takes "
                f"{datatype}"
            )
        shape = tensor.shape
        fits = len(shape) == len(spec.shape) and all(
            has == size if size >= 0 else has >= 0 for has, size in zip(shape, spec.shape, strict=True)
        )
        if not fits or (served.is_batched and shape[0] < 1):
            raise InvalidArgument(
                f"the input {tensor.name!r} has the shape {shorten(shape)}, but {bare(served.name)!r} takes "
                f"{list(spec.shape)}{', with at least one row' if served.is_batched else ''}"
            )
    if not served.is_batched:
        return
    rows = [tensor.shape[0] for tensor in inputs]
    if len(set(rows)) > 1:
        raise InvalidArgument(f"the inputs {shorten(names)} have {shorten(rows)} rows; all of them have as many")
    if max(rows, default=0) > served.batching.max_batch_size:
        raise InvalidArgument(
            f"the request has {rows[0]} rows, but the max_batch_size of {bare(served.name)!r} is "
            f"{served.batching.max_batch_size}; split it"
        )


def _check_output(target: _Target, needed: int, request: InferRequest) -> None:
    """Refuse an output of so many bytes that does not fit where it is to be. Raises: InvalidArgument, ServerError."""
    if target.range is not None:
        target.range.check(needed)
    elif target.wanted.is_text:
        datatype = target.datatype
        if not datatype.typecode:
            raise InvalidArgument(
                f"the output {target.spec.name!r} is {datatype.name}, which has no form as numbers; ask for binary_data"
            )
        if needed > request.max_text_bytes:
            raise InvalidArgument(
                f"the output {target.spec.name!r} has {needed} bytes, too many to be written as numbers "
                f"({request.max_text_bytes} are not); ask for binary_data"
            )


def _check_message(size_bytes: int) -> None:
    """Refuse outputs of so many bytes that no message can hold. Raises: InvalidArgument."""
    if size_bytes > MAX_MESSAGE_BYTES - HEADER_BYTES:
        raise InvalidArgument(f"the outputs need {size_bytes} bytes, more than a message can have; ask for fewer rows")


def _paired(served: Served, inputs: Sequence[GivenTensor]) -> list[tuple[Spec, GivenTensor]]:
    """Each input of a request with what the model says of it; their names were checked."""
    specs = {spec.name: spec for spec in served.inputs}
    return [(specs[tensor.name], tensor) for tensor in inputs]


def _known_bytes(served: Served, inputs: Sequence[GivenTensor]) -> dict[str, int]:
    """The bytes of each output for inputs that were checked; 0 where only the model will know its shape."""
    shapes = {tensor.name: tensor.shape for tensor in inputs}
    found = served.output_shapes([shapes[spec.name] for spec in served.inputs])
    return {
        spec.name: 0 if shape is None else math.prod(shape) * datatype_of(bare(served.name), spec).size
        for spec, shape in zip(served.outputs, found, strict=True)
    }


def _exactly(specs: Sequence[Spec]) -> str:
    names = [spec.name for spec in specs]
    return f"exactly one, {names[0]!r}" if len(names) == 1 else f"exactly {len(names)}, {shorten(names)}"


async def _read(source: memoryview | _Range) -> bytes | memoryview:
    if isinstance(source, memoryview):
        return source
    region, part = source.region, source.part
    if part.byte_size > _MAX_INLINE_COPY_BYTES:
        return await region.by_thread(region.read, part.offset, part.byte_size)
    return region.read(part.offset, part.byte_size)


async def _output(target: _Target, shape: tuple[int, ...], data: bytes | memoryview, request: InferRequest) -> Output:
    """An output where it is to be. Raises: InvalidArgument, ServerError where it does not fit."""
    name, datatype = target.spec.name, target.datatype
    _check_output(target, len(data), request)
    if target.range is None:
        return Output(name, datatype, shape, data, None, target.wanted.is_text)
    region, part = target.range.region, target.range.part
    if len(data) > _MAX_INLINE_COPY_BYTES:
        await region.by_thread(region.write, part.offset, data)
    else:
        region.write(part.offset, data)
    return Output(name, datatype, shape, b"", SharedPart(region.name, part.offset, len(data)))
