"""Python arguments as Values of the contract.

Everything torch takes as an argument, except callables and what holds memory of this machine. Host data is copied here,
at the time of issue: its owner may change it as soon as the call returns. Knows cells and arrays; sends only uploads.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tclient import _wire
from tclient._bulk import upload
from tclient._cell import cell_value
from tclient._context import MODES
from tclient._device import device
from tclient._dtypes import BY_NUMPY, DTYPES, dtype, layout, memory_format
from tclient._exceptions import TensorOverflowError, TensorTypeError, TensorValueError
from tclient._handle import Handle
from tclient._session import Session
from tclient._size import Size
from tensorcompute.v1 import tensor_pb2 as pb

_MAX_DEPTH = 64
_MOST = (1 << 63) - 1
# Below this many numbers a nested list travels as it is.
_PACK_FROM = 24
# A longer list is searched for numpy's scalars only if it begins with one.
_SCALARS_LIMIT = 1024

Encoder = Callable[[Any, Session], bytes]


class MixedSessions(TensorValueError):
    """Tensors of two sessions in one call."""


def handle_value(value: Handle, session: Session) -> bytes:
    """Something that the session holds: a tensor, a generator, a network."""
    cell = value._cell
    if cell.session is not session:
        raise mixed(cell.session, session)
    return cell_value(cell)


def mixed(one: Session, other: Session) -> MixedSessions:
    """The error for tensors of two sessions in one call."""
    return MixedSessions(
        f"a call takes tensors of one session, but got tensors of two ({one.address} and {other.address}); "
        "bring one over with other.tensor(x.numpy())"
    )


def _integer(value: int, session: Session) -> bytes:
    found = _SMALL.get(value)
    if found is not None:
        return found
    try:
        return _wire.integer_value(value)
    except OverflowError:
        # torch's text for most of its functions; beyond 64 bits nothing travels.
        raise TensorOverflowError("int too big to convert") from None


_SMALL = {number: _wire.integer_value(number) for number in range(-128, 1025)}


def _tuple(value: tuple[Any, ...], session: Session) -> bytes:
    for item in value:
        if item.__class__ is not int or not -(1 << 63) <= item < 1 << 63:
            return _wire.sequence_value([encode(item, session) for item in value], is_tuple=True)
    return _wire.size_value(value)


def _list(value: Sequence[Any], session: Session) -> bytes:
    return _wire.sequence_value([encode(item, session) for item in value], is_tuple=False)


def _slice(value: slice, session: Session) -> bytes:
    return _wire.slice_value(
        *[
            None
            if bound is None
            # Python, too, takes a bound that is too large for "as far as it goes".
            else encode(max(-_MOST - 1, min(bound, _MOST)) if bound.__class__ is int else bound, session)
            for bound in (value.start, value.stop, value.step)
        ]
    )


def _mapping(value: Mapping[Any, Any], session: Session) -> bytes:
    for name in value:
        if not isinstance(name, str):
            raise TensorTypeError(f"a dict that is an argument has string keys, but one is {name!r}")
    return _wire.mapping_value([(name, encode(item, session)) for name, item in value.items()])


def _constant(value: dtype | memory_format | layout, session: Session) -> bytes:
    return value.value


def array_of(value: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], dtype]:
    """A contiguous array and its dtype. Raises what torch raises for arrays it does not take."""
    if not value.dtype.isnative and value.dtype.kind in "iufc":
        raise TensorValueError(
            "given numpy array has byte order different from the native byte order. "
            "Conversion between byte orders is currently not supported."
        )
    kind = BY_NUMPY.get(value.dtype)
    if kind is None:
        raise TensorTypeError(
            f"can't convert np.ndarray of type numpy.{value.dtype.type.__name__}. The only supported types are: "
            "float64, float32, float16, complex64, complex128, int64, int32, int16, int8, uint64, uint32, uint16, "
            "uint8, and bool."
        )
    if any(stride < 0 for stride in value.strides):
        raise TensorValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative strides are not "
            "currently supported. (You can probably work around this by making a copy of your array "
            " with array.copy().) "
        )
    return value if value.flags.c_contiguous else np.ascontiguousarray(value).reshape(value.shape), kind


def _ndarray(value: np.ndarray[Any, Any], session: Session) -> bytes:
    array, kind = array_of(value)
    return host_array(session, pb.HostArray.KIND_NDARRAY, kind, array.shape, array)


def host_array(session: Session, kind: int, element: dtype, shape: Sequence[int], array: np.ndarray[Any, Any]) -> bytes:
    """Value.array of a contiguous array; by Upload if it is too large for a message."""
    flat = array.reshape(-1).view(np.uint8).data if array.size else b""
    # What is recorded is sent again and again, and an upload is used up.
    if array.nbytes <= session.max_inline or MODES.recorder is not None:
        return _wire.array_value(kind, _wire.tensor_data(element.code, shape, flat), uploaded=False)
    return _wire.array_value(kind, upload(session, element.code, shape, flat), uploaded=True)


def _number_of_numpy(value: np.generic, session: Session) -> bytes:
    item = value.item()
    encoder = _ENCODERS.get(item.__class__)
    if encoder is None:
        raise TensorTypeError(f"numpy.{type(value).__name__} cannot be an argument; it has no Python number for it")
    return encoder(item, session)


_ENCODERS: dict[type, Encoder] = {
    int: _integer,
    float: lambda value, session: _wire.number_value(value),
    bool: lambda value, session: _wire.TRUE if value else _wire.FALSE,
    complex: lambda value, session: _wire.complex_value(value),
    str: lambda value, session: _wire.text_value(value),
    type(None): lambda value, session: _wire.NONE,
    type(...): lambda value, session: _wire.ELLIPSIS,
    tuple: _tuple,
    Size: lambda value, session: _wire.size_value(value),
    list: _list,
    range: _list,
    slice: _slice,
    dict: _mapping,
    dtype: _constant,
    memory_format: _constant,
    layout: _constant,
    device: lambda value, session: _wire.field(b"\x52", str(value).encode()),
    np.ndarray: _ndarray,
}

# Python's own types as the dtype of a factory: torch takes them too.
_PYTHON_DTYPES = {float: DTYPES["float64"], int: DTYPES["int64"], bool: DTYPES["bool"], complex: DTYPES["complex128"]}


def register(kind: type, encoder: Encoder) -> None:
    """Another class that can be an argument."""
    _ENCODERS[kind] = encoder


def encode(value: Any, session: Session) -> bytes:
    """The Value of an argument. Raises TypeError for what cannot travel, and what torch raises for bad arrays."""
    encoder = _ENCODERS.get(value.__class__)
    if encoder is None:
        encoder = _encoder_of(value)
    try:
        return encoder(value, session)
    except RecursionError:
        raise TensorValueError("an argument is nested too deeply, or contains itself") from None


def _encoder_of(value: Any) -> Encoder:
    """For classes that are not listed: subclasses, numpy's scalars, torch's own tensors, Python's types as dtypes."""
    if isinstance(value, Handle):
        return handle_value
    if isinstance(value, np.generic):
        return _number_of_numpy
    for kind in (bool, int, float, complex, str, tuple, list, dict, np.ndarray):
        if isinstance(value, kind):
            return _ENCODERS[kind]
    if isinstance(value, type) and value in _PYTHON_DTYPES:
        return lambda kind, session: _PYTHON_DTYPES[kind].value
    torch = sys.modules.get("torch")
    if torch is not None:
        if isinstance(value, torch.Tensor):
            return _torch_tensor
        if isinstance(value, torch.dtype):
            return lambda kind, session: DTYPES[str(kind).removeprefix("torch.")].value
        if isinstance(value, torch.device):
            return lambda where, session: _wire.field(b"\x52", str(where).encode())
    if callable(value):
        raise TensorTypeError(
            f"{_name_of(value)} is a callable, which cannot be sent to the server: no code of a caller runs there"
        )
    if hasattr(value, "__index__"):
        return lambda number, session: _integer(number.__index__(), session)
    raise TensorTypeError(
        f"an argument of type {type(value).__name__} cannot be sent to the server; use tensors, numbers, "
        "strings, dtypes, devices, numpy arrays, and lists, tuples or dicts of them"
    )


