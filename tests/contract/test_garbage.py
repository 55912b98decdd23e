"""Bytes that are no message, empty requests, and nesting that no parser follows, on every RPC there is."""

from __future__ import annotations

import grpc
import pytest

from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tests.support.raw import METHODS, RawSession
from tests.support.refusals import parse, refused

Code = grpc.StatusCode
GARBAGE = {
    "noise": bytes(range(255, 0, -1)) * 3,
    "a field that never ends": b"\x0a\xff\xff\xff\xff\x0f1",
    "a varint that never ends": b"\xff" * 64,
    "a wrong wire type": b"\x0f\x00",
    "half a message": service_pb.OpenSessionRequest(client="x" * 90).SerializeToString()[:40],
}


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def deep_list(depth: int) -> bytes:
    """A Value of lists within lists, made by hand: the library refuses to make one."""
    value = b"\x18\x02"
    for _ in range(depth):
        value = field(12, field(1, value))
    return value


def deep_batch(session: RawSession, depth: int) -> bytes:
    call = session.call(5, "tensor")
    batch = session.batch(frees=[5])
    session.undo(batch)
    wire = batch.SerializeToString() + field(5, call.SerializeToString() + field(3, deep_list(depth)))
    return field(1, session.secret) + field(2, wire)


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_bytes_that_are_no_message_are_refused_on_every_rpc(nothing_leaks: RawSession, content: bytes) -> None:
    for method, description in METHODS.items():
        with refused(Code.INVALID_ARGUMENT, naming=description.input_type.name):
            nothing_leaks.send_stream(method, [content])


def test_an_empty_request_is_answered_on_every_rpc(nothing_leaks: RawSession) -> None:
    """With a default or a refusal, but never with an error of the server's own."""
    for method in METHODS:
        try:
            nothing_leaks.send_stream(method, [b""])
        except grpc.RpcError as error:
            told = parse(error)
            assert told.code not in (Code.UNKNOWN, Code.INTERNAL, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED), told
            assert told.message


def test_an_rpc_that_does_not_exist_is_unimplemented(nothing_leaks: RawSession) -> None:
    call = nothing_leaks.channel.unary_unary("/tensorcompute.v1.TensorService/Destroy", None, None)
    with pytest.raises(grpc.RpcError) as told:
        call(b"", timeout=10.0)
    assert isinstance(told.value, grpc.Call)
    assert told.value.code() == Code.UNIMPLEMENTED


@pytest.mark.parametrize("depth", [70, 200, 15_000], ids=lambda depth: f"{depth} levels")
@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
def test_absurd_nesting_is_refused(nothing_leaks: RawSession, depth: int, streamed: bool) -> None:
    session = nothing_leaks
    request = deep_batch(session, depth)
    with refused(Code.INVALID_ARGUMENT):
        if streamed:
            session.send_stream("ExecuteStream", [request])
        else:
            session.send("Execute", request)


def test_garbage_on_a_stream_ends_the_stream_and_not_the_session(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    with session.stream() as stream:
        stream.send(session.batch(session.call(1, "ones", 2)))
        stream.receive().clean()
        stream.send_bytes(b"\xff" * 64)
        with refused(Code.INVALID_ARGUMENT):
            stream.receive()
    with session.stream() as stream:
        stream.send(session.batch(frees=[1]))
        stream.receive().clean()


def test_a_stream_that_does_not_begin_with_a_session_is_refused(session: RawSession) -> None:
    with refused(Code.INVALID_ARGUMENT, Code.UNAUTHENTICATED, naming="session"):
        session.send_stream(
            "ExecuteStream", [service_pb.ExecuteStreamRequest(batch=session.batch()).SerializeToString()]
        )


def test_a_stream_that_changes_its_session_is_refused(session: RawSession, other: RawSession) -> None:
    first = service_pb.ExecuteStreamRequest(session=session.secret)
    second = service_pb.ExecuteStreamRequest(session=other.secret, batch=session.batch())
    with refused(Code.INVALID_ARGUMENT, naming="session"):
        session.send_stream("ExecuteStream", [first.SerializeToString(), second.SerializeToString()])


def test_a_stream_without_messages_is_refused(session: RawSession) -> None:
    with refused(Code.INVALID_ARGUMENT, naming="session"):
        session.send_stream("ExecuteStream", [])


def test_text_that_is_not_utf8_is_refused(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    context = session.context().SerializeToString()
    with refused(Code.INVALID_ARGUMENT):
        session.send("CreateTensor", field(1, context) + field(4, b"\xff\xfe") + field(9, b""))
