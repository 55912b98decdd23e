"""Models: networks with their weights on the device, ready to run rows. Here is what all have, and the row of layers.

Knows torch; does not know names, versions, queues or disks. A model is never changed once it is made.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine import networks, streams
from tserver.engine.dtypes import DTYPE_CODES
from tserver.engine.memory import check_bytes
from tserver.engine.models.description import activation_layer, check_layers, flops_per_row, summarise, text
from tserver.engine.models.files import Weights, describe, write
from tserver.engine.models.spec import TensorSpec, dtype_name, shown
from tserver.engine.object_store import ObjectStore
from tserver.engine.values import dtype_of
from tserver.errors import InvalidArgument

INPUT, OUTPUT = "input", "output"
"""The names of what a row of layers takes and gives."""


NewStore = Callable[[], ObjectStore]
"""Makes the store that the calls of a program are run with."""


class Content(Protocol):
    """What one model is made of."""

    def manifest(self) -> dict[str, Any]:
        """What a manifest says of it."""

    def file(self) -> bytes:
        """All of it as one safetensors file."""

    def model(self, new_store: NewStore, device: torch.device) -> Model:
        """The model, its weights copied to the device.

        Raises: InvalidArgument, and torch's OutOfMemoryError before memory is taken.
        """


class Model(ABC):
    """What runs a model, keeps it or describes it needs this of it."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    # Whether the first dimension of each of them is the batch, and rows do not depend on each other.
    is_batched: bool
    # Of the weights, or of the most of them.
    dtype: torch.dtype
    device: torch.device
    # The layers of a row of layers, the number of calls of a program.
    layers: tuple[ms.LayerSummary, ...]
    calls: int
    parameters: int
    parameter_bytes: int
    # Additions and multiplications of one row, or of one request that is not batched; about.
    flops_per_row: int
    non_finite_parameters: int
    text: str
    # The weights were made on the streams of whoever brought them; others wait for this before they use them.
    made: Any

    @abstractmethod
    def run(self, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """The outputs for the inputs, which are on the device. Records no gradients."""

    @abstractmethod
    def tensors(self) -> Sequence[torch.Tensor]:
        """The weights."""

    @abstractmethod
    def content(self) -> Content:
        """What the model is made of, in the memory of the host. On the engine's thread."""


class LayeredModel(Model):
    """Layers and their weights."""

    is_batched = True
    calls = 0

    def __init__(
        self, layers: Sequence[ms.LayerSummary], weights: Weights, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Copy the weights to the device, in the dtype.

        Raises: InvalidArgument, and torch's OutOfMemoryError before memory is taken.
        """
        check_layers(layers)
        if not dtype.is_floating_point or dtype.itemsize == 1:
            raise InvalidArgument(f"weights are float32, float64, float16 or bfloat16, not {dtype}")
        self.layers = tuple(layers)
        self.dtype, self.device = dtype, device
        self.dtype_code = DTYPE_CODES[dtype]
        self.in_features, self.out_features = layers[0].in_features, layers[-1].out_features
        self.inputs = (TensorSpec(INPUT, dtype, ("batch", self.in_features)),)
        self.outputs = (TensorSpec(OUTPUT, dtype, ("batch", self.out_features)),)
        self.in_bytes, self.out_bytes = self.in_features * dtype.itemsize, self.out_features * dtype.itemsize
        self.parameters = sum(layer.parameters for layer in layers)
        self.parameter_bytes = self.parameters * dtype.itemsize
        self.flops_per_row = flops_per_row(layers)
        self.text = text(layers)
        check_bytes(f"a network of {self.parameters} parameters", self.parameter_bytes, device)
        self.weights: Weights = [
            (self._own(weight), None if bias is None else self._own(bias)) for weight, bias in weights
        ]
        described: list[dict[str, Any]] = []
        for layer, (weight, bias) in zip(layers, self.weights, strict=True):
            described.append({"kind": "linear", "weight": weight, "bias": bias})
            described.append(activation_layer(layer.activation))
        self.network = networks.build(described)
        self.non_finite_parameters = sum(
            int(tensor.isfinite().logical_not_().sum()) for tensor in self.network.parameters()
        )
        # The weights were made on the streams of whoever brought them; others wait for this before they use them.
        self.made = next((streams.mark(weight) for weight, _ in self.weights), None)

    def run(self, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """See Model: (n, in) -> (n, out). Weights and inputs want no gradients, so none are recorded."""
        return (self.network.forward(inputs[0]),)

    def tensors(self) -> Sequence[torch.Tensor]:
        """See Model."""
        return self.network.parameters()

    def check(self, dtype: pb.DType, shape: Sequence[int]) -> int:
        """How many rows inputs of this dtype and shape are. Raises: InvalidArgument where they do not fit."""
        if dtype != self.dtype_code:
            raise self._misfit(dtype_of(dtype))
        return self._rows(shape)

    def check_tensor(self, tensor: torch.Tensor) -> int:
        """The same for a tensor."""
        if tensor.dtype != self.dtype:
            raise self._misfit(tensor.dtype)
        if tensor.layout is not torch.strided:
            raise InvalidArgument(f"inputs are a {tensor.layout} tensor; call to_dense() first")
        return self._rows(tensor.shape)

    def _misfit(self, dtype: torch.dtype) -> InvalidArgument:
        return InvalidArgument(
            f"inputs are {dtype_name(dtype)}, but the network's dtype is {dtype_name(self.dtype)}; convert them"
        )

    def _rows(self, shape: Sequence[int]) -> int:
        if not shape or shape[-1] != self.in_features:
            raise InvalidArgument(
                f"inputs have shape {shown(shape)}, but the network takes {self.in_features} inputs; "
                f"the last dimension must be {self.in_features}"
            )
        if len(shape) == 2:
            rows = shape[0]
        elif len(shape) > 64 or any(size < 0 for size in shape):
            raise InvalidArgument(f"inputs have shape {shown(shape)}; sizes are 0 or more, in at most 64 dimensions")
        else:
            rows = math.prod(shape[:-1])
        if rows <= 0:
            raise InvalidArgument(f"inputs of shape {shown(shape)} have no rows; give at least one")
        return rows

    def content(self) -> Content:
        """See Model. Where the weights are there already, it has these very ones."""
        for weight, bias in self.weights:
            for tensor in (weight, bias):
                if tensor is not None:
                    streams.adopt(tensor, self.made)
        weights: Weights = [(weight.cpu(), None if bias is None else bias.cpu()) for weight, bias in self.weights]
        return LayeredContent(self.layers, weights, self.dtype)

    def _own(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_complex():
            raise InvalidArgument(
                f"weights are {dtype_name(tensor.dtype)}, but those of a network are real; take .real"
            )
        return tensor.detach().to(
            device=self.device, dtype=self.dtype, copy=True, memory_format=torch.contiguous_format
        )


@dataclass(frozen=True, slots=True)
class LayeredContent:
    """A row of layers."""

    layers: Sequence[ms.LayerSummary]
    weights: Weights
    dtype: torch.dtype

    def manifest(self) -> dict[str, Any]:
        """See Content."""
        return {"dtype": dtype_name(self.dtype), "layers": json.loads(describe(self.layers))}

    def file(self) -> bytes:
        """See Content. The names are those that a torch.nn.Sequential of the same layers has."""
        return write(self.layers, self.weights)

    def model(self, new_store: NewStore, device: torch.device) -> Model:
        """See Content."""
        return LayeredModel(self.layers, self.weights, self.dtype, device)


def specified(
    specs: Sequence[ms.LayerSpec], given: Sequence[torch.Tensor | None], dtype: torch.dtype, device: torch.device
) -> tuple[list[ms.LayerSummary], Weights]:
    """The layers and weights of a description; `given` are the weight and the bias of each layer in turn.

    Weights that are not given are drawn as torch.nn.Linear draws them. Raises: InvalidArgument, and torch's
    OutOfMemoryError before memory is taken.
    """
    check_layers(specs)
    layers = [
        summarise(
            spec.in_features,
            spec.out_features,
            spec.activation,
            has_bias=given[2 * index + 1] is not None or given[2 * index] is None,
        )
        for index, spec in enumerate(specs)
    ]
    if not dtype.is_floating_point:
        raise InvalidArgument(f"weights are float32, float64, float16 or bfloat16, not {dtype}")
    weights: Weights = []
    for index, layer in enumerate(layers):
        rows, columns = layer.out_features, layer.in_features
        weight, bias = given[2 * index], given[2 * index + 1]
        if weight is None:
            check_bytes(f"layer {index}", rows * columns * dtype.itemsize, device)
            weight = _draw(rows, columns, columns=columns, dtype=dtype, device=device)
            if bias is None:
                bias = _draw(rows, columns=columns, dtype=dtype, device=device)
        if tuple(weight.shape) != (rows, columns):
            raise InvalidArgument(
                f"layer {index} has {rows} neurons of {columns} inputs, but its weight has shape {tuple(weight.shape)}"
            )
        if bias is not None and tuple(bias.shape) != (rows,):
            raise InvalidArgument(f"layer {index} has {rows} neurons, but its bias has shape {tuple(bias.shape)}")
        weights.append((weight, bias))
    return layers, weights


def _draw(*shape: int, columns: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    bound = 1 / math.sqrt(columns)
    return torch.empty(shape, dtype=dtype, device=device).uniform_(-bound, bound)
