"""A session goes over to another process: what it holds goes on there, and who had it is out."""

from __future__ import annotations

import copy
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import tclient as tc
from tclient import Session, SessionCredentials, SessionTakenOver
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused
from tests.support.roads import ROADS, take
from tests.support.serving import HasAddress
from tests.support.values import Kept

Code = grpc.StatusCode


@pytest.fixture(params=ROADS)
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each road in turn, which sessions take."""
    road: str = request.param
    take(road, monkeypatch)
    return road


@pytest.fixture
def first(server: HasAddress, road: str) -> Iterator[Session]:
    """Who has the session to begin with."""
    session = tc.connect(server.address)
    yield session
    session.close()


@pytest.fixture
def raw(server: HasAddress) -> Iterator[RawSession]:
    with RawSession(server.address) as session:
        yield session


def attach(raw: Raw, secret: bytes, attempt: bytes = b"") -> service_pb.AttachSessionResponse:
    answer: service_pb.AttachSessionResponse = raw.ask(
        "AttachSession", session=secret, attempt=attempt, min_protocol=1, max_protocol=2
    )
    return answer


def test_the_new_holder_goes_on_and_the_first_is_told_so(first: Session) -> None:
    x = tc.ones(3)
    assert x.tolist() == [1.0, 1.0, 1.0]
    with tc.attach(first.credentials()) as second:
        assert tc.arange(3.0).sum().item() == 3.0
        assert second.secret != first.secret
        for again in range(2):
            with pytest.raises(SessionTakenOver, match="another process has attached"):
                (x + again).tolist()
        with first.use(), pytest.raises(SessionTakenOver):
            tc.zeros(2).tolist()
        with pytest.raises(SessionTakenOver):
            first.synchronize()
        first.close()
        # The end of the first is not the end of the session.
        assert tc.ones(2).tolist() == [1.0, 1.0]


def test_bulk_bytes_of_the_first_go_no_more(first: Session) -> None:
    array = np.ones(1 << 20, np.float32)
    x = tc.from_numpy(array)
    assert x.numpy().sum() == array.sum()  # over a connection that rests from here on
    with tc.attach(first.credentials()), first.use():
        with pytest.raises(SessionTakenOver):
            tc.from_numpy(array).numpy()
        with pytest.raises(SessionTakenOver):
            x.numpy()


def test_what_was_accepted_by_then_is_run_to_its_end_once(raw: RawSession) -> None:
    x = raw.make("zeros", [4])
    stream = raw.stream()
    stream.send(*(raw.batch(*(raw.call(0, "Tensor.add_", x, 1) for _ in range(500))) for _ in range(10)))
    stream.receive().clean()
    taken = attach(raw, raw.secret)
    raw.secret = taken.opened.session
    accepted = taken.received_seq - 1
    assert 1 <= accepted <= 10
    assert raw.get(x).tolist() == [500.0 * accepted] * 4


def test_effects_that_were_lost_are_told_to_the_new_holder(raw: RawSession) -> None:
    raw.run(raw.call(1, "zeros", [4]), raw.call(2, "ones", [3]))
    # Nobody says that this reply has come.
    raw.execute(raw.batch(*(raw.call(0, "Tensor.add_", Kept(1), Kept(2)) for _ in range(3))))
    with tc.attach(SessionCredentials(raw.address, raw.secret)):
        for _ in range(3):
            with pytest.raises(RuntimeError, match="The size of tensor a") as caught:
                tc.synchronize()
            assert isinstance(caught.value, tc.TensorError)
            assert caught.value.operation == "Tensor.add_"
        tc.synchronize()


def test_default_dtype_and_random_state_are_those_of_the_session(first: Session) -> None:
    tc.set_default_dtype(tc.float64)
    tc.manual_seed(7)
    tc.rand(2)
    tc.synchronize()
    with tc.attach(first.credentials()):
        assert tc.get_default_dtype() is tc.float64
        assert tc.tensor([1.5]).dtype is tc.float64
        wanted = tc.rand(3)
        assert wanted.dtype is tc.float64
        told = wanted.tolist()
        tc.manual_seed(7)
        tc.rand(2)
        assert tc.rand(3).tolist() == told


def test_a_session_that_was_detached_waits_for_who_attaches(first: Session) -> None:
    x = tc.ones(2) + 1
    credentials = first.detach()
    with pytest.raises(tc.NotConnectedError, match=r"was detached; tclient\.attach"):
        x.tolist()
    with tc.attach(credentials.text()) as second, Raw(second.address) as raw:
        raw.secret = second.secret
        assert raw.get(pb.Ref(id=x._ref.id)).tolist() == [2.0, 2.0]


def test_the_first_credentials_stay_good_until_the_session_ends(first: Session) -> None:
    credentials = first.credentials()
    for _ in range(20):
        tc.attach(credentials)
    last = tc.attach(credentials)
    assert tc.ones(1).item() == 1.0
    last.close()
    with pytest.raises(tc.SessionLost, match="its client closed it"):
        tc.attach(credentials)


def test_an_attempt_that_is_repeated_gets_the_same_answer(raw: RawSession) -> None:
    first = attach(raw, raw.secret, b"one attempt")
    again = attach(raw, raw.secret, b"one attempt")
    assert (again.opened.session, again.received_seq) == (first.opened.session, first.received_seq)
    other = attach(raw, raw.secret, b"another one")
    assert other.opened.session != first.opened.session
    with refused(Code.ABORTED, reason="STREAM_SUPERSEDED"):
        raw.ask("ListTensors", context=service_pb.SessionContext(session=first.opened.session))


@pytest.mark.parametrize("method", ["ListTensors", "Add", "CloseSession", "Execute", "OpenTransfer"])
def test_the_secret_before_is_refused(raw: RawSession, method: str) -> None:
    named: dict[str, Any] = {"ListTensors": {}, "Add": {}, "CloseSession": {"session": raw.secret}}
    named["Execute"] = {"session": raw.secret, "batch": raw.batch()}
    named["OpenTransfer"] = {"lane": service_pb.SessionContext(session=raw.secret)}
    attach(raw, raw.secret)
    with refused(Code.ABORTED, reason="STREAM_SUPERSEDED"):
        raw.ask(method, **named[method])


def test_streams_of_the_first_end(raw: RawSession) -> None:
    stream = raw.stream()
    stream.send(raw.batch(raw.call(1, "ones", [2])))
    stream.receive().clean()
    taken = attach(raw, raw.secret)
    with refused(Code.ABORTED, reason="STREAM_SUPERSEDED"):
        stream.receive()
    assert taken.received_seq == 1
    assert taken.next_id > 1
    # What was defined before is not known by its number any more.
    batch = pb.Batch(seq=2, calls=[pb.Call(id=taken.next_id, operation=0)])
    answer = raw.ask("Execute", session=taken.opened.session, batch=batch)
    assert "is not defined" in answer.reply.results[0].error.message
    raw.secret = taken.opened.session
    assert raw.get(Kept(1)).tolist() == [1.0, 1.0]


def test_credentials_hide_their_secret_and_travel_as_text(tmp_path: Path) -> None:
    given = SessionCredentials("127.0.0.1:1", bytes(range(24)), "/ca.pem")
    for shown in (repr(given), str(given), f"{given}"):
        assert given.secret.hex() not in shown
        assert repr(given.secret) not in shown
        assert given.text() not in shown
    assert SessionCredentials.of(given.text()) == given
    assert copy.copy(given) == given
    path = tmp_path / "session"
    path.write_text("old")
    path.chmod(0o644)
    given.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["session"]
    assert SessionCredentials.load(path) == given
    path.chmod(0o640)
    with pytest.raises(PermissionError, match="chmod 600"):
        SessionCredentials.load(path)


@pytest.mark.parametrize("text", ["", "tcsession1.", "tcsession1.e30", "tcsession1.!!", "tcsession2.e30", "x" * 100])
def test_other_texts_are_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"SessionCredentials\.text") as caught:
        SessionCredentials.of(text)
    assert not text or text not in str(caught.value)


def test_what_names_no_session_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TCLIENT_SESSION", raising=False)
    with pytest.raises(tc.NotConnectedError, match="TCLIENT_SESSION"):
        tc.attach()
    with pytest.raises(TypeError, match="not int"):
        tc.attach(7)  # type: ignore[arg-type]
