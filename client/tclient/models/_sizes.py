"""Sizes at which a network is tried: small, and such that one is not taken for another.

Knows names and numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Several rows, and few.
_ROWS = (3, 2, 5, 4)
_MANY_ROWS = 7
_SMALL = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
# Of networks that need larger sizes, or multiples: U-nets, patches, pictures.
# What is to be foretold: above and below what was tried, as far as it goes.
_LATER_ROWS = (6, 4, 9, 8, 11)
_LATER_SMALL = (3, -3, 8, 5, 13)
_LATER_STEPS = (4, 1, 5, 2, 6)
_LEVELS = (8, 16, 32, 64)
_PICTURE, _PATCH = 224, 32


@dataclass(frozen=True)
class Plan:
    """Sizes to begin with, and for each dimension others that it may have."""

    base: dict[str, int]
    others: dict[str, Sequence[int]]
    # A size of each dimension that is far from those.
    large: dict[str, int]
    # Sizes that are to be foretold.
    later: Sequence[dict[str, int]]


def plans(names: Sequence[str], rows: str | None) -> Iterator[Plan]:
    """Plans for dimensions that vary, the smallest sizes first. `rows` is the one that is surely a batch."""
    others = [name for name in names if name != rows]
    small = dict(zip(others, _SMALL * (1 + len(others) // len(_SMALL)), strict=False))
    yield _plan(names, rows, small, 1)
    if not others:
        return
    for level in _LEVELS:
        yield _plan(names, rows, {name: level * (position + 1) for position, name in enumerate(others)}, level)
    yield _plan(names, rows, {name: _PICTURE + _PATCH * position for position, name in enumerate(others)}, _PATCH)


def _plan(names: Sequence[str], rows: str | None, bases: dict[str, int], step: int) -> Plan:
    """A plan of these sizes, and those of rows; others are so far from each other."""
    is_small = step == 1
    base = {name: bases.get(name, _ROWS[0]) for name in names}
    others: dict[str, Sequence[int]] = {}
    large: dict[str, int] = {}
    for name, size in base.items():
        if name == rows:
            others[name], large[name] = _ROWS[1:], _MANY_ROWS
        elif is_small:
            near = (size + 1, size + 2, 2 * size + 1, size - 1, size - 2)
            others[name], large[name] = [each for each in near if each > 0], 3 * size + 2
        else:
            others[name], large[name] = (size + step, size + 2 * step, size + 1), size + 3 * step
    later = []
    for more, count in zip(_LATER_SMALL if is_small else _LATER_STEPS, _LATER_ROWS, strict=True):
        sizes = {name: max(1, size + more * step) for name, size in base.items()}
        later.append({**sizes, rows: count} if rows is not None else sizes)
    return Plan(base, others, large, later)
