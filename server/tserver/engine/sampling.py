"""Draws that torch keeps to its own distributions, and those that take many steps.

Knows torch; does not know gRPC or sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _floating(name: str, tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        raise TypeError(f"{name}: concentration is no tensor of floating point numbers; give one")
    return tensor


def standard_gamma(concentration: Tensor) -> Tensor:
    """Numbers of the gamma distribution with that concentration and the rate 1; differentiable."""
    return torch._standard_gamma(_floating("standard_gamma", concentration))


class _Dirichlet(torch.autograd.Function):
    """A draw, and its implicit derivative by the concentration."""

    @staticmethod
    def forward(ctx: Any, concentration: Tensor) -> Tensor:
        drawn = torch._sample_dirichlet(concentration)
        ctx.save_for_backward(drawn, concentration)
        return drawn

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        drawn, concentration = ctx.saved_tensors
        total = concentration.sum(-1, True).expand_as(concentration)
        implicit: Tensor = torch._dirichlet_grad(drawn, concentration, total)
        along: Tensor = gradient - (drawn * gradient).sum(-1, True)
        return implicit.mul(along)


def sample_dirichlet(concentration: Tensor) -> Tensor:
    """Points of the simplex, of the Dirichlet distribution over the last dimension; differentiable."""
    drawn: Tensor = _Dirichlet.apply(_floating("sample_dirichlet", concentration))  # type: ignore[no-untyped-call]
    return drawn


BUILTIN_OPERATIONS: dict[str, Callable[..., Any]] = {
    "tc.standard_gamma": standard_gamma,
    "tc.sample_dirichlet": sample_dirichlet,
}
"""What the engine adds to torch's operations."""
