"""Requests and responses as bytes, against protobuf's own parser."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorcompute.oip import inference_pb2 as oip
from tserver.errors import InvalidArgument
from tserver.service.oip.inference import parse
from tserver.service.oip.wire import join_response, join_stream_response, split_request

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
    "a group": b"\x0b\x0c",
    "wire type 7": b"\x0f",
    "a cut fixed 32": b"\x0dabc",
    "a cut fixed 64": b"\x09abcdefg",
    "elements as a number": bytes([RAW << 3, 1]),
    "a name that is no text": b"\x0a\x02\xff\xfe",
    "an input that is no message": b"\x2a\x01\xff",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"not an inference\.ModelInferRequest"):
        parse(data)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    try:
        parse(data)
    except InvalidArgument:
        pass


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
