"""The functions that opt_einsum asks a library for, with numpy's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tclient as tc

__all__ = ["einsum", "tensordot", "transpose"]


def einsum(equation: str, *operands: Any, **_: Any) -> Any:
    """The sum of products that an equation names."""
    return tc.einsum(equation, *operands)


def tensordot(x: Any, y: Any, axes: Any = 2) -> Any:
    """The product of two tensors, summed over axes of each."""
    return tc.tensordot(x, y, dims=axes)


def transpose(x: Any, axes: Sequence[int]) -> Any:
    """The tensor with its axes in another order."""
    return x.permute(*axes)
