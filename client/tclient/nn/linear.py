"""Layers that are linear maps.

Knows how their parameters are drawn; the arithmetic is the server's.
"""

from __future__ import annotations

import math
from typing import Any

import tclient
from tclient.nn import _network
from tclient.nn import functional as F
from tclient.nn._core import Tensor
from tclient.nn.init import kaiming_uniform_bound
from tclient.nn.module import Module
from tclient.nn.parameter import Parameter, parameter_from


class Linear(Module):
    """x Wᵀ + b.

    Shapes: (..., in_features) -> (..., out_features); weight (out_features, in_features), bias (out_features,).
    """

    in_features: int
    out_features: int
    weight: Parameter
    bias: Parameter | Any  # None if it was not asked for

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = parameter_from(tclient.empty, (out_features, in_features), device, dtype)
        if bias:
            self.bias = parameter_from(tclient.empty, out_features, device, dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weights and biases between ±1/sqrt(in_features), as torch does."""
        fan_in = self.in_features
        with tclient.no_grad():
            if self.out_features > 0 and fan_in > 0:
                bound = kaiming_uniform_bound(fan_in, math.sqrt(5))
                self.weight.uniform_(-bound, bound)
            if self.bias is not None:
                bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0
                self.bias.uniform_(-bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """The map of input."""
        return F.linear(input, self.weight, self.bias)

    def _describe(self) -> list[_network.LayerCall] | None:
        return [_network.LayerCall("linear", (("weight", self.weight), ("bias", self.bias)))]

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class NonDynamicallyQuantizableLinear(Linear):
    """A linear layer under the name that torch prints for the output of attention."""


class Bilinear(Module):
    """x1ᵀ A x2 + b, for each output feature.

    Shapes: (..., in1_features), (..., in2_features) -> (..., out_features).
    """

    weight: Parameter
    bias: Parameter | Any  # None if it was not asked for

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if in1_features <= 0:
            raise ValueError(f"in1_features must be > 0, but got {in1_features}")
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        self.weight = parameter_from(tclient.empty, (out_features, in1_features, in2_features), device, dtype)
        if bias:
            self.bias = parameter_from(tclient.empty, out_features, device, dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weights and biases between ±1/sqrt(in1_features), as torch does."""
        bound = 1 / math.sqrt(self.in1_features)
        with tclient.no_grad():
            self.weight.uniform_(-bound, bound)
            if self.bias is not None:
                self.bias.uniform_(-bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """The map of both inputs."""
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
