"""Normalisation of each sample by itself.

Knows shapes of scale and shift; the arithmetic is the server's.
"""

from __future__ import annotations

from typing import Any

import tclient
from tclient.nn import functional as F
from tclient.nn._core import Tensor
from tclient.nn.module import Module
from tclient.nn.parameter import Parameter, parameter_from


def _shape(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


class LayerNorm(Module):
    """The last dimensions to mean 0 and variance 1, then scaled and shifted. Shapes: (..., *normalized_shape)."""

    weight: Parameter | Any  # None if it was not asked for
    bias: Parameter | Any  # None if it was not asked for

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        where = {"device": device, "dtype": dtype}
        if elementwise_affine:
            self.weight = parameter_from(tclient.ones, self.normalized_shape, **where)
        else:
            self.register_parameter("weight", None)
        if elementwise_affine and bias:
            self.bias = parameter_from(tclient.zeros, self.normalized_shape, **where)
        else:
            self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        """Sets scale to 1 and shift to 0."""
        _reset(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Input, normalised."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}" + (
            f", bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """The last dimensions divided by their root mean square, then scaled. Shapes: (..., *normalized_shape)."""

    weight: Parameter | Any  # None if it was not asked for

    def __init__(
        self,
        normalized_shape: Any,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        if elementwise_affine:
            self.weight = parameter_from(tclient.ones, self.normalized_shape, device, dtype)
        else:
            self.register_parameter("weight", None)

    def reset_parameters(self) -> None:
        """Sets the scale to 1."""
        _reset(self.weight, None)

    def forward(self, input: Tensor) -> Tensor:
        """Input, normalised."""
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Groups of channels to mean 0 and variance 1, then scaled and shifted. Shapes: (N, C, ...)."""

    weight: Parameter | Any  # None if it was not asked for
    bias: Parameter | Any  # None if it was not asked for

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_channels % num_groups != 0:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        if affine:
            self.weight = parameter_from(tclient.ones, num_channels, device, dtype)
        else:
            self.register_parameter("weight", None)
        if affine and bias:
            self.bias = parameter_from(tclient.zeros, num_channels, device, dtype)
        else:
            self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        """Sets scale to 1 and shift to 0."""
        _reset(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Input, normalised."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        settings = f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
        return f"{settings}, bias={self.bias is not None}"


class LocalResponseNorm(Module):
    """Each element divided by what its neighbours in the channels amount to. Shapes: (N, C, ...)."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        """Input, normalised."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


def _reset(weight: Parameter | None, bias: Parameter | None) -> None:
    with tclient.no_grad():
        if weight is not None:
            weight.fill_(1)
        if bias is not None:
            bias.zero_()
