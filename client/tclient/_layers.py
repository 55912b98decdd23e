"""A network of the client as the contract describes one: layers, each with an activation.

Knows tclient.nn and the contract's messages; sends nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from tclient._exceptions import make_error
from tclient._session.refs import ref_value
from tclient._tensor import Tensor
from tensorcompute.tables.activations import ACTIVATIONS
from tensorcompute.v1 import model_service_pb2 as rpc
from tensorcompute.v1 import tensor_pb2 as pb

# The rows of the table that served networks have, and their numbers.
_SERVED = {row.name: (row.code, row) for row in ACTIVATIONS if row.code is not None}


def layers_of(network: Any) -> Sequence[tuple[Any, Any, rpc.Activation]]:
    """Weight, bias and activation of each layer. Raises: TypeError for what cannot be served."""
    from tclient.nn import Module, _network

    if not isinstance(network, Module):
        return [(weight, bias, activation_of(activation)) for weight, bias, activation in _given(network)]
    described = _network.describe(network)
    if described is None:
        raise make_error(
            "TypeError",
            f"a {type(network).__name__} cannot be served: it is not a row of Linear layers and activations",
        )
    layers: Any = []
    for call in described:
        tensors = dict(call.tensors)
        if call.kind in ("linear", "neuron"):
            layers.append((tensors["weight"], tensors["bias"], rpc.Activation()))
        elif call.kind != "identity":
            if not layers or layers[-1][2].kind:
                where = "behind another activation" if layers else "before the first layer"
                raise make_error("TypeError", f"{call.kind} stands {where}, and cannot be served there")
            layers[-1] = (*layers[-1][:2], _kind(call.kind, dict(call.options)))
    if not layers:
        raise make_error("ValueError", "the network has no layers; give at least one")
    return layers  # type: ignore[no-any-return]


def in_order(what: str, given: Iterable[Any] | None) -> list[Any]:
    """What is given for each layer. Raises: TypeError for what has no order, or is no sequence of them."""
    if isinstance(given, (str, bytes, Mapping, Set)):
        raise make_error(
            "TypeError", f"{what} is a {type(given).__name__}; give a list, with one for each layer in order"
        )
    return list(given or ())


def _given(network: Any) -> list[Sequence[Any]]:
    """A network that is given by its layers. Raises: TypeError for what is none."""
    # A set has no order that layers could be run in.
    is_sequence = isinstance(network, Iterable) and not isinstance(network, (str, bytes, Mapping, Set))
    layers = list(network) if is_sequence else []
    if is_sequence and all(isinstance(layer, (list, tuple)) and len(layer) == 3 for layer in layers):
        return layers
    kind = type(network)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    remedy = "give a module of tclient.nn, or a sequence of (weight, bias, activation), one for each layer"
    if isinstance(network, (str, os.PathLike)):
        remedy = "tclient.models.load makes a model of a safetensors file"
    elif kind.__module__.partition(".")[0] == "torch":
        remedy = "build it of tclient.nn, and load_state_dict(module.state_dict()) brings the weights"
    elif callable(network):
        remedy = f"functions are not served; {remedy}"
    raise make_error("TypeError", f"a {name} cannot be served: {remedy}")


def activation_of(activation: Any) -> rpc.Activation:
    """An activation by its name, or of a module, or none."""
    from tclient.nn import Module, _network

    if isinstance(activation, Module):
        described = _network.describe(activation)
        if described is None or len(described) != 1:
            raise make_error("TypeError", f"a {type(activation).__name__} is no activation that can be served")
        return _kind(described[0].kind, dict(described[0].options))
    return rpc.Activation() if activation is None else _kind(activation, {})


def _kind(name: Any, options: Mapping[str, Any]) -> rpc.Activation:
    if name not in _SERVED:
        raise make_error("TypeError", f"there is no served activation {name!r}; use one of {', '.join(_SERVED)}")
    code, row = _SERVED[name]
    message = rpc.Activation(kind=rpc.ActivationKind.Name(rpc.ActivationKind.ValueType(code)))
    for option, value in options.items():
        if option == row.parameter:
            message.parameter = value
        elif not _is_as_served(value, row.defaults[option]):
            raise make_error("TypeError", f"{name} with {option}={value!r} cannot be served")
    return message


def _is_as_served(value: Any, default: float | int | str) -> bool:
    """Whether an option changes nothing, because the value says what the server does anyway."""
    # Served networks have rows: the last dimension is also the second.
    return value == default or (isinstance(default, int) and value == 1)


def tensors_of(weight: Any, bias: Any) -> tuple[Tensor, Tensor | None]:
    """The tensors of a layer, in the session; a neuron's are those of a layer of one."""
    weight = _tensor(weight)
    bias = None if bias is None else _tensor(bias)
    if weight.dim() == 1:
        weight = weight.detach().reshape(1, -1)
        bias = None if bias is None else bias.detach().reshape(1)
    return weight, bias


def _tensor(value: Any) -> Tensor:
    import tclient

    return value if isinstance(value, Tensor) else tclient.tensor(value)


def spec_of(tensors: tuple[Tensor, Tensor | None], activation: rpc.Activation) -> rpc.LayerSpec:
    weight, bias = tensors
    return rpc.LayerSpec(
        in_features=weight.shape[1],
        out_features=weight.shape[0],
        activation=activation,
        weight=operand_of(weight),
        bias=None if bias is None else operand_of(bias),
    )


def operand_of(tensor: Tensor) -> rpc.Operand:
    """A tensor of the session, as an operand."""
    value = pb.Value.FromString(ref_value(tensor._ref))
    return rpc.Operand(tensor=pb.Ref(id=value.result) if value.result else value.ref)
