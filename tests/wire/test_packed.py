"""Words of packed calls say what they were made of."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorcompute.wire import packed

_IDS = st.integers(0, (1 << 48) - 1)
_PATHS = st.lists(st.integers(0, (1 << 32) - 1), max_size=3).map(tuple)
_DROPS = st.lists(st.tuples(_IDS, _PATHS), max_size=5)


@given(st.integers(-packed.INTEGER_LIMIT, packed.INTEGER_LIMIT - 1))
def test_an_integer_is_what_it_was(value: int) -> None:
    word = packed.integer(value)
    assert word >> packed.TAG_SHIFT == packed.INTEGER >> packed.TAG_SHIFT
    assert packed.integer_of(word) == value


@given(st.floats())
def test_a_number_keeps_its_bits(value: float) -> None:
    again = packed.number_of(packed.bits_of(value))
    assert again == value or (math.isnan(again) and math.isnan(value))
    assert math.copysign(1, again) == math.copysign(1, value)


@given(st.lists(st.integers(0, (1 << 64) - 1)))
def test_words_travel_as_bytes(words: list[int]) -> None:
    data = packed.to_bytes(words)
    assert packed.from_bytes(data) == words
    assert data == b"".join(word.to_bytes(8, "little") for word in words)


@given(_DROPS)
def test_what_is_let_go_is_found_again(drops: list[tuple[int, tuple[int, ...]]]) -> None:
    words = [word for number, path in drops for word in packed.let_go(number, path)]
    assert packed.dropped_of(words) == [(number, path) if path else number for number, path in drops]


_CALLS = st.lists(
    st.one_of(
        st.just([packed.GENERAL]),
        st.builds(
            lambda operation, context, number, arguments: [
                packed.head(operation, len(arguments), context),
                number,
                *arguments,
            ],
            st.integers(0, packed.MAX_OPERATION),
            st.integers(0, packed.MAX_CONTEXT),
            _IDS,
            st.lists(st.integers(0, (1 << 64) - 1), max_size=5),
        ),
    ),
    max_size=5,
)


@given(_CALLS, _DROPS)
def test_a_batch_is_taken_apart_into_its_calls(
    calls: list[list[int]], drops: list[tuple[int, tuple[int, ...]]]
) -> None:
    gone = [word for number, path in drops for word in packed.let_go(number, path)]
    kinds = [words[0] & packed.KIND_MASK for words in calls]
    # What is let go stands before each call, and at the end.
    words = [word for call in calls for word in [*gone, *call]] + gone
    expected = [([*gone, *call], kind) for call, kind in zip(calls, kinds, strict=True)]
    assert list(packed.by_call(words)) == expected + ([(gone, packed.FREE)] if gone else [])


def test_bytes_that_are_no_words_are_refused() -> None:
    with pytest.raises(ValueError, match="9 bytes"):
        packed.from_bytes(bytes(9))
