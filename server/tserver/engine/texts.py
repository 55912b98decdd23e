"""Texts of tensors, which torch makes element by element in Python.

torch goes through all elements, as tensors, to find how wide they are shown. A few of them tell as much: what is widest
is the largest or the smallest. Where many are shown, the text is made on a thread of its own in turns with the engine's
(passes.py), so that others have their time meanwhile.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch._tensor_str as tensor_str
from torch import Tensor

from tserver.engine import passes, sparse
from tserver.engine.object_store import ObjectStore
from tserver.engine.pieces import Pieces
from tserver.engine.ready import LOOK_S

# Elements that one text may show.
MAX_SHOWN = 100_000
# From so many on it is made in turns.
_MANY = 1000
# Elements that are shown between two looks at the clock.
_LOOK_AGAIN = 64
# Those of a tensor that is so small are gone through as they are.
_FEW = 16
_FLOATING = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
_WHOLE = frozenset((torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8))


class _Turn:
    """Until when a text is gone on with that is made in turns. One is made at a time."""

    ends_at = 0.0


# What torch looks up for each text, and is replaced here.
TORCHS: Any = tensor_str._Formatter


class _Formatter(TORCHS):  # type: ignore[misc]
    """torch's own, told of the elements that decide how all are shown."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(_deciding(tensor))
        self._left = _LOOK_AGAIN

    def format(self, value: Any) -> str:
        """See torch."""
        self._left -= 1
        if not self._left:
            self._left = _LOOK_AGAIN
            if (running := passes.current()) is not None and time.perf_counter() > _Turn.ends_at:
                running.suspend({"given": ()})
        text: str = super().format(value)
        return text


vars(tensor_str)["_Formatter"] = _Formatter


def _deciding(tensor: Tensor) -> Tensor:
    """Elements that are shown as widely as any, in the same notation."""
    if tensor.numel() <= _FEW or tensor.is_meta:
        return tensor
    with torch.no_grad():
        if tensor.dtype in _WHOLE:
            return torch.stack(tensor.aminmax())
        if tensor.dtype not in _FLOATING:
            return tensor
        values = tensor.reshape(-1)
        values = values[values.isfinite() & values.ne(0)]
        if not values.numel():
            return values
        found = [*values.aminmax()]
        # Of each sign the one that is nearest to 0, whose exponent may be the longest.
        found += [part[part.abs().argmin()] for part in (values[values > 0], values[values < 0]) if part.numel()]
        broken = values != values.ceil()
        found.append(values[broken.to(torch.uint8).argmax()])
        return torch.stack(found)


def shown(function: Callable[..., str]) -> Callable[..., Any]:
    """A text of a tensor, unless the session's print options would show more elements than can be formatted in time;
    in pieces, where it shows many.
    """

    def show(store: ObjectStore, *args: Any, **kwargs: Any) -> str | Pieces:
        count = _checked(args)
        if count < _MANY or store.has_sparse or store.read_only is not None:
            return function(*args, **kwargs)
        return _in_turns(store, lambda: function(*args, **kwargs))

    return show


def shown_at_once(function: Callable[..., str]) -> Callable[..., str]:
    """The same in one piece."""

    def show(*args: Any, **kwargs: Any) -> str:
        _checked(args)
        return function(*args, **kwargs)

    return show


def _in_turns(store: ObjectStore, function: Callable[[], str]) -> Pieces:
    _Turn.ends_at = time.perf_counter() + LOOK_S
    running, told = store.pass_threads.begin(function, store.state.enter_streams, is_guarded=False)
    try:
        while not running.is_over:
            yield
            _Turn.ends_at = time.perf_counter() + LOOK_S
            told = running.resume(None)
    finally:
        running.abort()
    return told["result"]


def _checked(args: tuple[Any, ...]) -> int:
    """How many elements are shown. Raises: RuntimeError where those are too many."""
    tensor = args[0] if args else None
    if not isinstance(tensor, Tensor):
        return 0
    count = max((part.numel() for part in sparse.memory_of(tensor)), default=0)
    options = tensor_str.PRINT_OPTS
    if count > options.threshold:
        edges = 2 * options.edgeitems
        count = max(
            (math.prod(min(size, edges) for size in part.shape) for part in sparse.memory_of(tensor)), default=0
        )
    if count > MAX_SHOWN:
        raise RuntimeError(
            f"a text of {count} elements is not made (at most {MAX_SHOWN}); "
            "lower the threshold or the edgeitems of set_printoptions, or use numpy()"
        )
    return count
