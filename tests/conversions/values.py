"""Values of every kind that Python programs have at hand, drawn by a seed.

A value is a text that shows it, and a function that makes it anew for a module: torch or tclient. Knows Python, numpy,
pandas and scipy; of torch only that a module has `tensor`.
"""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import fractions
import random
import tempfile
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pandas as pd
import scipy.sparse
import torch


class Value(NamedTuple):
    """A value to be: its text, and what makes it for a module."""

    text: str
    make: Callable[[Any], Any]


def same(text: str, value: Any) -> Value:
    """A value that is the same for both modules, and is never changed."""
    return Value(text, lambda module: value)


def new(text: str, make: Callable[[], Any]) -> Value:
    """A value made anew each time."""
    return Value(text, lambda module: make())


class Color(enum.IntEnum):
    """Numbers with names."""

    RED = 1
    GREEN = 2
    HUGE = 2**70


class Flag(enum.IntFlag):
    """Bits with names."""

    A = 1
    B = 2


class Plain(enum.Enum):
    """Names that are no numbers."""

    A = 1


class Word(enum.StrEnum):
    """Names that are texts."""

    A = "a"


class Int(int):
    """A number that is more than one."""


class Float(float):
    """A number that is more than one."""


class Complex(complex):
    """A number that is more than one."""


class Text(str):
    """A text that is more than one."""


class List(list):
    """A list that is more than one."""


class Pair(NamedTuple):
    """A tuple that is more than one."""

    a: Any
    b: Any


class Array(np.ndarray):
    """An array that is more than one."""


def convertible(name: str, **methods: Any) -> Any:
    """An object that can be made a number in the ways given."""
    made = {f"__{method}__": (lambda self, value=value: value) for method, value in methods.items()}
    return type(name, (), made)()


def refusing(name: str, *methods: str) -> Any:
    """An object whose conversion fails."""

    def fail(self: Any) -> Any:
        raise ArithmeticError("no such number")

    return type(name, (), {f"__{method}__": fail for method in methods})()


class Row:
    """A sequence by its length and its items alone."""

    def __init__(self, items: Sequence[Any], length: Any = None) -> None:
        self._items, self._length = items, length

    def __len__(self) -> int:
        return len(self._items) if self._length is None else self._length

    def __getitem__(self, index: int) -> Any:
        return self._items[index]


class Endless:
    """Items without a length."""

    def __getitem__(self, index: int) -> Any:
        return [1, 2, 3][index]


class WithArray:
    """An object that can be made an array."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self._of if dtype is None else self._of.astype(dtype)


class WithInterface:
    """An object that says where its elements are, in numpy's way."""

    def __init__(self, of: Any) -> None:
        self._of = of

    @property
    def __array_interface__(self) -> Any:
        return self._of.__array_interface__


