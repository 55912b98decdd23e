"""What runs in a session is ended at the next call, and what waits is not begun; the session goes on."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import tclient as tc
from tclient import CallCancelled, Session
from tclient._session.batches import WINDOW
from tensorcompute.v1 import tensor_pb2 as pb
from tests.support.raw import Raw, RawSession, path_of
from tests.support.refusals import refused
from tests.support.roads import ROADS, take
from tests.support.serving import HasAddress, wait_until
from tests.support.values import Kept

Code = grpc.StatusCode
# Takes some milliseconds to some tens of them, as one call.
SIZE = 700
# More than are run before they are cancelled.
STEPS = 20_000
# Keep an engine at work for longer than two deadlines of 50 ms, where a product takes some milliseconds too.
BUSY = 150


@pytest.fixture(params=ROADS)
def session(request: pytest.FixtureRequest, server: HasAddress, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session on each road in turn."""
    take(request.param, monkeypatch)
    with tc.connect(server.address) as session:
        yield session


@pytest.fixture
def raw(server: HasAddress) -> Iterator[RawSession]:
    with RawSession(server.address) as session:
        yield session


def heavy(raw: RawSession, count: int) -> tuple[Kept, list[pb.Call]]:
    """Calls that take a while, of which each adds one to what is counted."""
    counted, x = raw.make("zeros", [1]), raw.make("zeros", [SIZE, SIZE])
    calls = []
    for _ in range(count):
        product = Kept(raw.id())
        calls += [raw.call(product.id, "matmul", x, x), raw.call(0, "Tensor.add_", counted, 1, frees=[product.id])]
    return counted, calls


def test_what_runs_and_what_waits_ends_and_the_session_goes_on(session: Session) -> None:
    x, counted = tc.zeros(SIZE, SIZE), tc.zeros(1)
    tc.synchronize()
    raised: list[BaseException] = []
    begun = threading.Event()

    def work() -> None:
        with session.use():
            y = x
            for step in range(STEPS):
                y = y @ x
                counted.add_(1)
                if step == 200:
                    begun.set()
            try:
                y.sum().item()
            except BaseException as error:
                raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(30)
    with Raw(session.address) as raw:
        raw.secret = session.secret
        wait_until(lambda: raw.get(pb.Ref(id=counted._ref.id)).item() > 0, 30, "the first of the calls was run")
    cancelled = 0
    while thread.is_alive():
        # What is issued behind it is not meant.
        session.cancel()
        cancelled += 1
        thread.join(0.1)
    assert [type(error) for error in raised] == [CallCancelled]
    assert isinstance(raised[0], RuntimeError)
    for _ in range(WINDOW * cancelled + 1):
        # Of effects that were not run it is told, once for each batch that was on its way at the most.
        try:
            ran = counted.item()
            break
        except CallCancelled:
            pass
    assert 0 < ran < STEPS
    counted.zero_()
    assert (counted + 1).item() == 1.0
    assert tc.eye(2).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_calls_that_have_run_are_done_and_each_is_answered_once(raw: RawSession) -> None:
    counted, calls = heavy(raw, 300)
    calls[-1].ClearField("frees")
    stream = raw.stream()
    batches = [raw.batch(*calls[start : start + 100]) for start in range(0, 600, 100)]
    stream.send(*batches[:4])
    stream.receive().clean()
    # Of the last two it is only known that they will come.
    raw.ask("CancelSession", session=raw.secret, through_seq=batches[-1].seq)
    stream.send(*batches[4:])
    replies = [stream.receive() for _ in batches[1:]]
    assert [reply.seq for reply in replies] == [batch.seq for batch in batches[1:]]
    done = 50
    for reply in replies:
        errors = reply.errors
        assert {error.reason for error in errors.values()} <= {"CANCELLED"}
        # Once none is begun any more, none is.
        first = min(errors, default=100)
        assert all(index in errors for index in range(first, 100))
        assert all(reply.by_index[index].lost_effect == (index % 2 == 1) for index in errors)
        done += sum(index % 2 == 1 for index in range(first))
    assert len(replies[-1].errors) == 100
    assert raw.get(counted).item() == done < 300
    # What is kept of them is what was said.
    again = raw.ask("Execute", session=raw.secret, batch=batches[-1])
    assert again.reply == replies[-1].message
    # Behind them all is as ever, and what was to be made is not.
    made = calls[-2].id
    assert raw.run(raw.call(0, "Tensor.tolist", Kept(made))).error().reason == "CANCELLED"
    assert raw.read(raw.make("ones", [2])).tolist() == [1.0, 1.0]
    raw.run(raw.call(0, "Tensor.add_", counted, 1)).clean()


