"""A connection to the data endpoint: plain TCP, TLS, or memory that is shared with a server on this machine.

Whoever answers there may be another program, so nothing is said before both sides have proved that they have the key
of the ticket. Every wait ends when nothing has come or gone for a while. Knows sockets and memory; does not know what
is moved.
"""

from __future__ import annotations

import mmap
import os
import secrets
import selectors
import socket
import struct
import sys
import time

import numpy as np

from tclient._transfer.progress import Progress
from tclient._transport.trust import Trust
from tensorcompute.wire.data_endpoint import (
    NONCE_BYTES,
    OPENING,
    PROOF_BYTES,
    SHAPE,
    SLOT,
    STALL_S,
    proof,
    proves,
)

_PIECE_BYTES = 8 << 20
# Elsewhere these options do not exist, or are written in another way.
_HAS_LIMITS = sys.platform == "linux" and hasattr(socket, "SO_RCVTIMEO") and hasattr(socket, "MSG_WAITALL")
# What Linux tells of a connection: when data was received last, and word of what was sent, in milliseconds.
_HEARD = struct.Struct("=II")
_HEARD_AT = 52
_TCP_INFO_BYTES = _HEARD_AT + _HEARD.size


class NotProved(OSError):
    """Who answers is not the server."""


class Connection:
    """A connection. All methods raise OSError, also where the server leaves."""

    def __init__(self, where: str, connection: socket.socket) -> None:
        self.where = where
        self.socket = connection
        self._kept = False
        self._limited_s = -1.0

    def seems_alive(self) -> bool:
        """Whether the server has not left, as far as that can be seen. In use again."""
        self._kept = False
        # Between transfers the server says nothing: what can be read is its end.
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            return not selector.select(0)

    def heard_ago_s(self) -> float:
        """How long ago anything was heard of the other machine, which says what it has got; 0 where nobody knows."""
        if not _HAS_LIMITS or self.socket.family == socket.AF_UNIX:
            return 0.0
        try:
            told = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except OSError:
            return 0.0  # it has ended, which is noticed
        received_ms, acknowledged_ms = _HEARD.unpack_from(told, _HEARD_AT)
        return float(min(received_ms, acknowledged_ms)) / 1e3

    def keep(self) -> None:
        """`release` leaves it open now."""
        self._kept = True

    def release(self) -> None:
        """Close it, if it is not kept."""
        if not self._kept:
            self.close()

    def close(self) -> None:
        """End it."""
        self.socket.close()

    def interrupt(self) -> None:
        """End it from another thread: whoever waits for it is told."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended

    def prove(self, ticket: bytes, key: bytes, within_s: float) -> None:
        """Show that we have the key, once the other side has shown it."""
        self.write(self.challenge(ticket, key, within_s))
        self._begin()

    def challenge(self, ticket: bytes, key: bytes, within_s: float) -> bytes:
        """Have the other side show that it has the key; what shows that we do."""
        ours = secrets.token_bytes(NONCE_BYTES)
        self.write(OPENING + ticket + ours)
        deadline = time.monotonic() + within_s
        if self.read(len(OPENING), within_s) == OPENING:
            nonces = ours + self.read(NONCE_BYTES, deadline - time.monotonic())
            if proves(self.read(PROOF_BYTES, deadline - time.monotonic()), key, "server", nonces):
                return proof(key, "client", nonces)
        raise NotProved("another program answers there")

    def _begin(self) -> None:
        """Make ready for transfers."""

    def read(self, count: int, within_s: float = STALL_S) -> bytes:
        """So many bytes, within so many seconds."""
        deadline = time.monotonic() + within_s
        self._limit(within_s)
        found = b""
        while len(found) < count:
            if found:
                self._limit(deadline - time.monotonic())
            received = self.socket.recv(count - len(found))
            if not received:
                raise ConnectionError("the server ended the connection")
            found += received
        return found

    def write(self, data: bytes) -> None:
        """Send these bytes."""
        self._limit(STALL_S)
        self.socket.sendall(data)

    def send(self, view: memoryview, progress: Progress) -> None:
        """Send what is in memory."""
        self._limit(STALL_S)
        position = 0
        while position < len(view):
            position += self.socket.send(view[position : position + _PIECE_BYTES])
            progress.reach(position)

    def receive(self, view: memoryview, progress: Progress) -> None:
        """Fill memory."""
        self._limit(STALL_S)
        position = 0
        while position < len(view):
            count = self._take(view[position : position + _PIECE_BYTES])
            if not count:
                raise ConnectionError("the server ended the transfer")
            position += count
            progress.reach(position)

    def _take(self, piece: memoryview) -> int:
        return self.socket.recv_into(piece, 0, socket.MSG_WAITALL)

    def _limit(self, seconds: float) -> None:
        """How long one call may get nowhere. A limit in the kernel: one call moves a whole piece."""
        if seconds != self._limited_s:
            if seconds <= 0:
                raise TimeoutError("the server did not answer in time")
            self._limited_s = seconds
            # In microseconds; 0 would be for ever.
            limit = struct.pack("ll", int(seconds), max(1, int(seconds % 1 * 1e6)))
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


class PolledConnection(Connection):
    """A connection whose limits are Python's: where the kernel's are not what Linux has."""

    def _take(self, piece: memoryview) -> int:
        return self.socket.recv_into(piece)

    def _limit(self, seconds: float) -> None:
        if seconds <= 0:
            raise TimeoutError("the server did not answer in time")
        self.socket.settimeout(seconds)


class TlsConnection(PolledConnection):
    """A connection over TLS, which looks at each record by itself."""

    def seems_alive(self) -> bool:
        """Not to be seen from outside."""
        self._kept = False
        return True


class SharedMemory(Connection):
    """Memory of the server's, in slots, and a Unix socket on which a byte says that one was filled, or emptied."""

    def _begin(self) -> None:
        self._limit(STALL_S)
        head, descriptors, _, _ = socket.recv_fds(self.socket, SHAPE.size, 1)
        try:
            if len(head) != SHAPE.size or not descriptors:
                raise ConnectionError("the server gave no memory")
            count, self._size = SHAPE.unpack(head)
            whole = np.frombuffer(mmap.mmap(descriptors[0], count * self._size), np.uint8)
        except ValueError as error:
            raise ConnectionError(f"the server's memory cannot be mapped: {error}") from None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._slots = [whole[at * self._size : (at + 1) * self._size] for at in range(count)]

    def send(self, view: memoryview, progress: Progress) -> None:
        """See Connection."""
        self._limit(STALL_S)
        source = np.frombuffer(view, np.uint8)
        free = len(self._slots)
        for number, position in enumerate(range(0, len(view), self._size)):
            if not free:
                free = self._answered()
            piece = source[position : position + self._size]
            np.copyto(self._slots[number % len(self._slots)][: len(piece)], piece)
            self.socket.sendall(SLOT)
            free -= 1
            progress.reach(position + len(piece))
        # The last slot is answered by the status of the whole.
        under_way = len(self._slots) - free - 1
        while under_way > 0:
            under_way -= len(self.read(1, STALL_S))

    def receive(self, view: memoryview, progress: Progress) -> None:
        """See Connection."""
        self._limit(STALL_S)
        target = np.frombuffer(view, np.uint8)
        filled = 0
        for number, position in enumerate(range(0, len(view), self._size)):
            if not filled:
                filled = self._answered()
            piece = target[position : position + self._size]
            np.copyto(piece, self._slots[number % len(self._slots)][: len(piece)])
            self.socket.sendall(SLOT)
            filled -= 1
            progress.reach(position + len(piece))

    def _answered(self) -> int:
        count = len(self.socket.recv(len(self._slots)))
        if not count:
            raise ConnectionError("the server ended the transfer")
        return count


