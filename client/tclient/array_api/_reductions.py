"""Functions that make fewer elements of many: over one axis, several, all, or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tclient as tc
from tclient import Tensor
from tclient import dtype as DType
from tclient.array_api._arguments import Axes, normalized, normalized_all


def _summed_dtype(x: Tensor, dtype: DType | None) -> DType:
    """The dtype of a sum or product: of small integers, the default integer."""
    if dtype is not None:
        return dtype
    found = x.dtype
    return found if found.is_floating_point or found.is_complex or found is tc.uint64 else tc.int64


def over_axes(of: Callable[..., Any], x: Tensor, axis: Axes, keepdims: bool) -> Tensor:
    """A reduction that torch has over one axis only (`of(x, dim)`), over several, which become one."""
    axes = tuple(range(x.ndim)) if axis is None else normalized_all(axis, x.ndim)
    rest = [each for each in range(x.ndim) if each not in axes]
    made: Tensor = of(tc.permute(x, (*rest, *axes)).flatten(len(rest)) if axes else x.unsqueeze(-1), -1)
    if keepdims:
        made = made.reshape(tuple(1 if each in axes else size for each, size in enumerate(x.shape)))
    return made


def _dims(x: Tensor, axis: Axes) -> tuple[int, ...]:
    """The axes as torch takes them all, where it takes no axes for all."""
    return tuple(range(x.ndim)) if axis is None else normalized_all(axis, x.ndim)


def sum(x: Tensor, /, *, axis: Axes = None, dtype: DType | None = None, keepdims: bool = False) -> Tensor:
    """The sum of the elements."""
    wanted = _summed_dtype(x, dtype)
    dims = _dims(x, axis)
    if not dims:
        return x.to(wanted, copy=True)
    return tc.sum(x, dims, keepdim=keepdims, dtype=wanted)


def prod(x: Tensor, /, *, axis: Axes = None, dtype: DType | None = None, keepdims: bool = False) -> Tensor:
    """The product of the elements."""
    wanted = _summed_dtype(x, dtype)
    return over_axes(lambda flat, dim: tc.prod(flat, dim, dtype=wanted), x, axis, keepdims)


def _extreme(name: str, of: Callable[..., Any]) -> Any:
    def function(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
        dims = _dims(x, axis)
        made: Tensor = of(x, dims, keepdim=keepdims) if dims else x.clone()
        return made

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The {name} of the elements."
    return function


max = _extreme("max", tc.amax)
min = _extreme("min", tc.amin)


def _holds(name: str, of: Callable[..., Any]) -> Any:
    def function(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
        return over_axes(of, x if x.dtype is tc.bool else x != 0, axis, keepdims)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Whether {name} of the elements are true."
    return function


all = _holds("all", tc.all)
any = _holds("any", tc.any)


def mean(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The arithmetic mean of the elements."""
    dims = _dims(x, axis)
    return tc.mean(x, dims, keepdim=keepdims) if dims else x.clone()


def var(x: Tensor, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The variance of the elements: their squared distances from the mean, over their number less the correction."""
    dims = _dims(x, axis)
    if not dims:
        return var(x.unsqueeze(-1), axis=-1, correction=correction)
    return tc.var(x, dims, correction=correction, keepdim=keepdims)


def std(x: Tensor, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The square root of the variance."""
    return tc.sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


def count_nonzero(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """How many elements are not zero."""
    return sum(x != 0, axis=axis, keepdims=keepdims)


def _place(name: str, of: Callable[..., Any]) -> Any:
    def function(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
        # torch has it for numbers only, and of none of its own for bools.
        values = x.to(tc.uint8) if x.dtype is tc.bool else x
        made: Tensor
        if axis is None:
            made = of(values.flatten(), 0)
            return made.reshape((1,) * x.ndim) if keepdims else made
        made = of(values, axis, keepdim=keepdims)
        return made

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The place of the {name.removeprefix('arg')} of the elements."
    return function


argmax = _place("argmax", tc.argmax)
argmin = _place("argmin", tc.argmin)


def _cumulated(
    x: Tensor, of: Callable[..., Any], start: int, axis: int | None, dtype: DType | None, initial: bool
) -> Tensor:
    if axis is None:
        if x.ndim > 1:
            raise ValueError("an axis must be named for an array of several")
        axis = 0
    if not x.ndim:
        x = x.unsqueeze(0)
    place = normalized(axis, x.ndim)
    made: Tensor = of(x, place, dtype=_summed_dtype(x, dtype))
    if not initial:
        return made
    shape = list(made.shape)
    shape[place] = 1
    return tc.cat((made.new_full(shape, start), made), place)


def cumulative_sum(
    x: Tensor, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False
) -> Tensor:
    """The sums of the elements up to each, with that of none before them if asked for."""
    return _cumulated(x, tc.cumsum, 0, axis, dtype, include_initial)


def cumulative_prod(
    x: Tensor, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False
) -> Tensor:
    """The products of the elements up to each, with that of none before them if asked for."""
    return _cumulated(x, tc.cumprod, 1, axis, dtype, include_initial)


def diff(
    x: Tensor,
    /,
    *,
    axis: int = -1,
    n: int = 1,
    prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:
    """The differences of neighbours, n times over."""
    return tc.diff(x, n=n, dim=axis, prepend=prepend, append=append)
