"""Reads the pickles that torch.save writes, without running them.

A pickle is a program. Here its instructions are gone through one by one, and those are known that build data: numbers,
texts, containers, and calls of a fixed table of names, none of which is looked up anywhere. Whatever else a file asks
for is refused by name. Pure: knows bytes; what a name of the table makes is the caller's.
"""

from __future__ import annotations

import collections
import io
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

Makers = Mapping[str, Callable[..., Any]]


class Refused(Exception):
    """Why a pickle is not read."""


class NotAllowed(Refused):
    """It uses a class or function that is none of the table."""

    def __init__(self, name: str) -> None:
        super().__init__(f"it uses {name!r}, and only tensors, numbers, texts and containers are read")
        self.name = name


class Name:
    """A name that a pickle uses, as it stands in the table."""

    __slots__ = ("make", "text")

    def __init__(self, text: str, make: Callable[..., Any] | None) -> None:
        self.text, self.make = text, make


class Constant:
    """A name of the table that stands for a value."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, *args: Any) -> Any:
        raise Refused("it calls what is no function")


# At most so many instructions: each costs more memory than its byte in the file.
MAX_INSTRUCTIONS = 10_000_000


def read(data: bytes, names: Makers, find: Callable[[Any], Any]) -> Any:
    """The object of a pickle.

    Args:
        data: the pickle; what comes after its end is not looked at.
        names: what is made by a call of a name, such as "torch._utils _rebuild_tensor_v2"; Constant for values.
        find: what stands for a persistent id.

    Raises: Refused.
    """
    try:
        return _run(data, {**_BUILTIN, **names}, find)
    except Refused:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise Refused(f"the pickle in it is damaged ({type(error).__name__}: {str(error)[:200]})") from None


def end_of(data: bytes | memoryview, start: int) -> int:
    """Where the pickle that starts there ends. Raises: Refused."""
    stream = io.BytesIO(data)
    stream.seek(start)
    try:
        for _ in pickletools.genops(stream):
            pass
    except (ArithmeticError, LookupError, ValueError, RecursionError) as error:
        raise Refused(f"the pickle in it is damaged ({str(error)[:200]})") from None
    return stream.tell()


def _run(data: bytes, names: Makers, find: Callable[[Any], Any]) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop() -> Any:
        if marks and len(stack) <= marks[-1]:
            raise Refused("the pickle in it is damaged (nothing left on its stack)")
        return stack.pop()

    def pop_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    for count, (instruction, argument, _) in enumerate(pickletools.genops(data)):
        code = instruction.name
        if count > MAX_INSTRUCTIONS:
            raise Refused(f"the pickle in it has more than {MAX_INSTRUCTIONS} instructions")
        if code in _PUSHED:
            stack.append(argument)
        elif code in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif code == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif code in _MADE:
            stack.append(_MADE[code]())
        elif code == "MARK":
            marks.append(len(stack))
        elif code == "TUPLE":
            stack.append(tuple(pop_mark()))
        elif code in _TUPLES:
            items = [pop() for _ in range(_TUPLES[code])]
            stack.append(tuple(reversed(items)))
        elif code == "APPEND":
            value = pop()
            _of(stack[-1], list).append(value)
        elif code == "APPENDS":
            items = pop_mark()
            _of(stack[-1], list).extend(items)
        elif code == "SETITEM":
            value, key = pop(), pop()
            _of(stack[-1], dict)[_key(key)] = value
        elif code == "SETITEMS":
            items = pop_mark()
            _of(stack[-1], dict).update(zip(map(_key, items[::2]), items[1::2], strict=True))
        elif code == "GLOBAL":
            stack.append(_named(argument, names))
        elif code == "REDUCE":
            args, name = pop(), pop()
            if not isinstance(name, Name) or name.make is None or type(args) is not tuple:
                raise Refused("it calls what is no function")
            stack.append(name.make(*args))
        elif code == "BUILD":
            state = pop()
            _attributes(stack[-1], state)
        elif code == "BINPERSID":
            stack.append(find(pop()))
        elif code == "STOP":
            result = pop()
            if stack or isinstance(result, Name):
                raise Refused("the pickle in it is damaged (it does not end with one object)")
            return result
        elif code not in ("PROTO", "FRAME"):
            raise Refused(f"it has the instruction {code}, which data needs not")
    raise Refused("the pickle in it is damaged (it does not end)")


def _named(text: str, names: Makers) -> Any:
    make = names.get(text)
    if make is None:
        module, _, name = text.partition(" ")
        raise NotAllowed((name if module in _PYTHON else f"{module}.{name}")[:200])
    return make.value if isinstance(make, Constant) else Name(text, make)


def _of(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise Refused(f"it puts items into a {type(value).__name__}")
    return value


def _key(key: Any) -> Any:
    """A key of a dict: what is nested deeper may take for ever to be hashed."""
    if isinstance(key, tuple) and any(isinstance(item, tuple) for item in key):
        raise Refused("it has a dict with tuples of tuples as keys")
    return key


def _attributes(target: Any, state: Any) -> None:
    # state_dict() keeps what it knows of modules at such an attribute.
    if type(target) is not OrderedDict or not isinstance(state, dict):
        raise Refused(f"it sets attributes of a {type(target).__name__}")
    if not all(type(name) is str and not hasattr(OrderedDict, name) for name in state):
        raise Refused("it sets attributes that an OrderedDict has already")
    vars(target).update(state)


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    if type(text) is not str or type(encoding) is not str or encoding not in ("latin1", "latin-1"):
        raise Refused("it encodes a text in another way than bytes are written")
    return text.encode("latin1")


def _bytearray(data: bytes | str = b"", encoding: str = "latin-1") -> bytearray:
    return bytearray(_encoded(data, encoding) if isinstance(data, str) else bytes(memoryview(data)))


def _items(items: Any = ()) -> list[Any]:
    if type(items) is not list and items != ():
        raise Refused("it makes a container of what is no list")
    return [_key(item) for item in items]


def _set(items: Any = ()) -> set[Any]:
    return set(_items(items))


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((_key(key), value) for key, value in _items(pairs))


def _counter(counts: Any = None) -> collections.Counter[Any]:
    return collections.Counter(_of(counts or {}, dict))


def _complex(real: float, imaginary: float) -> complex:
    return complex(float(real), float(imaginary))


_PYTHON = ("__builtin__", "builtins")
_BUILTIN: Makers = {
    "collections OrderedDict": _ordered,
    "collections Counter": _counter,
    "_codecs encode": _encoded,
    **{f"{module} set": _set for module in _PYTHON},
    **{f"{module} complex": _complex for module in _PYTHON},
    **{f"{module} bytearray": _bytearray for module in _PYTHON},
}
_PUSHED = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    )
)
_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
