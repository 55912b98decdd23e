"""Activation functions as modules.

Each names its function and its options; the base class runs it alone or describes it as a layer of a network.
"""

from __future__ import annotations

from typing import Any, ClassVar

import tclient
from tclient.nn import _network
from tclient.nn import functional as F
from tclient.nn._core import Tensor
from tclient.nn.module import Module
from tclient.nn.parameter import parameter_from
from tensorcompute.tables.activations import BY_NAME


class Activation(Module):
    """A function of one tensor.

    Shapes: (...) -> (...), unless the class says otherwise.
    """

    kind: ClassVar[str]

    def forward(self, input: Tensor) -> Tensor:
        """The function of input."""
        return self._run(input)

    def _run(self, input: Tensor) -> Tensor:
        raise NotImplementedError

    def _describe(self) -> list[_network.LayerCall] | None:
        options = tuple((name, self.__dict__[name]) for name in BY_NAME[self.kind].options)
        return [_network.LayerCall(self.kind, (), options, self.__dict__.get("inplace", False))]


class Identity(Activation):
    """The input itself; arguments of any kind are taken and ignored."""

    kind = "identity"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def _run(self, input: Tensor) -> Tensor:
        return input


class Step(Activation):
    """1 where input is not below threshold, else 0: the neuron of McCulloch and Pitts (1943)."""

    kind = "step"

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def _run(self, input: Tensor) -> Tensor:
        output = _network.forward(self, input)
        return (input >= self.threshold).to(input.dtype) if output is None else output

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"


class Sign(Step):
    """+1 where input is not below threshold, else -1: the perceptron of Rosenblatt (1958)."""

    kind = "sign"

    def _run(self, input: Tensor) -> Tensor:
        output = _network.forward(self, input)
        return (input >= self.threshold).to(input.dtype) * 2 - 1 if output is None else output


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    kind = "sigmoid"

    def _run(self, input: Tensor) -> Tensor:
        return tclient.sigmoid(input)


class Tanh(Activation):
    """The hyperbolic tangent."""

    kind = "tanh"

    def _run(self, input: Tensor) -> Tensor:
        return tclient.tanh(input)


class LogSigmoid(Activation):
    """log(1 / (1 + exp(-x)))."""

    kind = "logsigmoid"

    def _run(self, input: Tensor) -> Tensor:
        return F.logsigmoid(input)


class Softsign(Activation):
    """x / (1 + |x|)."""

    kind = "softsign"

    def _run(self, input: Tensor) -> Tensor:
        return F.softsign(input)


class Tanhshrink(Activation):
    """x - tanh(x)."""

    kind = "tanhshrink"

    def _run(self, input: Tensor) -> Tensor:
        return F.tanhshrink(input)


