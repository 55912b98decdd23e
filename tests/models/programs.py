"""Served programs for tests, made by hand as any client could make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tests.models.networks import by_value
from tests.support.raw import Raw
from tests.support.values import Kept, encode, tensor_data, tensor_of

Spec = tuple[torch.dtype, Sequence[int | str]]
Call = tuple[str, str, Sequence[Any], Mapping[str, Any]]


class Name(str):
    """The name of an input, a weight, a size or of the result of a call before."""

    __slots__ = ()


def spec(name: str, given: Spec) -> ms.TensorSpec:
    """An input or an output. A name for a dimension that varies; an empty one for one that no input has."""
    dtype, sizes = given
    dimensions = [ms.Dimension(name=size) if isinstance(size, str) else ms.Dimension(size=size) for size in sizes]
    return ms.TensorSpec(name=name, dtype=tensor_data(torch.empty(0, dtype=dtype)).dtype, dimensions=dimensions)


def program(
    inputs: Mapping[str, Spec],
    outputs: Mapping[str, Spec],
    calls: Sequence[Call],
    *,
    weights: Sequence[str] = (),
    sizes: Mapping[str, ms.SizeFormula] | None = None,
    result: Any = None,
    is_batched: bool = True,
    recorded: Mapping[str, int] | None = None,
    **fields: Any,
) -> ms.ServedProgram:
    """Calls are (name of the result, operation, args, kwargs), where a Name stands for what has that name."""
    slots = {name: Kept(number) for number, name in enumerate((*inputs, *weights, *(sizes or {})), 1)}
    operations: list[str] = []
    message = pb.Program(inputs=len(slots))
    for name, operation, args, kwargs in calls:
        if operation not in operations:
            operations.append(operation)
        call = message.calls.add(operation=operations.index(operation))
        call.args.extend(encode(_filled(argument, slots)) for argument in args)
        for key, value in kwargs.items():
            call.kwargs.add(name=key, value=encode(_filled(value, slots)))
        slots[name] = Kept(len(slots) + 1)
        call.id = slots[name].id
    named = tuple(Name(name) for name in outputs)
    message.result.CopyFrom(encode(_filled(result or (named[0] if len(named) == 1 else named), slots)))
    return ms.ServedProgram(
        inputs=[spec(name, given) for name, given in inputs.items()],
        outputs=[spec(name, given) for name, given in outputs.items()],
        weights=weights,
        sizes=(sizes or {}).values(),
        operations=operations,
        program=message,
        is_batched=is_batched,
        recorded_sizes={"batch": 2} if recorded is None else recorded,
        **fields,
    )


def _filled(value: Any, slots: Mapping[str, Kept]) -> Any:
    if isinstance(value, Name):
        return slots[value]
    if isinstance(value, (list, tuple)):
        return type(value)(_filled(item, slots) for item in value)
    return value


def create_program(
    raw: Raw, name: str, described: ms.ServedProgram, weights: Sequence[torch.Tensor] = (), **fields: Any
) -> ms.MlpSummary:
    """Keep a program on the server."""
    operands = [by_value(weight) for weight in weights]
    made: ms.MlpSummary = raw.ask("CreateModel", name=name, program=described, weights=operands, **fields).model
    return made


def ask_by_name(raw: Raw, name: str, inputs: Mapping[str, torch.Tensor], **fields: Any) -> dict[str, torch.Tensor]:
    """A forward pass with inputs and outputs by name and value."""
    operands = [ms.NamedOperand(name=key, operand=by_value(tensor)) for key, tensor in inputs.items()]
    response = raw.ask("ModelForward", name=name, inputs=operands, **fields)
    return {output.name: tensor_of(output.output.data) for output in response.outputs}


def convolution() -> tuple[ms.ServedProgram, list[torch.Tensor]]:
    """Images of any size: a convolution, ReLU, the mean of each channel, a layer."""
    torch.manual_seed(3)
    weights = [torch.randn(4, 3, 3, 3), torch.randn(4), torch.randn(5, 4), torch.randn(5)]
    described = program(
        {"image": (torch.float32, ("batch", 3, "height", "width"))},
        {"logits": (torch.float32, ("batch", 5))},
        [
            ("a", "conv2d", (Name("image"), Name("conv.weight"), Name("conv.bias")), {"padding": 1}),
            ("b", "Tensor.relu_", (Name("a"),), {}),
            ("c", "mean", (Name("b"), (2, 3)), {}),
            ("logits", "nn.functional.linear", (Name("c"), Name("head.weight"), Name("head.bias")), {}),
        ],
        weights=("conv.weight", "conv.bias", "head.weight", "head.bias"),
        recorded={"batch": 2, "height": 8, "width": 9},
        text="ConvNet()",
    )
    return described, weights


def convolved(images: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """What that gives, by torch."""
    hidden = torch.conv2d(images, weights[0], weights[1], padding=1).relu().mean((2, 3))
    return torch.nn.functional.linear(hidden, weights[2], weights[3])
