"""Lanes against callers that are wrong, slow or gone: each ends its own lane, and nothing else. Raw sockets; no SDK."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator

import grpc
import pytest

from tensorcompute.v1 import model_service_pb2 as models_pb
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tests.bulk.test_data_endpoint import connected, ended, exactly, prove
from tests.support.raw import Raw, RawSession, Reply
from tests.support.refusals import refused
from tests.support.values import Kept
from tserver.engine.ready import ReadyQueue
from tserver.session.lane import Lane


def ticket_of(caller: Raw, context: service_pb.SessionContext, kind: str) -> service_pb.OpenTransferResponse:
    request = service_pb.OpenTransferRequest(
        lane=context if kind == "lane" else None, forwards=context if kind == "forwards" else None
    )
    answer: service_pb.OpenTransferResponse = caller.send("OpenTransfer", request.SerializeToString())
    return answer


@contextlib.contextmanager
def lane_of(session: RawSession, port: int, kind: str = "lane") -> Iterator[socket.socket]:
    """A lane of a session."""
    answer = ticket_of(session, session.context(), kind)
    with connected(port) as connection:
        prove(connection, answer)
        yield connection


def sized(message: bytes) -> bytes:
    return struct.pack(">I", len(message)) + message


def framed(batch: pb.Batch) -> bytes:
    return sized(service_pb.ExecuteStreamRequest(batch=batch).SerializeToString())


def reply_of(connection: socket.socket) -> Reply:
    (length,) = struct.unpack(">I", exactly(connection, 4))
    return Reply(service_pb.ExecuteStreamResponse.FromString(exactly(connection, length)).reply)


def is_usable(session: RawSession) -> bool:
    number = session.id()
    return bool(
        session.run(session.call(number, "ones", 2), session.call(0, "tc.read", Kept(number))).value(1).tolist()
    )


def test_batches_are_answered_in_order_and_numbered_with_those_of_grpc(session: RawSession, port: int) -> None:
    session.run(session.call(1, "zeros", ()))
    add = [session.batch(session.call(0, "Tensor.add_", Kept(1), 1), session.call(0, "Tensor.item", Kept(1)))]
    add += [session.batch(session.call(0, "Tensor.item", Kept(1))) for _ in range(100)]
    with lane_of(session, port) as lane:
        # In pieces that end anywhere.
        data = b"".join(map(framed, add))
        for at in range(0, len(data), 7):
            lane.sendall(data[at : at + 7])
        replies = [reply_of(lane) for _ in add]
        assert [reply.seq for reply in replies] == list(range(2, 103))
        assert replies[-1].value(0) == 1
        # One that is sent again has its kept reply, and is applied once.
        lane.sendall(framed(add[0]))
        assert reply_of(lane).value(1) == 1
    assert session.run(session.call(0, "Tensor.item", Kept(1))).value(0) == 1


_FRAMES = {
    "no message": sized(b"\xff\xff\xff"),
    "an empty message": sized(b""),
    "a session": sized(service_pb.ExecuteStreamRequest(session=b"x", batch=pb.Batch(seq=1)).SerializeToString()),
    "no batch": sized(service_pb.ExecuteStreamRequest(session=b"x").SerializeToString()),
    "no number": framed(pb.Batch()),
    "a gap": framed(pb.Batch(seq=9)),
    "an acknowledgement of nothing": framed(pb.Batch(seq=1, acked=7)),
    "too long": struct.pack(">I", 1 << 31) + b"x",
}


@pytest.mark.parametrize("data", _FRAMES.values(), ids=list(_FRAMES))
def test_what_a_lane_refuses_ends_it_and_grpc_goes_on(session: RawSession, port: int, data: bytes) -> None:
    with lane_of(session, port) as lane:
        lane.sendall(data)
        assert ended(lane)
    assert is_usable(session)


@pytest.mark.parametrize("kind", ["lane", "forwards"])
def test_garbage_ends_lanes_and_nothing_else(session: RawSession, port: int, kind: str) -> None:
    draw = random.Random(kind)
    for _ in range(40):
        with lane_of(session, port, kind) as lane, contextlib.suppress(OSError):
            for _ in range(5):
                garbage = draw.randbytes(draw.randrange(1, 60))
                lane.sendall(sized(garbage) if draw.random() < 0.7 else garbage)
    assert is_usable(session)


def test_a_batch_that_is_cut_short_is_not_taken(session: RawSession, port: int) -> None:
    batch = framed(session.batch(session.call(1, "ones", 2)))
    with lane_of(session, port) as lane:
        lane.sendall(batch[:-3])
    with lane_of(session, port) as lane:
        lane.sendall(framed(session.batch(session.call(0, "tc.read", Kept(1)))))
        assert ended(lane), "a gap"
    with lane_of(session, port) as lane:
        lane.sendall(batch)
        assert reply_of(lane).seq == 1


def test_a_newer_lane_or_stream_takes_over(session: RawSession, port: int) -> None:
    with lane_of(session, port) as first, lane_of(session, port) as second:
        assert ended(first)
        second.sendall(framed(session.batch(session.call(1, "ones", 2))))
        assert reply_of(second).seq == 1
        with session.stream() as stream:
            stream.send(session.batch(session.call(0, "tc.read", Kept(1))))
            assert stream.receive().value(0).tolist() == [1, 1]
            assert ended(second)


def test_who_takes_no_answers_holds_up_nobody(wire: Raw, session: RawSession, port: int) -> None:
    session.run(session.call(1, "zeros", 200_000))
    with lane_of(session, port) as lane, wire.open_session() as other:
        batches = [session.batch(session.call(0, "tc.read", Kept(1))) for _ in range(50)]
        lane.sendall(b"".join(map(framed, batches)))
        assert is_usable(other)
        # All come as soon as they are taken.
        assert [reply_of(lane).seq for _ in batches] == [batch.seq for batch in batches]


class _Talkative(Lane):
    """Answers each message with far more than a connection takes at once."""

    ANSWER = bytes(600_000)
    has_ended = False

    def _receive(self, message: bytes) -> None:
        self.send(self.ANSWER)

    def _has_room(self) -> bool:
        return True

    def _ended(self) -> None:
        self.has_ended = True


def test_messages_that_waited_for_room_are_taken_when_the_answers_before_them_are() -> None:
    ready, count = ReadyQueue(), 20
    share = ready.turns.share("")
    end, other = socket.socketpair()
    lane = _Talkative(end, ready, share, 100)
    lane.start()
    with end, other:
        other.sendall(sized(b"m") * count)
        other.settimeout(5)

        def take() -> None:
            for _ in range(count):
                assert exactly(other, 4 + len(lane.ANSWER))
            other.close()

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        while thread.is_alive():
            with contextlib.suppress(TimeoutError):
                ready.get(0.05)
        with contextlib.suppress(TimeoutError):
            ready.get(0.05)
        assert lane.has_ended


def test_a_lane_ends_with_its_session(wire: Raw, port: int) -> None:
    with wire.open_session() as session, lane_of(session, port) as lane, lane_of(session, port, "forwards") as forwards:
        session.ask("CloseSession", session=session.secret)
        assert ended(lane)
        assert ended(forwards)


def test_forward_passes_are_answered_on_a_lane(session: RawSession, port: int) -> None:
    call = models_pb.MlpForwardCall(id=7, name="none-of-this-name")
    with lane_of(session, port, "forwards") as lane:
        lane.sendall(sized(models_pb.MlpForwardStreamRequest(calls=[call]).SerializeToString()))
        (length,) = struct.unpack(">I", exactly(lane, 4))
        (answer,) = models_pb.MlpForwardStreamResponse.FromString(exactly(lane, length)).answers
        assert (answer.id, answer.failure.code) == (7, grpc.StatusCode.NOT_FOUND.value[0])


def test_a_lane_needs_a_session_of_one_s_own(wire: Raw) -> None:
    for kind in ("lane", "forwards"):
        with refused(grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.FAILED_PRECONDITION):
            ticket_of(wire, service_pb.SessionContext(), kind)