def _name_of(value: Any) -> str:
    return getattr(value, "__qualname__", None) or type(value).__name__


def _torch_tensor(value: Any, session: Session) -> bytes:
    """A tensor of torch itself, which happens to be installed here; torch is not imported for it."""
    name = str(value.dtype).removeprefix("torch.")
    element = DTYPES.get(name)
    if element is None:
        raise TensorTypeError(f"a torch tensor of {value.dtype} cannot be sent")
    host = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
    if element.numpy is None:
        host = host.view(sys.modules["torch"].uint8) if host.dim() else host.reshape(1).view(sys.modules["torch"].uint8)
    return host_array(session, pb.HostArray.KIND_TENSOR, element, tuple(value.shape), host.numpy())


# ---- the data argument of tensor(), as_tensor() and their kin -------------------------------------------------------


def encode_data(value: Any, session: Session, wanted: Any = None) -> bytes:
    """As `encode`, for data that becomes a tensor of the dtype wanted: numpy's scalars keep their dtype, large nested
    lists are packed where that gives exactly the same.
    """
    if isinstance(value, np.generic):
        return _ndarray(np.asarray(value), session)
    if isinstance(value, (list, tuple)):
        packed = _pack(value)
        if packed is not None and _same_when_packed(packed[0], wanted):
            array, element = packed
            return host_array(session, pb.HostArray.KIND_SEQUENCE, element, array.shape, array)
        return _data_sequence(value, session, 0)
    if _is_sequence(value):
        return encode_data(list(value), session, wanted)
    return encode(value, session)


