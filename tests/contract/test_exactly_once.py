"""Sequence numbers, kept replies, fencing, leases and boots.

A batch is applied once, or the session is lost and says so.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import grpc
import pytest

from tensorcompute.v1 import tensor_pb2 as pb
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused, status_of
from tests.support.serving import ServerProcess, serving, wait_until
from tests.support.values import Kept

Code = grpc.StatusCode
LEASE_S = 1.0
UNACKED_BYTES = 200_000
IN_FLIGHT = 3


@pytest.fixture(scope="module")
def strict() -> Iterator[ServerProcess]:
    """A server with a short lease, little room for kept replies, and few batches in flight."""
    options = {"--lease-s": LEASE_S, "--max-unacked-bytes": UNACKED_BYTES, "--max-batches-in-flight": IN_FLIGHT}
    with serving(*(str(word) for option in options.items() for word in option)) as server:
        yield server


def increments(session: RawSession, total: Kept, count: int) -> list[pb.Call]:
    return [session.call(0, "Tensor.add_", total, 1) for _ in range(count)]


def test_a_repeated_batch_gets_the_kept_reply_and_is_not_applied_again(session: RawSession) -> None:
    total = session.make("zeros", ())
    batch = session.batch(*increments(session, total, 1), session.call(0, "Tensor.item", total))
    replies = [session.execute(batch).message for _ in range(3)]
    assert replies[0] == replies[1] == replies[2]
    assert session.run(session.call(0, "Tensor.item", total)).value(0) == 1


def test_a_repeat_on_a_new_stream_gets_the_kept_reply(session: RawSession) -> None:
    total = session.make("zeros", ())
    batches = [session.batch(*increments(session, total, 1), session.call(0, "Tensor.item", total)) for _ in range(5)]
    with session.stream() as stream:
        stream.send(*batches)
        before = [stream.receive().message for _ in batches]
    with session.stream() as stream:
        stream.send(*batches[2:], last := session.batch(session.call(0, "Tensor.item", total)))
        assert [stream.receive().message for _ in batches[2:]] == before[2:]
        assert stream.receive().value(0) == 5
    assert last.seq == 7


def test_a_stream_gets_the_replies_to_what_it_sent_in_its_order_and_no_other(session: RawSession) -> None:
    x = session.make("rand", 300, 300)
    slow = [session.call(0, "matmul", x, x) for _ in range(100)]
    first = session.batch(*slow, session.call(0, "Tensor.dim", x))
    second = session.batch(*slow, session.call(0, "Tensor.dim", x))
    for batch in (first, second):
        assert status_of(partial(session.execute, batch, timeout_s=0.02)) in (Code.OK, Code.DEADLINE_EXCEEDED)
    with session.stream() as stream:
        session.execute(second)
        assert stream.answered() == 0, "nothing was sent on this stream yet"
        stream.send(first, second)
        assert [stream.receive().seq for _ in range(2)] == [first.seq, second.seq]
        stream.finish()


def test_a_repeat_of_a_batch_that_still_runs_joins_it(session: RawSession) -> None:
    total, x = session.make("zeros", ()), session.make("rand", 300, 300)
    work = [session.call(0, "matmul", x, x) for _ in range(300)]
    batch = session.batch(*increments(session, total, 1), *work, session.call(0, "Tensor.item", total))
    answers: list[pb.BatchReply] = []

    def execute() -> None:
        with Raw(session.address) as raw:
            answers.append(raw.ask("Execute", session=session.secret, batch=batch).reply)

    twins = [threading.Thread(target=execute) for _ in range(4)]
    for twin in twins:
        twin.start()
    for twin in twins:
        twin.join(30.0)
    assert len(answers) == 4
    assert all(answer == answers[0] for answer in answers)
    assert session.run(session.call(0, "Tensor.item", total)).value(0) == 1


def test_a_caller_that_gives_up_does_not_take_back_its_batch(session: RawSession) -> None:
    total, x = session.make("zeros", ()), session.make("rand", 300, 300)
    work = [session.call(0, "matmul", x, x) for _ in range(300)]
    batch = session.batch(*work, *increments(session, total, 1), session.call(0, "Tensor.item", total))
    with pytest.raises(grpc.RpcError) as told:
        session.execute(batch, timeout_s=0.05)
    assert isinstance(told.value, grpc.Call)
    assert told.value.code() == Code.DEADLINE_EXCEEDED
    assert session.execute(batch).value(len(batch.calls) - 1) == 1
    assert session.run(session.call(0, "Tensor.item", total)).value(0) == 1


@pytest.mark.parametrize("ahead", [1, 5, 2**62], ids=["one", "five", "very many"])
def test_a_gap_is_refused_at_once_with_the_seq_that_is_expected(session: RawSession, ahead: int) -> None:
    session.run(session.call(1, "ones", 2))
    batch = session.batch(session.call(2, "ones", 2), seq=2 + ahead)
    with refused(Code.OUT_OF_RANGE, reason="SEQUENCE_GAP", naming="2") as told:
        session.execute(batch, timeout_s=5.0)
    assert str(2 + ahead) in told.message
    assert "2" in told.metadata.values(), "the expected seq is there for programs too"
    batch.seq = 2
    session.execute(batch).clean()
    assert session.held()[0] == 2


def test_a_gap_on_a_stream_ends_the_stream_and_not_the_session(session: RawSession) -> None:
    with session.stream() as stream:
        stream.send(session.batch(session.call(1, "ones", 2)))
        stream.receive()
        stream.send(session.batch(session.call(2, "ones", 2), seq=9))
        with refused(Code.OUT_OF_RANGE, reason="SEQUENCE_GAP", naming="2"):
            stream.receive()
    with session.stream() as stream:
        stream.send(session.batch(session.call(0, "tc.read", Kept(1))))
        assert stream.receive().value(0).tolist() == [1, 1]


def test_a_seq_of_zero_is_refused(session: RawSession) -> None:
    with refused(Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE, naming="0"):
        session.execute(session.batch(seq=0))
    session.run(session.call(1, "ones", 2)).clean()


def test_a_repeat_of_a_batch_whose_reply_was_acknowledged_is_refused_and_not_applied(session: RawSession) -> None:
    total = session.make("zeros", ())
    old = session.batch(*increments(session, total, 1))
    session.execute(old)
    session.run(session.call(0, "Tensor.item", total))
    session.run(session.call(0, "Tensor.item", total))
    with refused(Code.OUT_OF_RANGE, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, naming=str(old.seq)):
        session.execute(old)
    assert session.run(session.call(0, "Tensor.item", total)).value(0) == 1


def test_an_ack_of_a_reply_that_was_never_sent_is_refused(session: RawSession) -> None:
    batch = session.batch(session.call(1, "ones", 2), acked=2**40)
    with refused(Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE, naming=str(2**40)):
        session.execute(batch)
    session.undo(batch)
    session.acked = 0
    session.run(session.call(2, "zeros", 2)).clean()


def test_a_second_stream_takes_over_from_the_first(session: RawSession) -> None:
    with session.stream() as first:
        first.send(session.batch(session.call(1, "ones", 2)))
        first.receive()
        with session.stream(), refused(Code.ABORTED, reason="STREAM_SUPERSEDED"):
            first.receive()
    with session.stream() as third:
        third.send(session.batch(session.call(0, "tc.read", Kept(1))))
        assert third.receive().value(0).tolist() == [1, 1]


def test_a_stream_that_was_taken_over_applies_nothing_more(session: RawSession) -> None:
    total = session.make("zeros", ())
    with session.stream() as first, session.stream() as second:
        with refused(Code.ABORTED, reason="STREAM_SUPERSEDED"):
            first.receive()
        stray = session.batch(*increments(session, total, 1))
        first.send(stray)
        session.undo(stray)
        second.send(session.batch(session.call(0, "Tensor.item", total)))
        assert second.receive().value(0) == 0


def test_replies_that_are_not_acknowledged_are_bounded(strict: ServerProcess) -> None:
    with RawSession(strict.address) as session:
        assert session.limits.max_unacked_bytes == UNACKED_BYTES
        x = session.make("zeros", 10_000)
        session.acked = 0
        sent = 0
        with refused(Code.RESOURCE_EXHAUSTED) as told:
            for _ in range(12):
                batch = session.batch(session.call(0, "tc.read", x), acked=0)
                session.execute(batch)
                sent += 1
        assert 3 <= sent <= 6, "each reply has 40,000 bytes"
        assert str(UNACKED_BYTES) in told.message
        batch.acked = batch.seq - 1
        assert session.execute(batch).value(0).shape == (10_000,)


def test_batches_beyond_the_window_are_refused_one_by_one_and_held_back_on_a_stream(strict: ServerProcess) -> None:
    with RawSession(strict.address) as session:
        assert session.limits.max_batches_in_flight == IN_FLIGHT
        x = session.make("eye", 400)
        slow = session.batch(*(session.call(0, "matmul", x, x) for _ in range(400)), session.call(0, "Tensor.sum", x))
        waiting = [slow, *(session.batch(session.call(0, "Tensor.dim", x)) for _ in range(IN_FLIGHT - 1))]
        for batch in waiting:
            assert status_of(partial(session.execute, batch, timeout_s=0.02)) == Code.DEADLINE_EXCEEDED
        beyond = session.batch(session.call(0, "Tensor.dim", x))
        with refused(Code.RESOURCE_EXHAUSTED, naming=str(IN_FLIGHT)) as told:
            session.execute(beyond)
        assert told.retry_after_s
        with session.stream() as stream:
            stream.send(*waiting, beyond, *(session.batch(session.call(0, "Tensor.dim", x)) for _ in range(20)))
            assert [stream.receive().seq for _ in range(IN_FLIGHT + 21)] == list(range(2, IN_FLIGHT + 23))


def test_a_session_outlives_its_stream_by_the_lease(strict: ServerProcess) -> None:
    with RawSession(strict.address) as session:
        assert session.opened.lease_s == LEASE_S
        with session.stream() as stream:
            stream.send(session.batch(session.call(1, "ones", 2)))
            stream.receive()
        with session.stream() as stream:
            stream.send(session.batch(session.call(0, "tc.read", Kept(1))))
            assert stream.receive().value(0).tolist() == [1, 1]


def test_a_lease_does_not_run_while_a_stream_is_open(strict: ServerProcess) -> None:
    with (
        RawSession(strict.address) as held,
        RawSession(strict.address) as left,
        Raw(strict.address) as raw,
        held.stream(),
    ):
        left.make("ones", 2)
        before = raw.ask("GetServerInfo").sessions
        wait_until(
            lambda: raw.ask("GetServerInfo").sessions < before, 10 * LEASE_S, "the end of the session left alone"
        )
        held.make("ones", 2)


def test_an_expired_lease_ends_the_session_and_frees_its_memory(strict: ServerProcess) -> None:
    with RawSession(strict.address) as session, Raw(strict.address) as raw:
        before = raw.ask("GetServerInfo")
        session.create(zeros={}, shape=[1 << 20])
        took = wait_until(
            lambda: raw.ask("GetServerInfo").sessions < before.sessions, 10 * LEASE_S, "the end of the session"
        )
        assert took > LEASE_S / 2
        assert raw.ask("GetServerInfo").devices[0].allocated_bytes <= before.devices[0].allocated_bytes
        with refused(Code.FAILED_PRECONDITION, reason="SESSION_LOST", naming="attached") as told:
            session.run(session.call(1, "ones", 2))
        assert "attached" in told.metadata["cause"]
        with session.stream() as stream, refused(Code.FAILED_PRECONDITION, reason="SESSION_LOST"):
            stream.receive()
        with refused(Code.FAILED_PRECONDITION, reason="SESSION_LOST"):
            session.held()


def test_after_a_restart_a_session_is_lost_and_says_so() -> None:
    with serving() as server, RawSession(server.address) as session:
        session.make("ones", 2)
        old_boot = session.opened.boot_id
        assert server.terminate() == 0
        with serving(listen=server.address) as again, Raw(again.address) as raw:
            assert again.address == server.address
            assert raw.ask("GetServerInfo").boot_id != old_boot
            context = session.context()
            with refused(Code.FAILED_PRECONDITION, reason="SESSION_LOST", naming="restart") as told:
                raw.ask("ListTensors", context=context)
            assert told.metadata["cause"]


def test_a_closed_session_is_lost(session: RawSession) -> None:
    session.ask("CloseSession", session=session.secret)
    with refused(Code.FAILED_PRECONDITION, reason="SESSION_LOST", naming="closed"):
        session.held()


def test_a_stream_of_a_session_that_is_closed_elsewhere_ends(session: RawSession, anyone: Raw) -> None:
    with session.stream() as stream:
        stream.send(session.batch(session.call(1, "ones", 2)))
        stream.receive().clean()
        anyone.ask("CloseSession", session=session.secret)
        with refused(Code.FAILED_PRECONDITION, reason="SESSION_LOST", naming="closed"):
            stream.receive()


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(b"nonsense", id="nonsense"),
        pytest.param(b"\0" * 16, id="zeros"),
        pytest.param(b"x" * 100_000, id="very long"),
        pytest.param(b"\xff\xfe", id="not text"),
    ],
)
def test_a_wrong_secret_is_refused_everywhere(anyone: Raw, session: RawSession, secret: bytes) -> None:
    codes = (Code.UNAUTHENTICATED, Code.FAILED_PRECONDITION)
    with refused(*codes):
        anyone.ask("ListTensors", context={"session": secret})
    with refused(*codes):
        anyone.ask("Execute", session=secret, batch=pb.Batch(seq=1))
    session.secret = secret
    with session.stream() as stream, refused(*codes):
        stream.receive()


def test_a_secret_with_one_bit_changed_is_refused(session: RawSession, anyone: Raw) -> None:
    for at in range(len(session.secret)):
        changed = bytearray(session.secret)
        changed[at] ^= 1
        with refused(Code.UNAUTHENTICATED, Code.FAILED_PRECONDITION):
            anyone.ask("ListTensors", context={"session": bytes(changed)})


def test_a_batch_without_a_session_is_refused(anyone: Raw) -> None:
    with refused(Code.UNAUTHENTICATED, Code.INVALID_ARGUMENT, naming="session"):
        anyone.ask("Execute", batch=pb.Batch(seq=1))


@pytest.mark.parametrize(("low", "high"), [(3, 9), (0, 0), (9, 2)], ids=["only newer", "only older", "upside down"])
def test_a_protocol_that_is_not_spoken_is_refused_with_the_ones_that_are(anyone: Raw, low: int, high: int) -> None:
    codes = (Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT)
    with refused(*codes, naming="1") as told:
        anyone.ask("OpenSession", min_protocol=low, max_protocol=high)
    assert told.reason == "VERSION_MISMATCH" or told.code == Code.INVALID_ARGUMENT
