"""A network's weights as one safetensors file.

The header is read by tensorcompute.wire.safetensors, which believes nothing. Knows torch; does not know where files are
kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import torch
from google.protobuf import json_format
from safetensors.torch import save

from tensorcompute.tables import dtypes
from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.wire import safetensors
from tserver.engine.dtypes import DTYPES
from tserver.engine.models.description import positions, summarise
from tserver.errors import InvalidArgument

# A header is parsed in one go, and nobody else is served meanwhile. The largest network that is kept needs a few MiB.
_MAX_HEADER_BYTES = 16 << 20
# The key of the file's metadata under which we describe the layers.
LAYERS_KEY = "tensorcompute.layers"

# What the weights of a network may be, by torch's names.
_DTYPES = {row.name: DTYPES[row.code] for row in dtypes.DTYPES if row.kind == "f" and row.size > 1}
_NAME = re.compile(r"(?:(?P<layer>.*)\.)?(?P<part>weight|bias)")

Dtype = torch.dtype
Weights = list[tuple[torch.Tensor, torch.Tensor | None]]
"""The weight and the bias of each layer."""


def read(data: bytes | bytearray | memoryview) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a file, in memory of their own, and its metadata.

    Raises: InvalidArgument saying what is wrong with the header.
    """
    entries, metadata = _described(BytesIO(data), len(data))
    return {entry.name: _tensor(data, entry) for entry in entries}, metadata


def check_header(file: BinaryIO, size: int) -> None:
    """Whether a file of so many bytes is what its header says, before more than that is read.

    Raises: InvalidArgument saying what is wrong with the header.
    """
    _described(file, size)


def _described(file: BinaryIO, size: int) -> tuple[list[safetensors.Entry], dict[str, str]]:
    """The tensors and the metadata that a file of so many bytes tells of. Raises: InvalidArgument."""
    try:
        length = safetensors.length_of_header(file.read(safetensors.LENGTH_BYTES), size, _MAX_HEADER_BYTES)
        entries, metadata = safetensors.parse(file.read(length), size)
    except safetensors.Damaged as error:
        raise InvalidArgument(
            f"this is no safetensors file, or it is damaged: {error}", reason="BAD_SAFETENSORS"
        ) from None
    for entry in entries:
        if entry.dtype not in _DTYPES:
            raise InvalidArgument(
                f"the file's tensor {entry.name[:100]!r} has dtype {safetensors.CODES[entry.dtype]!r}; "
                f"weights are one of {', '.join(safetensors.CODES[name] for name in _DTYPES)}"
            )
    return entries, metadata


def write(layers: Sequence[ms.LayerSummary], weights: Weights) -> bytes:
    """A network as a file, with the names that a torch.nn.Sequential of the same layers has."""
    tensors: dict[str, torch.Tensor] = {}
    for position, (weight, bias) in zip(positions(layers), weights, strict=True):
        tensors[f"{position}.weight"] = weight.contiguous()
        if bias is not None:
            tensors[f"{position}.bias"] = bias.contiguous()
    return bytes(save(tensors, {"format": "pt", LAYERS_KEY: describe(layers)}))


def describe(layers: Sequence[ms.LayerSummary]) -> str:
    """The layers as JSON."""
    return json.dumps([json_format.MessageToDict(layer, preserving_proto_field_name=True) for layer in layers])


def parse_layers(described: Any) -> list[ms.LayerSummary]:
    """The layers from parsed JSON. Raises: InvalidArgument."""
    if not isinstance(described, list):
        raise InvalidArgument("the description of the layers is not a list")
    try:
        return [json_format.ParseDict(layer, ms.LayerSummary()) for layer in described]
    except (json_format.Error, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InvalidArgument(f"the description of the layers is not understood: {str(error)[:500]}") from None


def layers_of(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], specs: Sequence[ms.LayerSpec]
) -> tuple[list[ms.LayerSummary], Weights]:
    """The layers of a file, with the activations that `specs` gives, or without them, those that the metadata tells.

    Raises: InvalidArgument where the file and the description do not fit each other.
    """
    weights = _weights(tensors)
    described: Sequence[ms.LayerSpec | ms.LayerSummary] = specs
    if not specs and LAYERS_KEY in metadata:
        try:
            described = parse_layers(safetensors.load_json(metadata[LAYERS_KEY]))
        except ValueError as error:
            raise InvalidArgument(f"the file's description of its layers is not JSON: {error}") from None
    elif not specs:
        raise InvalidArgument(
            f"the file has {len(weights)} layers and does not tell their activations; give layers with them"
        )
    if len(described) != len(weights):
        raise InvalidArgument(
            f"{len(described)} layers are described, but the file has the weights of {len(weights)}: "
            f"{', '.join(sorted(tensors))[:500]}"
        )
    layers = []
    for index, ((weight, bias), told) in enumerate(zip(weights, described, strict=True)):
        if weight.dim() != 2 or (bias is not None and tuple(bias.shape) != (weight.shape[0],)):
            has = tuple(bias.shape) if bias is not None else "none"
            raise InvalidArgument(
                f"layer {index} of the file has a weight of shape {tuple(weight.shape)} and a bias of shape {has}; "
                "they must be (out, in) and (out,)"
            )
        rows, columns = weight.shape
        for field, wanted, found in (
            ("in_features", told.in_features, columns),
            ("out_features", told.out_features, rows),
        ):
            if wanted and wanted != found:
                raise InvalidArgument(f"layer {index} is described with {field} {wanted}, but the file has {found}")
        layers.append(summarise(columns, rows, told.activation, has_bias=bias is not None))
    return layers, weights


def _weights(tensors: Mapping[str, torch.Tensor]) -> Weights:
    """The weights layer by layer: names in the order of the numbers in them."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise InvalidArgument(
                f"the file has a tensor {name[:100]!r}; a network of layers has only NAME.weight and NAME.bias"
            )
        found.setdefault(match["layer"] or "", {})[match["part"]] = tensor
    weights: Weights = []
    for layer in sorted(found, key=_natural):
        parts = found[layer]
        if "weight" not in parts:
            raise InvalidArgument(f"the file has a bias of layer {layer[:100]!r}, but no weight")
        weights.append((parts["weight"], parts.get("bias")))
    if not weights:
        raise InvalidArgument("the file has no tensors")
    return weights


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that orders 'layer10' behind 'layer9'."""
    # Every other part is a number. By their lengths and then their digits: Python refuses to convert very long ones.
    parts = [part.lstrip("0") if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", name))]
    return [(len(part) if index % 2 else 0, part) for index, part in enumerate(parts)]


def _tensor(data: bytes | bytearray | memoryview, entry: safetensors.Entry) -> torch.Tensor:
    tensor = torch.empty(entry.shape, dtype=_DTYPES[entry.dtype])
    if tensor.numel():
        raw = np.frombuffer(data, np.uint8, count=entry.stop - entry.start, offset=entry.start)
        tensor.reshape(-1).view(torch.uint8).numpy()[:] = raw
    return tensor
