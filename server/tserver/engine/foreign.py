"""Stand-ins for objects of the caller's program that do not travel: torch takes or refuses them in its own words.

Most of what torch says of a wrong argument is the name of its class, and most of what it takes from an odd one is what
a special method returns. A stand-in has that name, and returns just that; nothing in it is the caller's code. Knows
numpy and the contract.
"""

from __future__ import annotations

import array
import builtins
import functools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.errors import InvalidArgument

_MAX_NAME = 200
_MAX_BIG_BYTES = 4096
# Elements that torch may go through one by one.
_MAX_ELEMENTS = 1 << 20
# Dtypes that hold no Python objects, with the number of bytes or the unit of time; and "O", whose arrays are made here.
_DTYPE = re.compile(r"[<>|=]?(?:[?bBhHiIlLqQefdgFDGSUVmMpP]|[a-zA-Z]\d{1,6})(?:\[\d{0,4}[a-zA-Zμ]{1,3}\])?|\|?O")
_BASES = frozenset({int, float, complex, str, list, tuple, dict, np.ndarray})
_METHODS = frozenset({"__index__", "__int__", "__float__", "__complex__", "__bool__", "__len__"})
_RAISED = frozenset({"__getitem__", "__iter__"})
_PYTHON_TYPES = {torch.float64: float, torch.int64: int, torch.bool: bool, torch.complex128: complex}

# Decodes a value within this one.
Decode = Callable[[pb.Value], Any]


def big_integer(data: bytes) -> int:
    """An int of any size. Raises: InvalidArgument beyond 4 KiB."""
    if len(data) > _MAX_BIG_BYTES:
        raise InvalidArgument(f"an integer has {len(data)} bytes; at most {_MAX_BIG_BYTES} are taken")
    return int.from_bytes(data, "little", signed=True)


def stand_in(value: pb.Foreign, decode: Decode) -> Any:
    """An object of a class of that name. Raises: InvalidArgument for one that cannot be."""
    name = _name(value.type)
    if value.HasField("memory"):
        return _of_memory(name, value, decode)
    base: Any = decode(value.base) if value.HasField("base") else None
    if name == "type":
        return _PYTHON_TYPES.get(base, object) if isinstance(base, torch.dtype) else object
    kind: Any = type(base)
    if base is None:
        kind = object
    elif kind not in _BASES:
        raise InvalidArgument(f"no class is derived from {kind.__name__} here")
    answers = _answers(value, decode)
    if value.HasField("items"):
        answers["items"] = [decode(item) for item in value.items.items]
    if value.HasField("iterated"):
        answers["iterated"] = [decode(item) for item in value.iterated.items]
    if kind is np.ndarray:
        return of_class(name, base)
    made = _class(name, kind, frozenset(answers))
    found = made() if base is None else made(base)
    if answers:
        found._answers = answers
    return found


def _name(name: str) -> str:
    if not name or len(name) > _MAX_NAME or not name.isprintable():
        raise InvalidArgument(
            f"an object has a class named {name[:_MAX_NAME]!r}; a name has 1 to {_MAX_NAME} characters"
        )
    return name


def _answers(value: pb.Foreign, decode: Decode) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for answer in value.answers:
        _take(answer, answers, decode)
    return answers


def _take(answer: pb.Answer, into: dict[str, Any], decode: Decode) -> None:
    method = answer.method
    if answer.raised:
        if method not in _METHODS and method not in _RAISED:
            raise InvalidArgument(f"an answer is for {method[:100]!r}, which is not asked of an object")
        known = getattr(builtins, answer.raised, None)
        kind = known if isinstance(known, type) and issubclass(known, Exception) else RuntimeError
        try:
            into[method] = kind(answer.message)
        except TypeError:  # one that wants more than a text
            into[method] = RuntimeError(answer.message)
        return
    if method not in _METHODS:
        raise InvalidArgument(f"an answer is for {method[:100]!r}, which is not asked of an object")
    into[method] = decode(answer.value)


def _given(method: str) -> Callable[[Any], Any]:
    def answer(self: Any) -> Any:
        found = self._answers[method]
        if isinstance(found, Exception):
            raise found
        return found

    return answer


def _item(self: Any, index: Any) -> Any:
    items = self._answers["items"]
    if isinstance(index, int) and not 0 <= index < len(items):
        raise self._answers.get("__getitem__") or IndexError(index)
    return items[index]


def _iteration(self: Any) -> Iterator[Any]:
    yield from self._answers["iterated"]
    failure = self._answers.get("__iter__")
    if failure is not None:
        raise failure


@functools.lru_cache(maxsize=512)
def _class(name: str, base: type, answers: frozenset[str]) -> type:
    methods: dict[str, Any] = {method: _given(method) for method in answers & _METHODS}
    if "items" in answers:
        methods["__getitem__"] = _item
    if "iterated" in answers:
        methods["__iter__"] = _iteration
    return type(name, () if base is object else (base,), methods)


def _of_memory(name: str, value: pb.Foreign, decode: Decode) -> Any:
    memory = value.memory
    if name in ("bytes", "bytearray"):
        return memory.data if name == "bytes" else bytearray(memory.data)
    elements = _elements(value, decode)
    if name == "memoryview":
        buffer: Any = elements
        return _checked(lambda: memoryview(buffer), memory)
    if name == "array.array":
        return _checked(lambda: array.array(elements.dtype.char, elements.tobytes()), memory)
    if memory.is_scalar:
        found = elements.reshape(-1)[:1]
        if elements.dtype.hasobject or len(found) != 1 or memory.shape:
            raise InvalidArgument(
                f"a scalar of numpy is one element, not {memory.dtype!r} of shape {list(memory.shape)}"
            )
        return found[0]
    return elements if name == "numpy.ndarray" else of_class(name, elements)


def of_class(name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array as an instance of a subclass; of np.matrix it is one, since a row of that is a matrix again."""
    if name == "matrix":
        return array.view(np.matrix)
    return array.view(_class(name, np.ndarray, frozenset()))


def _elements(value: pb.Foreign, decode: Decode) -> np.ndarray[Any, Any]:
    memory = value.memory
    shape = tuple(memory.shape)
    if not _DTYPE.fullmatch(memory.dtype):
        raise InvalidArgument(f"{memory.dtype[:100]!r} is not a dtype of numpy that is taken here")
    if len(shape) > 64 or min(shape, default=0) < 0 or math.prod(shape) > _MAX_ELEMENTS:
        raise InvalidArgument(
            f"an array of numpy has the shape {list(shape)[:100]}; at most {_MAX_ELEMENTS} elements are taken"
        )

    def made() -> np.ndarray[Any, Any]:
        dtype = np.dtype(memory.dtype)
        if dtype.hasobject and value.HasField("items"):
            items = np.empty(len(value.items.items), object)
            for place, item in enumerate(value.items.items):
                items[place] = decode(item)
            return items.reshape(shape)
        if 0 not in shape and (dtype.hasobject or not memory.data):
            # Nobody looks at the elements.
            return np.broadcast_to(np.zeros((), dtype), shape)
        return np.ndarray(shape, dtype, memory.data, memory.offset, tuple(memory.strides))

    found: np.ndarray[Any, Any] = _checked(made, memory)
    return found


def _checked(make: Callable[[], Any], memory: pb.Memory) -> Any:
    try:
        return make()
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidArgument(
            f"{len(memory.data)} bytes are no elements of {memory.dtype!r} and shape {list(memory.shape)}: {error}"
        ) from None
