"""Where tensors lie: within their storage, whatever a call asked for.

Knows torch only. torch computes some extents in 64 bits, where they wrap, and gives a tensor its new shape before it
has the memory for it, so that a call that fails can leave a tensor which reaches beyond its storage. Extents are
computed in Python's integers here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

_MAX_ELEMENTS = 2**63 - 1
_MAX_SIDES = 2**31 - 1


def _counts() -> bool:
    try:
        torch.empty(1).expand(2**32, 2**32)
    except RuntimeError:
        return True
    return False


# Whether this torch refuses sizes whose product wraps. Where it does not, what views of given sizes return is looked
# at, which costs each of them a microsecond.
_TORCH_COUNTS = _counts()


def needed_bytes(sizes: Sequence[int], strides: Sequence[int], offset: int, itemsize: int) -> int:
    """How large a storage must be for a tensor of this geometry, in elements, that has any."""
    last = sum([(size - 1) * stride for size, stride in zip(sizes, strides, strict=True)])
    return (offset + last + 1) * itemsize


def misfit(sizes: Sequence[int], strides: Sequence[int], offset: int, itemsize: int, storage_bytes: int) -> str | None:
    """Why a tensor of this geometry (in elements) is none, in torch's words; None if it lies within its storage."""
    reason = misfit_of_sizes(sizes)
    if reason is not None or 0 in sizes:
        return reason
    needed = needed_bytes(sizes, strides, offset, itemsize)
    if offset >= 0 and needed <= storage_bytes:
        return None
    return (
        f"setStorage: sizes {list(sizes)}, strides {list(strides)}, storage offset {offset}, and itemsize {itemsize} "
        f"requiring a storage size of {needed} are out of bounds for storage of size {storage_bytes}"
    )


def misfit_of_sizes(sizes: Sequence[int]) -> str | None:
    """Why no tensor has these sizes, in torch's words; None if one may.

    Where one of them is 0, torch takes negative ones and those whose product passes 2^63 now and then.
    """
    if not sizes or min(sizes) > 0:
        return "numel: integer multiplication overflow" if math.prod(sizes) > _MAX_ELEMENTS else None
    if 0 not in sizes:
        return "numel: integer multiplication overflow"
    negative = next((size for size in sizes if size < 0), None)
    if negative is not None:
        return f"Trying to create tensor with negative dimension {negative}: {list(sizes)}"
    return "Stride calculation overflowed" if math.prod([size or 1 for size in sizes[1:]]) > _MAX_ELEMENTS else None


def reaches_beyond(tensor: Tensor) -> str | None:
    """Why a tensor does not lie within its storage, in torch's words; None if it does."""
    if tensor.layout is not torch.strided:
        return None
    reason = misfit_of_sizes(tensor.shape)
    if reason is not None:
        return reason  # its strides may be anything, and torch takes some numbers for addresses when they are read
    storage_bytes = tensor.untyped_storage().nbytes()
    return misfit(tensor.shape, tensor.stride(), int(tensor.storage_offset()), tensor.itemsize, storage_bytes)


def within(function: Callable[..., Any], *, by_strides: bool) -> Callable[..., Any]:
    """The function, whose result is laid by its caller; what it returns lies within its storage.

    Where the caller gives sizes only, torch refuses what is wrong with them, if there are elements.
    Raises: RuntimeError in torch's words for a view beyond its storage.
    """
    every = by_strides or not _TORCH_COUNTS

    @functools.wraps(function, assigned=("__name__", "__doc__"), updated=())
    def checked(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if isinstance(result, Tensor) and (every or not result.numel()):
            reason = reaches_beyond(result)
            if reason is not None:
                raise RuntimeError(reason)
        return result

    return checked


def restoring(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that changes the geometry of its first argument; one that fails has not changed it."""

    @functools.wraps(function, assigned=("__name__", "__doc__"), updated=())
    def changed(*args: Any, **kwargs: Any) -> Any:
        target = args[0] if args else next(iter(kwargs.values()), None)
        if not isinstance(target, Tensor) or target.layout is not torch.strided:
            return function(*args, **kwargs)
        before = target.shape, target.stride(), int(target.storage_offset())
        try:
            return function(*args, **kwargs)
        except Exception:
            if target.shape != before[0]:
                _lay(target, *before)
            raise

    return changed


def check_sizes_of(out: Any) -> None:
    """Refuse what a call has given its `out`, if no tensor has such sizes. Raises: RuntimeError in torch's words."""
    for tensor in tensors_in(out):
        reason = None if tensor.numel() else misfit_of_sizes(tensor.shape)
        if reason is not None:
            raise RuntimeError(reason)


def check_out(args: Any, kwargs: Any) -> None:
    """Refuse a call with `out` on what has no elements and yet sizes without bounds.

    torch gives `out` the sizes of the result before it checks them: they wrap, and strides are left uncomputed.
    Raises: RuntimeError naming the sizes.
    """
    for tensor in tensors_in([args, kwargs]):
        if not tensor.numel() and math.prod([size or 1 for size in tensor.shape]) > _MAX_SIDES:
            raise RuntimeError(
                f"out= is not computed from a tensor of shape {list(tensor.shape)}, which has no elements; "
                "leave out= away, or give it sizes that multiply to less than 2^31"
            )


def mend(*values: Any) -> None:
    """After a call that failed: a tensor among its arguments that reaches beyond its storage has no elements then."""
    for tensor in tensors_in(values):
        if reaches_beyond(tensor) is not None:
            _lay(tensor, (0,), (1,), 0)


def _lay(tensor: Tensor, sizes: Sequence[int], strides: Sequence[int], offset: int) -> None:
    # In inference mode a tensor of either kind may be changed, and one that requires a gradient, too.
    with torch.inference_mode():
        tensor.as_strided_(sizes, strides, offset)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in an argument, or in a list or mapping of such."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
