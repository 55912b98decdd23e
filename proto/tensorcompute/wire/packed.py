"""Packed calls: how plain calls are written as words of 64 bits (Batch.packed of the contract).

Words are plain integers here; a batch is the bytes of them all. Knows no tensors, and no sessions.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence

WORD_BYTES = 8
# What a word begins, in its lowest bits.
GENERAL, CALL, FREE, PART = range(4)
KIND_BITS = 8
KIND_MASK = (1 << KIND_BITS) - 1
# Of a call: how many words its arguments take, the operation, the context.
COUNT_SHIFT, OPERATION_SHIFT, CONTEXT_SHIFT = 8, 16, 40
MAX_COUNT, MAX_OPERATION, MAX_CONTEXT = 0xFF, 0xFF_FFFF, 0xFF_FFFF
# What an argument is, in its highest bits, and what is below them.
TAG_SHIFT = 48
LOW_MASK = (1 << TAG_SHIFT) - 1
INTEGER, NUMBER = 1 << TAG_SHIFT, 2 << TAG_SHIFT
# Integers that fit below a tag.
INTEGER_LIMIT = 1 << TAG_SHIFT - 1

_double = struct.Struct("<d")
_word = struct.Struct("<Q")


def calls_in(data: bytes) -> int:
    """How many calls the words are that are not general; about as many where they break the rules."""
    words = memoryview(data)[: len(data) - len(data) % WORD_BYTES].cast("Q")
    at = found = 0
    while at < len(words):
        word = words[at]
        kind = word & KIND_MASK
        if kind == CALL:
            found += 1
            at += 2 + (word >> COUNT_SHIFT & MAX_COUNT)
        elif kind == PART and at + 1 < len(words):
            at += 2 + words[at + 1]
        else:
            at += 1
    return found


def head(operation: int, count: int, context: int) -> int:
    """The first word of a call whose arguments take so many words."""
    return CALL | count << COUNT_SHIFT | operation << OPERATION_SHIFT | context << CONTEXT_SHIFT


def integer(value: int) -> int:
    """The argument of an integer within INTEGER_LIMIT."""
    return INTEGER | value & LOW_MASK


def integer_of(word: int) -> int:
    """The integer of an argument."""
    low = word & LOW_MASK
    return low - (1 << TAG_SHIFT) if low >= INTEGER_LIMIT else low


def bits_of(value: float) -> int:
    """The word behind NUMBER."""
    found: int = _word.unpack(_double.pack(value))[0]
    return found


def number_of(word: int) -> float:
    """The number that is in the word behind NUMBER."""
    found: float = _double.unpack(_word.pack(word))[0]
    return found


def let_go(number: int, path: Sequence[int] = ()) -> tuple[int, ...]:
    """The words that let a result go, or a part of it."""
    return (PART | number << KIND_BITS, len(path), *path) if path else (FREE | number << KIND_BITS,)


def dropped_of(words: Sequence[int]) -> list[int | tuple[int, tuple[int, ...]]]:
    """What such words let go: an id, or an id and the path of a part."""
    found: list[int | tuple[int, tuple[int, ...]]] = []
    at = 0
    while at < len(words):
        number = words[at] >> KIND_BITS
        if words[at] & KIND_MASK == PART:
            end = at + 2 + words[at + 1]
            found.append((number, tuple(words[at + 2 : end])))
            at = end
        else:
            found.append(number)
            at += 1
    return found


def to_bytes(words: Iterable[int]) -> bytes:
    """The words as they travel."""
    packed = array("Q", words)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def array_of(data: bytes) -> array[int]:
    """The words of what has travelled, one behind the other. Raises: ValueError where these are no words."""
    if len(data) % 8:
        raise ValueError(f"{len(data)} bytes are no words of 64 bits")
    packed = array("Q", data)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed


def from_bytes(data: bytes) -> list[int]:
    """The same as a list."""
    return array_of(data).tolist()


def beginning(words: Sequence[int]) -> int:
    """Where the call begins whose words these are, with what is let go before it."""
    at = 0
    while words[at] & KIND_MASK in (FREE, PART):
        at += 2 + words[at + 1] if words[at] & KIND_MASK == PART else 1
    return at


def by_call(words: Sequence[int]) -> Iterator[tuple[list[int], int]]:
    """The words of each call, with what is let go before it, and whether it is CALL or GENERAL; and at the end those
    behind the last call, if there are any, and FREE.
    """
    begin = at = 0
    while at < len(words):
        kind = words[at] & KIND_MASK
        at += 1
        if kind == CALL:
            at += 1 + (words[at - 1] >> COUNT_SHIFT & MAX_COUNT)
        elif kind == PART:
            at += 1 + words[at]
        if kind in (GENERAL, CALL):
            yield list(words[begin:at]), kind
            begin = at
    if begin < at:
        yield list(words[begin:at]), FREE
