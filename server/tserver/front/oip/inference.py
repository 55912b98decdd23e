"""One request of the protocol: checked, run, answered.

Elements are views into the request until the model reads them, and views into the outputs until the answer is joined.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from tensorcompute.oip import inference_pb2 as oip
from tserver.errors import InvalidArgument, PermissionDenied, ServerError, Unimplemented
from tserver.front.oip import describe
from tserver.front.oip.regions import Region, Regions
from tserver.front.oip.wire import split_request

if TYPE_CHECKING:
    from tserver.engines.port import ModelManager, ServedModel

Parameters = Mapping[str, oip.InferParameter]

EMPTY_FINAL = "triton_enable_empty_final_response"
FINAL = "triton_final_response"
# What a message may be at most; clients accept no more either.
MAX_MESSAGE_BYTES = (1 << 31) - 1
# Room in a response for all but the elements.
_HEADER_BYTES = 64 << 10
_TYPED = {"FP32": ("fp32_contents", "f"), "FP64": ("fp64_contents", "d")}
# Larger copies from and to shared memory are made by a thread, so that others are served meanwhile.
_MAX_INLINE_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Caller:
    """What is known of who asks."""

    # Whether shared memory of this machine is theirs too.
    is_local: bool
    # A moment of time.monotonic.
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a region."""

    region: Region
    offset: int
    byte_size: int

    def check(self, needed: int) -> None:
        """Refuse an output that does not fit. Raises: ServerError."""
        if self.byte_size < needed:
            raise ServerError(
                f"the output needs {needed} bytes, but its part of the region {self.region.name!r} of shared memory "
                f"has {self.byte_size}"
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: all of it but the elements, and those."""

    header: oip.ModelInferResponse
    raw: list[bytes | memoryview]


def parse(data: bytes) -> tuple[oip.ModelInferRequest, list[memoryview]]:
    """A request and its raw_input_contents. Raises: InvalidArgument."""
    header, raw = split_request(data)
    try:
        return oip.ModelInferRequest.FromString(header), raw
    except DecodeError as error:
        raise InvalidArgument(
            f"the {len(data)} bytes of the request are not an inference.ModelInferRequest: {error}"
        ) from None


def version_of(text: str) -> int:
    """The number of a version; 0 stands for the server's choice. Raises: InvalidArgument."""
    if not text:
        return 0
    if text.isascii() and text.isdecimal() and len(text) < 19 and int(text):
        return int(text)
    raise InvalidArgument(f"the version {text[:100]!r} is not a number from 1 on; leave it empty for the latest")


class Inferences:
    """Runs requests on the models."""

    def __init__(self, models: ModelManager, regions: Regions | None) -> None:
        """Without regions, shared memory is refused."""
        self._models = models
        self._regions = regions

    async def run(self, request: oip.ModelInferRequest, raw: list[memoryview], caller: Caller) -> Answer:
        """The answer to a request. Cancelled, it leaves the queue. Raises: ServerError."""
        version = version_of(request.model_version)
        served = self._models.registry.find(request.model_name, version)
        with ExitStack() as used:
            try:
                priority, timeout_us = _scheduling(request.parameters)
                source = self._source(served, request, raw, caller)
                target = self._target(served, request, caller)
                for each in (source, target):
                    if isinstance(each, Range):
                        used.enter_context(each.region.in_use())
                data = await _read(source)
            except ServerError as error:
                served.statistics.failed(error.reason)
                raise
            if isinstance(source, Range) and not version:
                # The latest version may be another one by now, and this one gone.
                served = self._models.registry.find(request.model_name)
                _check_input(served, request.inputs[0])
            order = self._models.request(served, served.dtype, request.inputs[0].shape, data)
            order.priority, order.timeout_us, order.deadline = priority, timeout_us, caller.deadline
            await self._models.run(served, order)
            assert order.outputs is not None
            return await self._answer(served, request, order.outputs[0], target)

    def answer_bytes(self, request: oip.ModelInferRequest) -> int:
        """About how many bytes the answer will have, should the request be one that can be run."""
        try:
            served = self._models.registry.find(request.model_name, version_of(request.model_version))
        except ServerError:
            return 0
        if any("shared_memory_region" in wanted.parameters for wanted in request.outputs):
            return 0
        rows = request.inputs[0].shape[0] if request.inputs and request.inputs[0].shape else 0
        return max(0, min(rows, served.batching.max_batch_size)) * served.out_bytes

    def _source(
        self, served: ServedModel, request: oip.ModelInferRequest, raw: list[memoryview], caller: Caller
    ) -> memoryview | Range:
        """Where the elements of the input are. Raises: InvalidArgument, NotFound, PermissionDenied."""
        names = [tensor.name for tensor in request.inputs]
        if names != [describe.INPUT]:
            raise InvalidArgument(
                f"the request has the inputs {_shorten(names)}; {served.name!r} has exactly one, {describe.INPUT!r}"
            )
        tensor = request.inputs[0]
        _check_input(served, tensor)
        kept = self._range(tensor.parameters, caller)
        is_typed = tensor.HasField("contents")
        if raw and is_typed:
            raise InvalidArgument("raw_input_contents is set, and contents of an input too; set one of them")
        if kept is not None:
            if is_typed or raw:
                raise InvalidArgument(
                    f"the input {tensor.name!r} is in the region {kept.region.name!r} of shared memory, but the "
                    "request has elements of it too; leave those out"
                )
            needed = tensor.shape[0] * served.in_bytes
            if kept.byte_size != needed:
                # Before it is read: a region may be larger than the memory of the server.
                raise InvalidArgument(
                    f"inputs have {kept.byte_size} bytes in the region {kept.region.name!r}, but the shape "
                    f"{_shorten(tensor.shape)} of {tensor.datatype} needs {needed}"
                )
            return kept
        if is_typed:
            return _typed(tensor)
        if len(raw) != 1:
            raise InvalidArgument(
                f"raw_input_contents has {len(raw)} entries; it has one for each input that is not in shared memory: 1"
            )
        return raw[0]

    def _target(self, served: ServedModel, request: oip.ModelInferRequest, caller: Caller) -> Range | None:
        """Where the output is to be; None is in the response. Raises: as `_source`, ServerError if it does not fit."""
        names = [wanted.name for wanted in request.outputs]
        if names not in ([], [describe.OUTPUT]):
            raise InvalidArgument(
                f"the request asks for the outputs {_shorten(names)}; {served.name!r} has exactly one, "
                f"{describe.OUTPUT!r}"
            )
        kept = None
        for wanted in request.outputs:
            if _number(wanted.parameters, "classification"):
                raise Unimplemented("the classification of outputs is not served; take the output itself")
            kept = self._range(wanted.parameters, caller)
        needed = request.inputs[0].shape[0] * served.out_bytes
        if kept is not None:
            kept.check(needed)
        elif needed > MAX_MESSAGE_BYTES - _HEADER_BYTES:
            raise InvalidArgument(f"the output needs {needed} bytes, more than a message can have; ask for fewer rows")
        return kept

    def _range(self, parameters: Parameters, caller: Caller) -> Range | None:
        """The part of shared memory that a tensor is in. Raises: InvalidArgument, NotFound, PermissionDenied."""
        if "shared_memory_region" not in parameters:
            for key in ("shared_memory_byte_size", "shared_memory_offset"):
                if key in parameters:
                    raise InvalidArgument(f"{key} is set, but shared_memory_region is not; set both")
            return None
        name = parameters["shared_memory_region"]
        if name.WhichOneof("parameter_choice") != "string_param":
            raise InvalidArgument("shared_memory_region is not a string_param")
        region = self.regions(caller.is_local).find(name.string_param)
        if "shared_memory_byte_size" not in parameters:
            raise InvalidArgument(f"shared_memory_byte_size is missing beside the region {name.string_param[:200]!r}")
        size = _number(parameters, "shared_memory_byte_size")
        offset = _number(parameters, "shared_memory_offset")
        region.check(offset, size)
        return Range(region, offset, size)

    def regions(self, is_local: bool) -> Regions:
        """The regions, for a caller who may use them. Raises: PermissionDenied."""
        if self._regions is None:
            raise PermissionDenied(
                "shared memory is not allowed here; start the server with --oip-shared-memory to allow it"
            )
        if not is_local:
            raise PermissionDenied("shared memory is for callers on this machine, through a loopback address")
        return self._regions

    async def _answer(
        self, served: ServedModel, request: oip.ModelInferRequest, elements: bytes | memoryview, target: Range | None
    ) -> Answer:
        response = oip.ModelInferResponse(model_name=served.name, model_version=str(served.version), id=request.id)
        output = response.outputs.add(
            name=describe.OUTPUT,
            datatype=describe.datatype(served),
            shape=(request.inputs[0].shape[0], served.out_features),
        )
        if target is None:
            return Answer(response, [elements])
        target.check(len(elements))
        if len(elements) > _MAX_INLINE_COPY_BYTES:
            await target.region.by_thread(target.region.write, target.offset, elements)
        else:
            target.region.write(target.offset, elements)
        output.parameters["shared_memory_region"].string_param = target.region.name
        output.parameters["shared_memory_offset"].int64_param = target.offset
        output.parameters["shared_memory_byte_size"].int64_param = len(elements)
        # Clients count on an entry for each output, an empty one for those in shared memory.
        return Answer(response, [b""])


async def _read(source: memoryview | Range) -> bytes | memoryview:
    if isinstance(source, memoryview):
        return source
    if source.byte_size > _MAX_INLINE_COPY_BYTES:
        return await source.region.by_thread(source.region.read, source.offset, source.byte_size)
    return source.region.read(source.offset, source.byte_size)


def _check_input(served: ServedModel, tensor: oip.ModelInferRequest.InferInputTensor) -> None:
    """Refuse an input that is none of the model's. Raises: InvalidArgument."""
    if tensor.datatype != describe.datatype(served):
        raise InvalidArgument(
            f"the input {tensor.name!r} has the datatype {tensor.datatype[:20]!r}, but {served.name!r} takes "
            f"{describe.datatype(served)}"
        )
    shape = tensor.shape
    if len(shape) != 2 or shape[1] != served.in_features or shape[0] < 1:
        raise InvalidArgument(
            f"the input {tensor.name!r} has the shape {_shorten(shape)}, but {served.name!r} takes "
            f"[-1, {served.in_features}], with at least one row"
        )
    if shape[0] > served.batching.max_batch_size:
        raise InvalidArgument(
            f"the request has {shape[0]} rows, but the max_batch_size of {served.name!r} is "
            f"{served.batching.max_batch_size}; split it"
        )


def _typed(tensor: oip.ModelInferRequest.InferInputTensor) -> memoryview:
    """Elements from the typed field of a tensor. Raises: InvalidArgument."""
    if tensor.datatype not in _TYPED:
        raise InvalidArgument(f"{tensor.datatype} elements have no typed field; send them in raw_input_contents")
    field, code = _TYPED[tensor.datatype]
    contents = tensor.contents
    elements = contents.fp32_contents if code == "f" else contents.fp64_contents
    if any(each.name != field for each, _ in contents.ListFields()) or not elements:
        raise InvalidArgument(f"{tensor.datatype} elements belong in {field}, and there only")
    packed = array(code, elements)
    if sys.byteorder == "big":
        packed.byteswap()
    return memoryview(packed).cast("B")


def _scheduling(parameters: Parameters) -> tuple[int, int]:
    """The priority and the time in the queue, in microseconds, that a request asks for. Raises: InvalidArgument."""
    for key in parameters:
        if key.startswith("triton_") and key != EMPTY_FINAL:
            raise InvalidArgument(f"the parameter {key[:100]!r} is reserved and not known here; leave it out")
    return _number(parameters, "priority"), _number(parameters, "timeout")


def _number(parameters: Parameters, key: str) -> int:
    """The value of a parameter that is a number and not negative; 0 if it is not there. Raises: InvalidArgument."""
    if key not in parameters:
        return 0
    parameter = parameters[key]
    kind = parameter.WhichOneof("parameter_choice")
    if kind == "int64_param" and parameter.int64_param >= 0:
        return parameter.int64_param
    if kind == "uint64_param":
        return parameter.uint64_param
    raise InvalidArgument(f"the parameter {key} is not an int64_param of 0 or more")


def _shorten(values: Sequence[str] | Sequence[int]) -> str:
    """Some of the values, as text: what a caller sends may have millions of them, and each millions of characters."""
    some = [value[:100] if isinstance(value, str) else value for value in values[:20]]
    text = str(some)
    return text if len(text) <= 200 and len(some) == len(values) else f"{text[:200]}… ({len(values)})"
