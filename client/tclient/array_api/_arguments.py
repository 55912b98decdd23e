"""What the functions of the standard have in common: pairs of one dtype, numbers as arrays, axes that are checked here.

An axis is checked where the shape is known or needed anyway, so that the error comes with the call.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tclient as tc
from tclient import Tensor, _issue
from tclient import dtype as DType
from tclient.array_api._dtypes import Scalar, is_scalar, promoted, result_type, with_scalar

Axes: TypeAlias = int | tuple[int, ...] | None


def converted(x: Tensor, dtype: DType) -> Tensor:
    """The array in a dtype; itself, if it has it."""
    made: Tensor = x if x.dtype is dtype else x.to(dtype)
    return made


def of_one_dtype(*arrays: Tensor) -> tuple[Tensor, ...]:
    """Arrays in the dtype that they become together, whatever their shapes: torch would pass over those of no axes."""
    _issue.catch_up(arrays)
    dtype = result_type(*arrays)
    return tuple(converted(each, dtype) for each in arrays)


def pair(x1: Tensor | Scalar, x2: Tensor | Scalar) -> tuple[Tensor, Tensor]:
    """Two arguments of a function of two arrays, as arrays of one dtype. Raises: TypeError if neither is an array."""
    if isinstance(x1, Tensor):
        if isinstance(x2, Tensor):
            one, other = of_one_dtype(x1, x2)
            return one, other
        dtype = with_scalar(x1.dtype, x2) if is_scalar(x2) else _refuse(x2)
        return converted(x1, dtype), tc.full((), _number(x2, dtype), dtype=dtype, device=x1.device)
    if not isinstance(x2, Tensor):
        _refuse(x1 if not is_scalar(x1) else x2)
    other, one = pair(x2, x1)
    return one, other


def _number(value: Any, dtype: DType) -> Any:
    if not (dtype.is_floating_point or dtype.is_complex or dtype is tc.bool):
        limits = tc.iinfo(dtype)
        if not limits.min <= value <= limits.max:
            raise OverflowError(f"{value} is out of the range of {dtype}")
    return value


def _refuse(value: Any) -> Any:
    raise TypeError(
        f"one of two arguments must be an array, and the other an array or a number: {type(value).__name__}"
    )


def as_native(x1: Tensor | Scalar, x2: Tensor | Scalar) -> tuple[Any, Any]:
    """As `pair`, for functions of torch that take a number on either side as the standard has it."""
    if isinstance(x1, Tensor) and isinstance(x2, Tensor):
        _issue.catch_up((x1, x2))
        if x1.dtype is x2.dtype:
            return x1, x2
        dtype = promoted(x1.dtype, x2.dtype)
        return converted(x1, dtype), converted(x2, dtype)
    if isinstance(x1, Tensor) and is_scalar(x2):
        return x1, x2
    return pair(x1, x2)


def normalized(axis: int, ndim: int) -> int:
    """An axis counted from the front. Raises: IndexError if there is none."""
    if not -ndim <= axis < ndim:
        raise IndexError(f"axis {axis} is out of range for an array of {ndim} axes")
    return axis % ndim


def normalized_all(axis: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Axes counted from the front. Raises: IndexError if there is none; ValueError if one is named twice."""
    axes = tuple(normalized(each, ndim) for each in (axis if isinstance(axis, tuple) else (axis,)))
    if len(set(axes)) != len(axes):
        raise ValueError(f"an axis is named twice in {axis}")
    return axes


def as_shape(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    """A shape that may be given as one number."""
    return (shape,) if isinstance(shape, int) else tuple(shape)
