"""How bytes get from a connection of the data endpoint into memory, and back: plain TCP, TLS, or memory that is shared.

Knows sockets and memory; does not know tickets, sessions or tensors.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from tensorcompute.wire.data_endpoint import SHAPE, SLOT, STALL_S

# How often a peer that waits for us is told that we are there.
BEAT_S = 5.0
# Slower than this, a transfer gives its place to another that wants it.
_SLOWEST_BYTES_PER_S = 64 << 10
_PIECE_BYTES = 8 << 20
_TLS_PIECE_BYTES = 256 << 10
# The memory that is shared: slots that are filled by one side while the other empties those before. All of it stays
# in the caches of a processor.
SLOT_BYTES = 512 << 10
SLOTS = 4
_SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Source(Protocol):
    """What a download sends. The memory may be changed after `copy_out`, and whenever the lock is not held."""

    data: Any
    lock: threading.Lock

    def copy_out(self) -> None:
        """Move the bytes into memory of their own."""

    def intact(self) -> bool:
        """Whether the bytes are still those of the beginning."""


class Pace:
    """How a transfer gets on: that it does, that its session is alive, and whether it is slow.

    `touch` is called now and then while bytes move, `beat` every BEAT_S or so; `lag` once, when the transfer is slow.
    `moved_bytes` is how far it is.
    """

    def __init__(
        self,
        size_bytes: int,
        touch: Callable[[], None],
        beat: Callable[[], None] | None = None,
        lag: Callable[[], None] | None = None,
    ) -> None:
        self._touch = touch
        self._beat = beat
        self._lag = lag
        self.moved_bytes = 0
        now = time.monotonic()
        self._moved_at = self._touched_at = self._beaten_at = now
        self._slow_at = now + STALL_S + size_bytes / _SLOWEST_BYTES_PER_S

    def began(self) -> None:
        """Called where the first byte may come later than this was made."""
        self._moved_at = time.monotonic()

    def moved(self, count: int) -> None:
        """Called for every piece that has moved."""
        self.moved_bytes += count
        now = self._moved_at = time.monotonic()
        if now > self._touched_at + 1.0:
            self._touched_at = now
            self._touch()
            self._look(now)

    def waited(self) -> None:
        """Called where nothing has moved for a while. Raises: TimeoutError."""
        now = time.monotonic()
        if now > self._moved_at + STALL_S - BEAT_S / 2:
            raise TimeoutError("the peer neither sends nor takes anything")
        self._look(now)

    def _look(self, now: float) -> None:
        if self._beat is not None and now > self._beaten_at + BEAT_S:
            self._beaten_at = now
            self._beat()
        if self._lag is not None and now > self._slow_at:
            self._lag()
            self._lag = None


class Connection:
    """One peer; what is small goes over the socket in any case. All methods raise OSError, TimeoutError."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected

    def begin(self) -> None:
        """Make ready for transfers, once the peer has proved itself."""

    def read(self, count: int, within_s: float) -> bytes | None:
        """So many bytes; None if the peer leaves before the first one. Raises: ConnectionError in the middle."""
        deadline = time.monotonic() + within_s
        found = b""
        while len(found) < count:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            received = self.socket.recv(count - len(found))
            if not received:
                if found:
                    raise ConnectionError("the peer left in the middle of a message")
                return None
            found += received
        return found

    def write(self, data: bytes) -> None:
        """Send these bytes."""
        self.socket.settimeout(STALL_S)
        self.socket.sendall(data)

    def beat(self, word: bytes) -> None:
        """Tell the peer, which waits, that we are there; as far as it listens."""
        with contextlib.suppress(OSError):
            self.socket.send(word)

    def receive(self, into: memoryview, pace: Pace) -> bool:
        """Fill memory with what comes; False if the peer leaves before."""
        self._be_patient()
        position = 0
        while position < len(into):
            try:
                count = self._take(into[position : position + _PIECE_BYTES])
            except (BlockingIOError, TimeoutError):
                pace.waited()
                continue
            if not count:
                return False
            position += count
            pace.moved(count)
        return True

    def send(self, source: Source, pace: Pace) -> None:
        """Send all there is."""
        raise NotImplementedError

    def _be_patient(self) -> None:
        """Set how long one call of `_take` may wait."""
        self.socket.settimeout(BEAT_S)

    def _take(self, piece: memoryview) -> int:
        """Put what has come into a piece of memory; how much that is."""
        return self.socket.recv_into(piece)


