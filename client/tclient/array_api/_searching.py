"""Sorted arrays, places of elements, and what is different among them."""

from __future__ import annotations

from typing import NamedTuple

import tclient as tc
from tclient import Tensor
from tclient.array_api._arguments import normalized, pair
from tclient.array_api._dtypes import Scalar, is_scalar


def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The array with its elements in order along an axis."""
    made: Tensor = tc.sort(x, dim=axis, descending=descending, stable=stable).values
    return made


def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The places of the elements in their order along an axis."""
    made: Tensor = tc.sort(x, dim=axis, descending=descending, stable=stable).indices
    return made


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """The places of the elements that are not zero. Raises: ValueError for an array of no axes."""
    if not x.ndim:
        raise ValueError("an array of no axes has no places")
    return tuple(tc.nonzero(x, as_tuple=True))


def searchsorted(x1: Tensor, x2: Tensor | float, /, *, side: str = "left", sorter: Tensor | None = None) -> Tensor:
    """Where elements belong in a sorted array, before or behind those that are equal."""
    if side not in ("left", "right"):
        raise ValueError(f"side is 'left' or 'right', not {side!r}")
    places, values = pair(x1, x2)
    return tc.searchsorted(places, values, side=side, sorter=None if sorter is None else sorter.to(tc.int64))


def where(condition: Tensor, x1: Tensor | Scalar, x2: Tensor | Scalar, /) -> Tensor:
    """Elements of the one array where the condition holds, and of the other elsewhere."""
    if is_scalar(x1) and is_scalar(x2):
        return tc.where(condition, x1, x2)
    return tc.where(condition, *pair(x1, x2))


def isin(x1: Tensor | Scalar, x2: Tensor | Scalar, /, *, invert: bool = False) -> Tensor:
    """Whether each element of the one array is among those of the other."""
    return tc.isin(*pair(x1, x2), invert=invert)


def _from_the_front(indices: Tensor, size: int) -> Tensor:
    places = indices.to(tc.int64)
    return tc.where(places < 0, places + size, places)


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """The elements at places along an axis, which may be left out where there is one only."""
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"an axis must be named for an array of {x.ndim}")
        axis = 0
    place = normalized(axis, x.ndim)
    counted = _from_the_front(indices, x.shape[place])
    if indices.ndim == 1:
        return tc.index_select(x, place, counted)
    flat = tc.index_select(x, place, counted.flatten())
    return flat.reshape((*x.shape[:place], *indices.shape, *x.shape[place + 1 :]))


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """The elements at places that are given for each line along an axis."""
    place = normalized(axis, x.ndim)
    return tc.take_along_dim(x, _from_the_front(indices, x.shape[place]), dim=place)


class UniqueAllResult(NamedTuple):
    """What is different, where it is first, which of it each element is, and how often."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCountsResult(NamedTuple):
    """What is different, and how often."""

    values: Tensor
    counts: Tensor


class UniqueInverseResult(NamedTuple):
    """What is different, and which of it each element is."""

    values: Tensor
    inverse_indices: Tensor


def unique_all(x: Tensor, /) -> UniqueAllResult:
    """The different elements in their order, and where they are. Every NaN is one of its own.

    torch knows no places of the first, takes no complex numbers, and counts NaN as none: this sorts.
    """
    flat = x.flatten()
    if flat.dtype.is_complex:
        order = tc.sort(flat.imag, stable=True).indices
        order = order[tc.sort(flat.real[order], stable=True).indices]
    else:
        order = tc.sort(flat, stable=True).indices
    ordered = flat[order]
    is_first = tc.ones_like(order, dtype=tc.bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    starts = tc.nonzero(is_first).flatten()
    inverse = tc.empty_like(order)
    inverse[order] = tc.cumsum(is_first, 0) - 1
    ends = tc.cat((starts[1:], starts.new_full((1,), flat.numel()))) if flat.numel() else starts
    return UniqueAllResult(ordered[starts], order[starts], inverse.reshape(x.shape), ends - starts)


def unique_counts(x: Tensor, /) -> UniqueCountsResult:
    """The different elements in their order, and how often each occurs."""
    found = unique_all(x)
    return UniqueCountsResult(found.values, found.counts)


def unique_inverse(x: Tensor, /) -> UniqueInverseResult:
    """The different elements in their order, and which of them each element is."""
    found = unique_all(x)
    return UniqueInverseResult(found.values, found.inverse_indices)


def unique_values(x: Tensor, /) -> Tensor:
    """The different elements in their order."""
    return unique_all(x).values
