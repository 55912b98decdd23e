"""Sessions as they are listed: to whose they are and to administrators, by ids that open nothing, over all engines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import tclient
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.support.callers import TENSORS, Caller, token_of
from tests.support.serving import ServerProcess, serving, wait_until

Ask = Callable[..., Any]
_ANSWERS: dict[str, Any] = {
    "ListSessions": ts.ListSessionsResponse,
    "ListSessionTensors": ts.ListSessionTensorsResponse,
}


@pytest.fixture(scope="module", params=[(), ("--engines", "2")], ids=["a server", "a house"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that knows ada, bob and an administrator."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.json"
    tokens = {name: token_of(file, name, "admin" if name == "root" else "user") for name in ("ada", "bob", "root")}
    with serving("--tokens", str(file), "--lease-s", "5", *request.param) as running:
        running.tokens = tokens  # type: ignore[attr-defined]
        yield running


@pytest.fixture
def ask(server: ServerProcess) -> Iterator[Ask]:
    """Asks in the name of a principal."""
    with Caller(server.address) as caller:

        def asked(who: str, method: str, **fields: Any) -> Any:
            request = getattr(ts, f"{method}Request")(**fields)
            token = server.tokens[who]  # type: ignore[attr-defined]
            return _ANSWERS[method].FromString(caller.ask(f"{TENSORS}/{method}", request.SerializeToString(), token))

        yield asked


def connect(server: ServerProcess, who: str) -> Any:
    return tclient.connect(server.address, token=server.tokens[who])  # type: ignore[attr-defined]


def test_each_is_told_of_its_own_and_an_administrator_of_all(server: ServerProcess, ask: Ask) -> None:
    with connect(server, "ada") as first, connect(server, "ada") as second, connect(server, "bob") as third:
        held = []
        for session, count in ((first, 3), (second, 1)):
            with session.use():
                held += [tclient.zeros(25) for _ in range(count)]
                assert held[-1].sum().item() == 0
        wait_until(
            lambda: [each.tensors for each in ask("ada", "ListSessions").sessions] == [3, 1], 10.0, "they are counted"
        )
        own = ask("ada", "ListSessions").sessions
        assert [(each.principal, each.peer, each.is_attached) for each in own] == [("ada", "loopback", True)] * 2
        assert [each.tensor_bytes for each in own] == [300, 100]
        assert own[0].client == f"tclient/{tclient.__version__}"
        assert 60 > own[0].age_s >= own[1].age_s > 0
        assert 0 < own[0].lease_left_s <= 5
        assert [each.principal for each in ask("bob", "ListSessions").sessions] == ["bob"]
        everyone = ask("root", "ListSessions").sessions
        assert [each.principal for each in everyone] == ["ada", "ada", "bob"]
        assert len({each.id for each in everyone}) == 3
        # What is shown opens nothing.
        for session in (first, second, third):
            assert all(bytes.fromhex(each.id) not in session.secret for each in everyone)
    assert list(ask("root", "ListSessions").sessions) == []


def test_tensors_of_a_session_are_described_by_the_beginning_of_its_id(server: ServerProcess, ask: Ask) -> None:
    with connect(server, "ada"), connect(server, "bob") as other:
        x = tclient.ones(2, 3)
        x.name = "weights"
        other.synchronize()
        (told,) = ask("bob", "ListSessions").sessions
        for who in ("bob", "root"):
            found = ask(who, "ListSessionTensors", id=told.id[:6])
            assert found.session == told.id
            assert {tuple(each.shape) for each in found.page.tensors} == {(2, 3)}
            assert [each.name for each in found.page.names] == ["weights"]
            assert found.page.total_bytes == 24
        for who, prefix, code in (
            ("ada", told.id, grpc.StatusCode.NOT_FOUND),
            ("bob", "nobody", grpc.StatusCode.NOT_FOUND),
            ("bob", "", grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                ask(who, "ListSessionTensors", id=prefix)
            assert refused.value.code() is code
        with pytest.raises(grpc.RpcError) as missing:
            ask("ada", "ListSessionTensors", id="nobody")
        with pytest.raises(grpc.RpcError) as hidden:
            ask("ada", "ListSessionTensors", id=told.id)
        assert str(hidden.value.details()).replace(told.id, "nobody") == missing.value.details()


def test_to_be_looked_at_does_not_keep_a_session(server: ServerProcess, ask: Ask) -> None:
    credentials = connect(server, "ada").detach()
    (told,) = ask("ada", "ListSessions").sessions
    assert not told.is_attached
    latest = time.monotonic() + 15
    while ask("root", "ListSessions").sessions:
        assert time.monotonic() < latest
        with contextlib.suppress(grpc.RpcError):
            ask("root", "ListSessionTensors", id=told.id)
    with pytest.raises(tclient.SessionLost, match="its lease of 5 s ran out"):
        tclient.attach(credentials, token=server.tokens["ada"])  # type: ignore[attr-defined]
