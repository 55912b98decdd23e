"""Over TLS what was sent in many pieces is read together, as it is over a bare socket."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tensorcompute.wire.lane import receive
from tests.support.authority import Authority


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Both ends of a connection over TLS; the second never waits."""
    issued = Authority(tmp_path).issue()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(issued.cert, issued.key)
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname, asking.verify_mode = False, ssl.CERT_NONE
    here, there = socket.socketpair()
    made: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: made.append(serving.wrap_socket(there, server_side=True)))
    thread.start()
    sender = asking.wrap_socket(here)
    thread.join(10)
    with sender, made[0] as receiver:
        # What TLS itself has to say after the handshake.
        receiver.setblocking(False)
        assert receive(receiver) is None
        yield sender, receiver


def test_all_that_has_come_is_read_at_one_go(pair: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    sender, receiver = pair
    for number in range(200):
        sender.send(b"%3d" % number)
    assert receive(receiver) == b"".join(b"%3d" % number for number in range(200))
    assert receive(receiver) is None


def test_no_byte_stays_behind_in_tls_where_more_has_come_than_is_read(
    pair: tuple[ssl.SSLSocket, ssl.SSLSocket],
) -> None:
    sender, receiver = pair
    sent = bytes(range(256)) * 400
    sender.sendall(sent)
    read = b""
    while len(read) < len(sent):
        read += receive(receiver) or b""
        assert not receiver.pending()
    assert read == sent


def test_the_end_is_told_behind_what_came_before_it(pair: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    sender, receiver = pair
    sender.send(b"last")
    sender.close()
    assert receive(receiver) == b"last"
    assert receive(receiver) == b""
