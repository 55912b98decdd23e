"""What a model takes and gives: names, dtypes and dimensions, some of which vary from request to request.

Holds no tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.dtypes import DTYPE_CODES
from tserver.engine.values import dtype_of
from tserver.errors import InvalidArgument

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
_MAX_TENSORS = 256
_MAX_DIMENSIONS = 64
_MAX_SIZE = 1 << 40

Sizes = dict[str, int]
"""The sizes of the dimensions that vary, by their names."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. A dimension is a size, or the name of one that varies; of an output that may be empty."""

    name: str
    torch_dtype: torch.dtype
    dimensions: tuple[int | str, ...]

    @property
    def dtype(self) -> pb.DType:
        """The element type, as the contract numbers it."""
        return DTYPE_CODES[self.torch_dtype]

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes, -1 where one varies."""
        return tuple(-1 if isinstance(size, str) else size for size in self.dimensions)

    def shape_at(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The sizes, where those that vary are known. Raises: KeyError."""
        return tuple(sizes[size] if isinstance(size, str) else size for size in self.dimensions)

    def text(self) -> str:
        """The dtype and the dimensions, as they are told to callers."""
        dimensions = ", ".join(size or "?" if isinstance(size, str) else str(size) for size in self.dimensions)
        return f"{dtype_name(self.torch_dtype)} of shape ({dimensions}{',' if len(self.dimensions) == 1 else ''})"

    def message(self) -> ms.TensorSpec:
        """The same as a message."""
        dimensions = [
            ms.Dimension(name=size) if isinstance(size, str) else ms.Dimension(size=size) for size in self.dimensions
        ]
        return ms.TensorSpec(name=self.name, dtype=self.dtype, dimensions=dimensions)


def read_specs(what: str, messages: Sequence[ms.TensorSpec]) -> tuple[TensorSpec, ...]:
    """The inputs, or the outputs, that messages describe. Raises: InvalidArgument."""
    if not messages:
        raise InvalidArgument(f"the program has no {what}s; give at least one")
    if len(messages) > _MAX_TENSORS:
        raise InvalidArgument(f"the program has {len(messages)} {what}s; at most {_MAX_TENSORS} are served")
    specs: dict[str, TensorSpec] = {}
    for message in messages:
        name = message.name
        if not _NAME.fullmatch(name) or name in specs:
            raise InvalidArgument(
                f"{what} {name[:100]!r} is named twice, or not by 1 to 128 printable characters; names are by {what}"
            )
        if len(message.dimensions) > _MAX_DIMENSIONS:
            raise InvalidArgument(f"{what} {name!r} has {len(message.dimensions)} dimensions; at most 64 are served")
        specs[name] = TensorSpec(
            name, dtype_of(message.dtype), tuple(_dimension(what, name, each) for each in message.dimensions)
        )
    return tuple(specs.values())


def _dimension(what: str, name: str, message: ms.Dimension) -> int | str:
    if message.size:
        if message.name or message.size > _MAX_SIZE:
            raise InvalidArgument(f"{what} {name!r} has a dimension of size {message.size} and a name, or too large")
        return message.size
    if len(message.name) > 128 or (what == "input" and not message.name):
        raise InvalidArgument(f"a dimension of {what} {name!r} varies, and is not named by 1 to 128 characters")
    return message.name


def bind(specs: Sequence[TensorSpec], dtypes: Sequence[torch.dtype], shapes: Sequence[Sequence[int]]) -> Sizes:
    """The sizes of the dimensions that vary, in a request with inputs of these dtypes and shapes.

    Raises: InvalidArgument naming the input and the dimension that does not fit.
    """
    sizes: Sizes = {}
    for spec, dtype, shape in zip(specs, dtypes, shapes, strict=True):
        if dtype != spec.torch_dtype:
            raise InvalidArgument(
                f"input {spec.name!r} is {dtype_name(dtype)}, but the model takes {spec.text()}; convert it"
            )
        if len(shape) != len(spec.dimensions):
            raise _misfit(spec, shape, f"it has {len(shape)} dimensions")
        for position, (size, wanted) in enumerate(zip(shape, spec.dimensions, strict=True)):
            if isinstance(wanted, str):
                known = sizes.setdefault(wanted, size)
                if size != known:
                    raise _misfit(spec, shape, f"{wanted!r} is {size} here, and {known} in another place")
                if size < 1:
                    raise _misfit(spec, shape, f"dimension {position} is {size}; give at least one")
            elif size != wanted:
                raise _misfit(spec, shape, f"dimension {position} is {size}")
    return sizes


def _misfit(spec: TensorSpec, shape: Sequence[int], why: str) -> InvalidArgument:
    return InvalidArgument(f"input {spec.name!r} has shape {shown(shape)}, but the model takes {spec.text()}: {why}")


def shown(shape: Sequence[int]) -> str:
    """A shape as text: what a caller sends may have a million dimensions."""
    return str([*shape]) if len(shape) <= 64 else f"{[*shape[:8]]} and {len(shape) - 8} dimensions more"


def dtype_name(dtype: torch.dtype) -> str:
    """torch's name, without the module."""
    return str(dtype).removeprefix("torch.")
