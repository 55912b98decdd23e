"""One session: its numbered batches, the replies it keeps, and the stream that is attached to it.

Every method runs on the event loop's thread, but for those that say otherwise. Batches come from there or, over a lane,
on the engine's thread, and are answered by the engine: a lock keeps their ledger whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tensorcompute.wire.packed import calls_in as packed_calls
from tensorcompute.wire.varint import field
from tserver.engine.rest import Rest
from tserver.errors import Exhausted, InvalidArgument, SequenceGap, SessionLost, Stopping, Superseded
from tserver.session.attachment import MAX_WAITING_BYTES, Attachment, StreamAttachment, post
from tserver.session.batch_lane import BatchLane
from tserver.session.keeping import Head
from tserver.session.secret import id_of

if TYPE_CHECKING:
    from tserver.config import Config
    from tserver.engine.looking import Listing, Looked
    from tserver.engine.object_store import ObjectStore, Staged
    from tserver.engine.operations import Operation
    from tserver.engine.session_queue import SessionQueue
    from tserver.engine.uploads import Upload
    from tserver.session.lane import Lane

log = logging.getLogger("tserver.session")
T = TypeVar("T")
_MEANWHILE_S = 5.0
# Requests of one session that may wait for the engine, besides those that a stream or a lane holds back.
MAX_WAITING = 1024


def frame(reply: bytes) -> bytes:
    """An ExecuteResponse, or an ExecuteStreamResponse: they are the same bytes, field 1 with the BatchReply in it."""
    return field(b"\x0a", reply)


def taken_over() -> Superseded:
    """What is told to who had the session before somebody attached to it."""
    return Superseded("another process has attached to this session and goes on with it; attach to take it back")


def _finish(rested: asyncio.Future[None]) -> None:
    if not rested.done():
        rested.set_result(None)


async def _done(running: Future[T]) -> T:
    # Shielded: a caller who goes away does not undo what was accepted.
    return await asyncio.shield(asyncio.wrap_future(running))


async def _if_wanted(running: Future[T]) -> T:
    """The same for what is not to be done any more if the caller goes away before it has begun."""
    try:
        return await _done(running)
    except asyncio.CancelledError:
        running.cancel()
        raise


def _done_for_thread(running: Future[T], meanwhile: Callable[[], None]) -> T:
    while not running.done():
        with contextlib.suppress(TimeoutError):
            return running.result(_MEANWHILE_S)
        meanwhile()
    return running.result()


class Seen(NamedTuple):
    """What others may be shown of a session: nothing by which it could be used."""

    id: str
    principal: str
    # Whether somebody is there; if not, how long the session waits for that.
    is_attached: bool
    lease_left_s: float
    opened_unix_s: float
    # The number of the last batch; how many wait or run; and replies that are not acknowledged.
    batches: int
    waiting: int
    kept_bytes: int
    # As the engine last counted them.
    tensors: int
    held_bytes: int
    # What its client says of itself, and the host that it calls from.
    client: str
    peer: str


class Taken(NamedTuple):
    """A session that somebody has attached to."""

    session: Session
    # The number of the last batch.
    received: int
    # An id from which on none is in use.
    next_id: int
    # Effects that were lost, and nobody was told of.
    errors: Sequence[pb.Error]


class Session:
    """The order, the replies and the lease of one session."""

    def __init__(
        self, secret: bytes, principal: str, queue: SessionQueue, *, config: Config, before: Session | None = None
    ) -> None:
        """`before` is who had the session until now: its numbers go on here."""
        self.secret = secret
        # What it is called where others may read it; the same whoever holds it.
        self.id: str = id_of(secret) if before is None else before.id
        self.principal = principal
        # What its client says of itself, and the host that it calls from.
        self.client = self.peer = ""
        # Whose callers without a session have this one; empty where it was opened.
        self.shared_by = ""
        self.queue = queue
        self.lease_s = config.lease_s
        self._max_unacked_bytes = config.max_unacked_bytes
        self._max_message_bytes = config.max_message_bytes
        self.window = config.max_batches_in_flight
        self._loop = asyncio.get_running_loop()
        # Held while the ledger is read or changed: what was received, acknowledged, kept, and who is attached.
        self._lock = threading.Lock()
        self._received = self._acked = 0
        self._kept: dict[int, bytes] = {}
        self._kept_bytes = 0
        self._cancelled = 0
        self._running: dict[int, list[asyncio.Future[bytes]]] = {}
        self._unnumbered = 0
        # Of batches that came alone, and have no reply yet.
        self._executing_bytes = 0
        # Set when nothing is under way any more; made by who waits for that.
        self._idle: asyncio.Event | None = None
        self._attachment: Attachment | None = None
        # Those that carry no batches.
        self._lanes: set[Lane] = set()
        self._expires_at = time.monotonic() + self.lease_s
        self._opened_unix_s: float = time.time() if before is None else before._opened_unix_s
        self._lost: SessionLost | Superseded | None = None
        # What ends when somebody takes the session over is this object; what the session holds goes on with the next.
        self._before = before
        self._account = queue.store.account
        self._is_waking = False
        if before is not None:
            self._received = self._acked = before._give_up()
        # Where it has come to rest, for another process to go on with: nothing is accepted any more.
        self._is_resting = False
        # How far the next batch has come, if it was begun.
        self._next_begun: dict[str, Any] | None = None
        # How many bytes have moved in chunks.
        self.chunk_bytes = 0
        # The secrets that it had, and what is told to who has attached, by which attempt; None where nobody has.
        self.former: tuple[bytes, ...] = ()
        self.attempt = b""
        self.taking: asyncio.Task[Taken] | None = None

    @property
    def received(self) -> int:
        """The number of the last batch."""
        return self._received

    # --- the lease ---

    def touch(self) -> None:
        """Begin the lease anew: somebody is here."""
        self._expires_at = time.monotonic() + self.lease_s

    def check_alive(self) -> None:
        """Begin the lease anew, if the session is there. From any thread. Raises: SessionLost, Superseded."""
        self._check_open()
        self.touch()

    def progress(self, forward_id: int = 0) -> ts.GetSessionProgressResponse:
        """What came, and what of it is answered. The engine may be busy with something else."""
        self.touch()
        with self._lock:
            attachment = self._attachment
            answered = min(self._running, default=self._received + 1) - 1
            return ts.GetSessionProgressResponse(
                received_seq=self._received,
                answered_seq=answered,
                kept_bytes=self._kept_bytes,
                has_unread=isinstance(attachment, BatchLane) and attachment.has_unread(),
                has_forward=bool(forward_id) and any(lane.may_have(forward_id) for lane in self._lanes),
                waiting=self.queue.waiting,
                chunk_bytes=self.chunk_bytes,
            )

    def seen(self) -> Seen:
        """What there is to see of it. The lease does not begin anew, and nothing is waited for."""
        held = self.queue.store.counted
        with self._lock:
            return Seen(
                id=self.id,
                principal=self.principal,
                is_attached=self._attachment is not None,
                lease_left_s=round(max(0.0, self._expires_at - time.monotonic()), 1),
                opened_unix_s=self._opened_unix_s,
                batches=self._received,
                waiting=len(self._running) + self._unnumbered,
                kept_bytes=self._kept_bytes,
                tensors=held.tensors,
                held_bytes=held.held_bytes,
                client=self.client,
                peer=self.peer,
            )

    @property
    def version(self) -> int:
        """Changes whenever what is held may have."""
        return self.queue.store.version

    async def listing(self) -> Listing:
        """All tensors, as `seen`. Raises: SessionLost, Superseded."""
        self._check_open()
        return await _if_wanted(self.queue.listing())

    async def look(self, name: tuple[int, ...], at: int) -> Looked:
        """One tensor, as `seen`. Raises: SessionLost, Superseded; what the engine raises."""
        self._check_open()
        return await _if_wanted(self.queue.look(name, at))

    async def tensors_for_others(self, request: ts.ListTensorsRequest) -> ts.ListTensorsResponse:
        """As `list_tensors`; the lease is as it was."""
        self._check_open()
        return await _if_wanted(self.queue.list_tensors(request))

    def expired(self, now: float) -> bool:
        """Whether the lease has run out with nobody attached and nothing running."""
        return self._attachment is None and not self._running and not self._unnumbered and now > self._expires_at

    def end(self, cause: str) -> None:
        """End the session: let go of all it holds, and tell those who wait."""
        with self._lock:
            if self._lost is not None:
                return
            lost = SessionLost(f"the session ended: {cause}", cause=cause)
            for waiters in self._running.values():
                self._fail(waiters, lost)
            self._let_go(lost)
            self._kept.clear()
        self.queue.close()

    def _let_go(self, lost: SessionLost | Superseded) -> None:
        """Nothing comes from here any more. The lock is held."""
        self._lost = lost
        if self._attachment is not None:
            self._attachment.end(lost)
        for lane in self._lanes:
            lane.shut()

    # --- another holder ---

    def _give_up(self) -> int:
        """Somebody has taken the session over: what was accepted runs to its end. The number of the last batch."""
        with self._lock:
            self._check_open()
            self._let_go(taken_over())
            return self._received

    async def taken(self) -> list[pb.Error]:
        """Wait until all has run that came from who had the session before; the effects that were lost and that nobody
        was told of.
        """
        before, self._before = self._before, None
        self._unnumbered += 1
        try:
            if before is None:
                return []
            await before.idle(None)
            return before._untold()
        finally:
            self._unnumbered -= 1
            self._note_idle()
            self.touch()

    async def begin_anew(self) -> int:
        """Forget what only the holder before knows by number; an id from which on none is in use."""
        return await _done(self._open_queue().begin_anew())

    def _untold(self) -> list[pb.Error]:
        found: dict[tuple[int, int], pb.Error] = {}
        for framed in self._kept.values():
            for result in ts.ExecuteResponse.FromString(framed).reply.results:
                if result.lost_effect:
                    error = result.error
                    found.setdefault((error.batch_seq, error.call_index), error)
        self._kept.clear()
        return list(found.values())

    def _fail(self, waiters: list[asyncio.Future[bytes]], error: Exception) -> None:
        """Tell who waits for a reply. From any thread."""

        def tell() -> None:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error)

        if waiters:
            post(self._loop, tell)

    # --- from one process to the next ---

    def come_to_rest(self) -> tuple[Rest, asyncio.Future[None]]:
        """Run and accept no more batches from the next point on where that may be. The future is done when nothing is
        under way any more but what `idle` waits for.
        """
        rested: asyncio.Future[None] = self._loop.create_future()

        def begin() -> None:
            with self._lock:
                self._is_resting = True

        def end(seqs: list[int], begun: dict[str, Any] | None) -> None:
            refusal = Stopping("the server is stopping; retry later")
            with self._lock:
                # As if they had never come: they will come again.
                for seq in seqs:
                    self._fail(self._running.pop(seq, []), refusal)
                if seqs:
                    self._received = seqs[0] - 1
                self._next_begun = begun
            post(self._loop, _finish, rested)

        rest = Rest(begin, end)
        self.queue.come_to_rest(rest)
        return rest, rested

    async def save(self, folder: Path, device: str) -> Head:
        """Write what a session holds that has come to rest into a folder; what else there is to know of it. `device` is
        what kind it is on.
        """
        saved = await _done(self.queue.save(folder))
        left_s = self.lease_s if self._attachment is not None else self._expires_at - time.monotonic()
        if saved.left_out:
            log.warning("not all of a session is kept", extra={"session": self.id, "left_out": saved.left_out[:20]})
        with self._lock:
            return Head(
                principal=self.principal,
                lease_s=self.lease_s,
                expires_unix_s=time.time() + left_s,
                received=self._received,
                acked=self._acked,
                kept=dict(self._kept),
                begun=self._next_begun,
                files=saved.files,
                device=device,
            )

    def go_on(self, head: Head, folder: Path, done: Callable[[str], None]) -> None:
        """Be a session that was saved. What comes from now on waits until all is there; `done` is told, on the engine's
        thread, why that failed, and the session ends then, or that it did not.
        """
        self.lease_s = head.lease_s
        self._received, self._acked, self._kept = head.received, head.acked, dict(head.kept)
        self._kept_bytes = sum(map(len, head.kept.values()))

        def loaded(future: Future[None]) -> None:
            error = future.exception()
            cause = "" if error is None else f"it could not be brought back after the restart: {error}"
            if cause:
                # Now: the next batch is behind this.
                self.end(cause)
            done(cause)

        self.queue.load(folder, head.files, head.begun).add_done_callback(loaded)

    # --- streams and lanes ---

    def attach_stream(self) -> StreamAttachment:
        """A new gRPC stream that is the current attachment."""
        stream = StreamAttachment(self.window)
        self.attach(stream)
        return stream

    def open_lane(self, connection: socket.socket) -> None:
        """Take batches over a connection, which has proved that it is for this session. From any thread.

        Raises: SessionLost, OSError.
        """
        lane = BatchLane(self, connection, self.queue.ready, self.queue.share, self._max_message_bytes)
        self.attach(lane)
        try:
            lane.start()
        except OSError:
            self.detach(lane)
            raise

    def add_lane(self, lane: Lane) -> None:
        """A lane that carries no batches, and ends with the session. From any thread. Raises: SessionLost."""
        with self._lock:
            self._check_open()
            self._lanes.add(lane)

    def remove_lane(self, lane: Lane) -> None:
        """It has ended. From any thread."""
        with self._lock:
            self._lanes.discard(lane)

    def attach(self, attachment: Attachment) -> None:
        """Make an attachment the current one; the one before it ends. From any thread. Raises: SessionLost."""
        with self._lock:
            self._check_open()
            if self._attachment is not None:
                self._attachment.end(Superseded("another stream of this session has taken over"))
            self._attachment = attachment

    def detach(self, attachment: Attachment) -> None:
        """An attachment has ended; the lease begins, if it was the current one. From any thread."""
        with self._lock:
            if self._attachment is attachment:
                self._attachment = None
                self.touch()

    async def idle(self, timeout_s: float | None) -> None:
        """Wait until nothing is under way, or the time is up; None is for as long as it takes."""
        # Made before it is looked whether there is something to wait for: the engine's thread does it the other way.
        self._idle = self._idle or asyncio.Event()
        self._idle.clear()
        if (timeout_s is None or timeout_s > 0) and (self._running or self._unnumbered):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)

    # --- batches ---

    def receive(self, batch: pb.Batch, attachment: Attachment, size_bytes: int) -> None:
        """Take a batch of that size from an attachment, on its thread. Its reply goes to the one that is current when
        it is there.

        Raises: SequenceGap, Exhausted, InvalidArgument, Superseded, SessionLost.
        """
        with self._lock:
            if attachment is not self._attachment:
                raise self._lost or Superseded("another stream of this session has taken over")
            if self._is_resting:
                # It comes again when this connection has ended with the process.
                return
            if 0 < batch.seq <= self._acked:
                # Sent again, though the client has the reply and has said so.
                return
            kept = self._accept(batch)
            if kept is not None:
                attachment.give(kept)
            else:
                attachment.want(batch.seq, size_bytes)
                if self._account is not None:
                    self._account.total_bytes += size_bytes

    # --- rates ---

    def wait_s(self) -> float:
        """How long no batch is to be taken, as the principal has sent more than it may."""
        account = self._account
        return 0.0 if account is None or not account.is_paced else account.wait_s()

    def must_wait(self, again: Callable[[], None]) -> bool:
        """Whether that is so now; `again` is called on the event loop when it may be over. From any thread."""
        wait_s = self.wait_s()
        if wait_s > 0 and not self._is_waking:
            self._is_waking = True

            def wake() -> None:
                self._is_waking = False
                again()

            post(self._loop, self._loop.call_later, wait_s, wake)
        return wait_s > 0

    def _take(self, batch: pb.Batch) -> None:
        account = self._account
        if account is not None and account.is_paced:
            account.take(len(batch.calls) + packed_calls(batch.packed), batch.ByteSize())

    async def execute(self, batch: pb.Batch) -> bytes:
        """Run a batch, or join it, or get its kept reply; the framed response.

        Raises: as `receive`.
        """
        self.touch()
        if batch.seq > self._received and self.wait_s() > 0 and self._account is not None:
            # One that waited could be overtaken by the one behind it.
            self._account.check_rates()
        size_bytes = batch.ByteSize()
        if self._executing_bytes and self._executing_bytes + size_bytes > MAX_WAITING_BYTES:
            raise Exhausted(
                f"batches of {self._executing_bytes} bytes are under way, which is the limit; wait for a reply",
                retry_after_s="0.05",
            )
        with self._lock:
            self._check_window(batch.seq)
            kept = self._accept(batch)
            joined = self._join(batch.seq) if kept is None else None
        if joined is None:
            return kept or b""
        self._executing_bytes += size_bytes
        if self._account is not None:
            self._account.total_bytes += size_bytes
        try:
            return await joined
        finally:
            self._executing_bytes -= size_bytes

    def cancel(self, through: int) -> int:
        """Have no call begin any more of the batches up to that number, or up to the last one; how many there were."""
        self.touch()
        with self._lock:
            self._check_open()
            self._cancelled = max(self._cancelled, through)
            return self.queue.cancel()

    async def call(
        self, batch: pb.Batch, operations: Sequence[Operation | str], deadline: float | None = None
    ) -> pb.BatchReply:
        """Run calls of a typed RPC. With a seq they take their place among the batches, and are applied once. Without,
        they are not run behind the deadline (time.monotonic), nor for a caller who has gone.
        """
        self.touch()
        if batch.seq:
            with self._lock:
                self._check_window(batch.seq)
                kept = self._accept(batch, operations)
                joined = self._join(batch.seq) if kept is None else None
            framed = await joined if joined is not None else kept or b""
            return ts.ExecuteResponse.FromString(framed).reply
        self._open_queue()
        if self._is_resting:
            raise Stopping("the server is stopping; retry later")
        answer: asyncio.Future[bytes] = self._loop.create_future()
        if (wait_s := self.wait_s()) > 0:
            await asyncio.sleep(wait_s)
            self._check_open()
        self._take(batch)
        if self._account is not None:
            self._account.total_bytes += batch.ByteSize()
        self._unnumbered += 1
        give_up = self.queue.submit_typed(
            batch,
            operations,
            lambda reply: post(self._loop, self._answer, answer, reply),
            math.inf if deadline is None else deadline,
        )
        try:
            # Shielded: what has begun is run to its end.
            return pb.BatchReply.FromString(await asyncio.shield(answer))
        except asyncio.CancelledError:
            give_up()
            raise

    # --- tensors, in their place among the calls ---

    async def get_tensor(self, request: ts.GetTensorRequest, max_data_bytes: int | None = None) -> ts.GetTensorResponse:
        """Describe a tensor. Raises: what the engine raises, as do those below."""
        return await _if_wanted(self._open_queue().get_tensor(request, max_data_bytes))

    async def list_tensors(self, request: ts.ListTensorsRequest) -> ts.ListTensorsResponse:
        """One page of the tensors."""
        return await _if_wanted(self._open_queue().list_tensors(request))

    async def free_tensors(self, request: ts.FreeTensorsRequest) -> ts.FreeTensorsResponse:
        """Let tensors go."""
        return await _if_wanted(self._open_queue().free_tensors(request))

    async def run(self, function: Callable[[ObjectStore], T]) -> T:
        """Run a function of the engine's on its thread."""
        return await _done(self._open_queue().run(function))

    async def run_in_pieces(self, function: Callable[[ObjectStore], Generator[None, None, T]]) -> T:
        """The same for what may take long: other sessions have their time wherever the function yields."""
        return await _done(self._open_queue().run_in_pieces(function))

    # --- bulk ---

    async def _paid(self) -> None:
        """Wait until nothing is owed of what came and went before."""
        while (wait_s := self.wait_s()) > 0:
            await asyncio.sleep(min(wait_s, _MEANWHILE_S))
            self._check_open()

    def _paid_for_thread(self, meanwhile: Callable[[], None]) -> None:
        while (wait_s := self.wait_s()) > 0:
            time.sleep(min(wait_s, _MEANWHILE_S))
            meanwhile()
            self._check_open()

    def _moving(self, size_bytes: int) -> None:
        """So many bytes are about to come or go."""
        account = self._account
        if account is not None:
            account.total_bytes += size_bytes
            if account.is_paced:
                account.take(0, size_bytes)

    async def stage(self, ref: pb.Ref) -> Staged:
        """The elements of a tensor, as they are at this place, to be sent."""
        await self._paid()
        staged = await _done(self._open_queue().stage(ref))
        self._moving(len(staged.data))
        return staged

    async def begin_upload(self, header: ts.UploadHeader) -> Upload:
        """Memory for an upload. Cancelled, it leaves none behind. Raises: InvalidArgument, Exhausted."""
        await self._paid()
        return await self._begun(self._open_queue().begin_upload(header))

    async def begin_named_upload(self, header: ts.UploadHeader) -> Upload:
        """The same for an upload that calls may name from now on, and that is complete as soon as it says so.

        Raises: AlreadyExists, too.
        """
        await self._paid()
        return await self._begun(self._open_queue().begin_named_upload(header))

    async def _begun(self, begun: Future[Upload]) -> Upload:
        try:
            upload = await _done(begun)
            self._moving(len(upload.data))
            return upload
        except asyncio.CancelledError:
            # It may still begin.
            begun.add_done_callback(self._drop_begun)
            raise

    async def finish_upload(self, header: ts.UploadHeader, upload: Upload) -> pb.TensorMeta | None:
        """Keep an upload that is complete, or make a tensor of it and describe that."""
        return await _done(self._open_queue().finish_upload(header, upload))

    def complete_upload(self, upload: Upload) -> None:
        """All bytes of an upload that calls may name are there. From any thread. Raises: ConnectionError."""
        self.queue.store.uploads.finish(upload)

    def drop_upload(self, upload: Upload) -> None:
        """Let an upload go that failed. From any thread."""
        self.queue.drop_upload(upload)

    # From threads that are neither the event loop's nor the engine's; `meanwhile` is called every few seconds.

    def stage_from_thread(self, ref: pb.Ref, meanwhile: Callable[[], None]) -> Staged:
        """As `stage`."""
        self._paid_for_thread(meanwhile)
        staged = _done_for_thread(self._open_queue().stage(ref), meanwhile)
        self._moving(len(staged.data))
        return staged

    def begin_upload_from_thread(self, header: ts.UploadHeader, meanwhile: Callable[[], None]) -> Upload:
        """As `begin_named_upload`."""
        self._paid_for_thread(meanwhile)
        upload = _done_for_thread(self._open_queue().begin_named_upload(header), meanwhile)
        self._moving(len(upload.data))
        return upload

    def finish_upload_from_thread(self, header: ts.UploadHeader, upload: Upload) -> None:
        """As `finish_upload`."""
        self._open_queue().finish_upload(header, upload).result()

    def _drop_begun(self, begun: Future[Upload]) -> None:
        if not begun.cancelled() and begun.exception() is None:
            self.queue.drop_upload(begun.result())

    def _open_queue(self) -> SessionQueue:
        self.check_alive()
        if (count := self.queue.waiting) >= MAX_WAITING:
            raise Exhausted(f"{count} requests of this session wait, which is the limit", retry_after_s="0.05")
        return self.queue

    def _check_window(self, seq: int) -> None:
        if len(self._running) >= self.window and seq > self._received:
            raise Exhausted(
                f"{len(self._running)} batches of this session are under way, which is the limit; wait for a reply",
                retry_after_s="0.05",
            )

    def _check_open(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _accept(self, batch: pb.Batch, operations: Sequence[Operation | str] | None = None) -> bytes | None:
        """Start a new batch (None), find one that runs (None), or the kept reply of one that ran."""
        self._check_open()
        if self._is_resting:
            raise Stopping("the server is stopping; retry later")
        seq = batch.seq
        if not seq:
            raise InvalidArgument("batch.seq is 0; batches are numbered from 1")
        self._acknowledge(batch.acked)
        if seq <= self._received:
            if seq in self._running:
                return None
            if seq in self._kept:
                return self._kept[seq]
            raise InvalidArgument(f"batch {seq} was acknowledged (acked is {self._acked}); its reply is no longer kept")
        if seq != self._received + 1:
            raise SequenceGap(
                f"batch {seq} is not the next one; the session expects {self._received + 1}",
                expected=str(self._received + 1),
            )
        if self._kept_bytes > self._max_unacked_bytes:
            raise Exhausted(
                f"replies of {self._kept_bytes} bytes are not acknowledged (limit {self._max_unacked_bytes}); "
                "acknowledge those you have, then send again",
                retry_after_s="0.1",
            )
        self._received = seq
        self._running[seq] = []
        self._take(batch)
        if operations is None:
            self.queue.submit(batch, lambda reply: self._finish(seq, reply))
        else:
            self.queue.submit_typed(batch, operations, lambda reply: self._finish(seq, reply))
        if seq <= self._cancelled:
            # It was on its way.
            self.queue.cancel()
        return None

    def _join(self, seq: int) -> asyncio.Future[bytes]:
        waiter: asyncio.Future[bytes] = self._loop.create_future()
        self._running[seq].append(waiter)
        return waiter

    def _acknowledge(self, acked: int) -> None:
        if acked > self._received:
            raise InvalidArgument(f"acked is {acked}, but only {self._received} batches were sent")
        while self._acked < acked:
            self._acked += 1
            self._kept_bytes -= len(self._kept.pop(self._acked, b""))

    def _finish(self, seq: int, reply: bytes) -> None:
        """A batch is answered. On the engine's thread, or one that waited for the device."""
        framed = frame(reply)
        with self._lock:
            waiters = self._running.pop(seq, [])
            if not isinstance(self._lost, SessionLost):
                if seq > self._acked:
                    self._kept[seq] = framed
                    self._kept_bytes += len(framed)
                if self._attachment is not None and self._lost is None:
                    self._attachment.answer(seq, framed)
        if waiters or self._idle is not None:
            post(self._loop, self._tell, waiters, framed)

    def _tell(self, waiters: list[asyncio.Future[bytes]], framed: bytes) -> None:
        self._note_idle()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(framed)

    def _note_idle(self) -> None:
        if self._idle is not None and not self._running and not self._unnumbered:
            self._idle.set()

    def _answer(self, answer: asyncio.Future[bytes], reply: bytes) -> None:
        self._unnumbered -= 1
        self._note_idle()
        if not answer.done():
            answer.set_result(reply)
