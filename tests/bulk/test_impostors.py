"""Another program has the data endpoint's port, as behind a forwarded one: it gets no bytes, and is met once."""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tclient
from tclient._session.current import current
from tclient._transfer import connections
from tests.support.serving import HasAddress, serving, wait_until

NUMBERS = np.full((2, 1 << 20), 7.0, np.float32)
# What a client says to a stranger: the opening word, the ticket without its key, and a random number.
OPENING_BYTES = 4 + 16 + 16


class Impostor:
    """A listener that does with each connection what it was told to."""

    def __init__(self, listener: socket.socket, behave: Callable[[Impostor, socket.socket], None]) -> None:
        self.listener = listener
        self.heard = bytearray()
        self.accepted = 0
        self.over = threading.Event()
        self._behave = behave
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.accepted += 1
                threading.Thread(target=self._meet, args=(connection,), daemon=True).start()

    def _meet(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self._behave(self, connection)

    def hear(self, connection: socket.socket) -> bytes:
        heard = connection.recv(1 << 16)
        self.heard += heard
        return heard


def never_reads(impostor: Impostor, connection: socket.socket) -> None:
    impostor.over.wait()


def reads_and_says_nothing(impostor: Impostor, connection: socket.socket) -> None:
    while impostor.hear(connection):
        pass


def speaks_noise(impostor: Impostor, connection: socket.socket) -> None:
    while not impostor.over.is_set():
        connection.sendall(secrets.token_bytes(1000))


def trickles(impostor: Impostor, connection: socket.socket) -> None:
    for byte in b"tdt2" + bytes(48):
        connection.sendall(bytes([byte]))
        if impostor.over.wait(0.4):
            return


def claims_success(impostor: Impostor, connection: socket.socket) -> None:
    connection.sendall(bytes(1000))
    reads_and_says_nothing(impostor, connection)


def guesses_the_proof(impostor: Impostor, connection: socket.socket) -> None:
    impostor.hear(connection)
    connection.sendall(b"tdt2" + secrets.token_bytes(48))
    reads_and_says_nothing(impostor, connection)


def says_the_same_again(impostor: Impostor, connection: socket.socket) -> None:
    while heard := impostor.hear(connection):
        connection.sendall(heard)


def is_a_web_server(impostor: Impostor, connection: socket.socket) -> None:
    impostor.hear(connection)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def leaves_at_once(impostor: Impostor, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


BEHAVIOURS = [
    never_reads,
    reads_and_says_nothing,
    speaks_noise,
    trickles,
    claims_success,
    guesses_the_proof,
    says_the_same_again,
    is_a_web_server,
    leaves_at_once,
]


@contextlib.contextmanager
def impostor(listener: socket.socket, behave: Callable[[Impostor, socket.socket], None]) -> Iterator[Impostor]:
    made = Impostor(listener, behave)
    try:
        yield made
    finally:
        made.over.set()
        listener.close()


def there_and_back_three_times() -> float:
    """How long it takes."""
    began = time.monotonic()
    for number in range(3):
        assert np.array_equal(tclient.from_numpy(NUMBERS + number).numpy(), NUMBERS + number)
    return time.monotonic() - began


@pytest.mark.parametrize("behave", BEHAVIOURS, ids=lambda behave: behave.__name__.replace("_", " "))
def test_an_impostor_gets_no_bytes_and_is_tried_once(tc: ModuleType, behave: Any) -> None:
    session = current()
    with impostor(socket.create_server(("127.0.0.1", 0)), behave) as other:
        session.transfers.endpoint.address = f":{other.listener.getsockname()[1]}"
        assert there_and_back_three_times() < 10.0
        assert other.accepted == 1
        assert len(other.heard) <= OPENING_BYTES
        assert np.float32(7).tobytes() not in bytes(other.heard)
        assert session.stats.uploads == 3


def test_threads_meet_an_impostor_together(tc: ModuleType) -> None:
    session = current()
    with impostor(socket.create_server(("127.0.0.1", 0)), reads_and_says_nothing) as other:
        session.transfers.endpoint.address = f":{other.listener.getsockname()[1]}"
        began = time.monotonic()

        def move() -> None:
            with session.use():
                there_and_back_three_times()

        threads = [threading.Thread(target=move) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60.0)
        assert time.monotonic() - began < 20.0
        assert len(other.heard) <= OPENING_BYTES * other.accepted


def sends_memory_of_its_own(impostor: Impostor, connection: socket.socket) -> None:
    """As the server did before there were proofs."""
    with open("/dev/zero", "rb") as zero:
        socket.send_fds(connection, [struct.pack(">II", 4, 512 << 10)], [zero.fileno()])
    reads_and_says_nothing(impostor, connection)


@pytest.mark.parametrize("behave", [reads_and_says_nothing, sends_memory_of_its_own, guesses_the_proof])
def test_an_impostor_on_this_machine_gets_no_bytes(tc: ModuleType, behave: Any) -> None:
    session = current()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    name = f"impostor-{secrets.token_hex(8)}"
    listener.bind(f"\0{name}")
    listener.listen()
    with impostor(listener, behave) as other:
        session.transfers.endpoint.shared_memory = name
        assert there_and_back_three_times() < 10.0
        assert session.transfers.endpoint.shared_memory == ""
        assert other.accepted == 1
        assert len(other.heard) <= OPENING_BYTES
        assert session.transfers.endpoint.resting[0].where == session.transfers.endpoint.address, "the server's own"


def test_a_server_of_earlier_days_that_gives_no_key_is_used_over_grpc(tc: ModuleType) -> None:
    session = current()
    call = session.channel.call
    asked = []

    def keyless(path: str, *args: Any, **kwargs: Any) -> Any:
        answer = call(path, *args, **kwargs)
        method = path.rpartition("/")[2]
        if method == "OpenTransfer":
            asked.append(method)
            answer.ClearField("key")
        return answer

    session.channel.call = keyless  # type: ignore[method-assign]
    there_and_back_three_times()
    assert asked == ["OpenTransfer"]


@pytest.fixture(scope="module")
def crowded() -> Iterator[HasAddress]:
    """A server of its own, whose places can be taken."""
    with serving() as server:
        yield server


def test_a_server_without_a_place_is_not_taken_for_an_impostor(
    crowded: HasAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tclient._transfer.data_endpoint.REST_S", 1.0)
    with tclient.connect(crowded.address) as session, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", int(session.transfers.endpoint.address[1:]))
        for _ in range(32):
            stack.enter_context(socket.create_connection(address))
        there_and_back_three_times()
        assert not session.transfers.endpoint.resting
        assert session.transfers.endpoint.address, "it will be tried again"
        stack.close()
        wait_until(lambda: time.monotonic() > session.transfers.endpoint.rests_until, 5.0, "the end of the rest")
        wait_until(
            lambda: there_and_back_three_times() > 0 and bool(session.transfers.endpoint.resting), 10.0, "a connection"
        )


def test_an_upload_to_a_server_that_stops_answering_ends_with_the_session(
    tc: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint proves itself, takes all bytes, and never says a word."""
    session = current()

    def prove(line: connections.Connection, ticket: bytes, key: bytes, within_s: float) -> None:
        pass

    monkeypatch.setattr(connections.Connection, "prove", prove)
    raised: list[BaseException] = []

    def send() -> None:
        with session.use():
            try:
                tc.from_numpy(NUMBERS)
            except tclient.TensorError as error:
                raised.append(error)

    with impostor(socket.create_server(("127.0.0.1", 0)), reads_and_says_nothing) as other:
        session.transfers.endpoint.address = f":{other.listener.getsockname()[1]}"
        sender = threading.Thread(target=send)
        sender.start()
        wait_until(lambda: len(other.heard) > NUMBERS.nbytes, 10.0, "all bytes are there")
        session.die(tclient.SessionLost("for the test"))
        sender.join(5.0)
        assert not sender.is_alive()
        assert raised


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_transfer_that_gets_nowhere_goes_on_over_grpc(
    tc: ModuleType, monkeypatch: pytest.MonkeyPatch, direction: str
) -> None:
    monkeypatch.setattr(connections.Connection, "prove", lambda *_: None)
    monkeypatch.setattr(connections, "STALL_S", 1.0)
    monkeypatch.setattr(connections.Connection.read, "__defaults__", (1.0,))
    session = current()
    x = tc.ones(2, 1 << 20) if direction == "download" else None
    with impostor(socket.create_server(("127.0.0.1", 0)), reads_and_says_nothing) as other:
        session.transfers.endpoint.address = f":{other.listener.getsockname()[1]}"
        if x is not None:
            assert x.numpy().all()
        else:
            assert tc.from_numpy(NUMBERS)[1, 5].item() == 7
        assert other.heard


@pytest.mark.slow
def test_what_waits_for_its_turn_is_told_that_the_server_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a server may be silent; the engine is busy with calls before it."""
    monkeypatch.setattr(connections.Connection.read, "__defaults__", (6.5,))
    with serving("--max-session-bytes", str(1 << 30)) as server, tclient.connect(server.address) as session:
        x = tclient.ones(1500, 1500)
        (x @ x).sum().item()
        matmul_s = -time.monotonic()
        (x @ x @ x @ x @ x @ x).sum().item()
        matmul_s = (matmul_s + time.monotonic()) / 5
        monkeypatch.setattr(session.channel, "client_stream", None)
        monkeypatch.setattr(session.channel, "server_stream", None)
        for _ in range(int(10.0 / matmul_s) + 1):
            y = x @ x
        began = time.monotonic()
        z = tclient.from_numpy(NUMBERS)
        assert np.array_equal(z.numpy(), NUMBERS)
        assert time.monotonic() - began > 6.5
        assert y.shape == (1500, 1500)
