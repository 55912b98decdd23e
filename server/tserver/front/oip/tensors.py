"""A request for inference and its answer, whatever the wire. Knows neither protobuf nor JSON, nor models.

What a wire form says in ways of its own is the same here: parameters are plain values, elements are bytes, row-major
and little-endian.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tensorcompute.tables import dtypes
from tserver.errors import InvalidArgument, Unimplemented

if TYPE_CHECKING:
    from tserver.engines.port import Spec

# What a message may be at most; clients accept no more either.
MAX_MESSAGE_BYTES = (1 << 31) - 1
# Room in a response for all but the elements.
HEADER_BYTES = 64 << 10

EMPTY_FINAL = "triton_enable_empty_final_response"

Value = bool | int | float | str
Parameters = Mapping[str, Value]


class Datatype(NamedTuple):
    """A datatype of the protocol."""

    name: str
    # The contract's number for it.
    code: int
    size: int
    # f floating, i signed, u unsigned, b bool.
    kind: str
    # Of the module array; empty where numbers of it are bytes only, in every wire form.
    typecode: str


_TYPECODES: dict[str, dict[int, str]] = {
    "b": {1: "B"},
    "f": {4: "f", 8: "d"},
    "i": {1: "b", 2: "h", 4: "i", 8: "q"},
    "u": {1: "B", 2: "H", 4: "I", 8: "Q"},
}

# What numbers are taken for a kind; for all others, whole ones.
_KINDS: dict[str, set[type]] = {"f": {int, float}, "b": {bool}}

DATATYPES = {
    row.oip: Datatype(row.oip, row.code, row.size, row.kind, _TYPECODES[row.kind].get(row.size, ""))
    for row in dtypes.DTYPES
    if row.oip
}
BY_CODE = {datatype.code: datatype for datatype in DATATYPES.values()}


class SharedPart(NamedTuple):
    """A part of a region of shared memory, as a request names it."""

    region: str
    offset: int
    byte_size: int


@dataclass(frozen=True, slots=True)
class GivenTensor:
    """An input of a request, but for its elements."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Parameters

    @property
    def part(self) -> SharedPart | None:
        """Where in shared memory its elements are. Raises: InvalidArgument."""
        return _part(self.parameters)


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output that a request asks for."""

    name: str
    parameters: Parameters
    # Whether its elements are to be numbers in the answer's text, and not bytes.
    is_text: bool = False

    @property
    def part(self) -> SharedPart | None:
        """Where in shared memory its elements are to be. Raises: InvalidArgument."""
        return _part(self.parameters)

    @property
    def classification(self) -> int:
        """How many classes are wanted instead; 0 is the output itself. Raises: InvalidArgument."""
        return number(self.parameters, "classification")


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One request for inference."""

    id: str
    parameters: Parameters
    inputs: Sequence[GivenTensor]
    # None of them is all there are.
    outputs: Sequence[WantedOutput]
    # The elements of each input, None for one in shared memory. Asked for once the inputs are found to be the model's.
    # Raises: InvalidArgument.
    elements: Callable[[], Sequence[memoryview | None]]
    # Whether outputs that are not named are to be text; how many bytes of elements may become text.
    is_text: bool = False
    max_text_bytes: int = 0

    @property
    def priority(self) -> int:
        """The level of its priority; 0 is the usual one. Raises: InvalidArgument."""
        return number(self.parameters, "priority")

    @property
    def timeout_us(self) -> int:
        """How long it may wait; 0 is as long as others. Raises: InvalidArgument."""
        return number(self.parameters, "timeout")

    def check_parameters(self) -> None:
        """Raises: InvalidArgument for one that has a meaning which is not known here."""
        for key in self.parameters:
            if key.startswith("triton_") and key != EMPTY_FINAL:
                raise InvalidArgument(f"the parameter {key[:100]!r} is reserved and not known here; leave it out")


@dataclass(frozen=True, slots=True)
class Output:
    """An output of an answer."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    # None of them where it is in shared memory.
    elements: bytes | memoryview
    part: SharedPart | None = None
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer."""

    model_name: str
    model_version: int
    id: str
    outputs: Sequence[Output] = field(default_factory=tuple)


def datatype_of(model: str, spec: Spec) -> Datatype:
    """The datatype of an input or output. Raises: Unimplemented where the protocol has none."""
    try:
        return BY_CODE[spec.dtype]
    except KeyError:
        raise Unimplemented(
            f"{spec.name!r} of {model!r} is {spec.text()}: the protocol has no datatype for that; use ModelForward of "
            "tensorcompute.v1.ModelService"
        ) from None


def packed(datatype: Datatype, values: Sequence[Any], what: str) -> memoryview:
    """Numbers as elements. Raises: InvalidArgument for what is none of the datatype."""
    if not datatype.typecode:
        raise InvalidArgument(f"{datatype.name} elements have no form as numbers; send them as bytes")
    kinds = _KINDS.get(datatype.kind, {int})
    if not kinds.issuperset(map(type, values)):
        strange = next(value for value in values if type(value) not in kinds)
        raise InvalidArgument(f"{what} has the element {str(strange)[:50]!r}, which is no {datatype.name}")
    try:
        made = array(datatype.typecode, values)
    except OverflowError:
        raise InvalidArgument(f"{what} has an element that is out of the range of {datatype.name}") from None
    if sys.byteorder == "big":
        made.byteswap()
    return memoryview(made).cast("B")


def unpacked(datatype: Datatype, elements: bytes | memoryview) -> list[Any]:
    """Elements as numbers."""
    made = array(datatype.typecode)
    made.frombytes(elements)
    if sys.byteorder == "big":
        made.byteswap()
    return list(map(bool, made)) if datatype.kind == "b" else made.tolist()


def number(parameters: Parameters, key: str) -> int:
    """The value of a parameter that is a number and not negative; 0 if it is not there. Raises: InvalidArgument."""
    value = parameters.get(key, 0)
    if type(value) is int and value >= 0:
        return value
    raise InvalidArgument(f"the parameter {key} is {str(value)[:100]!r}, not a whole number of 0 or more")


def _part(parameters: Parameters) -> SharedPart | None:
    region = parameters.get("shared_memory_region")
    if region is None:
        for key in ("shared_memory_byte_size", "shared_memory_offset"):
            if key in parameters:
                raise InvalidArgument(f"{key} is set, but shared_memory_region is not; set both")
        return None
    if not isinstance(region, str):
        raise InvalidArgument("shared_memory_region is not a text")
    if "shared_memory_byte_size" not in parameters:
        raise InvalidArgument(f"shared_memory_byte_size is missing beside the region {region[:200]!r}")
    return SharedPart(region, number(parameters, "shared_memory_offset"), number(parameters, "shared_memory_byte_size"))


def shorten(values: Sequence[str] | Sequence[int]) -> str:
    """Some of the values, as text: what a caller sends may have millions of them, and each millions of characters."""
    some = [value[:100] if isinstance(value, str) else value for value in values[:20]]
    text = str(some)
    return text if len(text) <= 200 and len(some) == len(values) else f"{text[:200]}… ({len(values)})"
