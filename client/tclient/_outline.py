"""Objects as JSON: what is around the tensors of a file, and what they are the parts of.

An object is a list of nodes that refer to each other by number, so that what is one object comes back as one, also
where it contains itself. Numbers and texts stand for themselves. Of a class there is its name, and what `__reduce_ex__`
tells of the object: arguments and state, which are nodes again. Knows Python and numpy; what a tensor is, the caller
says.
"""

from __future__ import annotations

import base64
import copyreg
import enum
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np

from tclient._codec.device import device
from tclient._codec.dtypes import DTYPES, LAYOUTS, MEMORY_FORMATS, dtype, layout, memory_format
from tclient._codec.size import Size
from tclient._exceptions import TensorTypeError
from tclient._safe_globals import Finder

# The protocol of torch.save.
_PROTOCOL = 2
_PLAIN = (type(None), bool, int, float, str)
_CONSTANTS: dict[str, dict[str, Any]] = {
    "dtype": dict(DTYPES),
    "layout": {each._name: each for each in LAYOUTS.values()},
    "memory_format": {each._name: each for each in MEMORY_FORMATS.values()},
}
# Functions that make objects of data: the only ones that a file has called.
_MAKERS = frozenset(
    (
        ("re", "_compile"),
        ("copyreg", "_reconstructor"),
        ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"),
        ("numpy.random._pickle", "__generator_ctor"),
        ("numpy.random._pickle", "__bit_generator_ctor"),
        ("numpy.random._pickle", "__randomstate_ctor"),
    )
)
# Names that are told apart in a module, and not in its state_dict.
_TABLES = frozenset(("_modules", "_parameters", "_buffers"))
_ARRAY_NAMES = ("numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype")
_SCALAR_NAMES = ("numpy._core.multiarray.scalar", "numpy.dtype")
_MOST_IN_A_KEY = 10_000
_DATA_ONLY = (OrderedDict, Counter)
Path = tuple[str, ...]


class Writer:
    """Makes the nodes of an object.

    Args:
        special: for an object that is the caller's, its node; None for all others. It gets the object, its path, and
            this writer's `value`.
    """

    def __init__(self, special: Callable[[Any, Path, Callable[[Any, Path], Any]], list[Any] | None]) -> None:
        self.nodes: list[Any] = []
        self._special = special
        self._numbers: dict[int, int] = {}
        # The numbers are of objects that live as long as this.
        self._kept: list[Any] = []

    def value(self, obj: Any, path: Path = ()) -> Any:
        """What stands for an object: itself, or in a list the number of its node."""
        if type(obj) in _PLAIN:
            return obj
        number = self._numbers.get(id(obj))
        if number is None:
            number = self._numbers[id(obj)] = len(self.nodes)
            self._kept.append(obj)
            self.nodes.append(None)
            self.nodes[number] = self._node(obj, path)
        return [number]

    def _node(self, obj: Any, path: Path) -> list[Any]:
        kind = type(obj)
        if kind in (list, tuple, set):
            return [kind.__name__, *[self.value(each, (*path, str(i))) for i, each in enumerate(obj)]]
        if kind is dict:
            return ["dict", *self._pairs(obj.items(), path)]
        if kind in (bytes, bytearray):
            return [kind.__name__, base64.b64encode(obj).decode()]
        if kind is complex:
            return ["complex", obj.real, obj.imag]
        if kind is Size:
            return ["size", *[int(each) for each in obj]]
        if kind is device:
            return ["device", str(obj)]
        if kind in (dtype, layout, memory_format):
            return [kind.__name__, obj._name]
        if isinstance(obj, np.generic) and not obj.dtype.hasobject:
            return ["scalar", self._description(obj.dtype), base64.b64encode(obj.tobytes()).decode()]
        if isinstance(obj, np.dtype):
            return ["numpy.dtype", self._description(obj)]
        if isinstance(obj, type | FunctionType | BuiltinFunctionType) or _is_maker(obj):
            return self._name(obj)
        return self._special(obj, path, self.value) or self._object(obj, path)

    def _pairs(self, items: Any, path: Path) -> list[Any]:
        return [part for key, each in items for part in (self.value(key, path), self.value(each, (*path, _key(key))))]

    def _description(self, kind: np.dtype[Any]) -> Any:
        return self.value(np.lib.format.dtype_to_descr(kind))

    def _name(self, obj: Any) -> list[Any]:
        pickle.dumps(obj, _PROTOCOL)  # which says in Python's words why it cannot be found
        return ["name", obj.__module__ or "builtins", obj.__qualname__]

    def _object(self, obj: Any, path: Path) -> list[Any]:
        reduce = copyreg.dispatch_table.get(type(obj))
        told = reduce(obj) if reduce is not None else obj.__reduce_ex__(_PROTOCOL)
        if isinstance(told, str):
            raise TensorTypeError(f"save: {_at(path)} is {told}, which a file cannot name")
        make, args, state, items, pairs = (*told, None, None, None)[:5]
        if make is getattr(copyreg, "__newobj__", None):
            make, how, args = args[0], "new", args[1:]
        elif make is getattr(copyreg, "__newobj_ex__", None):
            make, how, args = args[0], "new", (*args[1], *args[2].values())
        else:
            how = "call"
            if not isinstance(make, type) and not _is_maker(make):
                raise TensorTypeError(
                    f"save: {_at(path)} is a {type(obj).__name__}, which the function {make.__module__}."
                    f"{make.__qualname__} makes, and a file holds data only. Save what it is made of"
                )
        return [
            "object",
            how,
            self.value(make),
            self.value(tuple(args), path),
            None if state is None else self.value(state, path),
            None if items is None else self.value(list(items), path),
            None if pairs is None else self._flat(pairs, path),
        ]

    def _flat(self, pairs: Any, path: Path) -> list[int]:
        number = len(self.nodes)
        self.nodes.append(None)
        self.nodes[number] = ["list", *self._pairs(list(pairs), path)]
        return [number]


