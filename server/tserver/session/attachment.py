"""Where the replies to a session's batches go: to the stream, or the lane, that is attached to it.

A session has one at a time. Whoever attaches next takes over, and the one before it ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

# While so much of what was sent is not answered, nothing more is read, whatever the window.
MAX_WAITING_BYTES = 32 << 20


class Attachment(Protocol):
    """What sends batches and is sent the replies to them. The session's lock is held in all of its methods."""

    def want(self, seq: int, size_bytes: int) -> None:
        """It has sent a batch of that size that is not answered yet."""

    def answer(self, seq: int, reply: bytes) -> None:
        """A batch is answered: its reply goes out if the batch came from here. From any thread."""

    def give(self, reply: bytes) -> None:
        """A reply that was kept."""

    def end(self, error: Exception) -> None:
        """The session has ended, or another attachment has taken over. From any thread."""


class StreamAttachment:
    """A gRPC stream. Lives on the event loop; what comes from other threads is posted there.

    Each reply passes here, so this does what asyncio.Queue and asyncio.Event would, with less between.
    """

    def __init__(self, window: int) -> None:
        # Replies; an error that ends the stream; None when the client has sent all it will send.
        self.replies: deque[bytes | Exception | None] = deque()
        # The batches that this stream has sent and has no reply to, and their sizes: it gets no other's.
        self.wanted: dict[int, int] = {}
        self._wanted_bytes = 0
        self._window = window
        self._loop = asyncio.get_running_loop()
        self._is_over = False
        # Who waits for a reply, and who waits for room.
        self._sender: asyncio.Future[None] | None = None
        self._receiver: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """Whether it may not send more before it has replies, and takes them."""
        window = self._window
        return len(self.wanted) >= window or self._wanted_bytes > MAX_WAITING_BYTES or len(self.replies) >= 2 * window

    def want(self, seq: int, size_bytes: int) -> None:
        """See Attachment."""
        self.wanted[seq] = size_bytes
        self._wanted_bytes += size_bytes

    def answer(self, seq: int, reply: bytes) -> None:
        """See Attachment."""
        self._post(self._answer, seq, reply)

    def give(self, reply: bytes) -> None:
        """See Attachment."""
        self.put(reply)

    def end(self, error: Exception) -> None:
        """See Attachment."""
        self._post(self._end, error)

    def put(self, reply: bytes | Exception | None) -> None:
        """Give the stream a reply, or its end."""
        self.replies.append(reply)
        sender = self._sender
        if sender is not None:
            self._sender = None
            if not sender.done():
                sender.set_result(None)

    async def reply(self) -> None:
        """Wait until something is among the replies. For one task."""
        if not self.replies:
            self._sender = self._loop.create_future()
            await self._sender

    async def room(self) -> None:
        """Wait until the stream may send on. For one task."""
        while self.full and not self._is_over:
            self._receiver = self._loop.create_future()
            await self._receiver

    def _answer(self, seq: int, reply: bytes) -> None:
        size_bytes = self.wanted.pop(seq, None)
        if size_bytes is not None:
            self._wanted_bytes -= size_bytes
            self.put(reply)
            if self._receiver is not None:
                self.make_room()

    def _end(self, error: Exception) -> None:
        self._is_over = True
        self.put(error)
        self.make_room()

    def make_room(self) -> None:
        """A reply was taken, or there is one: who waits for room looks again."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None and not receiver.done():
            receiver.set_result(None)

    def _post(self, function: object, *arguments: object) -> None:
        post(self._loop, function, *arguments)


def post(loop: asyncio.AbstractEventLoop, function: object, *arguments: object) -> None:
    """Have the event loop call a function; at the very end there may be no loop to tell. From any thread."""
    try:
        loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]
    except RuntimeError:
        if not loop.is_closed():
            raise
