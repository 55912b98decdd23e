"""Numbers and fields are written as protobuf writes them, and read or refused as it does."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire.varint import SHORT, field, read_varint, varint

# Value.unsigned: a tag of two bytes, and a number of 64 bits.
_TAG = b"\xc0\x01"
_numbers = st.integers(0, (1 << 64) - 1) | st.integers(0, 63).flatmap(
    lambda bits: st.integers(max(0, (1 << bits) - 2), (1 << bits) + 1)
)


@given(_numbers)
def test_a_number_is_written_as_protobuf_writes_it(number: int) -> None:
    assert _TAG + varint(number) == pb.Value(unsigned=number).SerializeToString()


def test_the_numbers_of_one_byte_are_in_the_table() -> None:
    assert [varint(number) for number in range(128)] == SHORT


@given(st.integers(max_value=-1))
def test_a_negative_number_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="is negative"):
        varint(number)


@given(_numbers, st.binary(max_size=3), st.binary(max_size=3))
def test_a_number_is_read_from_its_place(number: int, before: bytes, behind: bytes) -> None:
    data = before + varint(number) + behind
    assert read_varint(data, len(before)) == (number, len(data) - len(behind))
    assert read_varint(memoryview(data), len(before)) == (number, len(data) - len(behind))


@given(_numbers)
def test_a_number_that_is_cut_is_refused(number: int) -> None:
    whole = varint(number)
    for length in range(len(whole)):
        with pytest.raises(ValueError, match="without an end"):
            read_varint(whole[:length], 0)


@given(_numbers, st.integers(1, 10))
def test_a_number_of_more_bytes_than_it_needs_is_read_up_to_ten(number: int, more: int) -> None:
    short = varint(number)
    data = short[:-1] + bytes((short[-1] | 0x80,)) + b"\x80" * (more - 1) + b"\x00"
    if len(data) <= 10:
        assert read_varint(data, 0) == (number, len(data))
        assert pb.Value.FromString(_TAG + data).unsigned == number
    else:
        with pytest.raises(ValueError, match="without an end"):
            read_varint(data, 0)
        with pytest.raises(DecodeError):
            pb.Value.FromString(_TAG + data)


@given(st.lists(st.integers(0, 255), max_size=12).map(bytes))
@example(b"\xff" * 9 + b"\x7f")
@example(b"\x80" * 9 + b"\x02")
@example(b"\xff" * 10)
def test_any_bytes_are_read_or_refused_as_protobuf_does(data: bytes) -> None:
    try:
        number, end = read_varint(data, 0)
    except ValueError:
        with pytest.raises(DecodeError):
            pb.Value.FromString(_TAG + data)
        return
    assert pb.Value.FromString(_TAG + data[:end]).unsigned == number


@given(st.binary(max_size=300) | st.integers(16_000, 17_000).map(bytes))
def test_a_field_is_written_as_protobuf_writes_it(content: bytes) -> None:
    tensor = pb.TensorData(data=content)
    assert field(b"\x1a", content) == (tensor.SerializeToString() or b"\x1a\x00")
