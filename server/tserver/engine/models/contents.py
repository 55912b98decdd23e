"""What models are made of, read from a manifest or a file. Knows torch; does not know where files are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from google.protobuf import json_format

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.engine.models import files
from tserver.engine.models.model import Content, LayeredContent
from tserver.engine.models.program_model import ProgramContent
from tserver.engine.models.spec import dtype_name
from tserver.errors import InvalidArgument


def parse_program(described: Any) -> ms.ServedProgram:
    """A program from parsed JSON. Raises: InvalidArgument."""
    if not isinstance(described, dict):
        raise InvalidArgument("the description of the program is not a mapping")
    try:
        return json_format.ParseDict(described, ms.ServedProgram())
    except (json_format.Error, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidArgument(f"the description of the program is not understood: {str(error)[:500]}") from None


def program_of(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> ProgramContent | None:
    """The program that the metadata of a file tells of; None if it tells of none. Raises: InvalidArgument."""
    if files.PROGRAM_KEY not in metadata:
        return None
    program = parse_program(files.parsed(metadata, files.PROGRAM_KEY, "program"))
    return ProgramContent(program, _weights_of(program, tensors))


def read(manifest: Mapping[str, Any], data: bytes | memoryview) -> Content:
    """What a manifest and the file beside it tell of. Raises: InvalidArgument where they do not fit each other."""
    tensors, _ = files.read(data)
    if "program" in manifest:
        program = parse_program(manifest["program"])
        return ProgramContent(program, _weights_of(program, tensors))
    layers = files.parse_layers(manifest["layers"])
    specs = [
        ms.LayerSpec(in_features=layer.in_features, out_features=layer.out_features, activation=layer.activation)
        for layer in layers
    ]
    found, weights = files.layers_of(tensors, {}, specs, files.names_of(layers))
    dtype = weights[0][0].dtype
    if [layer.has_bias for layer in found] != [layer.has_bias for layer in layers]:
        raise InvalidArgument("the biases in the file are not those of the manifest")
    if dtype_name(dtype) != manifest["dtype"]:
        raise InvalidArgument(f"the file has {dtype}, but the manifest says {manifest['dtype']}")
    return LayeredContent(found, weights, dtype)


def _weights_of(program: ms.ServedProgram, tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    missing = [name for name in program.weights if name not in tensors]
    if missing or len(tensors) != len(set(program.weights)):
        raise InvalidArgument(
            f"the file has {len(tensors)} tensors and the program {len(program.weights)} weights; "
            f"missing: {', '.join(map(repr, missing[:5])) or 'none'}"
        )
    return [tensors[name] for name in program.weights]