class _Inplace(Activation):
    """An activation without options that may write into its input."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class ReLU(_Inplace):
    """max(x, 0)."""

    kind = "relu"

    def _run(self, input: Tensor) -> Tensor:
        return F.relu(input, inplace=self.inplace)


class SiLU(_Inplace):
    """x * sigmoid(x)."""

    kind = "silu"

    def _run(self, input: Tensor) -> Tensor:
        return F.silu(input, inplace=self.inplace)


class Mish(_Inplace):
    """x * tanh(softplus(x))."""

    kind = "mish"

    def _run(self, input: Tensor) -> Tensor:
        return F.mish(input, inplace=self.inplace)


class SELU(_Inplace):
    """The scaled exponential linear unit."""

    kind = "selu"

    def _run(self, input: Tensor) -> Tensor:
        return F.selu(input, self.inplace)


class Hardsigmoid(_Inplace):
    """relu6(x + 3) / 6."""

    kind = "hardsigmoid"

    def _run(self, input: Tensor) -> Tensor:
        return F.hardsigmoid(input, self.inplace)

    def extra_repr(self) -> str:
        return ""


class Hardswish(_Inplace):
    """x * relu6(x + 3) / 6."""

    kind = "hardswish"

    def _run(self, input: Tensor) -> Tensor:
        return F.hardswish(input, self.inplace)

    def extra_repr(self) -> str:
        return ""


class Hardtanh(Activation):
    """x kept between min_val and max_val."""

    kind = "hardtanh"

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace
        assert self.max_val > self.min_val

    def _run(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}" + (", inplace=True" if self.inplace else "")


class ReLU6(Hardtanh):
    """x kept between 0 and 6."""

    kind = "relu6"

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Threshold(Activation):
    """x where it is above threshold, else value."""

    kind = "threshold"

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace

    def _run(self, input: Tensor) -> Tensor:
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}" + (", inplace=True" if self.inplace else "")


class LeakyReLU(Activation):
    """x where positive, else negative_slope * x."""

    kind = "leaky_relu"

    def __init__(self, negative_slope: float = 1e-2, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def _run(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class RReLU(Activation):
    """x where positive, else x times a slope drawn between lower and upper; their mean when not training."""

    kind = "rrelu"

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def _run(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def _describe(self) -> list[_network.LayerCall] | None:
        return None if self.training else super()._describe()

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace else "")


class ELU(Activation):
    """x where positive, else alpha * (exp(x) - 1)."""

    kind = "elu"

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def _run(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class CELU(ELU):
    """x where positive, else alpha * (exp(x / alpha) - 1)."""

    kind = "celu"

    def _run(self, input: Tensor) -> Tensor:
        return F.celu(input, self.alpha, self.inplace)


class GELU(Activation):
    """x times the cumulative normal distribution at x."""

    kind = "gelu"

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def _run(self, input: Tensor) -> Tensor:
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Softplus(Activation):
    """log(1 + exp(beta * x)) / beta; x itself where beta * x is above threshold."""

    kind = "softplus"

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def _run(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Softshrink(Activation):
    """x moved towards 0 by lambd, and 0 where it is nearer than that."""

    kind = "softshrink"

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def _run(self, input: Tensor) -> Tensor:
        return F.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Hardshrink(Softshrink):
    """x, and 0 where it is nearer to 0 than lambd."""

    kind = "hardshrink"

    def _run(self, input: Tensor) -> Tensor:
        return F.hardshrink(input, self.lambd)


class _AlongDim(Activation):
    """A function along one dimension."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_AlongDim):
    """exp(x) / sum(exp(x)) along dim."""

    kind = "softmax"

    def _run(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)


class Softmin(_AlongDim):
    """softmax(-x) along dim."""

    kind = "softmin"

    def _run(self, input: Tensor) -> Tensor:
        return F.softmin(input, self.dim)


class LogSoftmax(_AlongDim):
    """log(softmax(x)) along dim."""

    kind = "log_softmax"

    def _run(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)


class GLU(Activation):
    """The first half times the sigmoid of the second half, along dim; halves that dimension."""

    kind = "glu"

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def _run(self, input: Tensor) -> Tensor:
        return F.glu(input, self.dim)

    def _describe(self) -> list[_network.LayerCall] | None:
        return [_network.LayerCall(self.kind, (), (("dim", self.dim),))]

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax2d(Module):
    """Softmax over the channels of (N, C, H, W) or (C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """The softmax over channels."""
        if input.dim() not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {input.dim()}D instead")
        return F.softmax(input, -3)


class PReLU(Module):
    """x where positive, else a learned slope times x; one slope, or one a channel."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = parameter_from(tclient.empty, num_parameters, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets every slope to init."""
        with tclient.no_grad():
            self.weight.fill_(self.init)

    def forward(self, input: Tensor) -> Tensor:
        """The function of input."""
        return F.prelu(input, self.weight)

    def _describe(self) -> list[_network.LayerCall] | None:
        return [_network.LayerCall("prelu", (("weight", self.weight),))]

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"
