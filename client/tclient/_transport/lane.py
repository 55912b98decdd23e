"""A lane: the messages of a stream over a socket of its own, sent and read by the very threads that need them.

No thread stands between: who has a message sends it, who waits for an answer reads, one thread for all that wait. A
thread of the stream's sees only that the connection has ended, and reads for tasks of an event loop.

Ctrl-C may strike the main thread at any line. Where that leaves a message half sent or half taken in, the next one who
comes sees it, and tears the connection: what was not answered goes again on another one, and is applied once. Knows
sockets and messages; does not know calls.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol

from tclient._exceptions import TensorError
from tclient._transport.statuses import Broken
from tensorcompute.wire.lane import Frames, Outbox, receive

# How the end of a connection is waited for on other systems is not known.
IS_SUPPORTED = sys.platform == "linux" and hasattr(select, "poll") and hasattr(os, "eventfd")
_MAX_REPLY_BYTES = 1 << 31
_PAUSE_S = 0.001
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}

Handle = Callable[[bytes], None]


class Answered(Protocol):
    """What somebody waits for."""

    done: bool


class Reader:
    """A thread that reads, or wants to; while it is kept, no other one does."""

    __slots__ = ("__weakref__",)


class Lane:
    """A Duplex over a connection on which the server has proved itself."""

    def __init__(self, connection: socket.socket, proof: bytes, has_tasks: Callable[[], bool]) -> None:
        """`proof` is what the server waits for; see `begin`.

        `has_tasks` says whether tasks of an event loop wait, for which the stream's thread reads; see `wake`.
        """
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                with contextlib.suppress(OSError, AttributeError):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._socket = connection
        self._proof = proof
        self._frames = Frames(_MAX_REPLY_BYTES)
        # Held while the connection is used, which never waits.
        self._lock = threading.Lock()
        self._unsent = Outbox()
        # Who reads; a reader that is gone without a word reads no more.
        self._reader: weakref.ref[Reader] | None = None
        # True in the midst of what must be done as a whole.
        self._is_sending = self._is_taking = False
        self._has_tasks = has_tasks
        # Whether the stream's thread is to be told when nobody reads.
        self._is_wanted = False
        self._arrivals = select.poll()
        self._arrivals.register(connection, select.POLLIN)
        self._polls_for = select.POLLIN
        # Wakes the stream's thread. Closed when nobody has the lane any more, as others may be about to write to it.
        self._wakes = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._wakes).atexit = False
        self._is_over = self._is_closed = False
        # Why nothing can be made of what came, if so.
        self.failure: TensorError | None = None
        # Whether anything came.
        self.has_answered = False

    # ---- any thread ----------------------------------------------------------------------------------------------

    @property
    def owes(self) -> bool:
        """Whether something is not sent that could not be taken at once."""
        return bool(self._unsent)

    def begin(self) -> None:
        """Prove to the server who we are. With that the lane takes over: what the session had before it ends."""
        with self._lock:
            self._unsent.put_bare(self._proof)
            self._flush()

    def send(self, message: bytes, alone: bool = False) -> None:
        """See Duplex. What the connection does not take now is sent by whoever comes next: see `flush`."""
        with self._lock:
            self._unsent.put(message)
            self._flush()

    def flush(self) -> bool:
        """Send what waits, as far as it goes now; whether that is all."""
        with self._lock:
            self._flush()
            return not self._unsent

    def read_until(self, answered: Answered, until: float | None, handle: Handle) -> bool:
        """Take in what comes until it is answered or late; False if another thread does, or the lane has ended."""
        reader = Reader()
        if not self._take(reader):
            return False
        try:
            while not answered.done:
                if not self._wait(until):
                    return True
                if not self._read(handle):
                    return answered.done
            return True
        finally:
            self._give_back(reader)

    def read_now(self, handle: Handle) -> bool:
        """Take in what is there, if nobody else does; whether it was this thread's to do."""
        reader = Reader()
        if not self._take(reader):
            return False
        try:
            self._read(handle)
        finally:
            self._give_back(reader)
        return True

    def wake(self) -> None:
        """The stream's thread is to look whether tasks wait. From any thread."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wakes, 1)

    def cancel(self) -> None:
        """See Duplex."""
        with self._lock:
            self._tear()

    def discard(self) -> None:
        """End one that has not begun."""
        self._socket.close()

    def after_fork(self) -> None:
        """In a child process: the connection is the parent's, and who held the lock is there."""
        self._lock = threading.Lock()
        self._is_over = self._is_closed = True
        self._socket.close()

    # ---- the stream's thread -------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        """See Duplex: what comes while tasks wait. Raises: Broken when the connection has ended."""
        arrived: list[bytes] = []
        poll = select.poll()
        poll.register(self._wakes, select.POLLIN)
        try:
            while not self._is_over:
                reads = self._has_tasks() and self._may_read()
                poll.register(self._socket, select.POLLRDHUP | (select.POLLIN if reads else 0))
                for descriptor, events in poll.poll():
                    if descriptor == self._wakes:
                        os.eventfd_read(self._wakes)
                    elif events & ~select.POLLIN:
                        self._is_over = True
                reader = Reader()
                if (reads or self._is_over) and self._take(reader):
                    self._read(arrived.append)
                    # Others may read when this is taken in, and not before.
                    yield from arrived
                    arrived.clear()
                    self._give_back(reader)
        finally:
            self._close()
        if self.failure is not None:
            raise self.failure
        raise Broken("the lane ended")

    def _may_read(self) -> bool:
        """Whether nobody reads; if not, this thread is told when that ends."""
        with self._lock:
            self._is_wanted = self._is_read()
            return not self._is_wanted

    # ---- reading: one thread at a time ---------------------------------------------------------------------------

    def _is_read(self) -> bool:
        return self._reader is not None and self._reader() is not None

    def _take(self, reader: Reader) -> bool:
        with self._lock:
            if self._is_closed or self._is_read():
                return False
            if self._is_taking:
                # Who read before was interrupted in the midst of a message.
                self._tear()
                return False
            self._reader = weakref.ref(reader)
            return True

    def _give_back(self, reader: Reader) -> None:
        with self._lock:
            if self._reader is not None and self._reader() is reader:
                self._reader = None
            if self._is_wanted:
                self.wake()

    def _wait(self, until: float | None) -> bool:
        """Wait until something has come, or can be sent that waits; False if it is late."""
        left_ms = None if until is None else max(0.0, 1000 * (until - time.monotonic()))
        wanted = select.POLLIN | select.POLLOUT if self._unsent else select.POLLIN
        if wanted != self._polls_for:
            self._arrivals.modify(self._socket, wanted)
            self._polls_for = wanted
        if not self._arrivals.poll(left_ms):
            return left_ms is None
        if self._unsent:
            self.flush()
        return True

    def _read(self, handle: Handle) -> bool:
        """Take in what is there; False at the end of the connection."""
        self._is_taking = True
        try:
            with self._lock:
                data = receive(self._socket)
        except OSError:
            data = b""
        if data is None:
            self._is_taking = False
            return True
        try:
            for message in self._frames.add(data):
                self.has_answered = True
                handle(message)
        except TensorError as error:
            self.failure = error
            data = b""
        self._is_taking = False
        if not data:
            with self._lock:
                self._tear()
        return bool(data)

    # ---- with the lock held --------------------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._is_sending:
            # Who sent before was interrupted in the midst of a message.
            self._tear()
            return
        self._is_sending = True
        self._unsent.flush(self._socket)
        self._is_sending = False

    def _tear(self) -> None:
        """End the connection: the stream's thread sees it, and all who wait for something to come."""
        self._is_over = True
        with contextlib.suppress(OSError):
            # That of TLS's own class would leave it open to what is no TLS.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        self.wake()

    def _close(self) -> None:
        """Once nobody reads, which is soon: what is read says that it has ended."""
        while True:
            with self._lock:
                if not self._is_read():
                    self._is_closed = True
                    self._socket.close()
                    return
            time.sleep(_PAUSE_S)
