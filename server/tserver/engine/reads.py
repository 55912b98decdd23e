"""Operations that bring elements to the host, and how they are answered while the engine goes on.

On a device that works by itself a read would wait for all that the session has given it. There the copy is only begun,
and the call's result is a `Deferred`: what becomes of it is told once the elements have arrived. A read within a
program is not deferred, since its result may be needed by the next call.

What depends on elements in its very shape (nonzero, masked_select, unique, a mask as an index) has to wait on the
engine's thread, and so does a text of a tensor, of which torch chooses the elements itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tserver.engine import streams
from tserver.engine.inspect import stage
from tserver.engine.object_store import ObjectStore
from tserver.engine.transfers import Arrival, bring
from tserver.engine.values import Elements, read
from tserver.errors import TooLarge

# What the description around the elements takes in a reply, at most.
_REPLY_MARGIN = 4096
# What one number of a nested list takes in a reply, at most, and one list around them.
_NUMBER_BYTES = {True: 24, False: 14}
_LIST_BYTES = 12
_SCALAR_BYTES = 24


class Deferred:
    """What a call returned, once its elements have arrived."""

    __slots__ = ("_make", "arrival", "size_bytes")

    def __init__(self, arrival: Arrival, make: Callable[[Tensor], Any], size_bytes: int) -> None:
        self.arrival = arrival
        self._make = make
        # What it takes in a reply, at most.
        self.size_bytes = size_bytes

    def value(self) -> Any:
        """The result itself. From any thread, when the elements are there."""
        return self._make(self.arrival.host)


def read_elements(store: ObjectStore, tensor: Tensor) -> Any:
    """The elements, if they fit into a message and the reply; else a staged copy, for Download."""
    if tensor.layout is not torch.strided:
        return tensor.tolist()  # as torch refuses it
    if _too_large(store, tensor):
        return stage(store, tensor)
    return Elements(tensor, read(tensor))


def numpy(store: ObjectStore, tensor: Tensor, *, force: bool = False) -> Any:
    """The elements, refused where `Tensor.numpy` refuses, in its words; a tensor elsewhere is brought here first."""
    array = (tensor if tensor.is_cpu else tensor.cpu()).numpy(force=force)
    if _too_large(store, tensor):
        return stage(store, tensor)
    return Elements(tensor, array.tobytes())


def tolist(store: ObjectStore, tensor: Tensor) -> Any:
    """A nested list, unless it would only be made to be refused: a list takes many times the memory of its elements."""
    if tensor.numel() * 2 > store.reply_room:
        raise TooLarge(
            f"Tensor.tolist: a list of {tensor.numel()} elements is too large for a reply; use numpy()",
            reason="REPLY_TOO_LARGE",
        )
    return tensor.tolist()


def _too_large(store: ObjectStore, tensor: Tensor) -> bool:
    return tensor.nbytes > min(store.max_inline_bytes, store.reply_room - _REPLY_MARGIN)


# ---- the same, deferred ---------------------------------------------------------------------------------------------

# Each is given the function and its arguments, and leaves to the function whatever is refused or needs no waiting.


def _read_later(at_once: Callable[..., Any], store: ObjectStore, tensor: Any, *rest: Any, **named: Any) -> Any:
    if not _is_apart(tensor) or rest or named or _too_large(store, tensor):
        return at_once(store, tensor, *rest, **named)
    return _elements(tensor)


def _numpy_later(at_once: Callable[..., Any], store: ObjectStore, tensor: Any, *, force: bool = False) -> Any:
    if not _is_apart(tensor) or (not force and (tensor.requires_grad or tensor.is_conj() or tensor.is_neg())):
        return at_once(store, tensor, force=force)
    # Refuses the dtypes that numpy does not have.
    torch.empty(0, dtype=tensor.dtype).numpy()
    return stage(store, tensor) if _too_large(store, tensor) else _elements(tensor)


def _tolist_later(at_once: Callable[..., Any], store: ObjectStore, tensor: Any, *rest: Any, **named: Any) -> Any:
    if not _is_apart(tensor) or rest or named:
        return at_once(store, tensor, *rest, **named)
    size = tensor.numel() * _NUMBER_BYTES[tensor.is_complex()]
    if tensor.dim() > 1:
        size += tensor.numel() // max(1, tensor.shape[-1]) * tensor.dim() * _LIST_BYTES
    if size > store.reply_room - _REPLY_MARGIN or not tensor.numel():
        return at_once(store, tensor)
    return Deferred(bring(tensor), Tensor.tolist, size + _SCALAR_BYTES)


def _scalar_later(convert: Callable[[Tensor], Any], fits: Callable[[torch.dtype], bool]) -> Callable[..., Any]:
    def later(at_once: Callable[..., Any], *args: Any, **named: Any) -> Any:
        tensor: Any = args[0] if len(args) == 1 and not named else None
        if not _is_apart(tensor) or tensor.numel() != 1 or not fits(tensor.dtype):
            return at_once(*args, **named)
        return Deferred(bring(tensor), convert, _SCALAR_BYTES)

    return later


def _equal_later(at_once: Callable[..., Any], *args: Any, **named: Any) -> Any:
    if len(args) == 2 and not named:
        one, other = args
        if (
            _is_apart(one)
            and _is_apart(other)
            and one.device == other.device
            and one.dtype == other.dtype
            and one.shape == other.shape
            # Of the same memory torch knows without looking, NaN or not.
            and one.data_ptr() != other.data_ptr()
            and one.numel()
        ):
            return Deferred(bring(torch.eq(one, other).all()), Tensor.__bool__, _SCALAR_BYTES)
    return at_once(*args, **named)


def _allclose_later(at_once: Callable[..., Any], *args: Any, **named: Any) -> Any:
    if not args or not _is_apart(args[0]):
        return at_once(*args, **named)
    close = torch.isclose(*args, **named).all()
    return Deferred(bring(close), Tensor.__bool__, _SCALAR_BYTES)


def _elements(tensor: Tensor) -> Deferred:
    described = Elements(tensor, b"")

    def made(host: Tensor) -> Elements:
        described.data = ctypes.string_at(host.data_ptr(), host.nbytes) if host.numel() else b""
        return described

    return Deferred(bring(tensor), made, tensor.nbytes + _SCALAR_BYTES + _NUMBER_BYTES[False] * tensor.dim())


def _is_apart(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and streams.runs_apart(tensor) and tensor.layout is torch.strided


def _any(dtype: torch.dtype) -> bool:
    return True


def _real(dtype: torch.dtype) -> bool:
    return not dtype.is_complex


def _integral(dtype: torch.dtype) -> bool:
    # A float may be too large for an int, or no number: then the conversion fails, and torch says so at once.
    return not dtype.is_floating_point and not dtype.is_complex


def _index(dtype: torch.dtype) -> bool:
    return _integral(dtype) and dtype is not torch.bool


_truth = _scalar_later(Tensor.__bool__, _any)
_whole = _scalar_later(Tensor.__int__, _integral)

LATER: dict[str, Callable[..., Any]] = {
    "tc.read": _read_later,
    "tc.numpy": _numpy_later,
    "Tensor.tolist": _tolist_later,
    "Tensor.item": _scalar_later(Tensor.item, _any),
    "Tensor.__float__": _scalar_later(Tensor.__float__, _real),
    "Tensor.__index__": _scalar_later(Tensor.__index__, _index),
    **dict.fromkeys(("Tensor.__int__", "Tensor.__long__"), _whole),
    **dict.fromkeys(("Tensor.__bool__", "Tensor.__nonzero__", "Tensor.is_nonzero", "is_nonzero"), _truth),
    **dict.fromkeys(("equal", "Tensor.equal"), _equal_later),
    **dict.fromkeys(("allclose", "Tensor.allclose"), _allclose_later),
}


def deferring(name: str, function: Callable[..., Any]) -> Callable[..., Any] | None:
    """The function behind a name, answering later where the tensor's device works by itself; None if it never waits."""
    later = LATER.get(name)
    return None if later is None else lambda *args, **named: later(function, *args, **named)
