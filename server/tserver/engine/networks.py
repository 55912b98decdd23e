"""Networks that are described layer by layer and run as one call.

Knows torch; does not know gRPC, sessions or where a description came from. A network refers to the very parameter
tensors it was given: it copies nothing, so gradients reach them and later changes to them show in the next forward.

A description is a list of plain mappings, one a layer:

    {"kind": "linear", "weight": (out, in) tensor, "bias": (out,) tensor or None}
    {"kind": "neuron", "weight": (n,) tensor, "bias": () tensor or None}       drops the last dimension
    {"kind": "prelu", "weight": () or (channels,) tensor}
    {"kind": "flatten", "start_dim": 1, "end_dim": -1}
    {"kind": <activation>, <option>: <number, bool or str>, ...}               see ACTIVATIONS; options may be left out
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tensorcompute.tables import activations
from tserver.engine.linear import Linear
from tserver.engine.threads import all_cores, is_heavy

Apply = Callable[[Tensor], Tensor]


def step(input: Tensor, threshold: float = 0.0) -> Tensor:
    """1 where input is not below threshold, else 0, in the dtype of input."""
    return (input >= threshold).to(input.dtype)


def sign(input: Tensor, threshold: float = 0.0) -> Tensor:
    """+1 where input is not below threshold, else -1, in the dtype of input."""
    return (input >= threshold).to(input.dtype) * 2 - 1


def neuron(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The weighted sum w·a + b of one neuron; shapes (..., n) -> (...)."""
    if input.dim() == 0 or input.shape[-1] != weight.shape[0]:
        raise ValueError(
            f"neuron: inputs have shape {tuple(input.shape)}, but there are {weight.shape[0]} weights; "
            f"the last dimension of inputs must be {weight.shape[0]}"
        )
    total = torch.matmul(input, weight)
    return total if bias is None else total + bias


@dataclass(frozen=True)
class Option:
    """One option of an activation: what it may be, and what it is when left out."""

    default: float | int | bool | str | None
    accepts: tuple[type, ...] = (int, float)
    choices: tuple[str, ...] = ()

    def check(self, kind: str, name: str, value: Any) -> Any:
        """The value itself, if the option may be that.

        Raises: ValueError naming the value and what would be accepted.
        """
        # bool is an int to Python, but no number to a reader of a description.
        fits = isinstance(value, self.accepts) and (bool in self.accepts or not isinstance(value, bool))
        if not fits or (self.choices and value not in self.choices):
            wanted = " or ".join(
                [repr(choice) for choice in self.choices] or [_TYPE_NAMES[accepted] for accepted in self.accepts]
            )
            raise ValueError(f"network: {kind} has {name}={value!r}; it must be {wanted}")
        return value


_TYPE_NAMES: dict[type, str] = {
    int: "an integer",
    float: "a float",
    bool: "a bool",
    str: "a string",
    type(None): "None",
}
_INTEGER = (int,)
_DIM = (int, type(None))


@dataclass(frozen=True)
class Activation:
    """A function of one tensor, and the options that may be given for it."""

    function: Callable[..., Tensor]
    options: Mapping[str, Option] = field(default_factory=dict)

    def bind(self, kind: str, given: Mapping[str, Any]) -> Apply:
        """The function with the given options; the bare function when there are none.

        Raises: ValueError for an option that the activation lacks, or a value that it cannot have.
        """
        for name in given:
            if name not in self.options:
                has = ", ".join(self.options) or "no options"
                raise ValueError(f"network: {kind} has no option {name!r}; it has {has}")
        if not self.options:
            return self.function
        values = {
            name: option.check(kind, name, given[name]) if name in given else option.default
            for name, option in self.options.items()
        }
        return partial(self.function, **values)


def _identity(input: Tensor) -> Tensor:
    return input


def _function(name: str) -> Callable[..., Tensor]:
    """The function behind a name. Where torch itself has it too, less is around that than around the functional one."""
    own = {"identity": _identity, "step": step, "sign": sign}.get(name)
    if own is not None:
        return own
    found = None if activations.BY_NAME[name].options else torch.__dict__.get(name)
    function: Callable[..., Tensor] = F.__dict__[name] if found is None else found
    return function


