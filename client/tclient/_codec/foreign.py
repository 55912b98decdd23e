"""Objects that are no Value of the contract: what torch would see in them, so that it takes or refuses them itself.

Sent is the name of the class, and what the special methods return that torch asks. Everything here runs when a call is
issued, on objects of the caller; what they raise is told to torch, not to the caller. Knows Python and numpy.
"""

from __future__ import annotations

import array
import ctypes
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tclient._codec import wire
from tensorcompute.wire.varint import field, varint

# Encodes a value within another one, so many levels of messages deep.
Encode = Callable[[Any, int], bytes]

# What torch may ask of an object that is no number: https://github.com/pytorch/pytorch/blob/main/torch/csrc/utils/python_numbers.h
_NUMBER_METHODS = ("__index__", "__int__", "__float__", "__complex__", "__bool__")
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__index__),
    (float, float.__float__),
    (complex, complex.__complex__),
    (str, str.__str__),
    (list, lambda value: list(list.__iter__(value))),
    (tuple, lambda value: tuple(tuple.__iter__(value))),
    (dict, lambda value: {}),
)
# A longer sequence goes as a list.
_MAX_ITEMS = 4096
_MAX_LISTED = 1 << 26
# What torch follows the first items of a sequence for.
_MAX_DIMS = 128
# Elements that torch only names, but for nested ones, need not travel when they are many.
_MAX_MEMORY_BYTES = 1 << 16
# Levels of messages from one Foreign to the values in it.
LEVELS = 3

_is_sequence = ctypes.pythonapi.PySequence_Check
_is_sequence.argtypes = [ctypes.py_object]
_is_sequence.restype = ctypes.c_int


def is_sequence(value: Any) -> bool:
    """Whether it has items by number, as CPython sees it: torch asks CPython."""
    return bool(_is_sequence(value))


def is_long_sequence(value: Any) -> bool:
    """Whether it has more items than travel with its name: an index of thousands, of a class of its own."""
    if isinstance(value, (str, bytes, bytearray, list, tuple, np.ndarray, np.generic)) or not is_sequence(value):
        return False
    try:
        return _MAX_ITEMS < len(value) < _MAX_LISTED and endless(value) is None
    except Exception:
        return False


def is_odd(value: Any) -> bool:
    """Whether torch has hardly a use for it: it is no number, sequence or array, nor of a class derived from one."""
    if isinstance(value, (int, float, complex, str, list, tuple, dict, np.ndarray, np.generic)):
        return False
    return isinstance(value, bytes) or not (hasattr(type(value), "__index__") or is_sequence(value))


def endless(value: Any) -> str | None:
    """The class of the last item that torch follows, of a sequence with more dimensions than any tensor; else None.

    One that is its own first item is such a one. So is every text, which torch itself gets to see.
    """
    for _ in range(_MAX_DIMS):
        if not is_sequence(value) or isinstance(value, (np.generic, str)):
            return None
        try:
            if not len(value):
                return None
            value = value[0]
        except Exception:
            return None
    return class_name(value)


def class_name(value: Any) -> str:
    """The name of an object's class, as CPython's messages give it: with the module for one that is written in C."""
    return _name_of(type(value), value)


def _name_of(kind: type, value: Any) -> str:
    found = _names.get(kind)
    if found is None:
        # There is no attribute with that name; but these two quote it, whatever methods the class has.
        refuse: Any = list.__add__ if issubclass(kind, str) else str.__add__
        try:
            refuse([] if issubclass(kind, str) else "", value)
            found = kind.__name__
        except TypeError as error:
            quoted = re.search(r'\(not "(.*)"\)', str(error), re.DOTALL)
            found = quoted[1] if quoted else kind.__name__
        if len(_names) > 4096:
            _names.clear()
        _names[kind] = found = found[:200] if found.isprintable() and found else "object"
    return found


_names: dict[type, str] = {}


def foreign(value: Any, depth: int, encode: Encode) -> bytes:
    """The Value of an object that is no other."""
    parts = [field(b"\x0a", class_name(value).encode(errors="replace"))]
    inner = depth + LEVELS
    if isinstance(value, np.generic):
        if is_foreign_dtype(value.dtype):
            parts += _answers(value, inner, encode)
        else:
            parts.append(_memory(np.asarray(value), is_scalar=True))
    elif isinstance(value, (bytes, bytearray, memoryview, array.array)):
        parts.append(_buffer(value))
    elif isinstance(value, np.ndarray):
        parts += _array(value, inner, encode)
    else:
        base = next((plain(value) for kind, plain in _BASES if isinstance(value, kind)), None)
        if base is not None:
            parts.append(field(b"\x12", encode(base, inner)))
        elif not isinstance(value, type):
            parts += _answers(value, inner, encode)
    return field(b"\xda\x01", b"".join(parts))


def foreign_of(name: str, base: bytes) -> bytes:
    """The Value of an instance of a class of that name, which is derived from that of another value."""
    return field(b"\xda\x01", field(b"\x0a", name.encode(errors="replace")) + field(b"\x12", base))


