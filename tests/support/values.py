"""Python values to `Value` messages and back, for tests: torch is at hand here and serves as the oracle.

Knows the contract and torch; does not know gRPC. Written apart from the client's own encoder on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, cast

import numpy as np
import torch
from google.protobuf.empty_pb2 import Empty

from tensorcompute.v1 import tensor_pb2 as pb

DTYPES: dict[torch.dtype, pb.DType] = {
    getattr(torch, name.removeprefix("D_TYPE_").lower()): cast(pb.DType, number)
    for name, number in pb.DType.items()
    if number
}
TORCH_DTYPES = {wire: dtype for dtype, wire in DTYPES.items()}


@dataclass(frozen=True)
class Kept:
    """What the session keeps under an id, or the part of it that the path leads to."""

    id: int
    path: tuple[int, ...] = ()

    def part(self, *path: int) -> Kept:
        """A part of this result."""
        return Kept(self.id, self.path + path)

    @property
    def ref(self) -> pb.Ref:
        """The name as a message."""
        return pb.Ref(id=self.id, path=self.path)


@dataclass(frozen=True)
class Packed:
    """A nested sequence of Python numbers, to be sent packed as one array."""

    numbers: Any


def tensor_data(tensor: torch.Tensor) -> pb.TensorData:
    """A tensor by value."""
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    # `reshape` leaves a single element whatever stride it has.
    raw = dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy().tobytes() if dense.numel() else b""
    return pb.TensorData(dtype=DTYPES[tensor.dtype], shape=tensor.shape, data=raw)


def tensor_of(data: pb.TensorData) -> torch.Tensor:
    """The tensor that came by value."""
    dtype = TORCH_DTYPES[data.dtype]
    if not data.data:
        return torch.empty(tuple(data.shape), dtype=dtype)
    return torch.frombuffer(bytearray(data.data), dtype=dtype).reshape(tuple(data.shape))


def array(content: torch.Tensor | np.ndarray[Any, Any]) -> pb.HostArray:
    """Data of the caller's memory as an argument: a tensor, or a numpy array."""
    if isinstance(content, np.ndarray):
        return pb.HostArray(kind=pb.HostArray.KIND_NDARRAY, data=tensor_data(torch.from_numpy(content.copy())))
    return pb.HostArray(kind=pb.HostArray.KIND_TENSOR, data=tensor_data(content))


def encode(value: Any) -> pb.Value:
    """A Python value as an argument. Messages pass as they are, so a test can send what no client would."""
    match value:
        case pb.Value():
            return value
        case Kept(id=kept, path=()):
            return pb.Value(result=kept)
        case Kept():
            return pb.Value(ref=value.ref)
        case None:
            return pb.Value(none=Empty())
        case bool():
            return pb.Value(boolean=value)
        case int() if value >= 1 << 63:
            return pb.Value(unsigned=value)
        case int():
            return pb.Value(integer=value)
        case float():
            return pb.Value(number=value)
        case complex():
            return pb.Value(complex=pb.Complex(real=value.real, imag=value.imag))
        case str():
            return pb.Value(text=value)
        case EllipsisType():
            return pb.Value(ellipsis=Empty())
        case slice():
            bounds = {
                name: encode(bound)
                for name, bound in (("start", value.start), ("stop", value.stop), ("step", value.step))
                if bound is not None
            }
            return pb.Value(slice=pb.Slice(**bounds))
        case torch.dtype():
            return pb.Value(dtype=DTYPES[value])
        case torch.device():
            return pb.Value(device=str(value))
        case torch.Tensor() | np.ndarray():
            return pb.Value(array=array(value))
        case Packed(numbers=numbers):
            packed = tensor_data(torch.tensor(numbers))
            return pb.Value(array=pb.HostArray(kind=pb.HostArray.KIND_SEQUENCE, data=packed))
        case list():
            return pb.Value(list=pb.Sequence(items=map(encode, value)))
        case tuple() if all(type(item) is int for item in value):
            return pb.Value(size=pb.Size(dims=value))
        case tuple():
            return pb.Value(tuple=pb.Sequence(items=map(encode, value)))
        case Mapping():
            entries = [pb.NamedValue(name=name, value=encode(item)) for name, item in value.items()]
            return pb.Value(mapping=pb.Mapping(entries=entries))
    raise TypeError(f"no Value for {value!r}")


def decode(value: pb.Value) -> Any:
    """What a result says, as Python; descriptions of tensors stay messages."""
    kind = value.WhichOneof("kind")
    match kind:
        case "none":
            return None
        case "complex":
            return complex(value.complex.real, value.complex.imag)
        case "dtype":
            return TORCH_DTYPES[value.dtype]
        case "device":
            return torch.device(value.device)
        case "size":
            return torch.Size(value.size.dims)
        case "list":
            return [decode(item) for item in value.list.items]
        case "tuple":
            return tuple(decode(item) for item in value.tuple.items)
        case "named_tuple":
            return {
                name: decode(item) for name, item in zip(value.named_tuple.fields, value.named_tuple.items, strict=True)
            }
        case "mapping":
            return {entry.name: decode(entry.value) for entry in value.mapping.entries}
        case "data":
            return tensor_of(value.data)
        case "integer" | "unsigned" | "number" | "boolean" | "text" | "tensor" | "object":
            return getattr(value, kind)
    raise AssertionError(f"a result says {kind!r}: {value}")
