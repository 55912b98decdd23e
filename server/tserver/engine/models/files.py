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
from tserver.engine.models import order
from tserver.engine.models.description import positions, summarise
from tserver.errors import InvalidArgument

# A header is parsed in one go, and nobody else is served meanwhile. The largest network that is kept needs a few MiB.
_MAX_HEADER_BYTES = 16 << 20
# The keys of the file's metadata under which we describe the layers, and name them in order. The names are apart, so
# that servers that do not know of them take the file.
LAYERS_KEY, NAMES_KEY = "tensorcompute.layers", "tensorcompute.names"
# The one under which a program is described.
PROGRAM_KEY = "tensorcompute.program"

# What the weights of layers may be, by torch's names, and those of a program.
_DTYPES = {row.name: DTYPES[row.code] for row in dtypes.DTYPES if row.kind == "f" and row.size > 1}
_ALL_DTYPES = {row.name: DTYPES[row.code] for row in dtypes.DTYPES if row.safetensors}
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
        if entry.dtype not in _DTYPES and PROGRAM_KEY not in metadata:
            raise InvalidArgument(
                f"the file's tensor {entry.name[:100]!r} has dtype {safetensors.CODES[entry.dtype]!r}; "
                f"weights are one of {', '.join(safetensors.CODES[name] for name in _DTYPES)}"
            )
    return entries, metadata


def write(layers: Sequence[ms.LayerSummary], weights: Weights) -> bytes:
    """A network as a file, with the names that a torch.nn.Sequential of the same layers has."""
    tensors: dict[str, torch.Tensor] = {}
    names = names_of(layers)
    for name, (weight, bias) in zip(names, weights, strict=True):
        tensors[f"{name}.weight"] = weight
        if bias is not None:
            tensors[f"{name}.bias"] = bias
    return save_tensors(tensors, {LAYERS_KEY: describe(layers), NAMES_KEY: json.dumps(names)})


def names_of(layers: Sequence[ms.LayerSummary]) -> list[str]:
    """The names of the layers in the files that are written."""
    return [str(position) for position in positions(layers)]


def save_tensors(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """Tensors and metadata as a file. Raises: InvalidArgument for a dtype that such a file cannot hold."""
    for name, tensor in tensors.items():
        check_dtype(name, tensor.dtype)
    return bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"format": "pt", **metadata}))


def check_dtype(name: str, dtype: torch.dtype) -> None:
    """Whether a file can hold weights of a dtype. Raises: InvalidArgument."""
    if str(dtype)[6:] not in _ALL_DTYPES:
        raise InvalidArgument(f"the weight {name[:100]!r} is {str(dtype)[6:]}, which a safetensors file cannot hold")


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
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    specs: Sequence[ms.LayerSpec],
    names: Sequence[str] = (),
) -> tuple[list[ms.LayerSummary], Weights]:
    """The layers of a file, with the activations that `specs` gives, or without them, those that the metadata tells.

    `names` are those of the layers in order, where the caller knows it.
    Raises: InvalidArgument where the file and the description do not fit each other, or no order is certain.
    """
    found = _parts(tensors)
    described: Sequence[ms.LayerSpec | ms.LayerSummary] = specs
    if not specs and LAYERS_KEY in metadata:
        described = parse_layers(parsed(metadata, LAYERS_KEY))
    elif not specs:
        raise InvalidArgument(
            f"the file has {len(found)} layers and does not tell their activations; give layers with them"
        )
    if len(described) != len(found):
        raise InvalidArgument(
            f"{len(described)} layers are described, but the file has the weights of {len(found)}: "
            f"{order.shown([*found])}"
        )
    layers = []
    weights = [found[name] for name in _in_order(found, metadata, names)]
    for index, ((weight, bias), told) in enumerate(zip(weights, described, strict=True)):
        rows, columns = weight.shape
        for field, wanted, has in (
            ("in_features", told.in_features, columns),
            ("out_features", told.out_features, rows),
        ):
            if wanted and wanted != has:
                raise InvalidArgument(f"layer {index} is described with {field} {wanted}, but the file has {has}")
        layers.append(summarise(columns, rows, told.activation, has_bias=bias is not None))
    return layers, weights


def _parts(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
    """The weight and the bias of each layer by its name, in no order. Raises: InvalidArgument."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise InvalidArgument(
                f"the file has a tensor {name[:100]!r}; a network of layers has only NAME.weight and NAME.bias"
            )
        found.setdefault(match["layer"] or "", {})[match["part"]] = tensor
    if not found:
        raise InvalidArgument("the file has no tensors")
    for name, parts in found.items():
        if "weight" not in parts:
            raise InvalidArgument(f"the file has a bias of layer {name[:100]!r}, but no weight")
        weight, bias = parts["weight"], parts.get("bias")
        if weight.dim() != 2 or (bias is not None and tuple(bias.shape) != (weight.shape[0],)):
            has = tuple(bias.shape) if bias is not None else "none"
            raise InvalidArgument(
                f"layer {name[:100]!r} of the file has a weight of shape {tuple(weight.shape)} and a bias of shape "
                f"{has}; they must be (out, in) and (out,)"
            )
    return {name: (parts["weight"], parts.get("bias")) for name, parts in found.items()}


def _in_order(
    found: Mapping[str, tuple[torch.Tensor, torch.Tensor | None]], metadata: Mapping[str, str], names: Sequence[str]
) -> list[str]:
    """The names of the layers in the order that the caller, the file, the names or the shapes tell."""
    widths = {name: order.Widths(weight.shape[1], weight.shape[0]) for name, (weight, _) in found.items()}
    if names:
        return order.named(widths, names, "the request")
    if NAMES_KEY in metadata:
        recorded = parsed(metadata, NAMES_KEY)
        if not isinstance(recorded, list) or not all(isinstance(name, str) for name in recorded):
            raise InvalidArgument("the file's metadata names its layers by what is not a list of names")
        return order.named(widths, recorded, "the file's metadata")
    return order.found(widths)


def parsed(metadata: Mapping[str, str], key: str, what: str = "layers") -> Any:
    """What the metadata of a file says of its layers, or of its program. Raises: InvalidArgument."""
    try:
        return safetensors.load_json(metadata[key])
    except ValueError as error:
        raise InvalidArgument(f"the file's description of its {what} is not JSON: {error}") from None


def _tensor(data: bytes | bytearray | memoryview, entry: safetensors.Entry) -> torch.Tensor:
    tensor = torch.empty(entry.shape, dtype=_ALL_DTYPES[entry.dtype])
    if tensor.numel():
        raw = np.frombuffer(data, np.uint8, count=entry.stop - entry.start, offset=entry.start)
        tensor.reshape(-1).view(torch.uint8).numpy()[:] = raw
    return tensor
