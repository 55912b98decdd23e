"""Uploads that are not what they declare, and uploads that nobody has room for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused, status_of
from tests.support.serving import wait_until

Code = grpc.StatusCode


def header_of(session: RawSession, **fields: Any) -> service_pb.UploadHeader:
    given = {"context": session.context(), "id": 5, "dtype": pb.D_TYPE_FLOAT32, "shape": [4], **fields}
    return service_pb.UploadHeader(**given)


def messages(*parts: service_pb.UploadHeader | bytes) -> list[bytes]:
    made = [
        service_pb.UploadRequest(chunk=part) if isinstance(part, bytes) else service_pb.UploadRequest(header=part)
        for part in parts
    ]
    return [request.SerializeToString() for request in made]


@pytest.mark.parametrize(
    ("fields", "chunks", "naming"),
    [
        pytest.param({}, [bytes(12)], "12", id="too short"),
        pytest.param({}, [], "16", id="nothing"),
        pytest.param({}, [bytes(16), bytes(1)], "16", id="too long"),
        pytest.param({}, [bytes(10_000)] * 50, "16", id="far too long"),
        pytest.param({"crc32": 1}, [bytes(16)], "crc", id="wrong checksum"),
        pytest.param({"dtype": 999}, [bytes(16)], "999", id="unknown dtype"),
        pytest.param({"dtype": 0}, [bytes(16)], "dtype", id="no dtype"),
        pytest.param({"shape": [-4]}, [bytes(16)], "-4", id="negative size"),
        pytest.param({"shape": [2**62, 2**62]}, [bytes(16)], str(2**62), id="sizes that overflow"),
        pytest.param({"shape": [1] * 1000}, [bytes(4)], "1000", id="a thousand dimensions"),
        pytest.param({"id": 0}, [bytes(16)], "id", id="no id"),
        pytest.param({"create_tensor": True, "device": "cuda:99"}, [bytes(16)], "cuda:99", id="no such device"),
    ],
)
def test_an_upload_that_is_not_what_it_declares_is_refused(
    nothing_leaks: RawSession, fields: dict[str, Any], chunks: list[bytes], naming: str
) -> None:
    session = nothing_leaks
    with refused(Code.INVALID_ARGUMENT, naming=naming):
        session.send_stream("Upload", messages(header_of(session, **fields), *chunks))


def test_a_refused_upload_can_be_sent_again(session: RawSession) -> None:
    with refused(Code.INVALID_ARGUMENT):
        session.upload(header_of(session), [bytes(3)])
    assert session.upload(header_of(session), [bytes(16)]).received_bytes == 16


def test_an_upload_beyond_memory_is_refused_before_the_data_is_taken(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    with refused(Code.RESOURCE_EXHAUSTED, naming=str(4 * 2**50)):
        session.send_stream("Upload", messages(header_of(session, shape=[2**50]), bytes(16)))


def test_uploads_that_together_are_more_than_memory_are_refused(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    third = session.ask("GetServerInfo").devices[0].total_bytes // 3
    begun, end = threading.Event(), threading.Event()

    def waiting(upload: int) -> Iterator[bytes]:
        yield from messages(header_of(session, id=upload, dtype=pb.D_TYPE_UINT8, shape=[third]))
        begun.set()
        end.wait(20.0)

    def send(upload: int) -> None:
        codes.append(status_of(lambda: session.send_stream("Upload", waiting(upload))))

    codes: list[grpc.StatusCode] = []
    senders = [threading.Thread(target=send, args=(10 + upload,)) for upload in range(4)]
    for sender in senders:
        sender.start()
    begun.wait(10.0)
    wait_until(lambda: bool(codes), 10.0, "the refusal of one of them")
    assert session.make("ones", 3).id, "small work goes on meanwhile"
    session.run(frees=[session.id() - 1])
    end.set()
    for sender in senders:
        sender.join(10.0)
    assert codes[0] == Code.RESOURCE_EXHAUSTED
    assert set(codes) == {Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT}, "the others ended too short"


def test_a_failed_upload_leaves_its_memory_for_the_next_one(nothing_leaks: RawSession) -> None:
    most = nothing_leaks.ask("GetServerInfo").devices[0].free_bytes * 2 // 3
    for upload in range(10, 14):
        header = header_of(nothing_leaks, id=upload, dtype=pb.D_TYPE_UINT8, shape=[most])
        with refused(Code.INVALID_ARGUMENT, naming=str(most)):
            nothing_leaks.send_stream("Upload", messages(header, bytes(16)))


def test_chunks_without_a_header_are_refused(nothing_leaks: RawSession) -> None:
    with refused(Code.INVALID_ARGUMENT, naming="header"):
        nothing_leaks.send_stream("Upload", messages(bytes(16)))


def test_a_second_header_is_refused(nothing_leaks: RawSession) -> None:
    header = header_of(nothing_leaks)
    with refused(Code.INVALID_ARGUMENT, naming="header"):
        nothing_leaks.send_stream("Upload", messages(header, header, bytes(16)))


def test_a_part_that_is_neither_is_refused(nothing_leaks: RawSession) -> None:
    with refused(Code.INVALID_ARGUMENT):
        nothing_leaks.send_stream("Upload", [*messages(header_of(nothing_leaks)), b""])


def test_an_upload_of_no_messages_is_refused(nothing_leaks: RawSession) -> None:
    with refused(Code.INVALID_ARGUMENT, naming="header"):
        nothing_leaks.send_stream("Upload", [])


def test_a_chunk_beyond_the_limit_is_refused(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    size = session.limits.max_chunk_bytes + 4
    with refused(Code.INVALID_ARGUMENT, naming=str(session.limits.max_chunk_bytes)):
        session.send_stream("Upload", messages(header_of(session, shape=[size // 4]), bytes(size)))


def test_an_upload_id_in_use_is_refused_and_the_first_upload_stays(session: RawSession) -> None:
    session.upload(header_of(session), [b"\1" * 16])
    with refused(Code.ALREADY_EXISTS, naming="5"):
        session.upload(header_of(session), [bytes(16)])
    argument = pb.Value(array=pb.HostArray(kind=pb.HostArray.KIND_TENSOR, upload=5))
    kept = session.make("tensor", argument)
    assert session.read(kept).view(torch.uint8).tolist() == [1] * 16


def test_an_upload_whose_caller_goes_away_leaves_nothing(nothing_leaks: RawSession, anyone: Raw) -> None:
    session = nothing_leaks
    requests = messages(header_of(session, shape=[1000]), bytes(16))

    def half() -> Any:
        yield from requests
        raise ConnectionError("the caller goes away")

    with pytest.raises(grpc.RpcError):
        session.send_stream("Upload", half())
    assert session.upload(header_of(session), [bytes(16)]).received_bytes == 16
    used = pb.Value(array=pb.HostArray(kind=pb.HostArray.KIND_TENSOR, upload=5))
    session.run(session.call(0, "tensor", used)).clean()
