"""The data endpoint against callers that are late, wrong, slow or gone. Raw sockets; no SDK."""

from __future__ import annotations

import contextlib
import hmac
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused
from tests.support.serving import wait_until

SIZE = 4 << 20


def header_of(session: RawSession, **fields: Any) -> service_pb.UploadHeader:
    usual: dict[str, Any] = {"context": session.context(), "id": 5, "dtype": pb.D_TYPE_UINT8, "shape": [SIZE]}
    return service_pb.UploadHeader(**{**usual, **fields})


def ticket_of(session: RawSession) -> service_pb.OpenTransferResponse:
    answer: service_pb.OpenTransferResponse = session.ask("OpenTransfer", upload=header_of(session))
    assert answer.size_bytes == SIZE
    assert (len(answer.ticket), len(answer.key)) == (16, 32)
    return answer


NONCE = b"sixteen of mine."


def opening(answer: service_pb.OpenTransferResponse) -> bytes:
    """What a client says first."""
    return b"tdt2" + answer.ticket + NONCE


def prove(connection: socket.socket, answer: service_pb.OpenTransferResponse) -> None:
    """Open a connection as the contract says."""
    connection.sendall(opening(answer))
    said = exactly(connection, 4 + 16 + 32)
    nonces = NONCE + said[4:20]
    assert said[:4] == b"tdt2"
    assert said[20:] == hmac.digest(answer.key, b"server" + nonces, "sha256")
    connection.sendall(hmac.digest(answer.key, b"client" + nonces, "sha256"))


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
        yield connection


