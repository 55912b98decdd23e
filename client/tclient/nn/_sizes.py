"""Sizes that may be one number or one a dimension."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def ntuple(value: Any, n: int) -> tuple[Any, ...]:
    """The value as n numbers."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,) * n


def reversed_twice(values: Iterable[int]) -> list[int]:
    """Each value twice, the last first: the order in which padding is given."""
    return [value for value in reversed(list(values)) for _ in range(2)]
