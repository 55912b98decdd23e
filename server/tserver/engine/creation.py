"""Tensors made of what a caller sent: torch.tensor and its kin.

To a CUDA device the elements go by way of pinned memory (transfers.py): torch itself would copy them from wherever they
are, and wait until the device has done all that the session gave it before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tserver.engine import sparse, streams, transfers
from tserver.engine.object_store import ObjectStore
from tserver.engine.values import Packed


def from_packed(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch.tensor and its kin, for a nested list of numbers that came packed."""

    def create(*args: Any, **kwargs: Any) -> Any:
        data = args[0] if args else kwargs.get("data", kwargs.get("obj"))
        if not isinstance(data, Packed):
            return function(*args, **kwargs)
        array = data.array
        if kwargs.get("dtype") is None and array.dtype.kind in "fc":
            # Python's numbers get the default precision, each rounded once.
            default = torch.get_default_dtype()
            kwargs["dtype"] = default if array.dtype.kind == "f" else default.to_complex()
        if kwargs.get("copy") is False:
            # A list has no memory that could be shared: torch says so.
            return function([], *args[1:], **kwargs)
        kwargs = {name: value for name, value in kwargs.items() if value is not data}
        return function(array, *args[1:], **kwargs)

    return create


def new_tensor(*args: Any, **kwargs: Any) -> Tensor:
    """`Tensor.new_tensor`, for a nested list of numbers that came packed, too."""
    create: Callable[..., Tensor] = Tensor.new_tensor
    return create(*(argument.array if isinstance(argument, Packed) else argument for argument in args), **kwargs)


def constructed(store: ObjectStore, name: str, *args: Any, **kwargs: Any) -> Tensor:
    """torch.Tensor, FloatTensor and their kin, called with these arguments; zeros where they leave memory as it is.

    torch.Tensor puts what it makes where the session's new tensors go.
    """
    make = _CONSTRUCTORS.get(name)
    if make is None:
        return made_sparse(_SPARSE_CONSTRUCTORS[name])(store, *args, **kwargs)
    given: Any = args[0] if len(args) == 1 else kwargs.get("data", kwargs.get("other"))
    if isinstance(given, Packed):
        floats = given.array.dtype.kind != "c" and make().is_floating_point()
        made = (
            torch.tensor(given.array, dtype=make().dtype)
            if floats and not kwargs
            else make(given.array.tolist(), **kwargs)
        )
    else:
        made = make(*args, **kwargs)
        if not _is_data(given):
            made.zero_()
    where = store.default_device
    return made if name != "Tensor" or where is None or kwargs.get("device") is not None else made.to(where)


def _is_data(given: Any) -> bool:
    if isinstance(given, np.ndarray):
        return given.ndim > 0
    return isinstance(given, Tensor | list | tuple) or (
        hasattr(given, "__getitem__") and not hasattr(given, "__index__")
    )


_CLASSES = "Tensor FloatTensor DoubleTensor HalfTensor BFloat16Tensor ByteTensor CharTensor ShortTensor IntTensor"
_CONSTRUCTORS: dict[str, Callable[..., Tensor]] = {
    name: getattr(torch, name) for name in (*_CLASSES.split(), "LongTensor", "BoolTensor")
}


_SPARSE_CONSTRUCTORS: dict[str, Callable[..., Tensor]] = {
    f"sparse.{name}": sparse.old_constructor(getattr(torch.sparse, name))
    for name in (*_CLASSES.split(), "LongTensor")
    if name != "Tensor"
}


def made_sparse(create: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function that makes a sparse tensor, which the session knows of from then on."""

    def made(store: ObjectStore, *args: Any, **kwargs: Any) -> Tensor:
        store.meet_sparse()
        args = tuple(argument.array if isinstance(argument, Packed) else argument for argument in args)
        kwargs = {name: value.array if isinstance(value, Packed) else value for name, value in kwargs.items()}
        return create(*args, **kwargs)

    return made


def sent(create: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function that makes a tensor of its first argument, made on the host and sent from there."""

    def made(*args: Any, **kwargs: Any) -> Tensor:
        device = streams.apart(kwargs.get("device"))
        if device is None or not args or kwargs.get("pin_memory") or not _is_of_the_call(args[0]):
            return create(*args, **kwargs)
        kwargs["device"] = "cpu"
        if isinstance(args[0], np.ndarray) and len(args) == 1 and not kwargs.get("requires_grad"):
            # Not copied here: what arrives on the device is a copy anyway.
            return transfers.send(torch.as_tensor(args[0], dtype=kwargs.get("dtype")), device)
        return _moved(create(*args, **kwargs), device)

    return made


def sent_anew(create: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same for `Tensor.new_tensor`, whose first argument says what the tensor is to be like."""

    def made(*args: Any, **kwargs: Any) -> Tensor:
        like = args[0] if len(args) == 2 else None
        wish = kwargs.get("device")
        device = streams.apart(like.device if wish is None and isinstance(like, Tensor) else wish)
        if not isinstance(like, Tensor) or device is None or not _is_of_the_call(args[1]):
            return create(*args, **kwargs)
        on_host = torch.empty(0, dtype=like.dtype)
        return _moved(create(on_host, args[1], **{**kwargs, "device": "cpu"}), device)

    return made


def _is_of_the_call(source: Any) -> bool:
    """Whether nobody has the memory but this call: the session may write into a tensor that it holds."""
    return isinstance(source, (np.ndarray, Packed, int, float, complex, list, tuple))


def _moved(host: Tensor, device: torch.device) -> Tensor:
    moved = transfers.send(host.detach(), device)
    return moved.requires_grad_() if host.requires_grad else moved