class WithDlpack:
    """An object that hands out its elements in DLPack's way."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __dlpack__(self, **named: Any) -> Any:
        return self._of.__dlpack__(**named)

    def __dlpack_device__(self) -> Any:
        return self._of.__dlpack_device__()


NUMBERS = [
    *(same(repr(number), number) for number in (0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 300, -129)),
    *(same(repr(number), number) for number in (True, False, 0.0, -0.0, 1.0, 1.5, 0.1, -2.5, 16777217.0, 3.999)),
    *(same(repr(number), number) for number in (1j, 1 + 2j, -0j)),
]
BIG_NUMBERS = [
    same(f"2**{power}{plus:+}" if plus else f"2**{power}", 2**power + plus)
    for power in (15, 16, 24, 31, 32, 53, 62, 63, 64, 100, 127, 128, 1024, 2000)
    for plus in (0, -1, 1)
]
BIG_NUMBERS += [Value(f"-({value.text})", lambda m, v=value: -v.make(m)) for value in BIG_NUMBERS]
BIG_NUMBERS += [
    same(repr(number), number)
    for number in (
        1e20, -1e20, 1e39, 1e300, 1e-46, 5e-324, 65504.0, 65520.0, 2.0**63, 2.0**64, -(2.0**63), 1e5, 448.0, 1e38 * 1j,
        float("inf"), float("-inf"), float("nan"), complex("nan"), complex("inf+1j"),
    )
]  # fmt: skip
NUMPY_NUMBERS = [
    Value(f"np.{kind}({text})", lambda m, kind=kind, number=number: getattr(np, kind)(number))
    for kind, numbers in {
        "bool_": (True, False),
        "int8": (1, -3),
        "uint8": (2, 200),
        "int16": (3, -300),
        "uint16": (4, 65535),
        "int32": (0, -5),
        "uint32": (6, 2**32 - 1),
        "int64": (1, -7, 2**62),
        "uint64": (2, 2**64 - 1),
        "float16": (0.5, 65504),
        "float32": (1.5, 0.1, 16777217, 3e38),
        "float64": (2.5, 0.1, 16777217, 1e300, float("nan")),
        "longdouble": (1.5,),
        "complex64": (1 + 2j,),
        "complex128": (1.5 - 1j, 3),
        "clongdouble": (1j,),
        "str_": ("a",),
        "bytes_": (b"a",),
        "datetime64": ("2020-01-01",),
        "timedelta64": (5,),
    }.items()
    for number in numbers
    for text in [repr(number)]
]
NUMPY_NUMBERS += [
    Value(f"ml_dtypes.{kind}(1.5)", lambda m, kind=kind: getattr(ml_dtypes, kind)(1.5))
    for kind in ("bfloat16", "float8_e4m3fn", "float8_e5m2")
]
NUMPY_NUMBERS.append(new("np.void(b'ab')", lambda: np.void(b"ab")))
ODD = [
    same("None", None),
    same("...", ...),
    same("'a'", "a"),
    same("''", ""),
    same("'1'", "1"),
    same("b'ab'", b"ab"),
    same("b''", b""),
    *(same(str(value), value) for value in (Color.RED, Color.GREEN, Color.HUGE, Flag.A, Flag.A | Flag.B, Plain.A)),
    same("Word.A", Word.A),
    same("Int(5)", Int(5)),
    same("Float(2.5)", Float(2.5)),
    same("Complex(1j)", Complex(1j)),
    same("Text('a')", Text("a")),
    same("Decimal('1.5')", decimal.Decimal("1.5")),
    same("Fraction(1, 4)", fractions.Fraction(1, 4)),
    same("date(2020, 1, 1)", datetime.date(2020, 1, 1)),
    same("timedelta(1)", datetime.timedelta(1)),
    same("pd.NA", pd.NA),
    same("pd.Timestamp(0)", pd.Timestamp(0)),
    same("object()", object()),
    same("int", int),
    same("print", print),
    same("types", types),
    same("slice(1, 2)", slice(1, 2)),
    same("with __index__", convertible("Index", index=2)),
    same("with a huge __index__", convertible("Index", index=2**65)),
    same("with __int__", convertible("Whole", int=2)),
    same("with __float__", convertible("Real", float=1.5)),
    same("with __bool__", convertible("Truth", bool=True)),
    same("with __complex__", convertible("Imaginary", complex=1j)),
    same("with all", convertible("All", index=3, int=3, float=3.5, complex=3j)),
    same("with a wrong __index__", convertible("Index", index="a")),
    same("with a wrong __len__", convertible("Long", len=-1)),
    same("with a failing __index__", refusing("Failing", "index", "int")),
    same("with a failing __float__", refusing("Failing", "float")),
    same("with a failing __bool__", refusing("Failing", "bool")),
    same("with a failing __len__", refusing("Failing", "len")),
    same("without end", Endless()),
]

DTYPES = "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 ? c8 c16".split()
ODD_DTYPES = [">f4", ">i8", ">u2", "g", "G", "S3", "U3", "O", "M8[s]", "m8[s]", "V4", [("x", "f4"), ("y", "i8")]]
ODD_DTYPES += [ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, [("x", "i1"), ("y", "f4")]]
SHAPES: list[tuple[int, ...]] = [
    (),
    (0,),
    (1,),
    (2,),
    (3,),
    (5,),
    (2, 2),
    (2, 3),
    (3, 0),
    (1, 1),
    (2, 3, 4),
    (1, 4),
    (4,),
]
MANY: list[tuple[int, ...]] = [(1100,), (30, 50), (24,), (23,), (2, 1030)]


class Draw:
    """Draws values, of a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def one(self, options: Sequence[Any]) -> Any:
        """One of the options."""
        return self.random.choice(options)

    def flip(self, share: float = 0.5) -> bool:
        """True in that share of cases."""
        return self.random.random() < share

    def value(self, depth: int = 0) -> Value:
        """Any value."""
        kinds: list[tuple[float, Callable[[], Value]]] = [
            (4, self.scalar),
            (3, self.array),
            (4 if depth < 3 else 0, lambda: self.sequence(depth)),
            (1.5, lambda: self.array_like(depth)),
            (1, self.table),
            (1.5, self.tensor),
        ]
        chosen = self.random.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]
        return chosen()

    def scalar(self) -> Value:
        """A number, or something that is none."""
        return self.one(self.random.choices([NUMBERS, BIG_NUMBERS, NUMPY_NUMBERS, ODD], [5, 2, 4, 3])[0])

    def number(self) -> Value:
        """A number."""
        return self.one(self.random.choices([NUMBERS, BIG_NUMBERS, NUMPY_NUMBERS], [6, 1, 3])[0])

    def elements(self, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
        """An array of the dtype, with numbers that fit it."""
        dtype = np.dtype(kind)
        count = int(np.prod(shape))
        generator = np.random.default_rng(self.random.getrandbits(32))
        numbers = generator.integers(0, 100, count)
        if dtype.kind in "SU":
            return numbers.astype(str).astype(dtype).reshape(shape)
        if dtype.kind == "V" and dtype.names is None and dtype.itemsize == 4 and dtype.type is np.void:
            return numbers.astype("<i4").view(dtype).reshape(shape)
        if dtype.names is not None:
            made = np.zeros(count, dtype)
            for name in dtype.names:
                made[name] = numbers
            return made.reshape(shape)
        if dtype.kind == "f" and self.flip():
            return (numbers / 8).astype(dtype).reshape(shape)
        return numbers.astype(dtype).reshape(shape)

    def shape(self) -> tuple[int, ...]:
        """A shape, seldom one of many elements."""
        shape: tuple[int, ...] = self.one(MANY if self.flip(0.08) else SHAPES)
        return shape

    def array(self) -> Value:
        """An array of numpy, of any class, dtype and layout."""
        kind = self.one(ODD_DTYPES) if self.flip(0.15) else self.one(DTYPES)
        base = self.elements(kind, self.shape())
        text = f"{np.dtype(kind)}{list(base.shape)}"
        for _ in range(self.one([0, 0, 1, 1, 2])):
            text, base = self._laid_out(text, base)
        wrap = self.one(["", "", "", "", "", "", "matrix", "masked", "subclass", "memmap", "read-only", "recarray"])
        if wrap == "matrix" and base.ndim <= 2 and base.dtype.kind in "fiub":
            return new(f"np.matrix({text})", lambda: np.asmatrix(base))
        if wrap == "masked" and base.dtype.kind in "fiub":
            return new(
                f"np.ma({text})", lambda: np.ma.masked_array(base, mask=base == base.max() if base.size else False)
            )
        if wrap == "subclass":
            return new(f"Array({text})", lambda: base.view(Array))
        if wrap == "recarray" and base.dtype.names:
            return new(f"np.recarray({text})", lambda: base.view(np.recarray))
        if wrap == "memmap" and base.size and not base.dtype.hasobject:
            return new(f"np.memmap({text})", lambda: mapped(base))
        if wrap == "read-only":
            frozen = base.view()
            frozen.flags.writeable = False
            return same(f"read-only {text}", frozen)
        return new(f"array({text})", lambda: relaid(base))

    def _laid_out(self, text: str, base: np.ndarray) -> tuple[str, np.ndarray]:
        how = self.one(["F", "T", "::2", "::-1", "1:", "broadcast", "windows", "field", "newaxis", "column", "swap"])
        if how == "F":
            return f"asfortranarray({text})", np.asfortranarray(base)
        if how == "T":
            return f"{text}.T", base.T
        if how in ("::2", "::-1", "1:") and base.ndim:
            place = self.random.randrange(base.ndim)
            cut = {"::2": slice(None, None, 2), "::-1": slice(None, None, -1), "1:": slice(1, None)}[how]
            return f"{text}[{'…, ' * place}{how}]", base[(slice(None),) * place + (cut,)]
        if how == "broadcast":
            return f"broadcast_to({text}, 3 x)", np.broadcast_to(base, (3, *base.shape))
        if how == "windows" and base.ndim == 1 and base.size > 2 and base.dtype.isbuiltin == 1:
            return f"windows({text})", np.lib.stride_tricks.sliding_window_view(base, 2)
        if how == "field" and base.dtype.names:
            name = self.one(base.dtype.names)
            return f"{text}[{name!r}]", base[name]
        if how == "newaxis":
            return f"{text}[..., None]", base[..., None]
        if how == "column" and base.ndim > 1 and base.shape[-1]:
            return f"{text}[..., 0]", base[..., 0]
        if how == "swap" and base.ndim > 1:
            return f"{text}.swapaxes(0, 1)", base.swapaxes(0, 1)
        return text, base

    def sequence(self, depth: int = 0) -> Value:
        """A list or what is like one."""
        items = self.items(depth)
        texts = [item.text for item in items]
        text = ", ".join(texts if len(texts) <= 40 else [*dict.fromkeys(texts), f"… {len(texts)}"])
        kinds: list[tuple[int, str, Callable[[list[Any]], Any]]] = [
            (12, "[{}]", list),
            (4, "({},)", tuple),
            (1, "deque({})", collections.deque),
            (1, "Row({})", Row),
            (1, "List({})", List),
            (1, "UserList({})", collections.UserList),
            (1, "iter({})", iter),
            (1, "generator({})", lambda made: (item for item in made)),
            (1, "dict of {}", lambda made: {str(place): item for place, item in enumerate(made)}),
            (1, "dict.values({})", lambda made: dict(enumerate(made)).values()),
            (1, "object array({})", objects),
        ]
        _, form, make = self.random.choices(kinds, [weight for weight, _, _ in kinds])[0]
        if len(items) == 2 and self.flip(0.1):
            form, make = "Pair({})", lambda made: Pair(*made)
        return Value(form.format(text), lambda m: make([item.make(m) for item in items]))

    def items(self, depth: int) -> list[Value]:
        """The items of a list: alike, mixed, many, nested, ragged."""
        how = self.one(["alike", "alike", "numbers", "numbers", "mixed", "nested", "rows", "ragged", "many", "tensors"])
        count = self.one([0, 1, 1, 2, 2, 3, 4])
        if how == "alike":
            return [self.scalar()] * count
        if how == "numbers":
            return [self.number() for _ in range(count)]
        if how == "nested" and depth < 4:
            return [self.sequence(depth + 1)] * count
        if how == "rows":
            width = self.one([1, 2, 3, 0])
            rows = [[self.number() for _ in range(width)] for _ in range(count)]
            return [
                Value(f"[{', '.join(n.text for n in row)}]", lambda m, row=row: [n.make(m) for n in row])
                for row in rows
            ]
        if how == "ragged" and depth < 4:
            return [self.value(depth + 2) for _ in range(count)]
        if how == "many":
            few = [self.number()] if self.flip() else [self.one(NUMBERS), self.number()]
            many = few[:1] * self.one([23, 24, 40, 1030, 1100])
            if self.flip(0.4):
                many[self.random.randrange(len(many))] = self.scalar() if self.flip(0.2) else self.number()
            return many
        if how == "tensors":
            return [self.tensor() if self.flip(0.7) else self.number() for _ in range(count)]
        return [self.scalar() for _ in range(count)]

    def array_like(self, depth: int = 0) -> Value:
        """Something that is not an array, and has the elements of one."""
        code = self.one("bBhHiIlLqQfd")
        numbers = [self.random.randrange(100) for _ in range(self.one([0, 1, 2, 4, 8, 30]))]
        kind = self.one(DTYPES)
        base = self.elements(kind, self.shape())
        text = f"{kind}{list(base.shape)}"
        stop = self.one([0, 1, 3, 5, 30, 1100])
        one_of: list[Callable[[], Value]] = [
            lambda: new(f"array.array({code!r}, {numbers})", lambda: array.array(code, numbers)),
            lambda: new(
                f"memoryview(array.array({code!r}, {numbers}))", lambda: memoryview(array.array(code, numbers))
            ),
            lambda: new(f"memoryview({text})", lambda: memoryview(as_buffer(base))),
            lambda: same(f"bytes({numbers})", bytes(numbers)),
            lambda: new(f"bytearray({numbers})", lambda: bytearray(numbers)),
            lambda: same(f"range({stop})", range(stop)),
            lambda: same("range(5, 0, -2)", range(5, 0, -2)),
            lambda: same(f"set({numbers[:4]})", set(numbers[:4])),
            lambda: same(f"frozenset({numbers[:1]})", frozenset(numbers[:1])),
            lambda: same(f"dict.fromkeys({numbers[:3]})", dict.fromkeys(numbers[:3], 1)),
            lambda: same("mappingproxy", types.MappingProxyType({0: 1})),
            lambda: new(f"map(float, {numbers[:3]})", lambda: map(float, numbers[:3])),
            lambda: same(f"WithArray({text})", WithArray(base)),
            lambda: same(f"WithInterface({text})", WithInterface(base)),
            lambda: same(f"WithDlpack({text})", WithDlpack(base)),
            lambda: new(f"coo({numbers[:3]})", lambda: scipy.sparse.coo_array(np.array([numbers[:3]]))),
            lambda: new(
                f"csr_matrix({numbers[:3]}).todense()", lambda: scipy.sparse.csr_matrix([numbers[:3]]).todense()
            ),
            lambda: new("Row of a wrong length", lambda: Row([1, 2, 3], 5)),
            lambda: new("Row of a short length", lambda: Row([1, 2, 3], 2)),
        ]
        return self.one(one_of)()

    def table(self) -> Value:
        """A column, an index or a table of pandas."""
        numbers = [self.random.randrange(100) for _ in range(self.one([0, 1, 2, 3, 5, 1030 if self.flip(0.1) else 4]))]
        kind = self.one(
            ["float64", "float32", "int64", "int8", "uint8", "bool", "Int64", "Float32", "boolean", "object"]
        )
        kind = self.one(["category", "str", "datetime64[ns]", "complex128"]) if self.flip(0.15) else kind
        labels = self.one([None, None, None, "reversed", "texts", "shifted"])
        index = {
            None: None,
            "reversed": list(range(len(numbers)))[::-1],
            "texts": [f"row {i}" for i in range(len(numbers))],
            "shifted": list(range(10, 10 + len(numbers))),
        }[labels]
        text = f"{kind} {numbers[:5]}"
        numbers = [number % 2 for number in numbers] if kind == "boolean" else numbers
        column = pd.Series(numbers, dtype="int64", index=index).astype(kind)
        big = pd.Series([16777217.0, 0.1][: max(1, len(numbers) % 3)])
        return self.one(
            [
                same(f"Series({text}, {labels})", column),
                same(f"Series({text}, {labels})", column),
                same(f"Series({list(big)})", big),
                same(f"Index({text})", pd.Index(column)),
                same(f"RangeIndex({len(numbers)})", pd.RangeIndex(len(numbers))),
                same(f"DataFrame({text})", pd.DataFrame({"a": column, "b": column})),
                same(f"DataFrame(0: {text})", pd.DataFrame({0: column, 1: column})),
                new(f"[Series({text})] * 2", lambda: [column, column]),
                same(f"Series({text}).values", column.values),
                same(f"Series({text}).to_numpy()", column.to_numpy()),
                same(f"Series({text}).array", column.array),
            ]
        )

    def tensor(self) -> Value:
        """A tensor of the module, or of torch itself."""
        kind = self.one(["f4", "f8", "f2", "i8", "i4", "u1", "?", "c8"])
        shape = self.one([(), (), (), (1,), (1, 1), (2,), (0,), (2, 2)])
        base = self.elements(kind, shape)
        text = f"{kind}{list(shape)} {base.reshape(-1)[:3].tolist()}"
        how = self.one(["", "", "", "grad", "bfloat16", "torch", "T"])
        if how == "torch":
            return new(f"torch's tensor({text})", lambda: torch.from_numpy(base.copy()))
        if how == "grad" and base.dtype.kind in "fc":
            return Value(f"tensor({text}, requires_grad)", lambda m: m.from_numpy(base.copy()).requires_grad_())
        if how == "bfloat16":
            return Value(f"tensor({text}).bfloat16()", lambda m: m.from_numpy(base.copy()).bfloat16())
        if how == "T" and len(shape) == 2:
            return Value(f"tensor({text}).T", lambda m: m.from_numpy(base.copy()).t())
        return Value(f"tensor({text})", lambda m: m.from_numpy(base.copy()))


def objects(items: list[Any]) -> np.ndarray:
    """An array of these objects."""
    made = np.empty(len(items), object)
    for place, item in enumerate(items):
        made[place] = item
    return made


def relaid(base: np.ndarray) -> np.ndarray:
    """The same array, with the same strides, in memory of its own where it can be."""
    if base.base is None and base.flags.c_contiguous:
        return base.copy()
    return base


def as_buffer(base: np.ndarray) -> Any:
    """The array, to whom it lends its memory."""
    return base


def mapped(base: np.ndarray) -> np.ndarray:
    """The elements in a file that is mapped."""
    with tempfile.NamedTemporaryFile() as file:
        made = np.memmap(file.name, base.dtype, "w+", shape=base.shape or (1,))
        made[...] = base
        return made
