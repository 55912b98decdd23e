"""Ways to draw parameters that take many steps, and would take as many round trips from a client.

Knows torch; does not know gRPC or sessions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LEAST_ACCEPTED = 1e-3
"""The share of drawn numbers that must be usable; one in two or three is common."""


def _accepted(mean: float, std: float, a: float, b: float) -> float:
    """How many of the numbers that torch draws fall where they should."""
    low, high = (a - mean) / std, (b - mean) / std
    if low + high < 0:
        low, high = -high, -low
    # Of two tails the smaller one is exact.
    inside = (math.erfc(low / math.sqrt(2)) - math.erfc(high / math.sqrt(2))) / 2
    if inside > 0.3:
        return inside
    # Here torch draws evenly between the bounds, and keeps a number with its density over the highest one.
    peak = max(low, 0.0)
    if peak > _FARTHEST:
        return 0.0
    return inside * math.sqrt(2 * math.pi) * math.exp(peak**2 / 2) / (high - low)


_FARTHEST = 30.0
"""How many deviations from the mean the bounds may begin; beyond, no float tells the densities apart."""


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fills tensor with normal numbers between a and b, and returns it; torch draws again what falls outside.

    Raises: TypeError when tensor is none, ValueError when there is nothing between a and b to draw.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"trunc_normal_: tensor is a {type(tensor).__name__}; give a tensor")
    if not a < b or not std > 0 or not all(math.isfinite(number) for number in (mean, std, a, b)):
        raise ValueError(
            f"trunc_normal_: mean={mean}, std={std}, a={a}, b={b}; give finite numbers, a below b, and std above 0"
        )
    if _accepted(mean, std, a, b) < _LEAST_ACCEPTED:
        raise ValueError(
            f"trunc_normal_: between a={a} and b={b}, numbers of mean={mean} and std={std} are so rare that drawing "
            "them would not end; move a and b nearer to the mean, or to each other"
        )
    return torch.nn.init.trunc_normal_(tensor, mean, std, a, b, generator)


BUILTIN_OPERATIONS: dict[str, Callable[..., Any]] = {"tc.trunc_normal_": trunc_normal_}
"""What the engine adds to torch's operations."""
