"""The network of W4 and W5, 784-256-128-10 with ReLU, on local torch. Sides and the naive server share it."""

from __future__ import annotations

import torch

from .shape import SIZES


def network() -> torch.nn.Sequential:
    """The network with random weights."""
    first, second, third, last = SIZES
    return torch.nn.Sequential(
        torch.nn.Linear(first, second),
        torch.nn.ReLU(),
        torch.nn.Linear(second, third),
        torch.nn.ReLU(),
        torch.nn.Linear(third, last),
    )
