"""Requests and responses as bytes, against protobuf's own parser."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorcompute.oip import inference_pb2 as oip
from tserver.errors import InvalidArgument
from tserver.front.oip.protobuf_form import parse_message as parse
from tserver.front.oip.wire import join_response, join_stream_response, split_request

RAW = oip.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER


def request(**fields: object) -> oip.ModelInferRequest:
    made = oip.ModelInferRequest(model_name="m", model_version="1", id="x", **fields)  # type: ignore[arg-type]
    made.inputs.add(name="input", datatype="FP32", shape=(2, 4))
    made.parameters["priority"].uint64_param = 3
    return made


@given(st.lists(st.binary(max_size=300), max_size=4), st.text(max_size=40), st.binary(max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_request_is_read_as_protobuf_reads_it(raw: list[bytes], name: str, unknown: bytes) -> None:
    made = request(raw_input_contents=raw)
    made.id = name
    # Fields in any order, and some that nobody knows: a varint, fixed 32 and 64 bits, and bytes.
    strange = b"\xf8\x06\x96\x01" + b"\xfd\x06" + b"abcd" + b"\xf9\x06" + b"abcdefgh"
    strange += b"\xfa\x06" + bytes([len(unknown)]) + unknown
    data = strange + made.SerializeToString() + strange
    header, views = parse(data)
    assert [bytes(view) for view in views] == raw
    expected = oip.ModelInferRequest.FromString(data)
    del expected.raw_input_contents[:]
    assert header == expected


def test_elements_are_views_into_the_request_and_never_reach_protobuf() -> None:
    payload = bytes(range(256)) * 4096
    data = request(raw_input_contents=[payload]).SerializeToString()
    header, (view,) = split_request(data)
    assert view.obj is data
    assert view == payload
    assert len(header) < 64


def test_elements_between_other_fields_are_found() -> None:
    first = request(raw_input_contents=[b"one"]).SerializeToString()
    second = oip.ModelInferRequest(id="later", raw_input_contents=[b"", b"two"]).SerializeToString()
    header, views = parse(first + second)
    assert header.id == "later"
    assert [bytes(view) for view in views] == [b"one", b"", b"two"]


MALFORMED = {
    "a cut tag": b"\x80",
    "a tag without an end": b"\xff" * 11,
    "a cut length": b"\x0a\x80",
    "a length beyond the end": b"\x0a\x05abc",
    "elements beyond the end": b"\x3a\x05abc",
    "a length of 64 bits": b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01abc",
    "a length without an end": b"\x3a" + b"\xff" * 11,
    "field number 0": b"\x02\x00",
    "a group without an end": b"\x0b",
    "a group that another one ends": b"\x0b\x14",
    "the end of no group": b"\x0c",
    "a tag of more bytes than any has": b"\xba\x80\x80\x80\x80\x00\x00",
    "wire type 7": b"\x0f",
    "a cut fixed 32": b"\x0dabc",
    "a cut fixed 64": b"\x09abcdefg",
    "a name that is no text": b"\x0a\x02\xff\xfe",
    "an input that is no message": b"\x2a\x01\xff",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"not an inference\.ModelInferRequest"):
        parse(data)


def varint(number: int, more: int = 0) -> bytes:
    """A number as protobuf writes it, or with that many bytes more than it needs."""
    digits = [number >> shift & 0x7F for shift in range(0, max(1, number.bit_length()), 7)] + [0] * more
    return bytes(digit | 0x80 for digit in digits[:-1]) + bytes(digits[-1:])


@st.composite
def fields(draw: st.DrawFn, depth: int = 2) -> bytes:
    """A field as protobuf may have it, or nearly so: known, unknown, in groups, with lengths and tags that lie."""
    number = draw(st.sampled_from([1, 3, 4, 5, 6, RAW, RAW, RAW, 8, 1000, (1 << 29) - 1, 1 << 29, 0]))
    kind = draw(st.sampled_from([2, 2, 2, 0, 1, 5, 3, 4, 6]))
    tag = varint(number << 3 | kind, draw(st.sampled_from([0] * 6 + [1, 3, 4, 5, 8])))
    if kind == 0:
        return tag + varint(draw(st.integers(0, 1 << 70)), draw(st.sampled_from([0, 0, 2])))
    if kind in (1, 5):
        return tag + draw(st.binary(min_size=8, max_size=8))[: 8 if kind == 1 else 4]
    if kind == 2:
        content = draw(st.sampled_from([b"", b"abc", request(raw_input_contents=[b"1"]).SerializeToString()]))
        size = len(content) + draw(st.sampled_from([0] * 9 + [1, 1 << 31, 1 << 63]))
        return tag + varint(size, draw(st.sampled_from([0] * 6 + [1, 4, 7]))) + content
    if kind == 3:
        inner = draw(st.lists(fields(depth - 1), max_size=2)) if depth else []
        return tag + b"".join(inner) + varint(number << 3 | draw(st.sampled_from([4, 4, 4, 0])))
    return tag


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message, with bytes changed, lost or added."""
    data = bytearray(b"".join(draw(st.lists(fields(), max_size=5))))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


@given(st.one_of(damaged(), st.binary(max_size=200)))
@settings(max_examples=1500, deadline=None)
def test_any_bytes_are_read_or_refused_as_protobuf_does(data: bytes) -> None:
    try:
        expected = oip.ModelInferRequest.FromString(data)
    except DecodeError:
        with pytest.raises(InvalidArgument):
            parse(data)
        return
    header, views = parse(data)
    assert [bytes(view) for view in views] == list(expected.raw_input_contents)
    del expected.raw_input_contents[:]
    assert header.SerializeToString() == expected.SerializeToString()


@pytest.mark.parametrize(
    "data", [b"\x3a\x00" * 1_000_000, b"\x0b" + b"\x08\x01" * 1_000_000 + b"\x0c"], ids=["elements", "in a group"]
)
def test_a_million_fields_are_refused_without_a_look_at_them_all(data: bytes) -> None:
    # What is no field at all stands at the end, which nobody gets to.
    with pytest.raises(InvalidArgument, match="fields"):
        parse(data + b"\xff" * 20)


@pytest.mark.parametrize("raw", [[], [b""], [b"abc", memoryview(b"\x00" * 5000)]], ids=["none", "empty", "two"])
def test_a_response_is_one_that_protobuf_reads(raw: list[bytes | memoryview]) -> None:
    header = oip.ModelInferResponse(model_name="m", id="x")
    header.outputs.add(name="output", shape=(1, 2))
    expected = oip.ModelInferResponse()
    expected.CopyFrom(header)
    expected.raw_output_contents.extend(map(bytes, raw))
    whole = join_response(header.SerializeToString(), raw)
    assert oip.ModelInferResponse.FromString(whole) == expected
    assert whole == expected.SerializeToString()
    streamed = oip.ModelStreamInferResponse.FromString(join_stream_response(header.SerializeToString(), raw))
    assert streamed == oip.ModelStreamInferResponse(infer_response=expected)
