"""New memory is zeros, wherever an operation might leave some of it unwritten.

Freed memory keeps its bytes. They show in what takes it next and does not write all of it: `empty`, an `out` that grew
before the call failed, a kernel that knows no answer to an argument. So torch's allocator fills what it gives on the
CPU with zeros, except within calls of operations that are known to write all of their result (FILLING): they would pay
for it twice. That list is about speed alone; an operation that is not on it is safe. A backward is on zeros once the
session has a graph with such an operation.

The allocator of CUDA has no such switch. There, what a failed call has added to a tensor is filled after it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def _allocator_switch() -> memoryview | None:
    """The byte by which torch's allocator on the CPU is told to fill with zeros, if this torch has it."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
        byte = (ctypes.c_ubyte * 1).in_dll(library, "FLAGS_caffe2_cpu_allocator_do_zero_fill")
    except (OSError, ValueError):
        return None
    return memoryview(byte).cast("B")


_switch = _allocator_switch()

# Without the prefix, the underscores of operators and those of writing in place.
_NAMES = """
abs absolute add addcdiv addcmul addmm addmv all amax amin and any arange argmax argmin as_tensor asarray baddbmm
batch_norm bitwise_and bitwise_not bitwise_or bitwise_xor bmm bool cat ceil celu clamp clamp_max clamp_min clip clone
concat concatenate contiguous conv1d conv2d conv3d copy copysign cos cosh cpu cross_entropy cuda cumsum detach div
divide dot double dropout elu embedding eq erf exp expm1 fill float floor floor_divide floordiv full full_like gather
ge gelu getitem greater gt half hardsigmoid hardswish hardtanh index_select int invert isfinite isinf isnan item
layer_norm le leaky_relu lerp less linear linspace log log10 log1p log2 log_softmax logical_and logical_not logical_or
logical_xor logsigmoid logsumexp long lt masked_fill matmul max maximum mean min minimum mish mm mod mul multiply mv
ne neg negative new_full new_ones new_tensor new_zeros normal not_equal numpy ones ones_like or permute pos pow rand
rand_like randint randn randn_like reciprocal relu relu6 remainder requires_grad reshape round rsqrt rsub selu setitem
sigmoid sign silu sin sinh softmax softplus softsign sqrt square squeeze stack std sub subtract sum t tan tanh tensor
to tolist transpose tril triu true_divide truediv type type_as uniform unsqueeze var view view_as where xor zero zeros
zeros_like
"""
FILLING = frozenset(_NAMES.split())


def fills(name: str) -> bool:
    """Whether an operation of the table writes all of the memory that its result takes.

    Attributes make none, and ours (`tc.…`) write theirs.
    """
    bare = name.removeprefix("Tensor.").removeprefix("nn.functional.")
    if bare.startswith("__"):
        bare = bare.strip("_")
        return bare in FILLING or bare[1:] in FILLING
    return bare.startswith("tc.") or name.endswith(("__get__", "__set__")) or bare.removesuffix("_") in FILLING


# Their memory is that of the graph's operations.
BACKWARD = frozenset({"Tensor.backward", "autograd.backward", "autograd.grad"})


def has_graph(result: Any) -> bool:
    """Whether a backward may begin at a result."""
    if isinstance(result, Tensor):
        return result.requires_grad
    return isinstance(result, (list, tuple)) and any(map(has_graph, result))


def is_zeroed(device: torch.device) -> bool:
    """Whether new memory of this device is zeros within `on_zeros`."""
    return _switch is not None and device.type == "cpu"


def on_zeros(function: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any]) -> Any:
    """What the function returns, on new memory that is zeros. From the engine's thread."""
    if _switch is None or torch.cuda.is_initialized():
        args = list(args)
        sizes = [(tensor, nbytes(tensor)) for tensor in _tensors((*args, *kwargs.values()))]
        try:
            return _switched(function, args, kwargs)
        except Exception:
            for tensor, size in sizes:
                fill_from(tensor, size)
            raise
    return _switched(function, args, kwargs)


def _switched(function: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any]) -> Any:
    if _switch is None:
        return function(*args, **kwargs)
    _switch[0] = 1
    try:
        return function(*args, **kwargs)
    finally:
        _switch[0] = 0


def nbytes(tensor: Tensor) -> int:
    """The bytes of the storage behind a tensor; 0 where there is none."""
    return tensor.untyped_storage().nbytes() if tensor.layout is torch.strided else 0


def fill_from(tensor: Tensor, start: int) -> None:
    """Fill what the storage behind a tensor has from a byte on with zeros."""
    if nbytes(tensor) > start and not tensor.is_meta:
        storage = tensor.untyped_storage()
        added = torch.empty(0, dtype=torch.uint8, device=tensor.device)
        added.set_(storage, start, (storage.nbytes() - start,), (1,))
        added.zero_()


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            if not is_zeroed(value.device):
                yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
