"""The safetensors format: a network's weights as one file, read strictly and without trusting its header.

Format: https://github.com/huggingface/safetensors#format. Knows torch; does not know where files are kept.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from google.protobuf import json_format
from safetensors.torch import save

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.engine.models.description import positions, summarise
from tserver.errors import InvalidArgument

# A header is parsed in one go, and nobody else is served meanwhile. The largest network that is kept needs a few MiB.
_MAX_HEADER_BYTES = 16 << 20
_MAX_TENSOR_BYTES = 1 << 62
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
    length = _header_bytes(data[:8], len(data))
    base = 8 + length
    entries, metadata = _described(data[8:base], len(data) - base)
    return {name: _tensor(data, base, entry) for name, entry in entries.items()}, metadata


def check_header(file: BinaryIO, size: int) -> None:
    """Whether a file of so many bytes is what its header says, before more than that is read.

    Raises: InvalidArgument saying what is wrong with the header.
    """
    length = _header_bytes(file.read(8), size)
    _described(file.read(length), size - 8 - length)


def _described(text: bytes | bytearray | memoryview, size: int) -> tuple[dict[str, _Entry], dict[str, str]]:
    """The tensors and the metadata that a header tells of, with so many bytes behind it. Raises: InvalidArgument."""
    header = _header(text)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _lie("its metadata is not a mapping of texts")
    entries = {name: _entry(name, fields) for name, fields in header.items()}
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            raise _lie(f"tensor {name[:100]!r} begins at byte {entry.begin}, but the one before it ends at {position}")
        position = entry.end
    if position != size:
        raise _lie(f"its tensors take {position} bytes, but {size} come behind the header")
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
            described = parse_layers(load_json(metadata[LAYERS_KEY]))
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


def _header_bytes(first: bytes | bytearray | memoryview, size: int) -> int:
    """The length of the header of a file of so many bytes, of which these are the first."""
    if size < 8 or len(first) < 8:
        raise _lie(f"it has {size} bytes, fewer than the 8 that tell the header's length")
    length = int.from_bytes(bytes(first), "little")
    if length > min(_MAX_HEADER_BYTES, size - 8):
        raise _lie(f"its header is said to have {length} bytes, but {size - 8} come (at most {_MAX_HEADER_BYTES})")
    return length


def _header(text: bytes | bytearray | memoryview) -> dict[str, Any]:
    try:
        header = load_json(text)
    except ValueError as error:
        raise _lie(f"its header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise _lie(f"its header is a {type(header).__name__}, not a mapping")
    return header


def load_json(text: bytes | bytearray | memoryview | str) -> Any:
    """Parsed JSON of somebody else's, all of it usable as text. Raises: ValueError."""
    try:
        parsed = json.loads(text if isinstance(text, str) else bytes(text).decode(), object_pairs_hook=_unique)
        # Half of a character ("\ud800") passes for text in JSON and in Python, and in nothing that comes after them.
        json.dumps(parsed, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return parsed


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
    # A size of 0 makes the product 0, but not the strides that torch computes from the others.
    if math.prod(max(1, size) for size in shape) * _DTYPES[dtype].itemsize > _MAX_TENSOR_BYTES:
        raise _lie(f"{told} of shape {str(shape)[:100]} needs more bytes than there are")
    if end - begin != wanted:
        raise _lie(
            f"{told} of shape {str(shape)[:100]} and dtype {dtype} needs {wanted} bytes, but is given {end - begin}"
        )
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
