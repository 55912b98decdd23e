"""torch.Size: a tuple of integers that knows it is a shape. Knows nothing else."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any, SupportsIndex, overload

import numpy as np

from tclient._codec.foreign import class_name


class Size(tuple[int, ...]):
    """The size of each dimension of a tensor."""

    __slots__ = ()

    def __new__(cls, dims: Iterable[Any] = ()) -> Size:
        items: list[Any] = []
        for position, dim in enumerate(dims):
            try:
                items.append(dim if isinstance(dim, int | np.integer) and dim is not bool(dim) else operator.index(dim))
            except TypeError:
                raise TypeError(
                    f"torch.Size() takes an iterable of 'int' (item {position} is '{class_name(dim)}')"
                ) from None
        return super().__new__(cls, items)

    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self)

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(str, self))}])"

    @overload
    def __getitem__(self, index: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Size: ...
    def __getitem__(self, index: SupportsIndex | slice) -> int | Size:
        found = super().__getitem__(index)
        return size_of(found) if isinstance(found, tuple) else found

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, tuple):
            return NotImplemented
        return Size(tuple(self) + other)

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, tuple):
            return NotImplemented
        return Size(other + tuple(self))

    def __mul__(self, count: SupportsIndex) -> Size:
        return size_of(tuple(self) * count.__index__())

    __rmul__ = __mul__

    def __reduce__(self) -> tuple[type[Size], tuple[tuple[int, ...]]]:
        return Size, (tuple(self),)


def size_of(dims: Iterable[int]) -> Size:
    """A Size of what are surely integers."""
    return tuple.__new__(Size, dims)
