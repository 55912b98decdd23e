"""Networks for tests: the same one as torch has it, and as the contract describes it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from tensorcompute.v1 import model_service_pb2 as ms
from tests.support.raw import Raw
from tests.support.values import tensor_data, tensor_of


def by_value(tensor: torch.Tensor) -> ms.Operand:
    """A tensor as an operand."""
    return ms.Operand(data=tensor_data(tensor))


def relu_mlp(sizes: Sequence[int], dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Sequential:
    """Linear layers with ReLU between them, on torch."""
    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for index, (columns, rows) in enumerate(pairwise(sizes)):
        modules += [nn.ReLU()] if index else []
        modules.append(nn.Linear(columns, rows))
    return nn.Sequential(*modules).to(dtype).requires_grad_(False)


def linear_of(network: nn.Sequential, position: int = 0) -> nn.Linear:
    """The Linear at a position."""
    linear = network[position]
    assert isinstance(linear, nn.Linear)
    return linear


def specs_of(network: nn.Sequential) -> list[ms.LayerSpec]:
    """What `relu_mlp` made, as the contract describes it."""
    linears = [module for module in network if isinstance(module, nn.Linear)]
    specs = []
    for index, linear in enumerate(linears):
        is_last = index == len(linears) - 1
        kind = ms.ACTIVATION_KIND_IDENTITY if is_last else ms.ACTIVATION_KIND_RELU
        specs.append(
            ms.LayerSpec(
                in_features=linear.in_features,
                out_features=linear.out_features,
                activation=ms.Activation(kind=kind),
                weight=by_value(linear.weight),
                bias=by_value(linear.bias),
            )
        )
    return specs


def create(raw: Raw, name: str, network: nn.Sequential, **fields: Any) -> ms.MlpSummary:
    """Keep a network of torch's on the server."""
    dtype = tensor_data(linear_of(network).weight[:0]).dtype
    made: ms.MlpSummary = raw.ask("CreateMlp", name=name, layers=specs_of(network), dtype=dtype, **fields).mlp
    return made


def forward(raw: Raw, name: str, rows: torch.Tensor, **fields: Any) -> torch.Tensor:
    """A forward pass by value."""
    return tensor_of(raw.ask("MlpForward", name=name, inputs=by_value(rows), **fields).output.data)


def statistics(raw: Raw, name: str, version: int = 0) -> ms.MlpStatistics:
    """How often a network was run."""
    found: ms.MlpStatistics = raw.ask("GetMlpStatistics", name=name, version=version).statistics
    return found
