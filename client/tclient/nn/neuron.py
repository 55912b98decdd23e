"""One neuron, one perceptron, one layer of neurons, and many layers.

Knows how they are put together; the arithmetic is the server's, one call for a forward pass of any depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import tclient
from tclient.nn import _network
from tclient.nn import activation as activations
from tclient.nn._core import Tensor
from tclient.nn.container import Sequential
from tclient.nn.init import kaiming_uniform_bound
from tclient.nn.linear import Linear
from tclient.nn.module import Module
from tclient.nn.parameter import Parameter, parameter_from
from tensorcompute.tables.activations import BY_NAME


def activation_of(activation: str | Module | None) -> Module:
    """The activation that is meant by a name, a module, or None for none.

    Raises: ValueError for a name that is unknown, TypeError for anything else.
    """
    if activation is None:
        return activations.Identity()
    if isinstance(activation, Module):
        return activation
    if not isinstance(activation, str):
        raise TypeError(f"activation is a {type(activation).__name__}; give a name such as 'sigmoid', a module or None")
    row = BY_NAME.get("identity" if activation == "linear" else activation)
    if row is None:
        raise ValueError(
            f"there is no activation {activation!r}; give one of {', '.join((*BY_NAME, 'linear'))}, or a module"
        )
    made: Module = activations.__dict__[row.module](**row.defaults)
    return made


class Neuron(Module):
    """Output of one artificial neuron, f(w·a + b).

    Args:
        weights: one weight an input, or how many inputs there are: then all is drawn as Linear draws it.
        bias: added to the weighted sum.
        activation: f, by name or as a module.
        threshold: where the step or sign activation switches; only for those.

    Shapes: inputs (..., n) -> (...); one number for a vector of inputs, a vector for a batch.
    Raises: ValueError if the last dimension of inputs is not n.
    Source: McCulloch and Pitts (1943), with a differentiable activation.

    Example:
        >>> both = nn.Neuron([1.0, 1.0], activation="step", threshold=1.5)
        >>> both(tclient.tensor([[0.0, 1.0], [1.0, 1.0]])).tolist()
        [0.0, 1.0]
    """

    weight: Parameter
    bias: Parameter
    activation: Module

    def __init__(
        self,
        weights: Any,
        bias: Any = 0.0,
        activation: str | Module | None = "sigmoid",
        *,
        threshold: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        if isinstance(weights, int) and not isinstance(weights, bool):
            if weights < 1:
                raise ValueError(f"Neuron: {weights} inputs; a neuron has at least one")
            self.in_features = weights
            bound = kaiming_uniform_bound(weights, 5**0.5)
            self.weight = parameter_from(tclient.empty, weights, **where)
            self.bias = parameter_from(tclient.empty, (), **where)
            with tclient.no_grad():
                self.weight.uniform_(-bound, bound)
                self.bias.uniform_(-bound, bound)
        else:
            self.weight = Parameter(_floating(weights, **where))
            if self.weight.dim() != 1:
                raise ValueError(
                    f"Neuron: weights have shape {tuple(self.weight.shape)}; give one weight an input, (n,)"
                )
            self.in_features = int(self.weight.shape[0])
            where = {"device": self.weight.device, "dtype": self.weight.dtype}
            self.bias = Parameter(_floating(bias, **where).reshape(()))
        self.activation = activation_of(activation)
        if threshold is not None:
            if not isinstance(self.activation, activations.Step):
                raise ValueError(
                    f"Neuron: threshold={threshold!r} is for 'step' and 'sign', not for {activation!r}; "
                    "leave it out, or move the bias by as much"
                )
            self.activation.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        """The output for each row of inputs."""
        output = _network.forward(self, input)
        return self.activation(self.weighted_sum(input)) if output is None else output

    def weighted_sum(self, input: Tensor) -> Tensor:
        """w·a + b, what the activation is applied to."""
        return tclient.matmul(input, self.weight) + self.bias

    def _describe(self) -> list[_network.LayerCall] | None:
        tail = _network.describe(self.activation)
        if tail is None:
            return None
        return [_network.LayerCall("neuron", (("weight", self.weight), ("bias", self.bias))), *tail]

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}"


class Perceptron(Neuron):
    """On which side of the hyperplane w·x + b = 0 a point lies: +1 where it is not negative, else -1.

    Shapes: inputs (..., n) -> (...).
    Source: Rosenblatt (1958).

    Example:
        >>> line = nn.Perceptron([1.0, -1.0], 0.0)  # the line x0 = x1
        >>> line(tclient.tensor([[2.0, 1.0], [1.0, 2.0]])).tolist()
        [1.0, -1.0]
    """

    def __init__(self, weights: Any, bias: Any = 0.0, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__(weights, bias, "sign", device=device, dtype=dtype)


class Layer(Linear):
    """Neurons that share their inputs, f(x Wᵀ + b).

    Shapes: (..., in_features) -> (..., out_features).

    Example:
        >>> nn.Layer(4, 3, "tanh").parameter_count()
        15
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str | Module | None = "sigmoid",
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.activation = activation_of(activation)

    def forward(self, input: Tensor) -> Tensor:
        """The outputs of all neurons."""
        output = _network.forward(self, input)
        return self.activation(super().forward(input)) if output is None else output

    def _describe(self) -> list[_network.LayerCall] | None:
        own, tail = super()._describe(), _network.describe(self.activation)
        return None if own is None or tail is None else own + tail


class MLP(Sequential):
    """A multilayer network: an input layer, hidden layers, an output layer, each connected to all of the next.

    Args:
        sizes: how many neurons each layer has, the inputs first: [in, hidden…, out].
        activation: of the hidden layers, by name, or as a module that they share.
        output_activation: of the output layer; None leaves its weighted sums as they are.

    Shapes: (..., in) -> (..., out).
    Raises: ValueError for fewer than two sizes, or one below 1.

    Example:
        >>> nn.MLP([784, 256, 128, 10], activation="relu").parameter_count()
        235146
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str | Module | None = "relu",
        output_activation: str | Module | None = None,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        sizes = list(sizes)
        if len(sizes) < 2:
            raise ValueError(f"MLP: sizes {sizes} name {len(sizes)} layers; give at least two, [in, out]")
        given: list[Any] = sizes
        for size in given:
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"MLP: sizes {sizes} have {size!r}; each is an integer of at least 1")
        modules: list[Module] = []
        for fan_in, fan_out in pairwise(sizes):
            if modules and activation is not None:
                modules.append(activation_of(activation))
            modules.append(Linear(fan_in, fan_out, bias, device, dtype))
        if output_activation is not None:
            modules.append(activation_of(output_activation))
        super().__init__(*modules)
        self.sizes = sizes

    def _of(self, names: list[str]) -> Any:
        # A part of it is no MLP of these sizes any more.
        return Sequential(*[self._modules[name] for name in names])


def _floating(values: Any, device: Any, dtype: Any) -> Tensor:
    """The values as a floating-point tensor; integers become the default dtype."""
    tensor = values if isinstance(values, Tensor) else tclient.tensor(values, device=device, dtype=dtype)
    if device is not None or dtype is not None:
        tensor = tensor.to(device=device, dtype=dtype)
    if not tensor.dtype.is_floating_point:
        tensor = tensor.to(tclient.get_default_dtype())
    return tensor
