"""A ticket of the data endpoint is good once, for the session and the host that it was given to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.bulk.test_data_endpoint import ended, exactly, opening, prove
from tests.support.callers import TENSORS, Caller, bearing
from tests.support.raw import Raw, RawSession
from tests.trust.guarded import Guarded, guarding
from tserver.config import Config
from tserver.front.data_endpoint import Admitted, DataEndpoint, Takes, Transfer
from tserver.front.opened import Opened
from tserver.front.rpc import Rpc, house_metadata
from tserver.identity import LOOPBACK, Identity

KINDS = ("upload", "connection", "lane", "forwards")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server that shares memory."""
    with guarding(tmp_path_factory.mktemp("tickets"), "--shared-memory") as guarded:
        yield guarded


@pytest.fixture
def session(guarded: Guarded) -> Iterator[RawSession]:
    """A session of ada's."""
    channel = bearing(guarded.address, guarded.token("ada"))
    with Raw(guarded.address, channel=channel) as raw, raw.open_session() as session:
        yield session


def request_for(session: bytes, kind: str) -> ts.OpenTransferRequest:
    context = ts.SessionContext(session=session)
    header = ts.UploadHeader(context=context, id=5, dtype=pb.D_TYPE_UINT8, shape=[16])
    named: dict[str, Any] = {kind: header if kind == "upload" else context}
    return ts.OpenTransferRequest(**named)


def connected_to(where: str | int) -> socket.socket:
    """A connection to a port, or to a Unix socket of that name."""
    if isinstance(where, int):
        return socket.create_connection(("127.0.0.1", where), timeout=10.0)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10.0)
    connection.connect(f"\0{where}")
    return connection


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["TCP", "shared memory"])
def test_a_ticket_that_was_used_is_no_good_again(session: RawSession, way: str, kind: str) -> None:
    answer: ts.OpenTransferResponse = session.send(
        "OpenTransfer", request_for(session.secret, kind).SerializeToString()
    )
    opened = session.opened
    where = int(opened.data_endpoint[1:]) if way == "TCP" else opened.shared_memory
    with connected_to(where) as first, connected_to(where) as second:
        prove(first, answer)
        second.sendall(opening(answer))
        assert ended(second)
        if kind == "upload" and way == "TCP":
            first.sendall(b"\1" * 16)
            assert exactly(first, 1) == b"\0", "the first one goes on"


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_else_is_given_a_ticket_for_a_session(guarded: Guarded, session: RawSession, kind: str) -> None:
    bob = guarded.token("bob")
    never = session.secret[:-1] + bytes([session.secret[-1] ^ 1])
    with Caller(guarded.address) as caller:
        told = [
            caller.told(f"{TENSORS}/OpenTransfer", request_for(secret, kind).SerializeToString(), bob)
            for secret in (session.secret, never)
        ]
    assert told[0] == told[1]
    assert told[0][0] is grpc.StatusCode.UNAUTHENTICATED


# --- another host ---


class Taking(Takes):
    """Says to who is let in that it is."""

    def take(self, connection: socket.socket) -> None:
        """See Takes."""
        with connection:
            connection.sendall(b"y")


def brought() -> Transfer:
    """What another server brings."""
    return Transfer(0, lambda: None, finish=lambda: None, cancel=lambda: None, is_from_server=True)


@contextlib.contextmanager
def listening(*given: tuple[Admitted, str]) -> Iterator[tuple[DataEndpoint, list[ts.OpenTransferResponse]]]:
    """A data endpoint that has given tickets for these to callers on these hosts."""
    started: list[Any] = []
    ready, over = threading.Event(), threading.Event()

    async def main() -> None:
        endpoint = DataEndpoint(Config(), "127.0.0.1:0", Opened(lambda _: True))
        tickets = [endpoint.admit(admitted, Identity("ada", host=host)) for admitted, host in given]
        started.extend((endpoint, [ts.OpenTransferResponse(ticket=ticket, key=key) for ticket, key in tickets]))
        ready.set()
        await asyncio.to_thread(over.wait, 30.0)
        endpoint.stop()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(10.0)
    try:
        yield started[0], started[1]
    finally:
        over.set()
        thread.join()


def where_is(endpoint: DataEndpoint, way: str) -> str | int:
    return int(endpoint.address.rpartition(":")[2]) if way == "TCP" else endpoint.local


@pytest.mark.parametrize("way", ["TCP", "this machine's socket"])
def test_a_ticket_is_no_good_from_another_host(way: str) -> None:
    given = [(Taking(), host) for host in (LOOPBACK, "ipv4:192.0.2.7", "ipv6:[2001:db8::7]", "")]
    with listening(*given) as (endpoint, answers):
        taken = []
        for answer in answers:
            with connected_to(where_is(endpoint, way)) as connection:
                prove(connection, answer)
                taken.append(not ended(connection))
    assert taken == [True, False, False, False]


def test_a_ticket_for_another_server_is_good_from_there() -> None:
    with (
        listening((brought(), "ipv4:192.0.2.7")) as (endpoint, (answer,)),
        connected_to(where_is(endpoint, "TCP")) as connection,
    ):
        prove(connection, answer)
        assert exactly(connection, 1) == b"\0"


class Forwarded:
    """An RPC that another process of the house passes on."""

    def __init__(self, peer: str, identity: Identity) -> None:
        self._peer, self._identity = peer, identity
        self.read = self.write = None

    def peer(self) -> str:
        """Where that process is."""
        return self._peer

    def invocation_metadata(self) -> Any:
        """What it sends along."""
        return house_metadata("the key", self._identity)


HOSTS = {
    "on the machine of this process": (Identity("ada", host=LOOPBACK, is_local=True), LOOPBACK),
    "on the machine of the other process": (Identity("ada", host=LOOPBACK), "ipv4:192.0.2.1"),
    "elsewhere": (Identity("ada", host="ipv4:192.0.2.7"), "ipv4:192.0.2.7"),
}


@pytest.mark.parametrize(("identity", "host"), HOSTS.values(), ids=HOSTS)
def test_in_a_house_of_many_machines_the_host_is_the_caller_s(identity: Identity, host: str) -> None:
    context: Any = Forwarded("ipv4:192.0.2.1:40000", identity)
    assert Rpc(context, "the key").identity.host == host
