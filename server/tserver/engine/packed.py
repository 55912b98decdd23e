"""Packed calls: words of 64 bits as whole results and numbers (Batch.packed of the contract).

The loop over those that are plain is compiled where that was built (packed_core.pyx); `TSERVER_NATIVE=0` keeps to pure
Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tensorcompute.wire.compiled import compiled
from tensorcompute.wire.packed import NUMBER, TAG_SHIFT, WORD_BYTES, array_of, from_bytes, integer_of, number_of
from tserver.engine.object_store import ObjectStore
from tserver.errors import InvalidArgument

_core = compiled("tserver.engine.packed_core", "TSERVER_NATIVE")
# Runs plain calls from a word on (executor, store, run, operations, words, at, deadline), and tells the word of what is
# none; -1 where time is up. None in pure Python, where Executor runs all.
run_plain: Callable[..., int] | None = None if _core is None else _core.run_plain

if TYPE_CHECKING or _core is None:

    class RunFields:
        """What every call touches of the batch that is run."""

        __slots__ = ("at", "index", "number")

        at: int
        index: int
        number: int

else:
    RunFields = _core.RunFields


def words_of(data: bytes) -> tuple[Sequence[int], bool]:
    """The words of a batch that are whole, and whether they are all of it."""
    rest = len(data) % WORD_BYTES
    whole = data[: len(data) - rest] if rest else data
    return (from_bytes(whole) if run_plain is None else array_of(whole)), not rest


def arguments(store: ObjectStore, words: Sequence[int]) -> list[Any]:
    """What the words stand for. Raises: InvalidArgument, UnknownId, CallFailed."""
    objects = store.objects
    found: list[Any] = []
    remaining = iter(words)
    for word in remaining:
        tag = word >> TAG_SHIFT
        if not tag:
            held = objects.get(word)
            found.append(held if isinstance(held, Tensor) else store.whole(word))
        elif word >= NUMBER:
            bits = next(remaining, None)
            if word != NUMBER or bits is None:
                raise InvalidArgument(f"the word {word:#x} is no argument of a packed call")
            found.append(number_of(bits))
        else:
            found.append(integer_of(word))
    return found


def id_at(words: Sequence[int], position: int) -> int:
    """The id of the argument at that place, which is a result."""
    remaining = iter(words)
    for word in remaining:
        if not position:
            return word
        position -= 1
        if word >= NUMBER:
            next(remaining)
    raise IndexError(position)