def _answers(value: Any, depth: int, encode: Encode) -> list[bytes]:
    kind = type(value)
    parts = []
    sequence = is_sequence(value) and not isinstance(value, np.generic)
    for method in ("__index__", "__len__") if sequence else _NUMBER_METHODS:
        call = getattr(kind, method, None)
        if call is not None:
            try:
                answer = call(value)
                told = field(b"\x12", encode(answer, depth))
            except Exception as error:
                told = _raised(error)
            parts.append(field(b"\x1a", field(b"\x0a", method.encode()) + told))
    if sequence:
        parts += _items(value, depth, encode)
    elif hasattr(kind, "__len__"):
        # A set or the like: where torch wants a sequence, it takes what iteration gives.
        parts += _iterated(value, _MAX_ITEMS, depth, encode)
    return parts


def _items(value: Any, depth: int, encode: Encode) -> list[bytes]:
    try:
        count = min(len(value), _MAX_ITEMS)
    except Exception:
        count = 0
    # Not the same: the length of a table is that of its rows, and iteration gives its columns.
    most = _MAX_ITEMS
    if count and endless(value) is not None:
        count = most = 0
    parts = []
    items: list[Any] = []
    try:
        while len(items) <= count and count:
            items.append(value[len(items)])
    except Exception as error:
        parts.append(field(b"\x1a", field(b"\x0a", b"__getitem__") + _raised(error)))
    parts.append(field(b"\x22", _sequence(items, depth, encode)))
    return parts + _iterated(value, most, depth, encode)


def _iterated(value: Any, most: int, depth: int, encode: Encode) -> list[bytes]:
    if not hasattr(type(value), "__iter__"):
        return []
    parts = []
    iterated: list[Any] = []
    try:
        for item in value:
            iterated.append(item)
            if len(iterated) > most:
                break
    except Exception as error:
        parts.append(field(b"\x1a", field(b"\x0a", b"__iter__") + _raised(error)))
    return [*parts, field(b"\x2a", _sequence(iterated, depth, encode))]


def _sequence(items: Iterable[Any], depth: int, encode: Encode) -> bytes:
    return b"".join([field(b"\x0a", encode(item, depth)) for item in items])


def _raised(error: Exception) -> bytes:
    kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == "builtins")
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return field(b"\x1a", kind.encode()) + field(b"\x22", text[:1000].encode(errors="replace"))


# ---- memory ---------------------------------------------------------------------------------------------------------


def _buffer(value: Any) -> bytes:
    if not isinstance(value, memoryview):
        value = memoryview(value)
    if value.nbytes > _MAX_MEMORY_BYTES or not value.c_contiguous:
        value = memoryview(b"")
    try:
        elements = np.asarray(value)
    except (TypeError, ValueError):
        elements = np.empty(0, np.uint8)
    return _memory(elements)


def _array(value: np.ndarray[Any, Any], depth: int, encode: Encode) -> list[bytes]:
    """An array of which torch has no dtype, or that lies in memory as no tensor can."""
    base = np.asarray(value)
    if is_foreign_dtype(base.dtype) and base.size <= _MAX_ITEMS:
        # As objects: an element that is taken out of it is one of those, with its name and its value.
        numbers = np.empty(base.size, object)
        for place, number in enumerate(base.reshape(-1)):
            numbers[place] = number
        base = numbers.reshape(base.shape)
    if base.dtype != object or base.size > _MAX_ITEMS:
        return [_memory(base)]
    return [_memory(base), field(b"\x22", _sequence(base.reshape(-1).tolist(), depth, encode))]


def _memory(base: np.ndarray[Any, Any], *, is_scalar: bool = False) -> bytes:
    kind = base.dtype
    name = (
        f"V{kind.itemsize}"
        if is_foreign_dtype(kind) or kind.names is not None or kind.subdtype is not None
        else kind.str
    )
    data, offset = b"", 0
    if not kind.hasobject and base.size:
        span = span_of(base)
        if span.nbytes > _MAX_MEMORY_BYTES:
            return _memory(base[(slice(1),) * base.ndim].copy())
        data = span.tobytes()
        offset = base.__array_interface__["data"][0] - span.__array_interface__["data"][0]
    elif base.size > _MAX_ITEMS:
        return _memory(base[(slice(1),) * base.ndim])
    body = field(b"\x0a", name.encode())
    body += field(b"\x12", b"".join(map(wire.signed, base.shape))) if base.shape else b""
    body += field(b"\x1a", b"".join(map(wire.zigzag, base.strides))) if base.shape else b""
    body += b"\x20" + varint(offset) + field(b"\x2a", data) + (b"\x30\x01" if is_scalar else b"")
    return field(b"\x32", body)


def is_foreign_dtype(kind: np.dtype[Any]) -> bool:
    """Whether a package beside numpy brought the dtype, as ml_dtypes does."""
    return not issubclass(kind.type, np.void) and kind.type.__module__ != "numpy"


class _Span:
    """The memory of an array, from its lowest byte to its highest, in numpy's protocol."""

    def __init__(self, of: np.ndarray[Any, Any], start: int, size: int) -> None:
        self._of = of
        self.__array_interface__ = {"version": 3, "data": (start, True), "shape": (size,), "typestr": "|u1"}


def span_of(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The memory of an array that has elements, as bytes: from its lowest to its highest."""
    steps = [(size - 1) * stride for size, stride in zip(value.shape, value.strides, strict=True)]
    start = value.__array_interface__["data"][0] + sum(step for step in steps if step < 0)
    return np.asarray(_Span(value, start, sum(map(abs, steps)) + value.itemsize))
