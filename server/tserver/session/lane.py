"""A lane: messages over a socket of its own, read and answered by the engine's thread.

Each message stands behind its length. No write waits: what a slow reader does not take is kept, within bounds, and
nothing more is read from it meanwhile. Whatever goes wrong ends the lane without a word; the client goes on over gRPC,
which says why. Knows sockets; does not know what is said.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import logging
import select
import socket
import termios
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from tensorcompute.wire.lane import Frames, Outbox, TooLong, receive
from tserver.errors import ServerError

if TYPE_CHECKING:
    from tserver.engine.ready import ReadyQueue
    from tserver.engine.shares import Share

log = logging.getLogger("tserver.session")

# While so much of what was answered is not taken, nothing more is read.
_MAX_UNSENT_BYTES = 1 << 20


class Lane(ABC):
    """One connection, which has proved for whom it is."""

    store = None

    def __init__(self, connection: socket.socket, ready: ReadyQueue, share: Share, max_message_bytes: int) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._ready = ready
        self.share = share
        self._frames = Frames(max_message_bytes)
        # Messages that there is no room for yet.
        self._arrived: deque[bytes] = deque()
        # Held while something is written, or it is said what the engine waits for.
        self._lock = threading.Lock()
        self._unsent = Outbox()
        self._events = select.EPOLLIN
        self._is_over = False

    def start(self) -> None:
        """Begin to read. From any thread. Raises: OSError."""
        self._ready.watch(self._socket.fileno(), self._events, self._on_events, self.share)

    def send(self, message: bytes) -> None:
        """Send a message, as soon as the client takes it. From any thread."""
        with self._lock:
            if not self._is_over:
                self._unsent.put(message)
                self._unsent.flush(self._socket)
                self._arm()

    def has_unread(self) -> bool:
        """Whether something has come that the engine has not taken. From any thread."""
        if self._arrived:
            return True
        count = array.array("i", [0])
        with self._lock, contextlib.suppress(OSError):
            fcntl.ioctl(self._socket, termios.FIONREAD, count)
        return count[0] > 0

    def may_have(self, request_id: int) -> bool:
        """Whether a request is under way, or may be in what the engine has not taken. From any thread."""
        return self._has(request_id) or self.has_unread()

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
        """Take a message. What it raises ends the lane."""

    @abstractmethod
    def _has_room(self) -> bool:
        """Whether another message may be taken."""

    def _has(self, request_id: int) -> bool:
        """Whether a request is under way. From any thread."""
        return False

    @abstractmethod
    def _ended(self) -> None:
        """The connection is closed."""

    # --- on the engine's thread ---

    def run_slice(self, executor: object, others_wait: Callable[[], bool]) -> bool:
        """Go on with what has waited for room."""
        self._or_close(self._go_on)
        return False

    def at_work(self) -> str:
        """See Runnable."""
        return "reading a message"

    def _or_close(self, work: Callable[[], None]) -> None:
        """Do something; whatever goes wrong ends this lane, and nothing else."""
        try:
            work()
        except (DecodeError, ServerError, OSError, TooLong) as error:
            self._close(str(error))
        except Exception:
            log.exception("a lane failed")
            self._close("it failed")

    def _on_events(self, events: int) -> None:
        if events & select.EPOLLOUT:
            with self._lock:
                self._unsent.flush(self._socket)
            # There may be room now for messages that have waited until something is sent.
            self._or_close(self._go_on)
        if events & ~select.EPOLLOUT:
            self._or_close(self._read)

    def _read(self) -> None:
        with self._lock:
            data = receive(self._socket)
        if data == b"":
            self._close("the client left")
        elif data is not None:
            self._arrived += self._frames.add(data)
            self._go_on()

    def _go_on(self) -> None:
        """Take what there is room for."""
        arrived = self._arrived
        while arrived and not self._is_full():
            self._receive(arrived.popleft())
        with self._lock:
            self._arm()

    def _is_full(self) -> bool:
        return self._unsent.size_bytes > _MAX_UNSENT_BYTES or not self._has_room()

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

    def _arm(self) -> None:
        """Wait for what there is to do now: not for more messages while there are some that there is no room for."""
        events = (0 if self._arrived else select.EPOLLIN) | (select.EPOLLOUT if self._unsent else 0)
        if events != self._events and not self._is_over:
            self._events = events
            self._ready.change(self._socket.fileno(), events)