def _key(key: Any) -> str:
    return str(key) if isinstance(key, str | int) else type(key).__name__


def named(path: Path) -> str:
    """The name of a tensor at a path; of those in modules that of state_dict()."""
    return ".".join(part for part in path if part not in _TABLES)


def _at(path: Path) -> str:
    return repr(".".join(path)) if path else "the object"


class Reader:
    """Makes the object of nodes again.

    Args:
        nodes: what Writer made, or anything that somebody else wrote.
        find: finds the classes that it names.
        special: makes the objects of the nodes that are the caller's, by their kind.

    Raises: KeyError, IndexError, TypeError, ValueError, AttributeError or RecursionError for what is no outline.
    """

    def __init__(self, nodes: list[Any], find: Finder, special: Mapping[str, Callable[..., Any]]) -> None:
        self._nodes = nodes
        self._find = find
        self._special = special
        self._made: dict[int, Any] = {}
        self._begun: set[int] = set()

    def value(self, said: Any) -> Any:
        """The object that stands there."""
        if not isinstance(said, list):
            return said
        (number,) = said
        if number not in self._made:
            if type(number) is not int or number < 0 or number in self._begun:
                raise ValueError(f"node {number}")
            self._begun.add(number)
            self._make(number, *self._nodes[number])
        return self._made[number]

    def _make(self, number: int, kind: str, *parts: Any) -> None:
        value, made = self.value, self._made
        if kind == "list":
            items: list[Any] = made.setdefault(number, [])
            items.extend(map(value, parts))
        elif kind == "dict":
            pairs: dict[Any, Any] = made.setdefault(number, {})
            for key, each in zip(parts[::2], parts[1::2], strict=True):
                pairs[_hashed(value(key))] = value(each)
        elif kind == "object":
            self._object(number, *parts)
        else:
            made[number] = self._special[kind](*parts) if kind in self._special else self._data(kind, parts)

    def _data(self, kind: str, parts: tuple[Any, ...]) -> Any:
        if kind == "tuple":
            return tuple(map(self.value, parts))
        if kind == "set":
            return {_hashed(self.value(part)) for part in parts}
        if kind in ("bytes", "bytearray"):
            data = base64.b64decode(parts[0], validate=True)
            return data if kind == "bytes" else bytearray(data)
        if kind == "complex":
            return complex(*parts)
        if kind == "size":
            return Size([int(each) for each in parts])
        if kind == "device":
            return _device(parts[0])
        if kind in _CONSTANTS:
            return _CONSTANTS[kind][parts[0]]
        if kind == "name":
            return self._find(*parts)
        if kind == "scalar":
            element = self.numpy_dtype(parts[0], _SCALAR_NAMES)
            return np.frombuffer(base64.b64decode(parts[1], validate=True), element, 1)[0]
        if kind == "numpy.dtype":
            return self.numpy_dtype(parts[0], _SCALAR_NAMES[1:])
        raise ValueError(kind)

    def check(self, name: str) -> None:
        """Raise WeightsOnly unless the file may name this."""
        self._find.check(name)

    def numpy_dtype(self, said: Any, names: tuple[str, ...] = _ARRAY_NAMES) -> np.dtype[Any]:
        """numpy's dtype, for an object that uses these names of numpy's."""
        described = self.value(said)
        element = np.lib.format.descr_to_dtype(described)
        self._find.check(*names, f"numpy.dtypes.{type(element).__name__}")
        if element.hasobject:
            raise ValueError("a dtype of objects")
        return element

    def _object(
        self, number: int, how: str, make: Any, args: Any, state: Any, items: Any = None, pairs: Any = None
    ) -> None:
        made: Any
        kind = self.value(make)
        given = self.value(args)
        if how == "new" and isinstance(kind, type):
            made = kind.__new__(kind, *given)
        elif how == "call" and _may_call(kind):
            made = kind(*given)
        else:
            raise ValueError(f"{kind} is not made of data")
        self._made[number] = made
        for each in self.value(items) or ():
            made.append(each)
        flat = self.value(pairs) or ()
        for key, each in zip(flat[::2], flat[1::2], strict=True):
            made[_hashed(key)] = each
        if state is not None:
            _set_state(made, self.value(state))