class TcpConnection(Connection):
    """A plain TCP connection: straight into memory and out of it."""

    def send(self, source: Source, pace: Pace) -> None:
        """See Connection."""
        size, position = len(source.data), 0
        self.socket.setblocking(False)
        poll = select.poll()
        poll.register(self.socket, select.POLLOUT)
        while position < size:
            try:
                # Not longer than it takes to fill the socket's buffer: who wants to change the memory waits meanwhile.
                with source.lock:
                    count = self.socket.send(memoryview(source.data)[position : position + _PIECE_BYTES])
            except BlockingIOError:
                if not poll.poll(int(BEAT_S * 1000)):
                    pace.waited()
                continue
            position += count
            pace.moved(count)

    def _be_patient(self) -> None:
        _limit_in_kernel(self.socket)

    def _take(self, piece: memoryview) -> int:
        return self.socket.recv_into(piece, 0, socket.MSG_WAITALL)


class TlsConnection(Connection):
    """A TLS connection."""

    def send(self, source: Source, pace: Pace) -> None:
        """See Connection."""
        # What is given to TLS must stay as it is until it is taken.
        source.copy_out()
        data = memoryview(source.data)
        self.socket.settimeout(STALL_S)
        position = 0
        while position < len(data):
            count = self.socket.send(data[position : position + _TLS_PIECE_BYTES])
            position += count
            pace.moved(count)


class SharedMemoryConnection(Connection):
    """Memory that both sides have, and a Unix socket on which each byte says that one slot was filled, or emptied.

    The memory is made and sealed here, so that it cannot shrink under a reader. What a peer writes into it is copied
    out before anybody looks at it: it is the peer's at all times.
    """

    def begin(self) -> None:
        """See Connection. Sends the memory."""
        descriptor = os.memfd_create("tensorcompute", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, SLOTS * SLOT_BYTES)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALED)
            self._memory = mmap.mmap(descriptor, SLOTS * SLOT_BYTES)
            socket.send_fds(self.socket, [SHAPE.pack(SLOTS, SLOT_BYTES)], [descriptor])
        finally:
            os.close(descriptor)
        whole = np.frombuffer(self._memory, np.uint8)
        self._slots = [whole[at * SLOT_BYTES : (at + 1) * SLOT_BYTES] for at in range(SLOTS)]

    def receive(self, into: memoryview, pace: Pace) -> bool:
        """See Connection."""
        _limit_in_kernel(self.socket)
        target = np.frombuffer(into, np.uint8)
        position = filled = number = 0
        while position < len(into):
            if not filled:
                try:
                    filled = len(self.socket.recv(SLOTS))
                except BlockingIOError:
                    pace.waited()
                    continue
                if not filled:
                    return False
            piece = target[position : position + SLOT_BYTES]
            np.copyto(piece, self._slots[number % SLOTS][: len(piece)])
            position, filled, number = position + len(piece), filled - 1, number + 1
            if position < len(into):
                # The last slot is answered by the status of the whole.
                self.socket.sendall(SLOT)
            pace.moved(len(piece))
        return True

    def send(self, source: Source, pace: Pace) -> None:
        """See Connection."""
        _limit_in_kernel(self.socket)
        size, position, number, free = len(source.data), 0, 0, SLOTS
        while position < size:
            if not free:
                free = self._emptied(pace)
            with source.lock:
                data = memoryview(source.data)[position : position + SLOT_BYTES]
                np.copyto(self._slots[number % SLOTS][: len(data)], np.frombuffer(data, np.uint8))
            self.socket.sendall(SLOT)
            position, free, number = position + len(data), free - 1, number + 1
            pace.moved(len(data))
        while free < SLOTS:
            free += self._emptied(pace)

    def _emptied(self, pace: Pace) -> int:
        """How many slots the peer has emptied since it was asked last; one at least."""
        while True:
            try:
                count = len(self.socket.recv(SLOTS))
            except BlockingIOError:
                pace.waited()
                continue
            if not count:
                raise ConnectionError("the peer left")
            return count


def _limit_in_kernel(connected: socket.socket) -> None:
    """A blocking socket with a limit in the kernel: one call does all there is to do, however many packets bring it."""
    connected.settimeout(None)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(BEAT_S), 0))
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(STALL_S), 0))
