"""Python arguments as Values of the contract.

Every object has one: what torch takes as an argument, and what it only refuses. Host data is copied here, at the time
of issue: its owner may change it as soon as the call returns. What is too large for a message is left out of it and
named, to be sent before the call. Knows Python and numpy; sends nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from tclient._codec import foreign as _foreign
from tclient._codec import wire
from tclient._codec.device import device
from tclient._codec.dtypes import BY_NUMPY, DTYPES, dtype, layout, memory_format
from tclient._codec.size import Size
from tclient._exceptions import TensorTypeError, TensorValueError
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire.varint import field

# protobuf reads messages nested up to 100 deep. A list in a list is two levels, and a call is some five; that of a
# program within a call five more.
_MAX_LEVELS = 84
# So deep it is looked for what contains itself, before it doubles on more levels. No step leads past all of them.
_LEVELS_OF_CYCLES = range(12, 15)
# An array whose memory, with all between its elements, is larger than this, and than four times the elements, is sent
# without what is between.
_MAX_GAPS_BYTES = 1 << 20
_GAPS_FACTOR = 4


class Owner(Protocol):
    """Whose ids are given to what is sent by itself."""

    address: str

    def next_id(self) -> int:
        """A new one."""


class Apart(NamedTuple):
    """An array that is too large for a message, and the id under which the message names it."""

    number: int
    dtype_code: int
    shape: Sequence[int]
    memory: memoryview | bytes


class Scope:
    """The arguments of one call: for whom they are encoded, and what of them is to be sent apart, before the call."""

    __slots__ = ("apart", "may_be_odd", "most", "owner")

    def __init__(self, owner: Owner, most: int, *, may_be_odd: bool = False) -> None:
        """An array of more than `most` bytes goes apart. `may_be_odd` is for a call that is waited for."""
        self.owner = owner
        self.most = most
        self.may_be_odd = may_be_odd
        self.apart: list[Apart] = []


# Nothing goes apart: what is recorded is sent again and again, and an upload is used up.
WHOLE = sys.maxsize

Encoder = Callable[[Any, Scope], bytes]


class OddArgument(TensorTypeError):
    """An object that torch hardly takes from anybody: the call is to be waited for, so that it is refused there."""


def _integer(value: int, scope: Scope) -> bytes:
    found = _SMALL.get(value)
    if found is not None:
        return found
    try:
        return wire.integer_value(value)
    except OverflowError:
        return wire.big_integer_value(value)


_SMALL = {number: wire.integer_value(number) for number in range(-128, 1025)}


def _tuple(value: tuple[Any, ...], scope: Scope, depth: int = 0) -> bytes:
    for item in value:
        if item.__class__ is not int or not -(1 << 63) <= item < 1 << 63:
            return wire.sequence_value([_within(item, scope, depth + 2) for item in value], is_tuple=True)
    return wire.size_value(value)


def _list(value: Sequence[Any], scope: Scope, depth: int = 0) -> bytes:
    return wire.sequence_value([_within(item, scope, depth + 2) for item in value], is_tuple=False)


def _slice(value: slice, scope: Scope, depth: int = 0) -> bytes:
    bounds = (value.start, value.stop, value.step)
    return wire.slice_value(*[None if bound is None else _within(bound, scope, depth + 2) for bound in bounds])


def _mapping(value: Mapping[Any, Any], scope: Scope, depth: int = 0) -> bytes:
    for name in value:
        if not isinstance(name, str):
            # No function of torch takes such a dict, nor looks into it.
            return _foreign.foreign_of("dict", wire.mapping_value([]))
    return wire.mapping_value([(name, _within(item, scope, depth + 3)) for name, item in value.items()])


def _other(value: Any, scope: Scope, depth: int = 0) -> bytes:
    if _foreign.is_long_sequence(value):
        return _list(list(value), scope, depth)
    if not scope.may_be_odd and _foreign.is_odd(value):
        raise OddArgument(f"an object of the class {_foreign.class_name(value)} cannot be part of a program")
    return _foreign.foreign(value, depth, lambda inner, levels: _within(inner, scope, levels))


def _within(value: Any, scope: Scope, depth: int) -> bytes:
    """As `encode`, for what is so many levels of messages within an argument."""
    encoder: Any = _ENCODERS.get(value.__class__) or _encoder_of(value)
    if encoder not in _CONTAINERS:
        return encoder(value, scope)  # type: ignore[no-any-return]
    if depth > _MAX_LEVELS or (depth in _LEVELS_OF_CYCLES and contains_itself(value)):
        raise TensorValueError("an argument is nested too deeply, or contains itself")
    return encoder(value, scope, depth)  # type: ignore[no-any-return]


def contains_itself(value: Any) -> bool:
    """Whether lists, tuples and dicts go round in a circle."""
    return _goes_round(value, set(), set())


def _goes_round(value: Any, around: set[int], seen: set[int]) -> bool:
    if not isinstance(value, (list, tuple, dict)) or id(value) in seen:
        return False
    if id(value) in around:
        return True
    around.add(id(value))
    items = value.values() if isinstance(value, dict) else value
    try:
        found = any(_goes_round(item, around, seen) for item in items)
    except RecursionError:
        return True
    around.discard(id(value))
    seen.add(id(value))
    return found


_CONTAINERS = frozenset({_tuple, _list, _slice, _mapping, _other})


def _constant(value: dtype | memory_format | layout, scope: Scope) -> bytes:
    return value.value


def _ndarray(value: np.ndarray[Any, Any], scope: Scope) -> bytes:
    """An array; torch itself refuses what it cannot take."""
    base = np.asarray(value)
    kind = BY_NUMPY.get(base.dtype)
    if kind is None or not base.dtype.isnative or _is_no_tensor(base):
        return _other(value, scope)
    encoded = _laid_out(scope, base, kind)
    # An instance of a subclass, as np.matrix, may not do as arrays do: only what it holds travels.
    return encoded if value.__class__ is np.ndarray else _foreign.foreign_of(_foreign.class_name(value), encoded)


def array_of(value: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], dtype]:
    """A contiguous array and its dtype. Raises TypeError for a dtype that torch does not have."""
    base = np.asarray(value)
    kind = BY_NUMPY.get(base.dtype)
    if kind is None or not base.dtype.isnative:
        raise TensorTypeError(
            f"an array of numpy's dtype {base.dtype} has no tensor; convert it with astype('float32')"
        )
    return np.ascontiguousarray(base).reshape(base.shape), kind


def _is_no_tensor(value: np.ndarray[Any, Any]) -> bool:
    """Whether its strides are negative, or no multiples of the size of an element."""
    size = value.itemsize
    return any(stride < 0 or stride % size for stride in value.strides)


def _laid_out(scope: Scope, value: np.ndarray[Any, Any], kind: dtype) -> bytes:
    """Value.array of an array, with its strides: they become those of the tensor."""
    size = value.itemsize
    strides = tuple([stride // size for stride in value.strides])
    # Without elements numpy and torch have strides of their own.
    if value.size and strides == _dense(value.shape):
        return host_array(scope, pb.HostArray.KIND_NDARRAY, kind, value.shape, value)
    last = sum([(count - 1) * stride for count, stride in zip(value.shape, strides, strict=True)])
    count = last + 1 if value.size else 0
    if count * size > max(_MAX_GAPS_BYTES, _GAPS_FACTOR * value.nbytes):
        return host_array(scope, pb.HostArray.KIND_NDARRAY, kind, value.shape, np.ascontiguousarray(value))
    memory = np.lib.stride_tricks.as_strided(value, (count,), (size,))
    return host_array(scope, pb.HostArray.KIND_NDARRAY, kind, (count,), memory, wire.view(value.shape, strides))


def _dense(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a tensor of this shape whose elements are in order."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(1, size)
    return tuple(reversed(strides))


def host_array(
    scope: Scope,
    kind: int,
    element: dtype,
    shape: Sequence[int],
    array: np.ndarray[Any, Any],
    view: bytes = b"",
) -> bytes:
    """Value.array of the elements of a contiguous array; named, and sent apart, if they are too large for a message.

    Raises: ValueError if the array does not have the bytes of this shape.
    """
    flat = np.asarray(array).reshape(-1).view(np.uint8).data if array.size else b""
    if len(flat) != math.prod(shape) * element.itemsize:
        raise TensorValueError(f"{len(flat)} bytes are no elements of {element} and shape {tuple(shape)}")
    if len(flat) <= scope.most:
        return wire.array_value(kind, wire.tensor_data(element.code, shape, flat), uploaded=False, view=view)
    number = scope.owner.next_id()
    scope.apart.append(Apart(number, element.code, shape, flat))
    return wire.array_value(kind, wire.id_varint(number), uploaded=True, view=view)


def _number_of_numpy(value: np.generic, scope: Scope) -> bytes:
    element = BY_NUMPY.get(value.dtype)
    if element is None:
        return _other(value, scope)
    return wire.array_value(
        pb.HostArray.KIND_NUMBER, wire.tensor_data(element.code, (), value.tobytes()), uploaded=False
    )


_ENCODERS: dict[type, Encoder] = {
    int: _integer,
    float: lambda value, scope: wire.number_value(value),
    bool: lambda value, scope: wire.TRUE if value else wire.FALSE,
    complex: lambda value, scope: wire.complex_value(value),
    str: lambda value, scope: wire.text_value(value),
    type(None): lambda value, scope: wire.NONE,
    type(...): lambda value, scope: wire.ELLIPSIS,
    tuple: _tuple,
    Size: _tuple,
    list: _list,
    slice: _slice,
    dict: _mapping,
    dtype: _constant,
    memory_format: _constant,
    layout: _constant,
    device: lambda value, scope: field(b"\x52", str(value).encode()),
    np.ndarray: _ndarray,
}

# Python's own types as the dtype of a factory: torch takes them too.
PYTHON_DTYPES = {float: DTYPES["float64"], int: DTYPES["int64"], bool: DTYPES["bool"], complex: DTYPES["complex128"]}


# Classes that are arguments with all that are derived from them.
_BASES: list[tuple[type, Encoder]] = []


def register(kind: type, encoder: Encoder, *, derived: bool = False) -> None:
    """Another class that can be an argument, and with `derived` every class that is derived from it."""
    _ENCODERS[kind] = encoder
    if derived:
        _BASES.append((kind, encoder))


def is_remote(value: Any) -> bool:
    """Whether it is of a class that is an argument with all that are derived from it: it has nothing to look into."""
    return any(isinstance(value, kind) for kind, _ in _BASES)


def encode(value: Any, scope: Scope) -> bytes:
    """The Value of an argument. Raises ValueError for one that is nested too deeply, or contains itself."""
    encoder = _ENCODERS.get(value.__class__)
    if encoder is None:
        encoder = _encoder_of(value)
    return encoder(value, scope)


def _encoder_of(value: Any) -> Encoder:
    """For classes that are not listed: subclasses, numpy's scalars, torch's own tensors, whatever there is."""
    for base, encoder in _BASES:
        if isinstance(value, base):
            return encoder
    if isinstance(value, np.generic):
        return _number_of_numpy
    if isinstance(value, np.ndarray):
        return _ndarray
    if isinstance(value, type) and value in PYTHON_DTYPES:
        return lambda kind, scope: _foreign.foreign_of("type", PYTHON_DTYPES[kind].value)
    torch = sys.modules.get("torch")
    if torch is not None:
        if isinstance(value, torch.Tensor):
            return _torch_tensor
        if isinstance(value, torch.dtype) and str(value).removeprefix("torch.") in DTYPES:
            return lambda kind, scope: DTYPES[str(kind).removeprefix("torch.")].value
        if isinstance(value, torch.device):
            return lambda where, scope: field(b"\x52", str(where).encode())
        if isinstance(value, torch.Size):
            return _tuple
    return _other


def _torch_tensor(value: Any, scope: Scope) -> bytes:
    """A tensor of torch itself, which happens to be installed here; torch is not imported for it."""
    torch = sys.modules["torch"]
    name = str(value.dtype).removeprefix("torch.")
    element = DTYPES.get(name)
    if element is None or value.layout is not torch.strided:
        raise TensorTypeError(f"a torch tensor of {value.dtype} and layout {value.layout} cannot be sent")
    host = value.detach().resolve_conj().resolve_neg().cpu()
    strides = tuple(host.stride())
    count = (
        sum((size - 1) * stride for size, stride in zip(host.shape, strides, strict=True)) + 1 if host.numel() else 0
    )
    if strides == _dense(host.shape) or count > _GAPS_FACTOR * host.numel():
        shape, view, memory = tuple(host.shape), b"", host.contiguous()
    else:
        shape, view, memory = (count,), wire.view(host.shape, strides), host.as_strided((count,), (1,))
    flat = memory.reshape(-1).view(torch.uint8).numpy() if memory.numel() else np.empty(0, np.uint8)
    return host_array(scope, pb.HostArray.KIND_TENSOR, element, shape, flat, view)
