"""The data of tensor(), as_tensor(), asarray(), new_tensor(): long nested lists as arrays, where that gives the same.

torch looks at every number of a list, and so does this, with loops that run in C; what has fewer numbers, or others,
travels as it is, and torch looks at it. Knows Python's and numpy's numbers, and how torch infers a dtype from them.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tclient._caller import caller
from tclient._codec import foreign as _foreign
from tclient._codec.dtypes import BY_NUMPY, DTYPES, dtype
from tclient._codec.values import PYTHON_DTYPES, Scope, contains_itself, encode, host_array, is_remote, register
from tclient._exceptions import TensorBufferError, TensorTypeError, TensorValueError
from tensorcompute.v1 import tensor_pb2 as pb

# Below this many numbers a list travels as it is, unless it is nested so deeply that messages could not hold it.
_PACK_FROM = 24
_DEEP = 16
_MAX_DIMS = 64

Array = np.ndarray[Any, Any]
# The numbers, and the dtype that torch infers; None where that is the default one for such numbers, or is given.
Packed = tuple[Array, dtype | None]
# Asked only where it is needed: it may have to wait.
Asked = Callable[[], dtype]


def encode_data(value: Any, scope: Scope, wanted: Any, default: Asked) -> tuple[bytes, dtype | None]:
    """The Value of data that becomes a tensor of the dtype wanted (None: inferred; or a function that tells), and the
    dtype to ask for with it, if it has to be named.
    """
    kind = value.__class__
    shown: list[Any] | None = None
    given = value
    if kind is not list and kind is not tuple:
        value, shown = _read(value, wanted)
        kind = value.__class__
    if wanted is None and "ml_dtypes" in sys.modules:
        refuse_foreign(value)
    if kind is list or kind is tuple:
        packed = _pack(value, shown, wanted, default)
        if packed is not None:
            array, inferred = packed
            element = BY_NUMPY[array.dtype]
            return host_array(scope, pb.HostArray.KIND_SEQUENCE, element, array.shape, array), inferred
    return encode(value if shown is None else given, scope), None


def refuse_foreign(value: Any, depth: int = 0) -> None:
    """Raises what torch raises for numbers and arrays of a dtype that came to numpy from elsewhere: it is not there."""
    if isinstance(value, (np.generic, np.ndarray)):
        if _foreign.is_foreign_dtype(value.dtype):
            raise TensorTypeError(
                f"can't convert np.ndarray of type {_foreign.class_name(value.dtype.type(0))}. The only supported "
                "types are: float64, float32, float16, complex64, complex128, int64, int32, int16, int8, uint64, "
                "uint32, uint16, uint8, and bool."
            )
    elif isinstance(value, (list, tuple)) and depth < _DEEP:
        for item in value:
            if isinstance(item, (np.generic, np.ndarray, list, tuple)):
                refuse_foreign(item, depth + 1)
    elif not depth and not (is_remote(value) or isinstance(value, (str, bytes))) and _foreign.is_sequence(value):
        try:
            items = [value[place] for place in range(min(len(value), _PACK_FROM))]
        except Exception:
            return
        refuse_foreign(items, 1)


def is_torch_array(value: Any) -> bool:
    """Whether it is an array of a dtype that torch has."""
    return isinstance(value, np.ndarray) and value.dtype in BY_NUMPY and value.dtype.isnative


def warn_if_read_only(value: Any) -> None:
    """Warns as torch does, once in a program, of an array that the tensor could not share."""
    global _has_warned
    if _has_warned or not isinstance(value, np.ndarray) or value.flags.writeable:
        return
    _has_warned = True
    frame = caller()
    warnings.warn_explicit(_READ_ONLY, UserWarning, frame.f_code.co_filename, frame.f_lineno)


_has_warned = False
_READ_ONLY = (
    "The given NumPy array is not writable, and PyTorch does not support non-writable tensors. This means writing to "
    "this tensor will result in undefined behavior. You may want to copy the array to protect its data or make it "
    "writable before converting it to a tensor. This type of warning will be suppressed for the rest of this program."
)


def _read(value: Any, wanted: Any) -> tuple[Any, list[Any] | None]:
    """A long sequence of any class as a list, an object that lends its memory as an array; anything else as it is.

    Of such a sequence torch infers the dtype from the items as they come by their numbers, and stores what iteration
    gives: they are not the same in a column of pandas. The former are the second result, where they matter.
    """
    if isinstance(value, np.ndarray):
        refuse_foreign(value)
    if isinstance(value, (np.ndarray, np.generic, str, bytes)) or is_remote(value):
        return value, None
    if isinstance(value, (list, tuple)):
        # torch takes the items as C has them, whatever methods the class has.
        kind: Any = list if isinstance(value, list) else tuple
        return (kind(kind.__iter__(value)) if len(value) >= _PACK_FROM else value), None
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return value, None
    if hasattr(value, "__dlpack__") and not isinstance(value, type):
        try:
            return np.from_dlpack(value), None
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise TensorBufferError(str(error)) from None
    if not _foreign.is_sequence(value):
        return value, None
    last = _foreign.endless(value)
    if last is not None:
        raise TensorValueError(f"too many dimensions '{last}'")
    try:
        count = len(value)
        if count < _PACK_FROM:
            return value, None
        _ = value[0]  # without which it has no shape
        stored = list(itertools.islice(value, count + 1))
        shown = None
        if wanted is None and not isinstance(value, (range, bytearray)):
            shown = [value[place] for place in range(count)]
    except Exception:
        return value, None
    return (stored, shown) if len(stored) == count else (value, None)


def buffer_of(value: Any, wanted: Any, default: Asked) -> Any:
    """What asarray() makes of an object that lends its bytes: they are elements of the dtype, one after the other.

    Raises: ValueError if they are none, as torch does.
    """
    if isinstance(value, (np.ndarray, np.generic, list, tuple, str, int, float)) or is_remote(value):
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return value
    try:
        memory = memoryview(value)
    except TypeError:
        return value
    element = _as_dtype(wanted) if wanted is not None else default()
    if element is None:
        return value
    count = memory.nbytes
    if not count:
        raise TensorValueError(f"both buffer length ({count}) and count (-1) must not be 0")
    if count % element.itemsize:
        raise TensorValueError(
            f"buffer length ({count} bytes) after offset (0 bytes) must be a multiple of element size "
            f"({element.itemsize})"
        )
    raw = np.frombuffer(memory.tobytes(), np.uint8)
    return raw.view(element.numpy) if element.numpy is not None else Bits(raw, element)


def has_memory(value: Any) -> bool:
    """Whether asarray() could share the memory of what `buffer_of` gave: torch asks before it looks at a sequence."""
    torch = sys.modules.get("torch")
    return (
        isinstance(value, (np.ndarray, np.generic, Bits))
        or is_remote(value)
        or (torch is not None and isinstance(value, torch.Tensor))
    )


class Bits:
    """Elements of a dtype that numpy does not have, in one dimension."""

    def __init__(self, raw: Array, element: dtype) -> None:
        self.raw, self.element = raw, element


register(
    Bits,
    lambda value, scope: host_array(
        scope, pb.HostArray.KIND_TENSOR, value.element, (value.raw.size // value.element.itemsize,), value.raw
    ),
)


def _as_dtype(wanted: Any) -> dtype | None:
    found = wanted if isinstance(wanted, dtype) else None
    if found is None:
        found = (
            PYTHON_DTYPES.get(wanted) if isinstance(wanted, type) else DTYPES.get(str(wanted).removeprefix("torch."))
        )
    return found


# ---- packing --------------------------------------------------------------------------------------------------------


def _pack(value: Sequence[Any], shown: list[Any] | None, wanted: Any, default: Asked) -> Packed | None:
    """A regular nested list of numbers as an array that gives the same; None if there is none, or it is small."""
    found = _flat(value)
    if found is None:
        return None
    level, kinds, sizes = found
    if callable(wanted) and not isinstance(wanted, type):
        wanted = wanted()
    try:
        if kinds == {np.ndarray}:
            return _pack_arrays(level, sizes, wanted)
        if wanted is not None:
            packed = _converted(level, kinds, _as_dtype(wanted))
        elif shown is None or len(shown) != len(level):
            packed = _inferred(level, kinds, default)
        else:
            packed = _inferred(shown, set(map(type, shown)), default)
            packed = packed and (np.array(level, packed[0].dtype), packed[1])
    except (OverflowError, TypeError, ValueError):
        # torch finds the same, in its own words.
        return None
    if packed is None:
        return None
    array, inferred = packed
    return array.reshape(sizes), inferred


def _flat(value: Sequence[Any]) -> tuple[list[Any], set[type], list[int]] | None:
    """The numbers, their classes, and the sizes of the lists around them."""
    counts = []
    level: Sequence[Any] = value
    while True:
        counts.append(len(level))
        kinds = set(map(type, level))
        if not kinds or len(counts) > _MAX_DIMS or (len(counts) == _DEEP and contains_itself(value)):
            return None
        if not kinds <= {list, tuple}:
            break
        if len(set(map(len, level))) != 1:
            return None
        level = list(itertools.chain.from_iterable(level))
    if len(level) < _PACK_FROM and len(counts) < _DEEP and kinds != {np.ndarray}:
        return None
    # Each level was counted whole: its length is the product of the sizes up to there.
    return list(level), kinds, [count // before for before, count in zip([1, *counts], counts, strict=False)]


def _pack_arrays(arrays: list[Array], sizes: list[int], wanted: Any) -> Packed | None:
    """A list of arrays of one dtype and shape: torch goes through their elements one by one."""
    first = arrays[0]
    total = first.size * len(arrays)
    if not first.ndim or total < _PACK_FROM or first.dtype not in BY_NUMPY or len({each.shape for each in arrays}) > 1:
        return None
    if len({each.dtype for each in arrays}) > 1:
        return None
    array = np.stack(arrays).reshape([*sizes, *first.shape])
    if wanted is None:
        return None if array.dtype == np.uint64 else (array, BY_NUMPY[first.dtype])
    element = _as_dtype(wanted)
    is_real = element is not None and (element.is_floating_point or element.is_complex)
    if element is None or element is DTYPES["uint64"] or not (is_real or first.dtype.kind in "iu"):
        return None
    found = _stored(array, element)
    return None if found is None else (found, None)


def _inferred(numbers: list[Any], kinds: set[type], default: Asked) -> Packed | None:
    """The numbers, and the dtype that torch infers of all: floats before integers before bools, and the largest."""
    known = {kind: _dtype_of(kind) for kind in kinds}
    # To numpy, None is a dtype, and equal to float64.
    if any(each is None for each in known.values()):
        return None
    of_python = {kind for kind in kinds if not issubclass(kind, np.generic)}
    if of_python == kinds:
        letters = {known[kind].kind for kind in kinds}  # type: ignore[union-attr]
        letter = next(each for each in "cfib" if each in letters)
        return np.array(numbers, _WIDEST[letter]), None
    found: set[np.dtype[Any]] = {each for kind, each in known.items() if kind not in of_python and each is not None}
    if any(issubclass(kind, (float, complex)) for kind in of_python):
        usual = default()
        if usual.numpy is None:
            return None
        found |= {usual.numpy} if any(issubclass(kind, float) for kind in of_python) else set()
        found |= {usual.to_complex().numpy} if any(issubclass(kind, complex) for kind in of_python) else set()  # type: ignore[arg-type]
    found |= {
        np.dtype("?") if issubclass(kind, bool) else np.dtype("<i8") for kind in of_python if issubclass(kind, int)
    }
    ranked = next(filter(None, [[each for each in found if each.kind in rank] for rank in ("cf", "iu", "b")]))
    if len(found) > 1 and any(each in _UNPROMOTED for each in found):
        return None
    result = np.result_type(*ranked)
    if result == np.uint64 or (result.kind in "iu" and np.bool_ in kinds):
        # torch stores numpy's own as little as any other number of numpy's, and says so.
        return None
    wide = _WIDEST.get(result.kind, result)
    with np.errstate(all="ignore"):
        return np.array(numbers, wide).astype(result), BY_NUMPY[result]


_WIDEST = {"c": np.dtype("<c16"), "f": np.dtype("<f8"), "i": np.dtype("<i8"), "b": np.dtype("?")}
# torch does not promote these among each other: it says so.
_UNPROMOTED = frozenset(map(np.dtype, ("<u2", "<u4", "<u8")))


def _dtype_of(kind: type) -> np.dtype[Any] | None:
    """The dtype of the numbers of a class, in numpy's eyes; None for what is no number, or no plain one."""
    if issubclass(kind, np.generic):
        known = np.dtype(kind) if kind.__module__ == "numpy" else None
        return known if known in BY_NUMPY else None
    return next((each for python, each in _OF_PYTHON if issubclass(kind, python)), None)


