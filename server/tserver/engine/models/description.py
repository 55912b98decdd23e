"""What a network is made of: layers and activations as the contract describes them, checked, counted and printed.

Holds no tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tensorcompute.tables.activations import ACTIVATIONS, BY_NAME, Activation
from tensorcompute.v1 import model_service_pb2 as ms
from tserver.errors import InvalidArgument

# More weights than any device holds: refused before they are multiplied into something larger.
_MAX_WEIGHTS = 1 << 40
_MAX_LAYERS = 10_000


_BY_CODE = {row.code: row for row in ACTIVATIONS if row.code is not None}
_BY_CODE[ms.ACTIVATION_KIND_UNSPECIFIED] = BY_NAME["identity"]


def _kind(activation: ms.Activation) -> Activation:
    kind = _BY_CODE.get(activation.kind)
    if kind is None:
        raise InvalidArgument(f"activation kind {activation.kind} is not known; use one of ActivationKind")
    if activation.HasField("parameter") and not kind.parameter:
        raise InvalidArgument(f"activation {kind.name} has no parameter, but {activation.parameter} is given")
    return kind


def activation_layer(activation: ms.Activation) -> dict[str, Any]:
    """The description of an activation, as networks.build takes it. Raises: InvalidArgument."""
    kind = _kind(activation)
    layer: dict[str, Any] = {"kind": kind.name}
    if activation.HasField("parameter"):
        layer[kind.parameter] = activation.parameter
    return layer


def check_layers(layers: Sequence[ms.LayerSummary | ms.LayerSpec]) -> None:
    """Whether the layers are a network. Raises: InvalidArgument naming the layer and the numbers."""
    if not layers:
        raise InvalidArgument("the network has no layers; give at least one")
    if len(layers) > _MAX_LAYERS:
        raise InvalidArgument(f"the network has {len(layers)} layers; at most {_MAX_LAYERS} are kept")
    width = 0
    for index, layer in enumerate(layers):
        rows, columns = layer.out_features, layer.in_features
        if not rows or not columns:
            raise InvalidArgument(
                f"layer {index} has in_features {columns} and out_features {rows}; both are at least 1"
            )
        if rows * columns >= _MAX_WEIGHTS:
            raise InvalidArgument(f"layer {index} has {rows * columns} weights; that is more than any device holds")
        if index and columns != width:
            raise InvalidArgument(f"layer {index} takes {columns} inputs, but layer {index - 1} has {width} outputs")
        width = rows
        _kind(layer.activation)


def summarise(in_features: int, out_features: int, activation: ms.Activation, *, has_bias: bool) -> ms.LayerSummary:
    """The summary of one layer, with its parameters counted."""
    return ms.LayerSummary(
        in_features=in_features,
        out_features=out_features,
        activation=activation,
        has_bias=has_bias,
        parameters=in_features * out_features + (out_features if has_bias else 0),
    )


def flops_per_row(layers: Iterable[ms.LayerSummary]) -> int:
    """Additions and multiplications of one row: 2 a weight, 1 a bias."""
    return sum(
        2 * layer.in_features * layer.out_features + (layer.out_features if layer.has_bias else 0) for layer in layers
    )


def positions(layers: Iterable[ms.LayerSummary]) -> list[int]:
    """Where each layer's Linear would stand in a torch.nn.Sequential, whose activations take places too."""
    found, position = [], 0
    for layer in layers:
        found.append(position)
        position += 1 if _kind(layer.activation).name == "identity" else 2
    return found


def _text(kind: Activation, given: ms.Activation) -> str:
    values = kind.defaults
    if given.HasField("parameter"):
        values[kind.parameter] = given.parameter
    shown = ", ".join(f"{value!r}" if kind.is_terse else f"{name}={value!r}" for name, value in values.items())
    return f"{kind.module}({shown})"


def text(layers: Iterable[ms.LayerSummary]) -> str:
    """What `print` shows of a torch.nn.Sequential of these layers."""
    lines: list[str] = []
    for layer in layers:
        lines.append(
            f"Linear(in_features={layer.in_features}, out_features={layer.out_features}, bias={layer.has_bias})"
        )
        kind = _kind(layer.activation)
        if kind.name != "identity":
            lines.append(_text(kind, layer.activation))
    return "\n".join(["Sequential(", *(f"  ({index}): {line}" for index, line in enumerate(lines)), ")"])
