"""Every activation: a function of one tensor that keeps its shape, and the options that it has."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

# What an option is when it is left out: a float stands for any number, an int for a dimension or none, and of texts the
# first, which are all that it may be.
Default = float | int | tuple[str, ...]


class Activation(NamedTuple):
    """An activation."""

    # Value of the contract's ActivationKind, never used again for another; None where served networks do not have it.
    code: int | None
    # What it is called in a description of layers, and torch's function of that name; step and sign are no functions of
    # torch's.
    name: str
    # The class in torch.nn, and in tclient.nn.
    module: str
    formula: str
    options: Mapping[str, Default] = MappingProxyType({})
    # Whether the class prints the value of its option without the name.
    is_terse: bool = False

    @property
    def defaults(self) -> dict[str, float | int | str]:
        """What each option is when it is left out."""
        return {name: value[0] if isinstance(value, tuple) else value for name, value in self.options.items()}

    @property
    def parameter(self) -> str:
        """The option that the contract's Activation.parameter is: the only one, if that is a number. Else empty."""
        (name, default), *more = self.options.items() or [("", 0)]
        return name if isinstance(default, float) and not more else ""


ACTIVATIONS: tuple[Activation, ...] = (
    #          code name  module  formula  options
    Activation(1, "identity", "Identity", "The sum itself"),
    Activation(
        2,
        "step",
        "Step",
        "1 where the sum is not below the threshold, else 0: the neuron of McCulloch and Pitts",
        {"threshold": 0.0},
    ),
    Activation(
        3, "sign", "Sign", "+1 where the sum is not below the threshold, else -1: the perceptron", {"threshold": 0.0}
    ),
    Activation(4, "sigmoid", "Sigmoid", "1 / (1 + exp(-x))"),
    Activation(5, "tanh", "Tanh", "Hyperbolic tangent"),
    Activation(6, "relu", "ReLU", "max(x, 0)"),
    Activation(7, "leaky_relu", "LeakyReLU", "x where positive, else negative_slope * x", {"negative_slope": 0.01}),
    Activation(8, "elu", "ELU", "x where positive, else alpha * (exp(x) - 1)", {"alpha": 1.0}),
    Activation(9, "gelu", "GELU", "x times the cumulative normal distribution at x", {"approximate": ("none", "tanh")}),
    Activation(10, "silu", "SiLU", "x * sigmoid(x)"),
    Activation(11, "softplus", "Softplus", "log(1 + exp(x))", {"beta": 1.0, "threshold": 20.0}),
    Activation(12, "softmax", "Softmax", "exp(x) / sum(exp(x)) over the last dimension", {"dim": -1}),
    Activation(None, "relu6", "ReLU6", "min(max(x, 0), 6)"),
    Activation(None, "rrelu", "RReLU", "leaky_relu of a slope between two", {"lower": 1.0 / 8, "upper": 1.0 / 3}),
    Activation(None, "celu", "CELU", "x where positive, else alpha * (exp(x / alpha) - 1)", {"alpha": 1.0}),
    Activation(None, "selu", "SELU", "elu, scaled to keep mean and variance"),
    Activation(None, "mish", "Mish", "x * tanh(log(1 + exp(x)))"),
    Activation(None, "softsign", "Softsign", "x / (1 + |x|)"),
    Activation(None, "logsigmoid", "LogSigmoid", "log(sigmoid(x))"),
    Activation(None, "tanhshrink", "Tanhshrink", "x - tanh(x)"),
    Activation(None, "softshrink", "Softshrink", "x moved towards 0 by lambd, at most to 0", {"lambd": 0.5}, True),
    Activation(None, "hardshrink", "Hardshrink", "x, but 0 where it is nearer to 0 than lambd", {"lambd": 0.5}, True),
    Activation(None, "hardtanh", "Hardtanh", "x kept between the two", {"min_val": -1.0, "max_val": 1.0}),
    Activation(None, "hardsigmoid", "Hardsigmoid", "relu6(x + 3) / 6"),
    Activation(None, "hardswish", "Hardswish", "x * relu6(x + 3) / 6"),
    Activation(
        None, "threshold", "Threshold", "x above the threshold, else the value", {"threshold": 0.0, "value": 0.0}
    ),
    Activation(None, "softmin", "Softmin", "softmax(-x)", {"dim": -1}),
    Activation(None, "log_softmax", "LogSoftmax", "log(softmax(x))", {"dim": -1}),
)
BY_NAME: dict[str, Activation] = {row.name: row for row in ACTIVATIONS}