def _device(name: Any) -> device:
    try:
        return device(name)
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def _hashed(key: Any) -> Any:
    """A key of a dict, unless it is nested so that hashing it would take for ever."""
    waiting, seen = [key], 0
    while waiting:
        each = waiting.pop()
        seen += 1
        if seen > _MOST_IN_A_KEY:
            raise ValueError("a key of many parts")
        if isinstance(each, tuple):
            waiting += each
    return key


def _is_maker(obj: Any) -> bool:
    return (getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)) in _MAKERS


def _may_call(kind: Any) -> bool:
    """Whether objects of the class, or of the function, say themselves that they are made by a call."""
    if not isinstance(kind, type):
        return _is_maker(kind)
    return (
        issubclass(kind, enum.Enum)
        or kind in copyreg.dispatch_table
        or kind.__reduce_ex__ is not object.__reduce_ex__
        or kind.__reduce__ is not object.__reduce__
    )


def _set_state(made: Any, state: Any) -> None:
    """As pickle does it."""
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
        return
    slots: dict[str, Any] = {}
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state:
        if isinstance(made, _DATA_ONLY) and any(hasattr(type(made), name) for name in state):
            raise ValueError("attributes in the place of methods")
        vars(made).update(state)
    for name, each in (slots or {}).items():
        setattr(made, name, each)


def nested(said: Any, tensors: Mapping[str, Any]) -> Any:
    """What an outline of earlier versions describes: dicts, lists, tuples and numbers within each other.

    Raises: as Reader.
    """
    ((kind, content),) = said.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: nested(value, tensors) for key, value in content}
    if kind in ("list", "tuple"):
        items = [nested(value, tensors) for value in content]
        return tuple(items) if kind == "tuple" else items
    if kind == "value" and not isinstance(content, list | dict):
        return content
    raise ValueError(kind)
