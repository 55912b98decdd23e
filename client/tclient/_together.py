"""Reading the tensors of a list with one wait, where numpy asks for them one by one.

numpy makes an array of a list by asking each item in turn: for an array, and then for a number. Here the first item
looks for the list among what the caller has at hand, and asks for all of its small tensors at once. What comes is kept
until nothing of it can have changed, or numpy has its numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from tclient._codec.dtypes import BY_CODE
from tclient._issue import TensorBase, operation_named, prepare
from tclient._session.calls import Call
from tclient._session.session import Session

_NUMPY = operation_named("tc.numpy")
_SMALL = 64  # elements
_MANY = 1 << 16  # tensors
_DEPTH = 3


class _Kept(threading.local):
    """The reads of a thread that were asked for together, of one session, while its epoch lasts."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.epoch = -1
        self.reads: dict[tuple[bytes, Any], Call] = {}


_KEPT = _Kept()


def kept(tensor: Any, caller: Any) -> Any:
    """What the server answered to a read of the tensor together with others; None if it is to be read by itself."""
    ref = tensor._ref
    session: Session = ref.session
    key = (ref.id, ref.path)
    if _KEPT.session is not session or _KEPT.epoch != session.queue.epoch or key not in _KEPT.reads:
        items = _list_of(tensor, caller)
        if items is None or not _read(items, session) or key not in _KEPT.reads:
            return None
    return session.wait(_KEPT.reads[key])


def number(tensor: Any) -> Any:
    """The number that was read with others, which numpy asks for last; None if it is to be read by itself."""
    if not _KEPT.reads:
        return None
    ref = tensor._ref
    session: Session = ref.session
    if _KEPT.session is not session or _KEPT.epoch != session.queue.epoch:
        return None
    call = _KEPT.reads.pop((ref.id, ref.path), None)
    if call is None:
        return None
    value = session.wait(call)
    if value is None:
        return None
    data = value.data
    return None if data.shape else np.frombuffer(data.data, BY_CODE[data.dtype].numpy)[0]


def _read(items: list[Any], session: Session) -> bool:
    """Ask for the small tensors among the items."""
    session.catch_up()
    _KEPT.reads.clear()
    _KEPT.session, _KEPT.epoch = session, session.queue.epoch
    for each in items:
        if each._ref.session is not session:
            continue
        try:
            meta = each._meta(grad=True)
        except Exception:
            continue  # it failed, and says so when it is read
        if meta.requires_grad or meta.dtype.is_complex or meta.dtype.numpy is None or meta.shape.numel() > _SMALL:
            continue
        call, _ = prepare(_NUMPY, each._ref)
        _KEPT.reads[each._ref.id, each._ref.path] = call
    return len(_KEPT.reads) > 1


def _list_of(tensor: Any, caller: Any) -> list[Any] | None:
    """The tensors of the list that begins with this one, if the calling function has such a list at hand."""
    for value in _at_hand(caller):
        first: Any = value
        for _ in range(_DEPTH):
            if not isinstance(first, (list, tuple)) or not first:
                break
            first = first[0]
        if first is tensor and first is not value:
            found = [each for each in _flat(value, _DEPTH) if isinstance(each, TensorBase)]
            return found if 1 < len(found) <= _MANY else None
    return None


def _at_hand(caller: Any) -> Iterator[Any]:
    local = caller.f_locals
    yield from list(local.values())
    owner = vars(local["self"]) if hasattr(local.get("self"), "__dict__") else {}
    for name in caller.f_code.co_names:
        if name in owner:
            yield owner[name]
        elif name in caller.f_globals:
            yield caller.f_globals[name]


def _flat(value: Any, depth: int) -> Iterator[Any]:
    for each in value:
        if depth and isinstance(each, (list, tuple)):
            yield from _flat(each, depth - 1)
        else:
            yield each
