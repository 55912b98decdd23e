"""The arguments of packed calls: words of 64 bits as whole results and numbers (Batch.packed of the contract)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tensorcompute.wire.packed import NUMBER, TAG_SHIFT, WORD_BYTES, from_bytes, integer_of, number_of
from tserver.engine.object_store import ObjectStore
from tserver.errors import InvalidArgument


def words_of(data: bytes) -> tuple[list[int], bool]:
    """The words of a batch that are whole, and whether they are all of it."""
    rest = len(data) % WORD_BYTES
    return (from_bytes(data[: len(data) - rest]), False) if rest else (from_bytes(data), True)


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
