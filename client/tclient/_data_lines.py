"""One connection to the data endpoint: plain TCP, TLS, or memory that is shared with a server on this machine.

Knows sockets and memory; does not know what is moved.
"""

from __future__ import annotations

import functools
import logging
import mmap
import os
import socket
import ssl
import struct
from typing import TYPE_CHECKING

import numpy as np

from tclient._progress import Progress

if TYPE_CHECKING:
    from tclient._session import Session

log = logging.getLogger("tclient")

# A server that neither sends nor takes anything for so long has gone.
STALL_S = 20.0
_CONNECT_S = 2.0
_PIECE_BYTES = 8 << 20


class Line:
    """A connection. All methods raise OSError, also where the server leaves."""

    def __init__(self, where: str, connection: socket.socket) -> None:
        self.where = where
        self._socket = connection
        self._kept = False
        self._limited_s = -1.0

    def seems_alive(self) -> bool:
        """Whether the server has not left, as far as that can be seen. In use again."""
        self._kept = False
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False

    def keep(self) -> None:
        """`release` leaves it open now."""
        self._kept = True

    def release(self) -> None:
        """Close it, if it is not kept."""
        if not self._kept:
            self.close()

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def read(self, count: int, within_s: float) -> bytes:
        """So many bytes; 0 is for ever."""
        self._limit(within_s)
        found = b""
        while len(found) < count:
            received = self._socket.recv(count - len(found))
            if not received:
                raise ConnectionError("the server ended the connection")
            found += received
        return found

    def write(self, data: bytes) -> None:
        """Send these bytes."""
        self._limit(STALL_S)
        self._socket.sendall(data)

    def send(self, view: memoryview, progress: Progress) -> None:
        """Send what is in memory."""
        self._limit(STALL_S)
        position = 0
        while position < len(view):
            position += self._socket.send(view[position : position + _PIECE_BYTES])
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
        return self._socket.recv_into(piece, 0, socket.MSG_WAITALL)

    def _limit(self, seconds: float) -> None:
        """How long one call may get nowhere; 0 is for ever. A limit in the kernel: one call moves a whole piece."""
        if seconds != self._limited_s:
            self._limited_s = seconds
            limit = struct.pack("ll", int(seconds), 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


class TlsLine(Line):
    """A connection over TLS, which looks at each record by itself."""

    def seems_alive(self) -> bool:
        """Not to be seen from outside."""
        self._kept = False
        return True

    def _take(self, piece: memoryview) -> int:
        return self._socket.recv_into(piece)

    def _limit(self, seconds: float) -> None:
        self._socket.settimeout(seconds or None)


class SharedLine(Line):
    """Memory of the server's, in slots, and a Unix socket on which a byte says that one was filled, or emptied."""

    def __init__(self, where: str, connection: socket.socket) -> None:
        super().__init__(where, connection)
        self._limit(_CONNECT_S)
        head, descriptors, _, _ = socket.recv_fds(connection, 8, 1)
        try:
            if len(head) != 8 or not descriptors:
                raise ConnectionError("the server gave no memory")
            count, self._size = struct.unpack(">II", head)
            whole = np.frombuffer(mmap.mmap(descriptors[0], count * self._size), np.uint8)
        except ValueError as error:
            raise ConnectionError(f"the server's memory cannot be mapped: {error}") from None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._slots = [whole[at * self._size : (at + 1) * self._size] for at in range(count)]

    def send(self, view: memoryview, progress: Progress) -> None:
        """See Line."""
        self._limit(STALL_S)
        source = np.frombuffer(view, np.uint8)
        free = len(self._slots)
        for number, position in enumerate(range(0, len(view), self._size)):
            if not free:
                free = self._answered()
            piece = source[position : position + self._size]
            np.copyto(self._slots[number % len(self._slots)][: len(piece)], piece)
            self._socket.sendall(b"\0")
            free -= 1
            progress.reach(position + len(piece))
        # The last slot is answered by the status of the whole.
        under_way = len(self._slots) - free - 1
        while under_way > 0:
            under_way -= len(self.read(1, STALL_S))

    def receive(self, view: memoryview, progress: Progress) -> None:
        """See Line."""
        self._limit(STALL_S)
        target = np.frombuffer(view, np.uint8)
        filled = 0
        for number, position in enumerate(range(0, len(view), self._size)):
            if not filled:
                filled = self._answered()
            piece = target[position : position + self._size]
            np.copyto(piece, self._slots[number % len(self._slots)][: len(piece)])
            self._socket.sendall(b"\0")
            filled -= 1
            progress.reach(position + len(piece))

    def _answered(self) -> int:
        count = len(self._socket.recv(len(self._slots)))
        if not count:
            raise ConnectionError("the server ended the transfer")
        return count


def connect(session: Session) -> Line | None:
    """A connection, the fastest that there is; None without. What cannot be reached is not tried again."""
    if session.shared_memory:
        name = session.shared_memory
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            local.connect(f"\0{name}")
            return SharedLine(name, local)
        except OSError as error:
            log.debug("the server's memory cannot be shared: %s", error)
            local.close()
            session.shared_memory = ""
    address = _address(session)
    if address is None:
        return None
    try:
        connection = _connect(session, address)
    except OSError as error:
        log.debug("the data endpoint at %s:%s cannot be reached: %s", *address, error)
        session.data_endpoint = ""
        return None
    return (TlsLine if session.tls else Line)(session.data_endpoint, connection)


def _connect(session: Session, address: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(address, timeout=_CONNECT_S)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        if session.tls:
            trusted = _trusted("" if session.tls is True else os.fspath(session.tls))
            connection = trusted.wrap_socket(connection, server_hostname=address[0])
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return connection


def _address(session: Session) -> tuple[str, int] | None:
    host, _, port = session.data_endpoint.rpartition(":")
    if not port.isdigit():
        return None
    if not host:
        # The server names a port only: it is where the session is.
        host = session.connection.address.rpartition(":")[0]
        if not host or "/" in host or host.startswith("unix"):
            return None
    return host.strip("[]"), int(port)


@functools.cache
def _trusted(authority: str) -> ssl.SSLContext:
    """Those whom the session trusts: the authority in that file; without one, those that the system trusts."""
    return ssl.create_default_context(cafile=authority or None)
