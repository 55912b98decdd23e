"""What is open when credentials are revoked, or end, is ended; and nobody else's."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.bulk.test_data_endpoint import connected, ended, prove
from tests.bulk.test_lanes import framed
from tests.support.callers import TENSORS, Caller, bearing
from tests.support.raw import Raw, RawSession, path_of
from tests.support.serving import wait_until
from tests.trust.guarded import REFUSED, Guarded, guarding

# About a second, on a machine that does other things as well.
SOON_S = 2.0
SIZE = 1 << 20
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One server."""
    with guarding(tmp_path_factory.mktemp("guarded"), "--shared-memory") as guarded:
        yield guarded


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Two engines behind a front."""
    with guarding(tmp_path_factory.mktemp("house"), "--engines", "2") as house:
        yield house


class Open:
    """Everything that can be open in the name of one principal, each in a session of its own."""

    def __init__(self, address: str, token: str, stack: contextlib.ExitStack) -> None:
        self._stack, self._token = stack, token
        self._home = stack.enter_context(Raw(address, channel=bearing(address, token)))
        self._over = threading.Event()
        stack.callback(self._over.set)
        self.calls: dict[str, Any] = {}
        self.connections: dict[str, socket.socket] = {}
        self.secret = self._session().secret
        for where in ["home", "endpoint"] if self._session().opened.endpoint else ["home"]:
            for method in ("ExecuteStream", "Upload", "MlpForwardStream", "ModelForwardStream"):
                self.calls[f"{method} at the {where}"] = self._call(method, is_at_home=where == "home")
        self.calls["reflection"] = self._begin(self._home.channel, _REFLECTION)
        # What was answered is taken: the end of a call is told behind that.
        next(self.calls["reflection"])
        for kind in ("lane", "forwards", "connection", "upload"):
            self.connections[kind] = self._connect(kind)
        for kind in ("lane", "forwards"):
            self.connections[f"{kind} on this machine"] = self._connect(kind, is_local=True)

    def _session(self) -> RawSession:
        return self._stack.enter_context(self._home.open_session())

    def _call(self, method: str, *, is_at_home: bool) -> Any:
        session = self._session()
        channel = self._home.channel
        if not is_at_home:
            channel = bearing(f"127.0.0.1{session.opened.endpoint}", self._token)
            self._stack.callback(channel.close)
        first = {
            "ExecuteStream": ts.ExecuteStreamRequest(session=session.secret),
            "Upload": ts.UploadRequest(header=_header(session)),
        }.get(method)
        return self._begin(channel, path_of(method), b"" if first is None else first.SerializeToString())

    def _begin(self, channel: Any, path: str, first: bytes = b"") -> Any:
        def requests() -> Iterator[bytes]:
            yield first
            self._over.wait()

        return channel.stream_stream(path)(requests())

    def _connect(self, kind: str, *, is_local: bool = False) -> socket.socket:
        session = self._session()
        context = session.context()
        named: dict[str, Any] = {kind: _header(session) if kind == "upload" else context}
        answer = session.send("OpenTransfer", ts.OpenTransferRequest(**named).SerializeToString())
        if is_local:
            connection = self._stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(f"\0{session.opened.lane_socket}")
        else:
            port = int(session.opened.data_endpoint[1:])
            connection = self._stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        connection.settimeout(10.0)
        prove(connection, answer)
        return connection

    @property
    def names(self) -> set[str]:
        """Of all of it."""
        return {*self.calls, *self.connections}

    def ended(self) -> dict[str, Any]:
        """How that ended which has."""
        calls: dict[str, Any] = {
            name: (call.code(), call.details()) for name, call in self.calls.items() if call.done()
        }
        return calls | {name: REFUSED for name, connection in self.connections.items() if _is_closed(connection)}


def _header(session: RawSession) -> ts.UploadHeader:
    return ts.UploadHeader(context=session.context(), id=5, dtype=pb.D_TYPE_UINT8, shape=[SIZE])


def _all_end(hers: Open, within_s: float) -> None:
    """All of it ends within that time, for that reason."""
    until = time.monotonic() + within_s
    while hers.ended().keys() < hers.names and time.monotonic() < until:
        time.sleep(0.01)
    assert hers.ended() == dict.fromkeys(hers.names, REFUSED)


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def _can_use(address: str, token: str, secret: bytes) -> bool:
    request = ts.GetSessionProgressRequest(session=secret).SerializeToString()
    with Caller(address) as caller:
        return caller.told(f"{TENSORS}/GetSessionProgress", request, token)[0] is grpc.StatusCode.OK


@pytest.mark.parametrize("kind", ["guarded", "house"])
def test_what_is_open_ends_within_a_second_of_the_revocation(kind: str, request: pytest.FixtureRequest) -> None:
    guarded: Guarded = request.getfixturevalue(kind)
    address, ada, bob = guarded.address, guarded.token("ada"), guarded.token("bob")
    with contextlib.ExitStack() as stack:
        hers, his = Open(address, ada, stack), Open(address, bob, stack)
        assert not hers.ended()
        guarded.revoke("ada")
        _all_end(hers, SOON_S)
        assert not his.ended()
        assert not _can_use(address, ada, hers.secret)
        # It is still hers: another token of hers leads to it.
        assert _can_use(address, guarded.token("ada"), hers.secret)


def test_what_is_open_ends_with_the_time_of_a_token(guarded: Guarded) -> None:
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        hers = Open(guarded.address, guarded.token("eve", lasts_s=3.0), stack)
        assert not hers.ended()
        _all_end(hers, 3.0 + SOON_S)
        assert time.monotonic() > began + 2.0, "not before its time"


def test_a_download_ends_whose_reader_is_slow(guarded: Guarded) -> None:
    token = guarded.token("joe")
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(Raw(guarded.address, channel=bearing(guarded.address, token)))
        session = stack.enter_context(raw.open_session())
        kept = session.make("zeros", 16 << 20)
        download: Any = raw.channel.unary_stream(path_of("Download"))
        messages = download(session.request("Download", tensor=kept).SerializeToString())
        next(messages)
        hers = Open(guarded.address, token, stack)
        guarded.revoke("joe")
        _all_end(hers, SOON_S)
        with pytest.raises(grpc.RpcError) as raised:
            list(messages)
        assert (raised.value.code(), raised.value.details()) == REFUSED


def test_a_ticket_is_no_good_once_its_caller_is_not_known_any_more(guarded: Guarded) -> None:
    token = guarded.token("kim")
    with Raw(guarded.address, channel=bearing(guarded.address, token)) as raw, raw.open_session() as session:
        request = ts.OpenTransferRequest(lane=session.context())
        answer = session.send("OpenTransfer", request.SerializeToString())
        guarded.revoke("kim")
        with Caller(guarded.address) as caller:
            wait_until(lambda: caller.told(f"{TENSORS}/GetServerInfo", b"", token) == REFUSED, SOON_S, "the revocation")
        with connected(int(session.opened.data_endpoint[1:])) as connection:
            prove(connection, answer)
            with contextlib.suppress(ConnectionError):
                connection.sendall(framed(session.batch(session.call(1, "zeros", 2))))
            assert ended(connection), "without an answer"
