"""The frames that are written and read by hand are the contract's: the generated classes agree."""

from __future__ import annotations

import pytest

from tclient._transfer import chunks as _chunks
from tensorcompute.v1 import tensor_service_pb2 as pb
from tensorcompute.wire.chunks import chunk_message, chunk_of

SIZES = [pytest.param(size, id=f"{size} bytes") for size in (1, 127, 128, 16_383, 16_384, 1 << 20)]


@pytest.mark.parametrize("size", SIZES)
def test_the_chunks_of_an_upload_are_messages_of_the_contract(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    opening = pb.UploadRequest(header=pb.UploadHeader(id=5)).SerializeToString()
    first, *messages = _chunks._chunks(opening, memoryview(data), size)
    assert pb.UploadRequest.FromString(first).header.id == 5
    assert b"".join(pb.UploadRequest.FromString(message).chunk for message in messages) == data


@pytest.mark.parametrize("size", SIZES)
def test_the_chunk_of_a_message_is_found(size: int) -> None:
    message = pb.UploadRequest(chunk=b"x" * size).SerializeToString()
    found = chunk_of(message)
    assert found is not None
    assert bytes(found) == b"x" * size
    assert chunk_message(memoryview(found)) == pb.DownloadResponse(chunk=bytes(found)).SerializeToString() == message


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x12", id="no length"),
        pytest.param(b"\x12\x05abcd", id="too short"),
        pytest.param(b"\x12\x03abcd", id="more behind it"),
        pytest.param(b"\x12\xff\xff\xff\xff\xff\xff", id="a length without an end"),
        pytest.param(b"\x0a\x04abcd", id="another field"),
    ],
)
def test_what_is_no_lone_chunk_is_left_to_the_parser(message: bytes) -> None:
    assert chunk_of(message) is None
