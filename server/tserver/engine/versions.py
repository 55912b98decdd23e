"""The count of changes by which a backward notices that a tensor it kept was changed, and what would get past it.

A backward trusts what the forward kept: it takes indices, lengths and masks without a look, and shapes for what they
were. torch raises where such a tensor was changed in between, by a count that all tensors over one memory share. A few
functions (COUNTED) make tensors that do not share it, or change one without counting. They go on doing so for numbers
of floating point, in the same shape: no kernel takes those for an index, and weights are updated that way. Other dtypes
always share the count, and another shape is a change.

Hence no memory may be both: floating-point tensors that do not share the count, and indices. Which of the two it is
stays written on its storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

# What may be written on a storage.
_APART = "tensors over it do not share the count"
_BITS = "seen as integers and as floating point"


def _is_real(tensor: Tensor) -> bool:
    """Whether the elements are values to a kernel, and never an index, a length or a mask."""
    return tensor.is_floating_point() or tensor.is_complex()


def _claim(tensor: Tensor, use: str) -> bool:
    """Write the use on the storage behind a tensor; whether that is what it is used for."""
    storage: Any = tensor.untyped_storage()
    # torch keeps the Python object of a storage for as long as the storage is.
    known = storage.__dict__.setdefault("tc_use", use)
    return bool(known == use)


def _may_be_apart(tensor: Tensor) -> bool:
    return _is_real(tensor) and (tensor.layout is not torch.strided or _claim(tensor, _APART))


def get_data(tensor: Any) -> Tensor:
    """`Tensor.data`."""
    if not isinstance(tensor, Tensor) or _may_be_apart(tensor):
        return _get_data(tensor)
    return tensor.detach()


def set_data(tensor: Any, data: Any) -> None:
    """Setting `Tensor.data`. Elements that may be indices are copied: there is no other way to not share them."""
    if not isinstance(tensor, Tensor) or not isinstance(data, Tensor):
        _set_data(tensor, data)
        return
    before = _form(tensor)
    _set_data(tensor, data if _may_be_apart(data) else data.detach().clone())
    if not tensor.is_inference() and (not _is_real(tensor) or _form(tensor) != before):
        increment_version(tensor)


_get_data: Callable[[Any], Tensor] = torch.Tensor.data.__get__  # type: ignore[attr-defined]
_set_data: Callable[[Any, Any], None] = torch.Tensor.data.__set__  # type: ignore[attr-defined]


def _form(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.layout is not torch.strided:
        return tensor.shape, tensor.dtype, tensor.layout
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """`nn.utils.vector_to_parameters`, which sets the `.data` of each parameter."""
    parameters = list(parameters)
    parts = [parameter.detach() for parameter in parameters]
    torch.nn.utils.vector_to_parameters(vec, parts)
    for parameter, part in zip(parameters, parts, strict=True):
        set_data(parameter, part)


def _viewed(function: Callable[..., Any]) -> Callable[..., Any]:
    """`Tensor.view`, also as another dtype."""

    def view(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if (kwargs or args[1].__class__ is torch.dtype) and isinstance(args[0], Tensor):
            return _as_bits(args[0], result)
        return result

    return view


def _as_bits(tensor: Tensor, result: Tensor) -> Tensor:
    if _is_real(tensor) == _is_real(result) or _claim(result, _BITS):
        return result
    # torch itself lets nobody write to an inference tensor, nor keep it for a backward.
    with torch.inference_mode():
        bits = torch.empty(0, dtype=result.dtype, device=result.device)
        return bits.set_(result.untyped_storage(), result.storage_offset(), result.size(), result.stride())


def _split(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose results are parts that do not share the count."""

    def parts(*args: Any, **kwargs: Any) -> Any:
        made = function(*args, **kwargs)
        if not made or _may_be_apart(made[0]):
            return made
        whole = args[0] if args else next(value for value in kwargs.values() if isinstance(value, Tensor))
        whole = whole.detach()
        return type(made)(whole.as_strided(part.size(), part.stride(), part.storage_offset()) for part in made)

    return parts


def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a name of the table, made one that leaves no change uncounted that a backward must see."""
    instead = COUNTED.get(name)
    return function if instead is None else instead(function)


COUNTED: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "Tensor.data.__get__": lambda _: get_data,
    "Tensor.data.__set__": lambda _: set_data,
    "Tensor.view": _viewed,
    "nn.utils.vector_to_parameters": lambda _: vector_to_parameters,
    **{
        f"{prefix}{name}": _split
        for name in ("unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes")
        for prefix in ("", "Tensor.")
    },
}
"""The functions that make tensors without the count of the memory, or change a tensor uncounted."""
