"""A drawn conversion, run with torch and with tclient, and what both gave as texts that can be compared.

Knows the values and the ways; knows nothing about the server.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from tests.conversions.values import Draw, Value
from tests.conversions.ways import Way, way_in, way_out


class Case(NamedTuple):
    """A value, and what is done with it."""

    way: Way
    value: Value

    @property
    def text(self) -> str:
        """The case as a line."""
        return f"{self.way.text}   with v = {self.value.text}"


def case(seed: int) -> Case:
    """The case of a seed."""
    draw = Draw(seed)
    with warnings.catch_warnings():
        # numpy and pandas advise against some of what people have.
        warnings.simplefilter("ignore")
        return _drawn(draw)


def _drawn(draw: Draw) -> Case:
    while True:
        if draw.flip(0.2):
            found = Case(way_out(draw), draw.tensor())
        else:
            found = Case(way_in(draw), draw.value())
        if not _too_large(found) and not _differs(found):
            return found


def _is_operator(way: str) -> bool:
    return " ones + v" in way or way.startswith(("v ", "floats ", "ints ", "t / ", "np.ones(2) "))


def _is_nested(way: str, value: str, kind: str) -> bool:
    return kind in value and ("[v" in way or not value.startswith(kind))


# The cases that are known to differ, by the text of the way and that of the value, and why.
KNOWN: dict[str, Callable[[str, str], bool]] = {
    "pandas and scipy ask CPython whether the other operand is a sequence. What is written in Python and can be "
    "indexed is one; torch's tensor is not": lambda way, value: (
        _is_operator(way) and any(kind in value for kind in ("Series", "Index", "DataFrame", "coo("))
    ),
    "a tensor of torch itself is no tensor of ours, and on the left of an operator torch has the word": (
        lambda way, value: "torch's" in value and (way.startswith("v ") or "is_tensor" in way)
    ),
    "a masked number in a list is an array of its own, and a record is a sequence": (
        lambda way, value: (
            _is_nested(way, value, "np.ma(") or ("[(" in value and ("[v" in way or not value.startswith("array(")))
        )
    ),
    "a dtype of ml_dtypes is not there at the other end: it is refused here, before what else a list may hold": (
        lambda way, value: (
            any(kind in value for kind in ("ml_dtypes", "bfloat16[", "float8_e5m2["))
            and (way.startswith(("x[", "item of x[")) or "copy=False" in way or "," in value or "[[" in way + value)
        )
    ),
    "an iterator in a list is not used up to find out that it is refused": (
        lambda way, value: any(_is_nested(way, value, kind) for kind in ("generator(", "iter(", "map("))
    ),
    "numpy() gives the rows in order, whatever strides the tensor has, and numpy's functions keep those of arrays": (
        lambda way, value: (
            (".T" in value or "[0]" in value) and ("np." in way or way.startswith(("t.__array__", "t.numpy")))
        )
    ),
}


def _differs(found: Case) -> bool:
    return any(differs(found.way.text, found.value.text) for differs in KNOWN.values())


_SIZED = re.compile(r"zeros|ones\(size|eye|arange|linspace|full\(v|expand|repeat|Tensor\(v|new_zeros")


def _too_large(found: Case) -> bool:
    """Whether torch would take too much memory, or time, for it."""
    if not _SIZED.search(found.way.text):
        return False
    made = found.value.make(torch)
    for number in _numbers(made, 0):
        if 5000 < abs(number) < 2**62 or (isinstance(number, float) and 0 < abs(number) < 1e-3):
            return True
    sizes = [max(1, abs(number)) for number in _numbers(made, 0)]
    return len(sizes) > 8 or math.prod(sizes) > 1e7


def _numbers(value: Any, depth: int) -> Iterable[Any]:
    if isinstance(value, (int, float, np.number)):
        try:
            number = float(value.real)
        except OverflowError:
            return
        if not math.isnan(number) and abs(number) != float("inf"):
            yield number
    elif isinstance(value, (list, tuple)) and depth < 4:
        for item in value:
            yield from _numbers(item, depth + 1)
    elif isinstance(value, np.ndarray | torch.Tensor):
        try:
            yield from _numbers(value.reshape(-1)[:10].tolist(), depth + 1)
        except Exception:
            return
    elif hasattr(value, "__iter__") and hasattr(value, "__len__") and depth < 4 and not isinstance(value, (str, bytes)):
        try:
            yield from _numbers(list(value), depth + 1)
        except Exception:
            return


_ADDRESS = re.compile(r"0x[0-9a-f]+")


def outcome(module: Any, found: Case) -> str:
    """What the case gives with a module, as a text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = found.value.make(module)
            result = found.way.run(module, value)
            is_empty = re.match(r"(Float|Long|Bool)?Tensor\(v", found.way.text) and _is_sizes(value)
            return _ADDRESS.sub("0x…", f"{described(module, result, bare=bool(is_empty))}")
        except Exception as error:
            kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == "builtins")
            # Which of several is found first, is chance.
            text = re.sub(r"index \d+ is out of bounds", "index … is out of bounds", f"{kind}: {error}")
            # The server cuts off texts of several thousand characters.
            text = text.replace("'torch.dtype' object", "'dtype' object")[:3000]
            # The stack of torch's own functions is not the same in two processes.
            return _ADDRESS.sub("0x…", text).partition("\nException raised from")[0]


def _is_sizes(value: Any) -> bool:
    return hasattr(value, "__index__") or type(value).__name__ == "Size"


def described(module: Any, value: Any, *, bare: bool = False) -> Any:
    """What is compared of a result."""
    if isinstance(value, module.Tensor):
        meta = (str(value.dtype), tuple(value.shape), value.stride(), value.requires_grad, value.is_leaf)
        if bare:
            return meta
        flags = (value.is_conj(), value.is_neg()) if value.is_complex() else ()
        plain = value.detach()
        return (*meta, *flags, f"{plain.resolve_conj().tolist()!r}", repr(value))
    if isinstance(value, torch.Tensor):
        return described(torch, value)
    if isinstance(value, np.ndarray):
        kind = type(value).__name__
        items = (
            [described(module, item) for item in value.reshape(-1)[:50]] if value.dtype == object else value.tolist()
        )
        # Strides without elements mean nothing, and are what numpy happens to have.
        return (kind, str(value.dtype), value.shape, value.strides if value.size else (), repr(items))
    if isinstance(value, np.generic):
        return (type(value).__name__, repr(value))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [described(module, item) for item in value[:50]])
    if isinstance(value, float):
        return ("float", repr(value))
    return (type(value).__name__, repr(value).replace("tclient.", "torch."))
