"""`x.grad`: one wait for those of all tensors whose gradients are read in a loop, and none for what was read already.

What was told of a gradient holds until a call may set or take away gradients (CallQueue.gradients is emptied then).
Knows how calls are made and answered; does not know what a tensor can do.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from tclient._codec.operations import TABLE
from tclient._issue import TensorBase, dispatch, finish, make_tensor, prepare
from tclient._session.calls import Name
from tclient._session.modes import MODES
from tclient._session.results import Decoder
from tclient._session.session import Session

_GET = TABLE["Tensor.grad.__get__"]
_SET = TABLE["Tensor.grad.__set__"]
# So many are asked for ahead at most.
_MOST = 512
_MOST_KNOWN = 16_384
_UNKNOWN = object()


class _Readers:
    """Whose gradients a session has read: since they changed last, and before that."""

    def __init__(self) -> None:
        self.known: dict[Name, Any] = {}
        self.now: dict[Name, weakref.ref[Any]] = {}
        self.before: dict[Name, weakref.ref[Any]] = {}

    def note(self, known: dict[Name, Any], tensor: TensorBase) -> None:
        """Takes in that a gradient is read."""
        if known is not self.known:
            self.known, self.now, self.before = known, {}, self.now
        self.now[tensor._ref.name] = weakref.ref(tensor)

    def others(self, tensor: TensorBase) -> list[TensorBase]:
        """Whose gradients are likely to be read next, if what was done before is done again."""
        if tensor._ref.name not in self.before:
            return []
        alive = [reader() for key, reader in self.before.items() if key not in self.known]
        return [each for each in alive if each is not None and each is not tensor][:_MOST]


_readers: weakref.WeakKeyDictionary[Session, _Readers] = weakref.WeakKeyDictionary()


def gradient(tensor: TensorBase) -> Any:
    """The gradient of a tensor, or None."""
    if MODES.recorder is not None:
        return dispatch(_GET, (tensor,), None)
    session = tensor._ref.session
    known = session.queue.gradients
    readers = _readers.get(session)
    if readers is None:
        readers = _readers[session] = _Readers()
    readers.note(known, tensor)
    found = known.get(tensor._ref.name, _UNKNOWN)
    return _ask(session, known, [tensor], readers.others(tensor))[0] if found is _UNKNOWN else found


def gradients(tensors: Iterable[TensorBase]) -> list[Any]:
    """The gradients of tensors, or None: one wait for all of a session."""
    wanted = list(tensors)
    if MODES.recorder is not None:
        return [dispatch(_GET, (tensor,), None) for tensor in wanted]
    found = {id(tensor): tensor._ref.session.queue.gradients.get(tensor._ref.name, _UNKNOWN) for tensor in wanted}
    by_session: dict[Session, list[TensorBase]] = {}
    for tensor in wanted:
        if found[id(tensor)] is _UNKNOWN:
            by_session.setdefault(tensor._ref.session, []).append(tensor)
    for session, asked in by_session.items():
        told = _ask(session, session.queue.gradients, asked, [])
        found.update(zip(map(id, asked), told, strict=True))
    return [found[id(tensor)] for tensor in wanted]


def is_new(tensor: TensorBase) -> None:
    """Takes in that a tensor was just made, and has no gradient yet."""
    if MODES.recorder is None:
        known = tensor._ref.session.queue.gradients
        if len(known) < _MOST_KNOWN:
            known[tensor._ref.name] = None


def set_gradient(tensor: TensorBase, value: Any) -> None:
    """Set the gradient of a tensor, or take it away."""
    dispatch(_SET, (tensor, value), None)


def _ask(
    session: Session, known: dict[Name, Any], tensors: Sequence[TensorBase], ahead: Sequence[TensorBase]
) -> list[Any]:
    """Ask for the gradients of these, and for others ahead. What is told is known, if nothing changed in between."""
    calls = [prepare(_GET, tensor._ref) for tensor in (*tensors, *ahead)]
    last, _ = calls[-1]
    if not last.done:
        session.waiters.block(last)
    if len(known) >= _MOST_KNOWN:
        known.clear()
    results = []
    for tensor, (call, number) in zip(tensors, calls, strict=False):
        # A warning is told at each read, as torch does.
        is_kept = not session.deferred.has_warning(call)
        found = finish(session, call, number)
        results.append(found)
        if is_kept:
            known[tensor._ref.name] = found
    for tensor, (call, number) in zip(ahead, calls[len(tensors) :], strict=True):
        # An error, too, is of those who read it.
        value = None if session.deferred.has_warning(call) else session.waiters.answer(call)
        if value is None:
            session.queue.drops.append(number)
        else:
            known[tensor._ref.name] = Decoder(session, number, call.epoch, make_tensor).decode(value)
    return results
