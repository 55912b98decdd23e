"""A lane: messages over a socket of its own, read and answered by the engine's thread.

Each message stands behind its length. No write waits: what a slow reader does not take is kept, within bounds, and
nothing more is read from it meanwhile. Whatever goes wrong ends the lane without a word; the client goes on over gRPC,
which says why. Knows sockets; does not know what is said.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from tensorcompute.wire.data_endpoint import LENGTH
from tensorcompute.wire.lane import Frames
from tserver.errors import ServerError

if TYPE_CHECKING:
    from tserver.engine.ready import ReadyQueue

log = logging.getLogger("tserver.session")

_READ_BYTES = 256 << 10
# While so much of what was answered is not taken, nothing more is read.
_MAX_UNSENT_BYTES = 1 << 20
# A reply below this is joined with its length; a larger one is not copied for that.
_JOINED_BYTES = 64 << 10


class Lane(ABC):
    """One connection, which has proved for whom it is."""

    store = None

    def __init__(self, connection: socket.socket, ready: ReadyQueue, max_message_bytes: int) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._ready = ready
        self._frames = Frames(max_message_bytes)
        # Messages that there is no room for yet.
        self._arrived: deque[bytes] = deque()
        # Held while something is written, or it is said what the engine waits for.
        self._lock = threading.Lock()
        self._unsent: deque[bytes | memoryview] = deque()
        self._unsent_bytes = 0
        self._events = select.EPOLLIN
        self._is_over = False

    def start(self) -> None:
        """Begin to read. From any thread. Raises: OSError."""
        self._ready.watch(self._socket.fileno(), self._events, self._on_events)

    def send(self, message: bytes) -> None:
        """Send a message, as soon as the client takes it. From any thread."""
        length = LENGTH.pack(len(message))
        with self._lock:
            if len(message) < _JOINED_BYTES:
                self._unsent.append(length + message)
            else:
                self._unsent += (length, memoryview(message))
            self._unsent_bytes += len(length) + len(message)
            self._flush()
            self._arm()

    def shut(self) -> None:
        """End it. From any thread: the engine's sees that the connection has ended, and closes it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def look_again(self) -> None:
        """There may be room for messages that wait for it. From any thread."""
        if self._arrived:
            self._ready.put(self)

    # --- what a subclass says; on the engine's thread ---

    @abstractmethod
    def _receive(self, message: bytes) -> None:
        """Take a message. Raises: DecodeError, ServerError, which end the lane."""

    @abstractmethod
    def _has_room(self) -> bool:
        """Whether another message may be taken."""

    @abstractmethod
    def _ended(self) -> None:
        """The connection is closed."""

    # --- on the engine's thread ---

    def run_slice(self, executor: object, others_wait: Callable[[], bool]) -> bool:
        """Take what has waited for room."""
        self._take()
        return False

    def at_work(self) -> str:
        """See Runnable."""
        return "reading a message"

    def _on_events(self, events: int) -> None:
        if events & select.EPOLLOUT:
            with self._lock:
                self._flush()
                self._arm()
        if events & ~select.EPOLLOUT:
            self._read()

    def _read(self) -> None:
        connection = self._socket
        try:
            data = connection.recv(_READ_BYTES)
            while isinstance(connection, ssl.SSLSocket) and (pending := connection.pending()):
                # epoll does not see what TLS has read already.
                data += connection.recv(pending)
            if not data:
                self._close("the client left")
                return
            self._arrived += self._frames.add(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except (OSError, ValueError) as error:
            self._close(str(error))
            return
        self._take()

    def _take(self) -> None:
        arrived = self._arrived
        try:
            while arrived and not self._is_full():
                self._receive(arrived.popleft())
        except (DecodeError, ServerError) as error:
            self._close(str(error))
            return
        with self._lock:
            self._arm()

    def _is_full(self) -> bool:
        return self._unsent_bytes > _MAX_UNSENT_BYTES or not self._has_room()

    def _close(self, cause: str) -> None:
        if not self._is_over:
            self._is_over = True
            log.debug("a lane ended: %s", cause)
            with self._lock:
                self._ready.forget(self._socket.fileno())
                self._unsent.clear()
                self._socket.close()
            self._arrived.clear()
            self._ended()

    # --- with the lock held ---

    def _flush(self) -> None:
        unsent = self._unsent
        try:
            while unsent and not self._is_over:
                sent = self._socket.send(unsent[0])
                self._unsent_bytes -= sent
                if sent < len(unsent[0]):
                    unsent[0] = memoryview(unsent[0])[sent:]
                else:
                    unsent.popleft()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            # What is to be read says so, too.
            unsent.clear()
            self._unsent_bytes = 0

    def _arm(self) -> None:
        """Wait for what there is to do now."""
        if self._is_over:
            return
        events = (0 if self._arrived or self._is_full() else select.EPOLLIN) | (select.EPOLLOUT if self._unsent else 0)
        if events != self._events:
            self._events = events
            self._ready.change(self._socket.fileno(), events)