def ended(connection: socket.socket) -> bool:
    """Whether the server has ended the connection without a word."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def sum_of(session: RawSession) -> int:
    """The sum of the bytes of upload 5."""
    kept = session.make("tensor", pb.Value(array=pb.HostArray(kind=pb.HostArray.KIND_TENSOR, upload=5)))
    return int(session.read(session.make("Tensor.sum", kept)).item())


def test_a_ticket_moves_an_upload(session: RawSession, port: int) -> None:
    with connected(port) as connection:
        prove(connection, ticket_of(session))
        connection.sendall(b"\1" * SIZE)
        assert connection.recv(1) == b"\0"
        assert ended(connection)
    assert sum_of(session) == SIZE


def test_a_ticket_is_good_for_one_transfer(session: RawSession, port: int) -> None:
    ticket = ticket_of(session)
    with connected(port) as first, connected(port) as second:
        prove(first, ticket)
        first.sendall(b"\1" * SIZE)
        assert first.recv(1) == b"\0"
        second.sendall(opening(ticket))
        assert ended(second)


@pytest.mark.parametrize(
    "opening",
    [
        pytest.param(b"tdt2" + bytes(32), id="a ticket that nobody gave"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="another protocol"),
        pytest.param(b"\xff" * 100_000, id="noise"),
    ],
)
def test_whoever_has_no_ticket_gets_no_answer(port: int, opening: bytes) -> None:
    with connected(port) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(opening)
        assert ended(connection)


def test_whoever_has_a_ticket_without_its_key_gets_nothing(session: RawSession, port: int) -> None:
    before = session.held()[1]
    answer = ticket_of(session)
    with connected(port) as connection:
        connection.sendall(opening(answer))
        exactly(connection, 4 + 16 + 32)
        connection.sendall(bytes(32))
        assert ended(connection)
    wait_until(lambda: session.held()[1] == before, 10.0, "the memory of the upload is free again")
    with connected(port) as connection:
        connection.sendall(opening(answer))
        assert ended(connection), "it is used up"


def test_a_client_of_earlier_days_that_sends_the_bytes_behind_the_ticket_gets_no_status(
    session: RawSession, port: int
) -> None:
    answer = ticket_of(session)
    with connected(port) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(answer.ticket + bytes(SIZE))
        assert ended(connection)


def test_whoever_sends_nothing_is_let_go(port: int) -> None:
    with connected(port) as connection:
        connection.settimeout(8.0)
        assert ended(connection)


def test_an_upload_whose_sender_leaves_is_let_go(session: RawSession, port: int) -> None:
    before = session.held()[1]
    with connected(port) as connection:
        prove(connection, ticket_of(session))
        connection.sendall(bytes(1000))
        assert session.held()[1] == before + SIZE, "it counts from the beginning"
    wait_until(lambda: session.held()[1] == before, 10.0, "the memory is free again")
    assert session.upload(header_of(session), [bytes(1 << 20)] * 4).received_bytes == SIZE


def test_an_upload_whose_id_is_taken_meanwhile_is_not_kept(session: RawSession, port: int) -> None:
    ticket = ticket_of(session)
    session.upload(header_of(session), [b"\1" * (1 << 20)] * 4)
    with connected(port) as connection:
        prove(connection, ticket)
        connection.sendall(bytes(SIZE))
        assert connection.recv(1) == b"\1"
    assert sum_of(session) == SIZE, "the one that came first stays"


def test_an_upload_to_a_session_that_ends_is_not_kept(wire: Raw, port: int) -> None:
    with wire.open_session() as session:
        ticket = ticket_of(session)
    with connected(port) as connection:
        prove(connection, ticket)
        connection.sendall(bytes(SIZE))
        assert connection.recv(1) in (b"\1", b"")


def request_of(**transfer: Any) -> bytes:
    message = service_pb.OpenTransferRequest(**transfer).SerializeToString()
    return len(message).to_bytes(4, "big") + message


def anonymous(**fields: Any) -> service_pb.UploadHeader:
    usual: dict[str, Any] = {"id": 5, "dtype": pb.D_TYPE_UINT8, "shape": [SIZE]}
    return service_pb.UploadHeader(**{**usual, **fields})


@contextlib.contextmanager
def line(session: RawSession, port: int) -> Iterator[socket.socket]:
    """A connection that carries any number of transfers."""
    answer = session.ask("OpenTransfer", connection=session.context())
    with connected(port) as connection:
        prove(connection, answer)
        yield connection


def exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        found += connection.recv(count - len(found)) or pytest.fail("the server ended the connection")
    return found


def test_a_connection_carries_transfers_one_after_the_other(session: RawSession, port: int) -> None:
    with line(session, port) as connection:
        for byte in (b"\1", b"\2"):
            connection.sendall(request_of(upload=anonymous()) + byte * SIZE)
            assert connection.recv(1) == b"\0"
            kept = session.make("tensor", pb.Value(array=pb.HostArray(kind=pb.HostArray.KIND_TENSOR, upload=5)))
            assert int(session.read(session.make("Tensor.sum", kept)).item()) == SIZE * byte[0]
        connection.sendall(request_of(download=service_pb.DownloadRequest(tensor=kept.ref)))
        length = int.from_bytes(exactly(connection, 4), "big")
        answer = service_pb.OpenTransferResponse.FromString(exactly(connection, length))
        assert (answer.size_bytes, list(answer.shape), answer.dtype) == (SIZE, [SIZE], pb.D_TYPE_UINT8)
        assert exactly(connection, SIZE) == b"\2" * SIZE
        assert exactly(connection, 1) == b"\0"


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(request_of(upload=anonymous(shape=[2**50])), id="too large"),
        pytest.param(request_of(upload=anonymous(id=0)), id="no id"),
        pytest.param(request_of(upload=anonymous(dtype=99)), id="no dtype"),
        pytest.param(request_of(download=service_pb.DownloadRequest(tensor=pb.Ref(id=77))), id="no tensor"),
        pytest.param(request_of(), id="no transfer"),
        pytest.param(b"\0\0\0\4\xff\xff\xff\xff", id="no message"),
        pytest.param(b"\xff\xff\xff\xff", id="a length without end"),
        pytest.param(b"\0\0\0\0", id="no length"),
    ],
)
def test_a_connection_ends_at_a_transfer_that_is_refused(session: RawSession, port: int, request_bytes: bytes) -> None:
    before = session.held()[1]
    with line(session, port) as connection:
        connection.sendall(request_bytes)
        assert ended(connection)
    assert session.held()[1] == before


def test_an_upload_that_has_not_arrived_can_not_be_used_and_gives_way(session: RawSession, port: int) -> None:
    with line(session, port) as first, line(session, port) as second:
        first.sendall(request_of(upload=anonymous()) + bytes(1000))
        wait_until(lambda: session.held()[1] >= SIZE, 10.0, "it has begun")
        with pytest.raises(AssertionError, match="not complete"):
            sum_of(session)
        second.sendall(request_of(upload=anonymous()) + b"\1" * SIZE)
        assert second.recv(1) == b"\0"
        first.sendall(bytes(SIZE - 1000))
        assert first.recv(1) == b"\0"
    assert sum_of(session) == SIZE, "the one that was named last is the upload"


def test_connections_that_rest_make_room_for_others(session: RawSession, port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(line(session, port))
            connection.sendall(request_of(upload=anonymous(shape=[8])) + b"\1" * 8)
            assert connection.recv(1) == b"\0"
            session.make("tensor", pb.Value(array=pb.HostArray(kind=pb.HostArray.KIND_TENSOR, upload=5)))


def test_what_is_too_large_is_refused_before_a_ticket_is_given(session: RawSession) -> None:
    header = header_of(session)
    header.shape[:] = [2**50]
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, naming=str(2**50)):
        session.ask("OpenTransfer", upload=header)


def test_a_transfer_of_nothing_is_refused(session: RawSession) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, naming="transfer"):
        session.ask("OpenTransfer")
