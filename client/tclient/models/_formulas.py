"""Whole numbers that follow from sizes: the simplest formula that gives those that were seen.

Knows numbers and names; knows neither tensors nor programs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tensorcompute.v1 import model_service_pb2 as rpc

_MOST_FACTORS = 3
_DIVISORS = (*range(1, 65), 96, 128, 256)

Point = tuple[Mapping[str, int], int]


class Formula(NamedTuple):
    """(scale · product of the dimensions + offset) // divisor."""

    dimensions: tuple[str, ...]
    scale: int
    offset: int
    divisor: int

    def at(self, sizes: Mapping[str, int]) -> int:
        """The number for these sizes."""
        product = math.prod(sizes[name] for name in self.dimensions)
        return (self.scale * product + self.offset) // self.divisor

    def message(self) -> rpc.SizeFormula:
        """The formula as the contract has it."""
        return rpc.SizeFormula(dimensions=self.dimensions, scale=self.scale, offset=self.offset, divisor=self.divisor)


def fit(points: Sequence[Point]) -> Formula | None:
    """The simplest formula through all points, or None. Each point is the sizes and the number that was seen."""
    for names in _involved(points):
        for dimensions in _products(names):
            products = [math.prod(sizes[name] for name in dimensions) for sizes, _ in points]
            found = _line(products, [value for _, value in points])
            if found is not None:
                return Formula(dimensions, *found)
    return None


def _involved(points: Sequence[Point]) -> Iterator[list[str]]:
    """The dimensions that alone change the number, and those with others."""
    names = list(points[0][0])
    surely = [
        name
        for name in names
        if any(
            one[1] != other[1] and all((one[0][each] == other[0][each]) == (each != name) for each in names)
            for one, other in itertools.combinations(points, 2)
        )
    ]
    rest = [name for name in names if name not in surely]
    for more in range(len(rest) + 1):
        for others in itertools.combinations(rest, more):
            if surely or others:
                yield [*surely, *others]


def _products(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Products of these dimensions, each at least once, the shortest ones first."""
    for more in range(max(1, _MOST_FACTORS - len(names) + 1)):
        for others in itertools.combinations_with_replacement(names, more):
            yield tuple(sorted((*names, *others)))


def _line(products: Sequence[int], values: Sequence[int]) -> tuple[int, int, int] | None:
    """Scale, offset and divisor of the simplest line through all points, or None."""
    low, high = min(range(len(values)), key=products.__getitem__), max(range(len(values)), key=products.__getitem__)
    run, rise = products[high] - products[low], values[high] - values[low]
    if not run:
        return None
    if rise:
        # A line that meets all points is better than one that rounds.
        common = math.gcd(run, rise)
        found = _offset(products, values, rise // common, run // common, exactly=True)
        if found is not None:
            return found
    for divisor in _DIVISORS:
        # Rounding down moves each value by less than one.
        first = -((-(divisor * rise - divisor + 1)) // run)
        last = (divisor * rise + divisor - 1) // run
        for scale in sorted(range(first, last + 1), key=abs):
            if scale and math.gcd(scale, divisor) == 1:
                found = _offset(products, values, scale, divisor)
                if found is not None:
                    return found
    return None


def _offset(
    products: Sequence[int], values: Sequence[int], scale: int, divisor: int, *, exactly: bool = False
) -> tuple[int, int, int] | None:
    """The line with an offset that does, if there is one; `exactly` is where rounding does nothing."""
    if divisor > _DIVISORS[-1]:
        return None
    rests = [divisor * value - scale * product for product, value in zip(products, values, strict=True)]
    least, most = max(rests), min(rests) + divisor - 1
    if least > most or (exactly and min(rests) != max(rests)):
        return None
    # The simplest: none, rounding up, the windows of a convolution, else the least.
    simple = (each for each in (0, divisor - 1, divisor) if least <= each <= most)
    return scale, next(simple, min(least, most, key=abs)), divisor