def _option(default: activations.Default) -> Option:
    if isinstance(default, tuple):
        return Option(default[0], (str,), default)
    return Option(default, _DIM if isinstance(default, int) else (int, float))


_RESHAPING: dict[str, Activation] = {
    "glu": Activation(F.glu, {"dim": Option(-1, _INTEGER)}),
    "flatten": Activation(torch.flatten, {"start_dim": Option(1, _INTEGER), "end_dim": Option(-1, _INTEGER)}),
}
"""Layers behind which the number of features is not known before there is an input."""

ACTIVATIONS: dict[str, Activation] = {
    row.name: Activation(_function(row.name), {name: _option(default) for name, default in row.options.items()})
    for row in activations.ACTIVATIONS
} | _RESHAPING
"""Every layer without weights. Dropout that is not training is the identity."""

KINDS: tuple[str, ...] = ("linear", "neuron", "prelu", *ACTIVATIONS)


@dataclass(frozen=True)
class Step:
    """One layer, ready to run."""

    kind: str
    apply: Apply
    tensors: tuple[Tensor, ...] = ()
    in_features: int | None = None
    out_features: int | None = None


class Network:
    """Layers that run one after the other.

    Made by `build`; cheap to keep, because it owns no memory of its own.
    """

    __slots__ = ("_applies", "_features", "_multiplications", "_parameters", "layers", "steps")
    held_as: ClassVar[str] = "network"

    def __init__(self, steps: Sequence[Step], layers: Sequence[Mapping[str, Any]] = ()) -> None:
        """`layers` are what the steps were made of, where that is to be known."""
        self.steps = tuple(steps)
        self.layers = tuple(layers)
        self._applies = tuple(step.apply for step in self.steps if step.kind != "identity")
        unique = {id(tensor): tensor for step in self.steps for tensor in step.tensors}
        self._parameters = tuple(unique.values())
        self._features = next((step.in_features for step in self.steps if step.in_features), 0)
        # For one row, about.
        self._multiplications = self.parameter_count

    def forward(self, input: Tensor) -> Tensor:
        """The output of the last layer; shapes (..., in) -> (..., out).

        Raises: what torch raises when input does not fit the first layer, ValueError when it does not fit a neuron.
        """
        if self._features and is_heavy(input.numel() // self._features * self._multiplications):
            with all_cores:
                return self._run(input)
        return self._run(input)

    def _run(self, input: Tensor) -> Tensor:
        for apply in self._applies:
            input = apply(input)
        return input

    def parameters(self) -> tuple[Tensor, ...]:
        """The weights and biases in the order of the layers, each once."""
        return self._parameters

    def held_tensors(self) -> tuple[Tensor, ...]:
        """The tensors that live as long as the network does."""
        return self._parameters

    @property
    def parameter_count(self) -> int:
        """How many numbers the weights and biases have."""
        return sum(tensor.numel() for tensor in self._parameters)

    @property
    def bytes(self) -> int:
        """How much memory the weights and biases take, in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._parameters)


def build(layers: Sequence[Mapping[str, Any]]) -> Network:
    """A network of the layers, in order.

    Raises: ValueError when a layer is not understood or does not fit the one before it, TypeError when a tensor or a
    mapping is something else. Both name the layer, the value and the remedy.
    """
    given: object = layers
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise TypeError(f"network: layers is a {type(layers).__name__}; give a list of mappings, one a layer")
    steps: list[Step] = []
    features: int | None = None
    for index, layer in enumerate(layers):
        try:
            step = _build_step(layer)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error} (layer {index})") from None
        if step.in_features is not None and features is not None and step.in_features != features:
            raise ValueError(
                f"network: {step.kind} takes {step.in_features} features, but the layer before it gives {features}; "
                f"give it a weight with {features} columns (layer {index})"
            )
        if step.kind == "neuron" or step.kind in _RESHAPING:
            features = None
        elif step.out_features is not None:
            features = step.out_features
        steps.append(step)
    return Network(steps, layers)


def forward(network: Network, input: Tensor) -> Tensor:
    """The output of the network for input.

    Raises: TypeError when it is not given a network and a tensor.
    """
    if not isinstance(network, Network):
        raise TypeError(f"forward: network is a {type(network).__name__}; give what tc.network returned")
    if not isinstance(input, Tensor):
        raise TypeError(f"forward: input is a {type(input).__name__}; give a tensor")
    return network.forward(input)


def _build_step(layer: Mapping[str, Any]) -> Step:
    if not isinstance(layer, Mapping):
        raise TypeError(f"network: a layer is a {type(layer).__name__}; give a mapping with a 'kind'")
    kind = layer.get("kind")
    if not isinstance(kind, str):
        raise TypeError(f"network: a layer has kind={kind!r}; give one of {', '.join(KINDS)}")
    given = {name: value for name, value in layer.items() if name != "kind"}
    weighted = _WEIGHTED.get(kind)
    if weighted is not None:
        return weighted(given)
    activation = ACTIVATIONS.get(kind)
    if activation is None:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"give one of {', '.join(KINDS)}"
        raise ValueError(f"network: there is no layer of kind {kind!r}; {hint}")
    return Step(kind, activation.bind(kind, given))


def _linear(given: Mapping[str, Any]) -> Step:
    weight, bias = _weight_and_bias("linear", given, weight_dim=2, shape="(out_features, in_features)")
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(
            f"network: linear has a bias of shape {tuple(bias.shape)} for a weight of shape {tuple(weight.shape)}; "
            f"give a bias of shape ({weight.shape[0]},)"
        )
    tensors = (weight,) if bias is None else (weight, bias)
    return Step("linear", Linear(weight, bias), tensors, weight.shape[1], weight.shape[0])


def _neuron(given: Mapping[str, Any]) -> Step:
    weight, bias = _weight_and_bias("neuron", given, weight_dim=1, shape="(n,)")
    if bias is not None and bias.dim() != 0:
        raise ValueError(
            f"network: neuron has a bias of shape {tuple(bias.shape)}; give one number, a tensor of shape ()"
        )
    tensors = (weight,) if bias is None else (weight, bias)
    return Step("neuron", partial(neuron, weight=weight, bias=bias), tensors, weight.shape[0])


def _prelu(given: Mapping[str, Any]) -> Step:
    _only("prelu", given, ("weight",))
    weight = _tensor("prelu", "weight", given.get("weight"), "() or (channels,)")
    return Step("prelu", partial(F.prelu, weight=weight), (weight,))


_WEIGHTED: dict[str, Callable[[Mapping[str, Any]], Step]] = {"linear": _linear, "neuron": _neuron, "prelu": _prelu}


def _weight_and_bias(kind: str, given: Mapping[str, Any], weight_dim: int, shape: str) -> tuple[Tensor, Tensor | None]:
    _only(kind, given, ("weight", "bias"))
    weight = _tensor(kind, "weight", given.get("weight"), shape)
    if weight.dim() != weight_dim:
        raise ValueError(f"network: {kind} has a weight of shape {tuple(weight.shape)}; give a weight of shape {shape}")
    bias = given.get("bias")
    return weight, None if bias is None else _tensor(kind, "bias", bias, "(out_features,)")


def _only(kind: str, given: Iterable[str], names: tuple[str, ...]) -> None:
    for name in given:
        if name not in names:
            raise ValueError(f"network: {kind} has no {name!r}; it has {' and '.join(names)}")


def _tensor(kind: str, name: str, value: Any, shape: str) -> Tensor:
    if value is None:
        raise ValueError(f"network: {kind} has no {name}; give a tensor of shape {shape}")
    if not isinstance(value, Tensor):
        raise TypeError(f"network: {kind} has a {type(value).__name__} as {name}; give a tensor of shape {shape}")
    if value.layout is not torch.strided:
        raise TypeError(f"network: {kind} has a {value.layout} tensor as {name}; give a dense one")
    return value


BUILTIN_OPERATIONS: dict[str, Callable[..., Any]] = {"tc.network": build, "tc.forward": forward}
"""What the engine adds to torch's operations."""
