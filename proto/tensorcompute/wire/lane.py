"""What is said on a lane: messages of a stream, each behind its length, both ways, over a socket that never waits.

Whoever uses it holds a lock: TLS takes one thread at a time. Knows sockets; does not know what the messages are.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque

from tensorcompute.wire.data_endpoint import LENGTH

_LENGTH_BYTES = LENGTH.size
_length_at = LENGTH.unpack_from
# Python takes so much memory for each read before it knows what has come. From 128 KiB on that is mapped anew by the
# kernel every time, and given back, which costs more than all else that a small message needs here.
_READ_BYTES = 64 << 10
# A message below this is joined with its length; a larger one is not copied for that.
_JOINED_BYTES = 64 << 10
# What sockets say that would have to wait, and TLS.
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TooLong(ValueError):
    """A message is longer than is taken."""


class Frames:
    """Puts what comes over a connection, in pieces of any size, together to messages."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` is what a message may have."""
        self._max_bytes = max_bytes
        # The beginning of a message, and how many bytes it takes until there is more to find out.
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = _LENGTH_BYTES

    def add(self, data: bytes) -> list[bytes]:
        """The messages that are complete with these bytes. Raises: TooLong; then nothing more can be made of it."""
        if self._have:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._have = 0
        messages = []
        at, size = 0, len(data)
        need = _LENGTH_BYTES
        while size - at >= _LENGTH_BYTES:
            (length,) = _length_at(data, at)
            if length > self._max_bytes:
                raise TooLong(f"a message of {length} bytes; at most {self._max_bytes} are taken")
            begin = at + _LENGTH_BYTES
            if length > size - begin:
                need = _LENGTH_BYTES + length
                break
            at = begin + length
            messages.append(data[begin:at])
        if at < size:
            self._have, self._need = size - at, need
            self._pieces.append(data[at:])
        return messages


class Outbox:
    """Messages that a connection has not taken yet."""

    def __init__(self) -> None:
        self._unsent: deque[bytes | memoryview] = deque()
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._unsent)

    def put(self, message: bytes) -> None:
        """Behind those that wait; `flush` sends it."""
        size = len(message)
        if size < _JOINED_BYTES:
            self._unsent.append(LENGTH.pack(size) + message)
        else:
            self._unsent += (LENGTH.pack(size), memoryview(message))
        self.size_bytes += _LENGTH_BYTES + size

    def put_bare(self, data: bytes) -> None:
        """The same without a length: what is said before there are messages."""
        self._unsent.append(data)
        self.size_bytes += len(data)

    def flush(self, connection: socket.socket) -> None:
        """Send what the connection takes now. Where it has ended nothing waits any more: what is read says so."""
        unsent = self._unsent
        try:
            while unsent:
                first = unsent[0]
                sent = connection.send(first)
                self.size_bytes -= sent
                if sent < len(first):
                    unsent[0] = memoryview(first)[sent:]
                else:
                    unsent.popleft()
        except _NOT_NOW:
            pass
        except OSError:
            self.clear()

    def clear(self) -> None:
        """Nothing waits any more."""
        self._unsent.clear()
        self.size_bytes = 0


def receive(connection: socket.socket) -> bytes | None:
    """What has come; None if nothing has, and no bytes at the end of the connection. Raises: OSError."""
    try:
        data = connection.recv(_READ_BYTES)
    except _NOT_NOW:
        return None
    return _rest(connection, data) if isinstance(connection, ssl.SSLSocket) else data


def _rest(connection: ssl.SSLSocket, data: bytes) -> bytes:
    """What has come with these bytes: TLS gives a record at a time, which is what was sent at one go, and to wait for
    more does not show what it has read already. Many small messages are to be read together all the same.
    """
    pieces, size = [data], len(data)
    try:
        while data and (size < _READ_BYTES or connection.pending()):
            data = connection.recv(_READ_BYTES)
            pieces.append(data)
            size += len(data)
    except OSError:
        # Nothing more for now; or the end, which whoever reads next is told.
        pass
    return b"".join(pieces)
