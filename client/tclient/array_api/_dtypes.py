"""dtypes as the standard has them: which there are, what two of them become, and their limits. Asks no server."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import tclient as tc
from tclient import Tensor
from tclient import dtype as DType

Scalar: TypeAlias = bool | int | float | complex

# torch has these, and few operations of them: what may be asked for, and what the standard's functions promise.
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
SIGNED = ("int8", "int16", "int32", "int64")
FLOATING = ("float32", "float64")
COMPLEX = ("complex64", "complex128")
_KINDS: dict[str, tuple[str, ...]] = {
    "bool": ("bool",),
    "signed integer": SIGNED,
    "unsigned integer": UNSIGNED,
    "integral": (*SIGNED, *UNSIGNED),
    "real floating": FLOATING,
    "complex floating": COMPLEX,
    "numeric": (*SIGNED, *UNSIGNED, *FLOATING, *COMPLEX),
}


def names_of(kind: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The names of the standard's dtypes of a kind. Raises: ValueError for a kind that it does not have."""
    if kind is None:
        return (*_KINDS["bool"], *_KINDS["numeric"])
    if isinstance(kind, tuple):
        return tuple(dict.fromkeys(name for each in kind for name in names_of(each)))
    if kind not in _KINDS:
        raise ValueError(f"'{kind}' is no kind of dtypes; there are {', '.join(_KINDS)}")
    return _KINDS[kind]


def isdtype(dtype: DType, kind: DType | str | tuple[DType | str, ...]) -> bool:
    """Whether a dtype is of a kind, one of several, or another dtype."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, each) for each in kind)
    if isinstance(kind, str):
        names_of(kind)
        if kind == "real floating":
            return dtype.is_floating_point  # also those that the standard does not have
        if kind == "complex floating":
            return dtype.is_complex
        if kind == "numeric":
            return dtype is not tc.bool
        return any(dtype is getattr(tc, name) for name in names_of(kind))
    return dtype is kind


def _rank(dtype: DType) -> int:
    return 3 if dtype.is_complex else 2 if dtype.is_floating_point else 0 if dtype is tc.bool else 1


def promoted(one: DType, other: DType) -> DType:
    """What arrays of two dtypes become together. Raises: TypeError where there is none.

    Across kinds the standard leaves open what happens; here it is what torch does.
    """
    if one is other:
        return one
    low, high = sorted((one, other), key=lambda each: (_rank(each), each.itemsize))
    if _rank(high) == 3:
        size = max(low.itemsize if _rank(low) >= 2 else 0, high.itemsize // (1 if _rank(low) == 3 else 2))
        return high if size <= (high.itemsize if _rank(low) == 3 else high.itemsize // 2) else tc.complex128
    if _rank(high) == 2 and _rank(low) == 2 and low.itemsize == high.itemsize:
        return tc.float32  # float16 and bfloat16
    if _rank(low) != _rank(high) or low.is_signed == high.is_signed or _rank(high) != 1:
        return high
    unsigned = low if not low.is_signed else high
    signed = high if unsigned is low else low
    if signed.itemsize > unsigned.itemsize:
        return signed
    if unsigned is tc.uint64:
        raise TypeError(f"{one} and {other} have no dtype for the values of both")
    wider: DType = getattr(tc, SIGNED[UNSIGNED.index(repr(unsigned).removeprefix("torch.")) + 1])
    return wider


def with_scalar(dtype: DType, scalar: Scalar) -> DType:
    """What an array of a dtype becomes with a number of Python's, which has a kind and no size."""
    rank = 0 if isinstance(scalar, bool) else 1 if isinstance(scalar, int) else 2 if isinstance(scalar, float) else 3
    if rank <= _rank(dtype):
        return dtype
    if rank == 1:
        return tc.int64
    floating = dtype if dtype.is_floating_point else tc.get_default_dtype()
    return floating if rank == 2 else floating.to_complex()


def is_scalar(value: Any) -> bool:
    """Whether it is a number of Python's, of which the standard's functions take one beside an array."""
    return isinstance(value, (bool, int, float, complex))


def result_type(*arrays_and_dtypes: Tensor | DType | Scalar) -> DType:
    """The dtype that arrays, dtypes and numbers become together."""
    dtypes = [each if isinstance(each, DType) else each.dtype for each in arrays_and_dtypes if not is_scalar(each)]  # type: ignore[union-attr]
    if not dtypes:
        raise ValueError("result_type needs an array or a dtype")
    scalars: list[Any] = [each for each in arrays_and_dtypes if is_scalar(each)]
    return reduce(with_scalar, scalars, reduce(promoted, dtypes))


def can_cast(from_: DType | Tensor, to: DType, /) -> bool:
    """Whether values of one dtype become another by promotion, within one kind."""
    given = from_ if isinstance(from_, DType) else from_.dtype
    if _rank(given) != _rank(to) and {_rank(given), _rank(to)} != {2, 3}:
        return False
    try:
        return promoted(given, to) is to
    except TypeError:
        return False


@dataclass(frozen=True)
class finfo_object:
    """The limits of a floating point dtype; of a complex one, those of its parts."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True)
class iinfo_object:
    """The limits of an integer dtype."""

    bits: int
    max: int
    min: int
    dtype: DType


def finfo(type: DType | Tensor, /) -> finfo_object:
    """The limits of a floating point dtype, or of that of an array."""
    real = (type if isinstance(type, DType) else type.dtype).to_real()
    found = tc.finfo(real)
    return finfo_object(found.bits, found.eps, found.max, found.min, found.smallest_normal, real)


def iinfo(type: DType | Tensor, /) -> iinfo_object:
    """The limits of an integer dtype, or of that of an array."""
    dtype = type if isinstance(type, DType) else type.dtype
    found = tc.iinfo(dtype)
    return iinfo_object(found.bits, found.max, found.min, dtype)
