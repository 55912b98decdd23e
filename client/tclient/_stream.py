"""The stream of one session: batches out, replies in, and the way back after a broken connection.

One thread sends and one reads. Batches are made of whatever waits at that moment: by the sending thread when it is
idle, by an issuing thread when many calls wait, by a thread that is about to wait for an answer. A batch stays in
`inflight` until it is answered; when the connection breaks, a new RPC sends again what is there, in order, and the
server applies each batch once. Knows batches, not tensors.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from tclient import _wire
from tclient._batch import Batch, answered, definitions
from tclient._cell import Call
from tclient._connection import is_resumable, message_limit, translate
from tclient._context import CONTEXTS
from tclient._exceptions import ServerFailed, SessionLost, TensorError
from tclient._operations import USED
from tclient._oversize import FRAME_BYTES, HEAVY_BYTES, frees_of, refuse
from tclient._replies import SMALL_BYTES, values_of
from tensorcompute.v1 import tensor_service_pb2 as rpc

if TYPE_CHECKING:
    from tclient._duplex import Duplex
    from tclient._session import Session

log = logging.getLogger("tclient")

# Batches that may be on their way. More would not hide more latency, only make batches smaller.
WINDOW = 4
_MAX_BATCH_CALLS = 4096
_MAX_BATCH_BYTES = 1 << 20
# What one result takes that is let go, at most.
_FREE_BYTES = 64
# Pending calls from which on an issuing thread sends them itself; 256 measured best, 64 costs 8 % more.
RELIEF = 256
# How often a sender without calls looks for tensors that were dropped.
_POLL_S = 0.04
_POLLS_BEFORE_DOZING = 25
_RESTART_S = 20.0


class Sender:
    """What one RPC has to send. Another one follows it after a break."""

    def __init__(self, rpc: Duplex, resend: Iterable[Batch] = ()) -> None:
        self.rpc = rpc
        # Batches to send; None says that there may be something to do.
        self.queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        for batch in resend:
            self.queue.put(batch)
        # True while it waits for a call with the window open.
        self.idle = False
        self.ended = False


class Stream:
    """Sends what is pending and settles what comes back."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self.inflight: deque[Batch] = deque()
        self._acked = 0
        # The newest batch; to begin with, one that was never needed.
        self._newest = answered(0, (0, 0))
        self._stopped = False
        limit = session.limits.max_batches_in_flight
        self._window = min(WINDOW, limit) if limit else WINDOW
        self._hard_window = limit or 4 * WINDOW
        self._opening = _wire.field(b"\x0a", session.secret)
        self._sender = Sender(session.connection.execute_stream(self._opening))
        self._reader = threading.Thread(target=self._run, args=(self._read,), name="tclient-reader", daemon=True)

    def start(self) -> None:
        """Begins to send and to read."""
        threading.Thread(target=self._run, args=(self._send,), name="tclient-sender", daemon=True).start()
        self._reader.start()

    def _run(self, work: Callable[[], None]) -> None:
        session = self._session
        try:
            work()
        except TensorError as error:
            session.die(error)
        except BaseException as error:
            log.exception("a thread of the session with %s failed", session.address)
            session.die(ServerFailed(f"the client could not go on with {session.address}: {error!r}"))

    # ---- the issuing threads -------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Says to an idle sender that a call waits."""
        sender = self._sender
        if sender.idle:
            self._set_idle(sender, False)
            sender.queue.put(None)

    def token(self) -> None:
        """Wakes the sender for something other than a call."""
        self._sender.queue.put(None)

    def hand_over(self) -> None:
        """Sends what is pending from the issuing thread, if the window is open.

        A thread in a tight loop would keep the interpreter from the sender for 5 ms; so it makes the batch itself, and
        then yields once, for gRPC's threads to run.
        """
        session = self._session
        with self._lock:
            batch = self._form() if len(self.inflight) < self._window else None
            session.relief = len(session.pending) + RELIEF
        if batch is not None:
            time.sleep(0)

    def flush(self) -> None:
        """Sends all that is pending, whatever the window: somebody waits for it."""
        with self._lock:
            alone = not self.inflight
            while self._session.pending and len(self.inflight) < self._hard_window:
                if self._form(alone=alone) is None:
                    break
                alone = False

    def last(self) -> Any:
        """What is answered last of all that was issued: a Call or a Batch; None if nothing is on its way."""
        with self._lock:
            pending = self._session.pending
            if pending:
                return pending[-1]
            if not self.inflight:
                return None
            # A batch may be made anew, of the same calls.
            batch = self.inflight[-1]
            return batch.calls[-1] if batch.calls else batch

    def _set_idle(self, sender: Sender, idle: bool) -> None:
        session = self._session
        with self._lock:
            sender.idle = idle
            session.attention = self._sender.idle or session.synchronous or session.dead is not None

    # ---- the sender (a thread of ours) ---------------------------------------------------------------------------

    def _send(self) -> None:
        sender = None
        while sender is not self._sender:
            sender = self._sender
            while (batch := self._next_batch(sender)) is not None:
                sender.rpc.send(batch.message, batch.alone)

    def _next_batch(self, sender: Sender) -> Batch | None:
        """The next batch to send; blocks until there is one. None when the sender has ended."""
        session = self._session
        polls = 0
        doze = False
        while not sender.ended:
            idle = len(self.inflight) < self._window
            if idle is not sender.idle:
                self._set_idle(sender, idle)
            if idle and session.pending:
                sender.queue.put(None)
            try:
                batch = sender.queue.get(timeout=None if doze or not idle else _POLL_S)
            except queue.Empty:
                # Nothing to do but to let dropped tensors go.
                polls += 1
                if session.drops:
                    with self._lock:
                        while session.drops and sender is self._sender and len(self.inflight) < self._window:
                            if self._form(frees_alone=True) is None:
                                break
                    polls = 0
                if polls > _POLLS_BEFORE_DOZING:
                    # From here on a dropped tensor wakes the sender (Session.rouse), if none was just now.
                    session.dozing = True
                    doze = not session.drops
                continue
            session.dozing = doze = False
            polls = 0
            if batch is not None:
                if sender.idle:
                    self._set_idle(sender, False)
                return batch
            if session.pending and len(self.inflight) < self._window:
                with self._lock:
                    if sender is self._sender:
                        self._form()
        return None

    def _form(self, frees_alone: bool = False, alone: bool = False) -> Batch | None:
        """Makes a batch of what is pending and hands it to the sender. The caller holds the lock.

        Ctrl-C may strike at any line. Up to the one that sets `_newest` nothing has happened; what is behind it is
        finished by the next thread that comes here.
        """
        if not self._newest.committed:
            self._commit(self._newest)
        session = self._session
        pending = session.pending
        if not pending and not frees_alone:
            return None
        most = session.max_message - FRAME_BYTES
        room = min(_MAX_BATCH_BYTES, most)
        # Before the calls are taken: what is dropped now can be an argument only of calls that are already pending.
        drops: list[bytes] = []
        if frees_alone:
            with contextlib.suppress(IndexError):  # another thread was quicker
                drops.extend(session.drops.popleft() for _ in range(min(len(session.drops), room // _FREE_BYTES)))
            room -= sum(map(len, drops))
        calls = pending[:_MAX_BATCH_CALLS]
        # By now all is defined that calls which are pending name.
        before = self._newest
        operations: Sequence[str] = ()
        contexts: Sequence[bytes] = ()
        size = 0
        if before.operations < len(USED) or before.contexts < len(CONTEXTS):
            operations, contexts, size, are_all = definitions(before, room)
            room -= size
            most -= size
            if not are_all:
                calls = []
        data = [call.data for call in calls]
        if sum(map(len, data)) > room:
            sizes = list(map(len, data))
            count = bisect_right(list(itertools.accumulate(sizes)), room)
            if not count and not drops:
                # A call that is larger than a batch is one by itself.
                if sizes[0] > most and not size:
                    data[0] = refuse(session, calls[0])
                count = int(sizes[0] <= most or not size)
            del calls[count:], data[count:]
        if drops and len(calls) < len(pending):
            session.drops.extendleft(reversed(drops))
            drops = []
        if not calls and not drops and not size:
            return None
        heavy = sum([len(piece) for piece in data if len(piece) > HEAVY_BYTES]) if session.heavy else 0
        known = (before.operations, before.contexts)
        batch = Batch(before.seq + 1, calls, heavy, known[0] + len(operations), known[1] + len(contexts), known)
        batch.message = _wire.stream_message(
            seq=batch.seq, acked=self._acked, operations=operations, contexts=contexts, calls=data, frees=drops
        )
        batch.size = len(batch.message)
        batch.alone = alone and len(calls) == len(pending)
        self._newest = batch
        self._commit(batch)
        return batch

    def _commit(self, batch: Batch) -> None:
        """Moves the calls of a batch from pending to inflight, and the batch to the sender. Can be repeated."""
        session = self._session
        calls = batch.calls
        if calls and session.pending and session.pending[0] is calls[0]:
            del session.pending[: len(calls)]
            session.stats.calls += len(calls)
        if not batch.done and (not self.inflight or self.inflight[-1] is not batch):
            self.inflight.append(batch)
            session.stats.batches += 1
        for call in calls:
            call.data = b""
        session.relief = RELIEF
        self._sender.queue.put(batch)
        batch.committed = True

    # ---- the reader (a thread of ours) ---------------------------------------------------------------------------

    def _read(self) -> None:
        session = self._session
        broken_since: float | None = None
        pause_s = 0.0
        # A server that restarts needs a moment until it can say that the session is lost, and why.
        patience_s = session.lease_s + _RESTART_S
        while not self._is_stopped():
            was_refused = False
            try:
                for raw in self._sender.rpc:
                    broken_since, pause_s = None, 0.0
                    self._settle(raw)
                cause = "the server ended the stream"
            except grpc.RpcError as error:
                if self._is_stopped():
                    return
                cause = error.details() or error.code().name
                failure = translate(error, session.address)
                was_refused = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                limit = message_limit(error)
                if limit is not None:
                    self._make_smaller(limit, failure, progress=pause_s == 0.0 and broken_since is None)
                elif not is_resumable(error, failure):
                    raise failure from None
            if self._is_stopped():
                return
            now = time.monotonic()
            first = broken_since is None and pause_s == 0.0
            broken_since = broken_since or now
            if now - broken_since > patience_s:
                raise SessionLost(
                    f"the connection to {session.address} broke and could not be resumed for {patience_s:g} s "
                    f"(the session's lease is {session.lease_s:g} s), so the session is gone; last failure: {cause}"
                )
            if first and not was_refused:
                log.warning(
                    "the connection to %s broke (%s); trying again for %g s", session.address, cause, patience_s
                )
            time.sleep(pause_s)
            pause_s = min(max(pause_s * 2, 0.02), 1.0)
            self._renew()

    def _is_stopped(self) -> bool:
        return self._stopped

    def _renew(self) -> None:
        """A new sender takes over, with all that was not answered."""
        opened = self._session.connection.execute_stream(self._opening)
        with self._lock:
            old = self._sender
            for batch in self.inflight:
                batch.resent = True
            if self.inflight and self._acked:
                # What has come meanwhile is acknowledged: the server may have no room for more replies. Of two values
                # of a field the later one counts.
                first = self.inflight[0]
                first.message = first.message[: first.size] + _wire.acknowledgement(self._acked)
            self._sender = Sender(opened, self.inflight)
            old.ended = True
        old.queue.put(None)

    def _make_smaller(self, limit: int, failure: TensorError, progress: bool) -> None:
        """After a message was too large for something on the way: none is from here on.

        Nobody has seen that batch, nor those behind it: their calls wait again, and those that are too large even alone
        fail. Raises the failure where this cannot be.
        """
        session = self._session
        session.bound_messages(limit)
        with self._lock:
            if not self._newest.committed:
                self._commit(self._newest)
            batches = list(self.inflight)
            kept = next((index for index, batch in enumerate(batches) if len(batch.message) > limit), None)
            if kept is None:
                if progress or not batches:
                    return
                # A reply is too large.
                raise failure
            taken_back = batches[kept:]
            if any(batch.resent for batch in taken_back):
                raise failure
            calls: list[Call] = []
            for batch in taken_back:
                self.inflight.pop()
                batch.done = not batch.calls
                message = rpc.ExecuteStreamRequest.FromString(batch.message).batch
                for call, content in zip(batch.calls, message.calls, strict=True):
                    call.data = _wire.call([content.SerializeToString()])
                if batch.heavy:
                    # protobuf does not write a call in as many bytes as we do; what is held for it follows.
                    sizes = [len(call.data) for call in batch.calls]
                    session.settle_heavy(batch.heavy - sum(size for size in sizes if size > HEAVY_BYTES))
                calls += batch.calls
                session.drops.extend(frees_of(message))
            session.pending[:0] = calls
            self._newest = answered(taken_back[0].seq - 1, taken_back[0].known)
        session.notify()

    def _settle(self, raw: bytes) -> None:
        session = self._session
        inflight = self.inflight
        found = values_of(raw) if len(raw) <= SMALL_BYTES else None
        reply = None
        if found is not None:
            seq = found[0]
        else:
            reply = rpc.ExecuteStreamResponse.FromString(raw).reply
            seq = reply.seq
        if seq <= self._acked:
            return  # a kept reply that we already have
        if not inflight or inflight[0].seq != seq:
            raise ServerFailed(
                f"the server at {session.address} answered batch {seq}, "
                f"but batch {inflight[0].seq if inflight else 'none'} is the next to be answered"
            )
        batch = inflight[0]
        if found is not None:
            session.settle_values(batch.calls, found[1])
        elif reply is not None:
            session.settle(seq, batch.calls, reply, len(raw))
        self._acked = seq
        batch.done = True
        inflight.popleft()
        if batch.heavy:
            session.settle_heavy(batch.heavy)
        session.notify()
        if len(inflight) == self._window - 1:
            # The window has opened: what gathered meanwhile may go.
            self._sender.queue.put(None)

    # ---- the end -------------------------------------------------------------------------------------------------

    def abandon(self) -> list[Call]:
        """Gives up all calls that are not answered, and returns them."""
        with self._lock:
            self._sender.ended = True
            calls = [call for batch in self.inflight for call in batch.calls]
            for batch in self.inflight:
                batch.done = True
            calls.extend(self._session.pending)
            self.inflight.clear()
            self._session.pending.clear()
        self._sender.queue.put(None)
        return calls

    def stop(self) -> None:
        """Ends the stream."""
        self._stopped = True
        with self._lock:
            self._sender.ended = True
        self._sender.queue.put(None)
        self._sender.rpc.cancel()
        if threading.current_thread() is not self._reader:
            self._reader.join(timeout=2.0)
