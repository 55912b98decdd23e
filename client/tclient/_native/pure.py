"""The core of the client in pure Python: what the compiled core does, too, and what it is compared with.

The fields of what every call touches, what becomes of the calls of a batch, and nothing that knows of tensors, sessions
or the contract.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

_Made = TypeVar("_Made")
_Function = TypeVar("_Function", bound=Callable[..., Any])

# Whether it is the compiled one.
COMPILED = False
# Of a reference.
REF_FIELDS = ("call", "epoch", "id", "kind", "meta", "path", "session", "since")

# What was dropped, in order: an id, or an id and the path of a part. To append to it is all that an end of a reference
# may do, which comes at any moment.
Drops = deque


class HandleFields:
    """What any object has that stands for something on the server."""

    __slots__ = ("__weakref__", "_ref")


# Makes an object of a class of handles, without its reference, and without a call of what makes one.
bare: Callable[[type[_Made]], _Made] = object.__new__


class RefFields:
    """What a reference holds, and its end."""

    __slots__ = REF_FIELDS

    id: int
    path: tuple[int, ...]
    epoch: int
    since: int
    session: Any

    def __del__(self) -> None:
        # Runs at any moment, within any lock: appending to a deque is all it may do.
        queue = self.session.queue
        queue.drops.append((self.id, self.path) if self.path else self.id)
        if queue.dozing:
            queue.rouse()


class CallFields:
    """What a call holds."""

    __slots__ = ("code", "data", "done", "epoch", "failure", "lasti", "operation", "result", "words")

    words: list[int]
    data: bytes
    done: bool
    result: Any


class OperationFields:
    """What an entry of the table of operations holds."""

    __slots__ = (
        "entry",
        "has_plain_key",
        "heads",
        "meta_change",
        "name",
        "number",
        "plain_count",
        "prefix",
        "returns",
        "sets_gradients",
        "shape_rule",
        "takes_data",
        "tensors",
        "writes",
        "writes_if",
    )


class KindFields:
    """What a kind of results holds."""

    __slots__ = ("floats", "is_leaf", "items", "meta", "parts")


class KindsFields:
    """What the kinds of a session are held in."""

    __slots__ = ("found",)


class ModeFields:
    """What every call of a thread needs to know of its modes."""

    __slots__ = ("autocasts", "context", "recorder", "stamp")


class QueueFields:
    """What every call touches of the queue of its session."""

    def __init__(self, first_id: int) -> None:
        self.next_id = itertools.count(first_id).__next__


def set_up(**what: Any) -> None:
    """Tells the compiled core what it has to know of the rest."""


def quick_operator(operation: OperationFields, slow: _Function, takes_numbers: bool) -> _Function:
    """One of Python's operators of two operands, with a shorter way for what is plain."""
    return slow


def quick_dispatch(slow: _Function) -> _Function:
    """What issues any call, with a shorter way for what is plain."""
    return slow


def contents(calls: Iterable[CallFields]) -> tuple[list[bytes], list[int]]:
    """The encoded fields of the calls that are not packed, and the words of all."""
    data: list[bytes] = []
    words: list[int] = []
    for call in calls:
        words += call.words
        if call.data:
            data.append(call.data)
    return data, words


def empty(calls: Iterable[CallFields]) -> None:
    """Let go of what was sent of these calls."""
    for call in calls:
        call.data, call.words = b"", []


def settle(calls: Sequence[CallFields], results: Iterable[tuple[int, bytes]]) -> None:
    """The calls of a batch are answered, some of them with encoded Values."""
    for index, value in results:
        calls[index].result = value
    for call in calls:
        call.done = True
