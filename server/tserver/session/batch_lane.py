"""The batches of a session over a lane: the same messages as on ExecuteStream, run where they are read."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.errors import InvalidArgument
from tserver.session.attachment import MAX_WAITING_BYTES
from tserver.session.lane import Lane

if TYPE_CHECKING:
    from tensorcompute.v1 import tensor_pb2 as pb
    from tserver.engine.ready import ReadyQueue
    from tserver.engine.shares import Share
    from tserver.session.attachment import Attachment


class TakesBatches(Protocol):
    """What the lane needs of its session."""

    # How many batches may be under way.
    window: int

    def receive(self, batch: pb.Batch, attachment: Attachment, size_bytes: int) -> None:
        """Take a batch."""

    def must_wait(self, again: Callable[[], None]) -> bool:
        """Whether no batch is to be taken now; `again` is called when one may be."""

    def detach(self, attachment: Attachment) -> None:
        """The attachment has ended."""


class BatchLane(Lane):
    """An attachment of a session, for as long as that has no newer one."""

    def __init__(
        self,
        session: TakesBatches,
        connection: socket.socket,
        ready: ReadyQueue,
        share: Share,
        max_message_bytes: int,
    ) -> None:
        super().__init__(connection, ready, share, max_message_bytes)
        self._session = session
        # The batches that have no reply yet, and their sizes.
        self._wanted: dict[int, int] = {}
        self._wanted_bytes = 0

    # --- as an attachment: the session's lock is held ---

    def want(self, seq: int, size_bytes: int) -> None:
        """See Attachment."""
        self._wanted[seq] = size_bytes
        self._wanted_bytes += size_bytes

    def answer(self, seq: int, reply: bytes) -> None:
        """See Attachment."""
        size_bytes = self._wanted.pop(seq, None)
        if size_bytes is not None:
            self._wanted_bytes -= size_bytes
            self.send(reply)
            self.look_again()

    def give(self, reply: bytes) -> None:
        """See Attachment."""
        self.send(reply)

    def end(self, error: Exception) -> None:
        """See Attachment."""
        del error
        self.shut()

    # --- as a lane ---

    def _receive(self, message: bytes) -> None:
        request = ts.ExecuteStreamRequest.FromString(message)
        if not request.HasField("batch") or request.session:
            raise InvalidArgument("a message of a lane is not one batch")
        self._session.receive(request.batch, self, len(message))

    def _has_room(self) -> bool:
        session = self._session
        if len(self._wanted) >= session.window or self._wanted_bytes > MAX_WAITING_BYTES:
            return False
        return not session.must_wait(self.look_again)

    def _ended(self) -> None:
        self._session.detach(self)