def test_the_same_root_is_told_of_all_so_that_it_is_raised_once(raw: RawSession) -> None:
    _, calls = heavy(raw, 60)
    stream = raw.stream()
    stream.send(raw.batch(*calls[:60]), raw.batch(*calls[60:]))
    raw.ask("CancelSession", session=raw.secret, through_seq=raw.next_seq - 1)
    roots = {
        (error.batch_seq, error.call_index)
        for error in itertools.chain.from_iterable(stream.receive().errors.values() for _ in range(2))
    }
    assert len(roots) <= 2


def test_another_process_may_cancel_with_credentials(raw: RawSession, server: HasAddress) -> None:
    counted, calls = heavy(raw, 400)
    stream = raw.stream()
    stream.send(raw.batch(*calls))
    credentials = tc.SessionCredentials(server.address, raw.secret)
    stream.send(raw.batch())
    tc.cancel(credentials.text())
    errors = stream.receive().errors
    assert raw.get(counted).item() == 400 - sum(index % 2 for index in errors)
    stream.receive().clean()
    assert raw.read(raw.make("ones", [1])).tolist() == [1.0]


def test_nothing_to_cancel_is_no_error(session: Session) -> None:
    session.cancel()
    x = tc.ones(2)
    assert (x + 1).tolist() == [2.0, 2.0]
    session.close()
    with pytest.raises(tc.NotConnectedError):
        session.cancel()


def busy(raw: RawSession) -> Kept:
    """A session whose engine is at work for a while, and a tensor of it."""
    counted, calls = heavy(raw, BUSY)
    begin(raw, "Execute", session=raw.secret, batch=raw.batch(*calls))
    return counted


def begin(raw: RawSession, method: str, **fields: Any) -> Any:
    """A unary RPC under way, which has come."""
    call = raw.channel.unary_unary(path_of(method)).future(
        raw.request(method, **fields).SerializeToString(), timeout=60
    )
    # What was sent before has come when it is answered what needs nothing.
    with refused(Code.UNAUTHENTICATED):
        raw.ask("CloseSession", session=raw.secret[:-1])
    return call


def done(raw: RawSession, counted: Kept) -> None:
    wait_until(lambda: raw.get(counted).item() >= BUSY, 60, "the calls before were run")


def test_a_typed_call_whose_time_is_up_before_it_is_run_is_not_applied(raw: RawSession) -> None:
    counted = busy(raw)
    x = Kept(counted.id)
    with refused_by_deadline():
        raw.ask("Add", input=x, scalar=pb.Value(integer=1000), in_place=True, timeout_s=0.05)
    with refused_by_deadline():
        raw.ask("FreeTensors", tensors=[x.ref], timeout_s=0.05)
    done(raw, counted)
    assert raw.get(counted).item() == BUSY


def test_with_a_number_it_is_applied_whatever_becomes_of_its_caller(raw: RawSession) -> None:
    counted = busy(raw)
    seq, raw.next_seq = raw.next_seq, raw.next_seq + 1
    with refused_by_deadline():
        raw.ask("Add", seq=seq, input=counted, scalar=pb.Value(integer=1000), in_place=True, timeout_s=0.05)
    for _ in range(2):
        raw.ask("Add", seq=seq, input=counted, scalar=pb.Value(integer=1000), in_place=True, timeout_s=60)
    assert raw.get(counted).item() == BUSY + 1000


def test_a_typed_call_that_its_caller_cancels_before_it_is_run_is_not_applied(raw: RawSession) -> None:
    counted = busy(raw)
    call = begin(raw, "Add", input=counted, scalar=pb.Value(integer=1000), in_place=True)
    call.cancel()
    done(raw, counted)
    assert raw.get(counted).item() == BUSY


def test_a_typed_call_that_is_cancelled_says_so(raw: RawSession) -> None:
    counted = busy(raw)
    call = begin(raw, "Add", input=counted, scalar=pb.Value(integer=1000), in_place=True)
    raw.ask("CancelSession", session=raw.secret)
    with refused(Code.CANCELLED, reason="CANCELLED", naming="before it was run"):
        call.result()
    assert raw.get(counted).item() < 1000


def refused_by_deadline() -> Any:
    """As `refused`: of a deadline gRPC tells by itself."""
    return pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED")