def _is_sequence(value: Any) -> bool:
    """Whether torch reads it as a sequence of numbers: an array.array, a deque, a column of a table."""
    kind = type(value)
    return (
        kind not in _ENCODERS
        and not isinstance(value, (Handle, str, bytes, bytearray, Mapping, np.ndarray, type))
        and hasattr(kind, "__len__")
        and hasattr(kind, "__getitem__")
        and not kind.__module__.startswith("torch")
    )


def _same_when_packed(array: np.ndarray[Any, Any], wanted: Any) -> bool:
    """Whether torch makes the same of the array as of the numbers one by one, with the same errors."""
    if wanted is None:
        # A list of complex numbers has the default precision, which only the server knows.
        return bool(array.dtype.kind != "c")
    if not isinstance(wanted, dtype):
        return False
    kind = array.dtype.kind
    if kind == "i" and wanted.itemsize >= 4:
        return wanted is DTYPES["int64"] or (wanted.is_floating_point and bool(np.abs(array).max() < 1 << 52))
    return (kind == "f" and wanted.is_floating_point) or (kind == "c" and wanted.is_complex) or kind == "b"


def dtype_of_numpy_scalars(value: Any) -> dtype | None:
    """The dtype that torch infers for a list with numpy's scalars, which count as themselves; None without them."""
    if not isinstance(value, (list, tuple)) or not value:
        return None
    first: Any = value
    for _ in range(_MAX_DEPTH):
        if isinstance(first, (list, tuple)) and first:
            first = first[0]
    if len(value) > _SCALARS_LIMIT and not isinstance(first, np.generic):
        return None
    numbers: set[np.dtype[Any]] = set()
    if not _gather_dtypes(value, numbers, 0):
        return None
    for wanted in ("cf", "iu", "b"):
        # A float makes every integer beside it a float of that size, as in torch (and not as in numpy).
        ranked = [each for each in numbers if each.kind in wanted]
        if ranked:
            return BY_NUMPY.get(np.result_type(*ranked))
    return None


def _gather_dtypes(value: Sequence[Any], found: set[np.dtype[Any]], depth: int) -> bool:
    """Collects the dtypes of the numbers in a nested list; True if numpy's scalars are among them."""
    scalars = False
    for item in value:
        if isinstance(item, np.generic):
            found.add(item.dtype)
            scalars = True
        elif isinstance(item, (list, tuple)):
            if depth < _MAX_DEPTH:
                scalars |= _gather_dtypes(item, found, depth + 1)
        elif type(item) in _INFERRED:
            found.add(_INFERRED[type(item)])
        else:
            return False
    return scalars


# float and complex: with the default dtype float32, as a list of theirs gives.
_INFERRED = {
    bool: np.dtype("?"),
    int: np.dtype("<i8"),
    float: np.dtype("<f4"),
    complex: np.dtype("<c8"),
}


def _data_sequence(value: Sequence[Any], session: Session, depth: int) -> bytes:
    if depth > _MAX_DEPTH:
        raise TensorValueError(f"data is nested deeper than {_MAX_DEPTH} lists, or contains itself")
    items = [
        _data_sequence(item, session, depth + 1)
        if isinstance(item, (list, tuple)) or _is_sequence(item)
        else encode(item, session)
        for item in value
    ]
    return _wire.sequence_value(items, is_tuple=isinstance(value, tuple))


_PACKED: dict[type, dtype] = {
    float: DTYPES["float64"],
    int: DTYPES["int64"],
    bool: DTYPES["bool"],
    complex: DTYPES["complex128"],
}


def _pack(value: Sequence[Any]) -> tuple[np.ndarray[Any, Any], dtype] | None:
    """A regular nested list of numbers of one Python type as an array; None if it is not one, or a small one."""
    shape = []
    level: Sequence[Any] = value
    while True:
        shape.append(len(level))
        kinds = set(map(type, level))
        if not kinds or len(shape) > _MAX_DEPTH:
            return None
        if not kinds <= {list, tuple}:
            break
        lengths = set(map(len, level))
        if len(lengths) != 1:
            return None
        level = list(itertools.chain.from_iterable(level))
    if len(kinds) != 1 or len(level) < _PACK_FROM:
        return None
    element = _PACKED.get(kinds.pop())
    if element is None:
        return None
    # Each level was counted whole: its length is the product of the sizes up to there.
    sizes = [count // before for before, count in zip([1, *shape], shape, strict=False)]
    try:
        return np.array(level, element.numpy).reshape(sizes), element
    except OverflowError:
        return None