_OF_PYTHON: tuple[tuple[type, np.dtype[Any]], ...] = (
    (bool, np.dtype("?")),
    (int, np.dtype("<i8")),
    (float, np.dtype("<f8")),
    (complex, np.dtype("<c16")),
)


# numpy's numbers that Python, and so torch, does not take for an integer. For uint64 torch takes Python's alone.
_NO_INTEGERS = (np.bool_, np.float16, np.float32)


def _converted(numbers: list[Any], kinds: set[type], wanted: dtype | None) -> Packed | None:
    """The numbers in an array whose conversion to the dtype is what torch does with each; None where it may raise."""
    known = {_dtype_of(kind) for kind in kinds}
    if wanted is None or any(each is None for each in known):
        return None
    refused = np.generic if wanted is DTYPES["uint64"] else _NO_INTEGERS
    if not wanted.is_floating_point and not wanted.is_complex and any(issubclass(kind, refused) for kind in kinds):
        return None
    letters = {each.kind for each in known if each is not None}
    letter = next(each for each in "cfiub" if each in letters)
    array = np.array(numbers, _WIDEST.get(letter, np.dtype("<u8")))
    found = _stored(array, wanted)
    return None if found is None else (found, None)


def _stored(array: Array, wanted: dtype) -> Array | None:
    """The array, if torch stores its numbers one by one as it converts the whole; else None."""
    kind = array.dtype.kind
    if wanted.is_complex:
        return array
    if wanted.is_floating_point:
        return None if kind == "c" else array
    if wanted is DTYPES["bool"]:
        return array
    if kind == "b":
        return array
    if kind == "c" or wanted.numpy is None:
        return None
    if kind == "f" and (wanted is DTYPES["uint64"] or not np.isfinite(array).all()):
        return None
    limits = np.iinfo(wanted.numpy)
    low, high = array.min(), array.max()
    if kind == "f":
        # A float keeps every integer up to here.
        return array if max(limits.min, -(2.0**53)) <= low and high <= min(limits.max, 2.0**53) else None
    return array if limits.min <= int(low) and int(high) <= limits.max else None
