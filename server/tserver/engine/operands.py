"""Operands lie on one device: looked at where a session has tensors on torch's meta device, which have no elements.

torch looks at this in its CUDA kernels and in some others. For the rest a meta tensor beside one with elements means
that nothing is computed: the result is memory that nobody has written, or a target that keeps what it had.
"""

from __future__ import annotations

from typing import Any

import torch

from tserver.engine.extents import tensors_in
from tserver.engine.object_store import ObjectStore
from tserver.engine.operations import Operation

# They look at shapes or types of the other operand, copy from one device to another, or take each tensor by itself.
ANY_DEVICES = frozenset(
    {
        "Tensor.backward",
        "Tensor.copy_",
        "Tensor.data.__set__",
        "Tensor.expand_as",
        "Tensor.grad.__set__",
        "Tensor.imag.__set__",
        "Tensor.is_same_size",
        "Tensor.real.__set__",
        "Tensor.reshape_as",
        "Tensor.resize_as",
        "Tensor.resize_as_",
        "Tensor.to",
        "Tensor.type_as",
        "Tensor.view_as",
        "atleast_1d",
        "atleast_2d",
        "atleast_3d",
        "autograd.backward",
        "autograd.grad",
        "broadcast_tensors",
        "is_same_size",
        "nn.utils.clip_grad_norm_",
        "nn.utils.clip_grad_value_",
        "nn.utils.clip_grads_with_norm_",
        "nn.utils.get_total_norm",
        "nn.utils.vector_to_parameters",
        "resize_as_",
        "result_type",
    }
)
# The first operand may be on another device than the rest: indices, lengths and elements to copy come from the host.
FROM_THE_HOST = frozenset(
    {
        "Tensor.__getitem__",
        "Tensor.__setitem__",
        "Tensor.diagonal_scatter",
        "Tensor.index_put",
        "Tensor.index_put_",
        "Tensor.slice_scatter",
        "Tensor.tensor_split",
        "diagonal_scatter",
        "gru",
        "index_put",
        "index_put_",
        "lstm",
        "rnn_relu",
        "rnn_tanh",
        "slice_scatter",
        "tensor_split",
    }
)


def call_on_one_device(store: ObjectStore, operation: Operation, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The result of an operation of a session that has met the meta device.

    Raises: RuntimeError in torch's words where operands are on it and on another.
    """
    name = operation.name
    if name in ANY_DEVICES or operation.allocates or name.startswith(("tc.optimizer", "tc.network", "tc.run")):
        # A program looks at each of its calls.
        return operation.call(store, args, kwargs)
    operands = list(tensors_in([args, kwargs]))
    for value in args:
        operands += getattr(value, "held_tensors", tuple)()
    without_elements = [tensor for tensor in operands if tensor.is_meta]
    if not without_elements:
        return operation.call(store, args, kwargs)
    other = store.state.device if name == "tc.model_forward" else _other_device(operation, operands, args, kwargs)
    if other is not None:
        raise RuntimeError(_words(without_elements[0].device, other))
    result = operation.call(store, args, kwargs)
    for tensor in tensors_in(result):
        if not tensor.is_meta:
            raise RuntimeError(_words(without_elements[0].device, tensor.device))
    return result


def _other_device(
    operation: Operation, operands: list[torch.Tensor], args: list[Any], kwargs: dict[str, Any]
) -> torch.device | None:
    if operation.name in FROM_THE_HOST and operands[0].is_meta:
        return None
    written = [*tensors_in(args[:1] if operation.has_effect else []), *tensors_in(kwargs.get("out"))]
    for tensor in operands:
        # A number on the host goes with tensors of any device, as a tensor of no dimensions, too; not as a target.
        is_number = tensor.is_cpu and not tensor.dim() and not any(tensor is target for target in written)
        if not tensor.is_meta and not is_number:
            return tensor.device
    return None


def _words(meta: torch.device, other: torch.device) -> str:
    return f"Expected all tensors to be on the same device, but found at least two devices, {meta} and {other}!"
