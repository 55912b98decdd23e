"""The data endpoint: a TCP (or TLS) listener that moves bytes straight into and out of memory, and nothing else.

What moves, where to and how much is settled over gRPC (OpenTransfer) before a connection comes; a connection brings a
ticket of 16 bytes, which is good for one transfer:

    upload     client: ticket, bytes          server: one status byte, when the upload is complete
    download   client: ticket                 server: bytes, one status byte

The status is 0 if all is well. Whatever goes wrong ends the connection: the client falls back to gRPC, which says why.
Each connection has a thread, which spends its time in the kernel; there is a bound on them. Knows sockets and tickets;
does not know what a tensor is.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from tserver.config import Config
from tserver.errors import Exhausted

log = logging.getLogger("tserver.data")

TICKET_BYTES = 16
TICKET_S = 10.0
_MAX_TICKETS = 1024
_MAX_CONNECTIONS = 32
# The ticket, and the handshake of TLS, must come within this time.
_OPENING_S = 5.0
# A peer that neither sends nor takes anything for so long has gone.
_STALL_S = 20.0
# Slower than this, a transfer only holds the place of another.
_SLOWEST_BYTES_PER_S = 64 << 10
_PIECE_BYTES = 8 << 20
_TLS_PIECE_BYTES = 256 << 10
_DONE, _FAILED = b"\0", b"\1"


class Source(Protocol):
    """What a download sends. The memory may be changed after `settle`, and whenever the lock is not held."""

    data: Any
    lock: threading.Lock

    def settle(self) -> None:
        """Move the bytes into memory of their own."""

    def intact(self) -> bool:
        """Whether the bytes are still those of the beginning."""


@dataclass(slots=True, eq=False)
class Transfer:
    """What a ticket is good for: an upload into `target`, or a download of `source`."""

    size_bytes: int
    touch: Callable[[], None]
    target: memoryview | None = None
    source: Source | None = None
    # An upload's: keeps what came, or lets it go. Both run on the event loop.
    finish: Callable[[], Coroutine[Any, Any, object]] | None = None
    cancel: Callable[[], None] | None = None


def wanted_address(config: Config) -> str:
    """Where to listen; empty is nowhere."""
    if config.data_listen != "auto":
        return config.data_listen
    host = config.listen.rpartition(":")[0]
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = host == "localhost"
    # Elsewhere a port that nobody has chosen is one that a firewall closes.
    return f"{host}:0" if loopback else ""


class DataEndpoint:
    """The listener and its tickets."""

    def __init__(self, config: Config, address: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._tickets: dict[bytes, Transfer] = {}
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._stopping = False
        self._tls: ssl.SSLContext | None = None
        if config.tls_cert:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(config.tls_cert, config.tls_key)
        self._listener = _listener(address)
        self.address = f"{address.rpartition(':')[0]}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="data", daemon=True).start()

    def named(self, listen: str) -> str:
        """How clients are told of it: without its host, where that is the one that they know already."""
        host, _, port = self.address.rpartition(":")
        same = host == listen.rpartition(":")[0] or host.strip("[]") in ("", "0.0.0.0", "::")
        return f":{port}" if same else self.address

    def admit(self, transfer: Transfer) -> bytes:
        """A ticket for a transfer; on the event loop. Raises: Exhausted."""
        if len(self._tickets) >= _MAX_TICKETS:
            raise Exhausted(
                f"{len(self._tickets)} tickets of the data endpoint are not used, which is the limit; use gRPC",
                retry_after_s="1",
            )
        ticket = secrets.token_bytes(TICKET_BYTES)
        self._tickets[ticket] = transfer
        self._loop.call_later(TICKET_S, self._expire, ticket)
        return ticket

    def stop(self) -> None:
        """Take no more connections, and end those there are."""
        self._stopping = True
        for connection in (self._listener, *self._open):
            # What waits in accept or recv wakes up; close alone would leave it there.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _expire(self, ticket: bytes) -> None:
        transfer = self._tickets.pop(ticket, None)
        if transfer is not None and transfer.cancel is not None:
            transfer.cancel()

    # --- threads of their own ---

    def _accept(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # Out of descriptors, or a peer that left at once; the listener itself ends only when told to.
                time.sleep(0.01)
                continue
            if not self._free.acquire(blocking=False):
                connection.close()
                continue
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="data transfer", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        speaking = connection
        try:
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(_OPENING_S)
                if self._tls is not None:
                    speaking = self._tls.wrap_socket(connection, server_side=True)
                transfer = self._tickets.pop(_ticket(speaking), None)
                if transfer is not None:
                    self._move(speaking, transfer)
        except Exception:
            log.exception("a transfer failed")
        finally:
            self._open.discard(connection)
            with contextlib.suppress(OSError):
                speaking.close()
            self._free.release()

    def _move(self, connection: socket.socket, transfer: Transfer) -> None:
        pace = _Pace(transfer, self._loop)
        if transfer.target is None:
            assert transfer.source is not None
            whole = _send(connection, transfer.source, pace)
            if whole:
                connection.settimeout(_STALL_S)
                connection.sendall(_DONE if transfer.source.intact() else _FAILED)
            return
        assert transfer.finish is not None
        assert transfer.cancel is not None
        try:
            whole = _receive(connection, transfer.target, pace)
        except OSError:
            whole = False
        if not whole:
            self._loop.call_soon_threadsafe(transfer.cancel)
            return
        try:
            asyncio.run_coroutine_threadsafe(transfer.finish(), self._loop).result()
            status = _DONE
        except Exception as error:
            log.debug("an upload was not kept: %s", error)
            status = _FAILED
        connection.settimeout(_STALL_S)
        connection.sendall(status)


class _Pace:
    """How a transfer gets on: whether it is still fast enough, and that its session is alive."""

    def __init__(self, transfer: Transfer, loop: asyncio.AbstractEventLoop) -> None:
        self._touch = transfer.touch
        self._loop = loop
        now = time.monotonic()
        self._touched_at = now
        self._deadline = now + _STALL_S + transfer.size_bytes / _SLOWEST_BYTES_PER_S

    def check(self) -> None:
        """Called now and then. Raises: TimeoutError."""
        now = time.monotonic()
        if now > self._deadline:
            raise TimeoutError("the transfer is too slow")
        if now > self._touched_at + 1.0:
            self._touched_at = now
            self._loop.call_soon_threadsafe(self._touch)


def _listener(address: str) -> socket.socket:
    """Raises: OSError that names the option."""
    host, _, port = address.rpartition(":")
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        return socket.create_server((bare, int(port)), family=family, backlog=128)
    except OSError as error:
        raise OSError(f"cannot listen on --data-listen {address}: {error}; choose another address") from error


def _ticket(connection: socket.socket) -> bytes:
    """Raises: OSError, TimeoutError, ValueError if the peer leaves."""
    ticket = b""
    deadline = time.monotonic() + _OPENING_S
    while len(ticket) < TICKET_BYTES:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        received = connection.recv(TICKET_BYTES - len(ticket))
        if not received:
            raise ValueError("the peer left before it sent a ticket")
        ticket += received
    return ticket


def _receive(connection: socket.socket, into: memoryview, pace: _Pace) -> bool:
    """Fill memory with what comes; False if the peer leaves before. Raises: OSError, TimeoutError."""
    size, position = len(into), 0
    flags = 0
    if isinstance(connection, ssl.SSLSocket):
        connection.settimeout(_STALL_S)
    else:
        # A blocking socket with a limit in the kernel: one call fills a piece, however many packets bring it.
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_STALL_S))
        flags = socket.MSG_WAITALL
    while position < size:
        count = connection.recv_into(into[position : position + _PIECE_BYTES], 0, flags)
        if not count:
            return False
        position += count
        pace.check()
    return True


def _send(connection: socket.socket, source: Source, pace: _Pace) -> bool:
    """Send all there is; False if the source runs dry. Raises: OSError, TimeoutError."""
    size, position = len(source.data), 0
    if isinstance(connection, ssl.SSLSocket):
        # What is given to TLS must stay as it is until it is taken.
        source.settle()
        data = memoryview(source.data)
        connection.settimeout(_STALL_S)
        while position < size:
            position += connection.send(data[position : position + _TLS_PIECE_BYTES])
            pace.check()
        return True
    connection.setblocking(False)
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    while position < size:
        try:
            # Not longer than it takes to fill the socket's buffer: who wants to change the memory waits meanwhile.
            with source.lock:
                position += connection.send(memoryview(source.data)[position : position + _PIECE_BYTES])
        except BlockingIOError:
            if not poll.poll(int(_STALL_S * 1000)):
                raise TimeoutError("the peer takes nothing") from None
        pace.check()
    return True


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
