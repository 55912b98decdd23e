"""Tensors as values: made of bytes that are here, and sent to other processes as what they hold.

A pickle of a tensor has its elements, its dtype, its device and whether it requires gradients; it is read into the
session of who reads it. Knows tensors and how bytes travel; does not know files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tclient._codec.dtypes import DTYPES, dtype
from tclient._codec.operations import TABLE
from tclient._codec.values import Scope, host_array, register
from tclient._issue import dispatch
from tclient._memory import SHARED
from tclient._tensor import _READ, Tensor
from tensorcompute.v1 import tensor_pb2 as pb


class _HostTensor:
    """The elements of a tensor to be, in the memory of this machine."""

    def __init__(self, element: dtype, shape: tuple[int, ...], data: Any) -> None:
        self.element, self.shape, self.data = element, shape, data


def _encode(value: _HostTensor, scope: Scope) -> bytes:
    return host_array(scope, pb.HostArray.KIND_TENSOR, value.element, value.shape, value.data)


register(_HostTensor, _encode)


def tensor_of(element: dtype, shape: tuple[int, ...], data: Any, where: Any) -> Tensor:
    """A tensor of these bytes. Does not wait, but for uploads."""
    made: Tensor = dispatch(TABLE["as_tensor"], (_HostTensor(element, shape, data),), {"device": where})
    return made


def elements_of(tensor: Tensor) -> bytes:
    """The bytes of the elements, row by row. Waits."""
    data = tensor.detach()._read(_READ)[2]
    return data if isinstance(data, bytes) else data.tobytes()


def sparse_tensor(indices: Any, values: Any, size: Sequence[int], is_coalesced: bool) -> Any:
    """A sparse tensor of its parts."""
    made = dispatch(TABLE["sparse_coo_tensor"], (indices, values.detach(), tuple(size)), {"device": values.device})
    return made.coalesce() if is_coalesced else made


def reduced(tensor: Tensor) -> tuple[Any, ...]:
    """What pickle keeps of a tensor."""
    if SHARED in tensor.__dict__:
        raise RuntimeError(
            "a tensor whose memory shall be shared (share_memory_) cannot be sent to another process, which gets "
            "tensors by value; without share_memory_ it gets a copy"
        )
    if tensor.is_sparse:
        parts = (tensor._indices(), tensor._values(), tuple(tensor.shape), tensor.is_coalesced())
        return restored_sparse, (type(tensor), *parts, tensor.requires_grad), tensor.__dict__ or None
    value = (type(tensor), tensor.dtype._name, tuple(tensor.shape), elements_of(tensor), str(tensor.device))
    return restored, (*value, tensor.requires_grad), tensor.__dict__ or None


def restored_sparse(
    kind: type[Tensor], indices: Tensor, values: Tensor, size: tuple[int, ...], is_coalesced: bool, requires_grad: bool
) -> Tensor:
    """The sparse tensor of a pickle, in the session of this process."""
    made: Tensor = sparse_tensor(indices, values, size, is_coalesced)
    if requires_grad:
        made.requires_grad_()
    return made if kind is Tensor else made._alias(kind)


def restored(
    kind: type[Tensor], element: str, shape: tuple[int, ...], data: bytes, place: str, requires_grad: bool
) -> Tensor:
    """The tensor of a pickle, in the session of this process."""
    made = tensor_of(DTYPES[element], shape, np.frombuffer(data, np.uint8), place)
    if requires_grad:
        made.requires_grad_()
    return made if kind is Tensor else made._alias(kind)