def connect_locally(name: str, within_s: float, *, shares_memory: bool = True) -> Connection:
    """A connection to a Unix socket of this machine; nobody has proved anything yet. Raises: OSError."""
    local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        local.settimeout(within_s)
        local.connect(f"\0{name}")
        local.settimeout(None)
    except BaseException:
        local.close()
        raise
    return (SharedMemory if shares_memory else Connection)(name, local)


def connect(named: str, server: str, trust: Trust, within_s: float, *, verified_as: str = "") -> Connection:
    """A connection to where the server at an address names its endpoint; nobody has proved anything yet.

    Each step may take so long. `verified_as` is whom the certificate is to name, if not that host. Raises: OSError.
    """
    address = _address(named, server)
    if address is None:
        raise OSError("the host of the data endpoint is not known")
    connection = socket.create_connection(address, timeout=within_s)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if trust.tls:
            trusted = trust.context()
            return TlsConnection(named, trusted.wrap_socket(connection, server_hostname=verified_as or address[0]))
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return (Connection if _HAS_LIMITS else PolledConnection)(named, connection)


def _address(named: str, server: str) -> tuple[str, int] | None:
    host, _, port = named.rpartition(":")
    if not port.isdigit():
        return None
    if not host:
        # The server names a port only: it is where the session is.
        host = server.rpartition(":")[0]
        if not host or "/" in host or host.startswith("unix"):
            return None
    return host.strip("[]"), int(port)
