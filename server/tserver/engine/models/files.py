"""The safetensors format: a network's weights as one file, read strictly and without trusting its header.

Format: https://github.com/huggingface/safetensors#format. Knows torch; does not know where files are kept.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from google.protobuf import json_format
from safetensors.torch import save

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.engine.models.description import positions, summarise
from tserver.errors import InvalidArgument

# The bound that the format's own library has.
_MAX_HEADER_BYTES = 100_000_000
_METADATA = "__metadata__"
# The key of the file's metadata under which we describe the layers.
LAYERS_KEY = "tensorcompute.layers"

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NAME = re.compile(r"(?:(?P<layer>.*)\.)?(?P<part>weight|bias)")

Weights = list[tuple[torch.Tensor, torch.Tensor | None]]
"""The weight and the bias of each layer."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor as the header describes it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read(data: bytes | bytearray | memoryview) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a file, in memory of their own, and its metadata.

    Raises: InvalidArgument saying what is wrong with the header.
    """
    header, base = _header(data)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _lie("its metadata is not a mapping of texts")
    entries = {name: _entry(name, fields) for name, fields in header.items()}
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            raise _lie(f"tensor {name[:100]!r} begins at byte {entry.begin}, but the one before it ends at {position}")
        position = entry.end
    if position != len(data) - base:
        raise _lie(f"its tensors take {position} bytes, but {len(data) - base} come behind the header")
    return {name: _tensor(data, base, entry) for name, entry in entries.items()}, metadata


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
    except (json_format.ParseError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"the description of the layers is not understood: {error}") from None


def layers_of(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], specs: Sequence[ms.LayerSpec]
) -> tuple[list[ms.LayerSummary], Weights]:
    """The layers of a file, with the activations that `specs` gives, or without them, those that the metadata tells.

    Raises: InvalidArgument where the file and the description do not fit each other.
    """
    weights = _weights(tensors)
    if specs:
        activations = [spec.activation for spec in specs]
    elif LAYERS_KEY in metadata:
        try:
            described = json.loads(metadata[LAYERS_KEY])
        except ValueError as error:
            raise InvalidArgument(f"the file's description of its layers is not JSON: {error}") from None
        activations = [layer.activation for layer in parse_layers(described)]
    else:
        raise InvalidArgument(
            f"the file has {len(weights)} layers and does not tell their activations; give layers with them"
        )
    if len(activations) != len(weights):
        raise InvalidArgument(
            f"{len(activations)} layers are described, but the file has the weights of {len(weights)}: "
            f"{', '.join(sorted(tensors))[:500]}"
        )
    layers = []
    for index, ((weight, bias), activation) in enumerate(zip(weights, activations, strict=True)):
        if weight.dim() != 2 or (bias is not None and tuple(bias.shape) != (weight.shape[0],)):
            has = tuple(bias.shape) if bias is not None else "none"
            raise InvalidArgument(
                f"layer {index} of the file has a weight of shape {tuple(weight.shape)} and a bias of shape {has}; "
                "they must be (out, in) and (out,)"
            )
        rows, columns = weight.shape
        if specs:
            for field, found in (("in_features", columns), ("out_features", rows)):
                wanted = getattr(specs[index], field)
                if wanted and wanted != found:
                    raise InvalidArgument(f"layer {index} is described with {field} {wanted}, but the file has {found}")
        layers.append(summarise(columns, rows, activation, has_bias=bias is not None))
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


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that orders 'layer10' behind 'layer9'."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", name) if part]


def _header(data: bytes | bytearray | memoryview) -> tuple[dict[str, Any], int]:
    if len(data) < 8:
        raise _lie(f"it has {len(data)} bytes, fewer than the 8 that tell the header's length")
    length = int.from_bytes(bytes(data[:8]), "little")
    if length > min(_MAX_HEADER_BYTES, len(data) - 8):
        raise _lie(f"its header is said to have {length} bytes, but {len(data) - 8} come (at most {_MAX_HEADER_BYTES})")
    try:
        header = json.loads(bytes(data[8 : 8 + length]).decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _lie(f"its header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise _lie(f"its header is a {type(header).__name__}, not a mapping")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _entry(name: str, fields: Any) -> _Entry:
    told = f"tensor {name[:100]!r}"
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise _lie(f"{told} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise InvalidArgument(
            f"the file's {told} has dtype {str(dtype)[:40]!r}; weights are one of {', '.join(_DTYPES)}"
        )
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2 or len(shape) > 64:
        raise _lie(f"{told} has shape {str(shape)[:100]} and data_offsets {str(offsets)[:100]}; they are not sizes")
    begin, end = offsets
    wanted = math.prod(shape) * _DTYPES[dtype].itemsize
    if end - begin != wanted:
        raise _lie(f"{told} of shape {shape} and dtype {dtype} needs {wanted} bytes, but is given {end - begin}")
    return _Entry(_DTYPES[dtype], tuple(shape), begin, end)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 62 for size in value)


def _tensor(data: bytes | bytearray | memoryview, base: int, entry: _Entry) -> torch.Tensor:
    tensor = torch.empty(entry.shape, dtype=entry.dtype)
    if tensor.numel():
        raw = np.frombuffer(data, np.uint8, count=entry.end - entry.begin, offset=base + entry.begin)
        tensor.reshape(-1).view(torch.uint8).numpy()[:] = raw
    return tensor


def _lie(what: str) -> InvalidArgument:
    return InvalidArgument(f"this is no safetensors file: {what}", reason="BAD_SAFETENSORS")
