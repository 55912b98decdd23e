"""Credentials of a session in the wrong hands: to all but its own principal the session never was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import pytest

from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tests.support.in_memory import InMemoryChannel, serving_in_memory
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused
from tests.support.values import Kept
from tserver.config import Config
from tserver.engine.engine import Engine
from tserver.front.authentication import Headers, Unconfigured
from tserver.identity import Identity, Role

Code = grpc.StatusCode
ALICE = Identity("alice")
OTHERS = [
    Identity("mallory", Role.ADMIN, "token"),
    Identity("anonymous@ipv4:10.0.0.1", Role.ADMIN, "anonymous", connection="anonymous@ipv4:10.0.0.1:7"),
]


class Said(Unconfigured):
    """Believes what the test says of who calls."""

    def __init__(self) -> None:
        self.identity = ALICE

    def identify(self, peer: str, headers: Headers, certificate: Mapping[str, list[bytes]]) -> Identity:
        """See Authenticator."""
        return self.identity

    @contextlib.contextmanager
    def by(self, identity: Identity) -> Iterator[None]:
        """Within it somebody else calls."""
        before, self.identity = self.identity, identity
        try:
            yield
        finally:
            self.identity = before


said = Said()


@pytest.fixture(scope="module")
def channel() -> Iterator[InMemoryChannel]:
    """A channel to services in this process, whose settings of torch they leave alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "_prepare", lambda self: None)
        with serving_in_memory(Config(device="cpu"), said) as channel:
            yield channel


@pytest.fixture
def session(channel: InMemoryChannel) -> Iterator[RawSession]:
    """Alice's."""
    with Raw("in memory", channel=channel).open_session() as session:
        yield session


@pytest.fixture(params=OTHERS, ids=lambda other: str(other.how))
def other(request: pytest.FixtureRequest) -> Identity:
    """Somebody else who has got hold of the credentials."""
    identity: Identity = request.param
    return identity


def attach(raw: Raw, secret: bytes) -> service_pb.AttachSessionResponse:
    answer: service_pb.AttachSessionResponse = raw.ask("AttachSession", session=secret, min_protocol=1, max_protocol=2)
    return answer


def refusal(raw: Raw, secret: bytes, method: str = "AttachSession") -> tuple[Any, ...]:
    """Everything that is told of a secret."""
    fields: dict[str, Any] = {"session": secret} if method != "ListTensors" else {}
    if method == "ListTensors":
        fields["context"] = service_pb.SessionContext(session=secret)
    elif method == "AttachSession":
        fields |= {"min_protocol": 1, "max_protocol": 2}
    with refused(Code.UNAUTHENTICATED) as told:
        raw.ask(method, **fields)
    return told.message, told.reason, told.metadata


def never_was(session: RawSession) -> bytes:
    return session.secret[:-1] + bytes([session.secret[-1] ^ 1])


@pytest.mark.parametrize("method", ["AttachSession", "CancelSession", "ListTensors", "CloseSession"])
def test_stolen_credentials_name_a_session_that_never_was(session: RawSession, other: Identity, method: str) -> None:
    x = session.make("ones", [2])
    with said.by(other):
        assert refusal(session, session.secret, method) == refusal(session, never_was(session), method)
    # Nor is its holder fenced.
    assert session.get(x).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("method", ["AttachSession", "CancelSession", "ListTensors", "CloseSession"])
def test_neither_do_credentials_from_before_it_was_taken_over(
    session: RawSession, other: Identity, method: str
) -> None:
    before = session.secret
    session.secret = attach(session, before).opened.session
    with said.by(other):
        assert refusal(session, before, method) == refusal(session, never_was(session), method)
    assert session.held() == (0, 0)


@pytest.mark.parametrize("is_former", [False, True], ids=["the last", "a former one"])
def test_credentials_do_not_outlive_their_session(session: RawSession, other: Identity, is_former: bool) -> None:
    before = session.secret
    session.secret = attach(session, before).opened.session
    replayed = before if is_former else session.secret
    session.close()
    with refused(Code.FAILED_PRECONDITION, reason="SESSION_LOST", naming="its client closed it"):
        attach(session, replayed)
    with said.by(other):
        assert refusal(session, replayed) == refusal(session, never_was(session))


def test_what_another_has_in_hand_is_refused_once_the_session_is_taken_over(session: RawSession) -> None:
    stolen = session.secret
    session.make("ones", [2])
    session.secret = attach(session, stolen).opened.session
    requests: dict[str, Any] = {
        "GetTensor": {"tensor": Kept(1).ref, "context": service_pb.SessionContext(session=stolen)},
        "FreeTensors": {"tensors": [Kept(1).ref], "context": service_pb.SessionContext(session=stolen)},
        "CloseSession": {"session": stolen},
    }
    for method, fields in requests.items():
        with refused(Code.ABORTED, reason="STREAM_SUPERSEDED"):
            session.ask(method, **fields)
    assert session.held() == (1, 8)
