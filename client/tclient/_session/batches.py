"""Batches: calls that go out in one message, and the answers that settle them.

Batches are made of whatever waits at that moment: by the sending thread when it is idle, by an issuing thread when many
calls wait, by a thread that is about to wait for an answer. A batch stays in flight until it is answered; after a
broken connection all that are go again, in order, and the server applies each once. No lock is held during a write, so
the reader always gets on: no deadlock under back-pressure. Knows calls, not tensors.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import grpc

from tclient._codec import wire
from tclient._codec.operations import USED
from tclient._codec.replies import SMALL_BYTES, values_of
from tclient._exceptions import ServerFailed, SessionLost, TensorError
from tclient._session.batch import Batch, answered, definitions
from tclient._session.call_queue import DROP_BYTES, CallQueue
from tclient._session.calls import Call
from tclient._session.deferred import DeferredErrors
from tclient._session.modes import CONTEXTS
from tclient._session.oversize import frees_of, refuse
from tclient._session.waiters import Answered
from tclient._transport.channel import FRAME_BYTES, HEAVY_BYTES, TENSOR_SERVICE, Channel
from tclient._transport.statuses import is_resumable
from tclient._transport.stream import Sender, Stream
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tensorcompute.wire.varint import field

# Batches that may be on their way. More would not hide more latency, only make batches smaller.
WINDOW = 4
_MAX_BATCH_CALLS = 4096
_MAX_BATCH_BYTES = 1 << 20
# Pending calls from which on an issuing thread sends them itself; 256 measured best, 64 costs 8 % more.
RELIEF = 256
# How often a sender without calls looks for results that were dropped.
_POLL_S = 0.04
_POLLS_BEFORE_DOZING = 25
# A server that restarts needs a moment until it can say that the session is lost, and why.
RESTART_S = 20.0
# The answers to such a batch are copied out of it, so that a small one does not keep all of it in memory.
_LARGE_REPLY_BYTES = 32_768


class Batches(Stream[Batch]):
    """Sends what waits in the queue, and settles it with what comes back."""

    def __init__(
        self,
        channel: Channel,
        opened: rpc.OpenSessionResponse,
        calls: CallQueue,
        deferred: DeferredErrors,
        *,
        notify: Callable[[], None],
        lost: Callable[[TensorError], None],
    ) -> None:
        """`notify` wakes the threads whose call is answered; `lost` is told that nothing will be answered any more."""
        self._lease_s = opened.lease_s
        super().__init__(
            channel,
            TENSOR_SERVICE + "ExecuteStream",
            field(b"\x0a", opened.session),
            name="tclient",
            answers_each=True,
            patience_s=opened.lease_s + RESTART_S,
        )
        self._calls = calls
        self._deferred = deferred
        self._notify = notify
        self._tell_lost = lost
        self.inflight: deque[Batch] = deque()
        self._acked = 0
        # The newest batch; to begin with, one that was never needed.
        self._newest = answered(0, (0, 0))
        limit = opened.limits.max_batches_in_flight
        self._window = min(WINDOW, limit) if limit else WINDOW
        self._hard_window = limit or 4 * WINDOW

    # ---- the issuing threads -------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Says to an idle sender that a call waits."""
        sender = self._sender
        if sender.idle:
            self._set_idle(sender, False)
            sender.queue.put(None)

    def wake_up(self) -> None:
        """Wakes the sender for something other than a call."""
        self._sender.queue.put(None)

    def hand_over(self) -> None:
        """Sends what is pending from the issuing thread, if the window is open.

        A thread in a tight loop would keep the interpreter from the sender for 5 ms; so it makes the batch itself, and
        then yields once, for gRPC's threads to run.
        """
        with self._lock:
            batch = self._form() if len(self.inflight) < self._window else None
            self._calls.relief = len(self._calls.pending) + RELIEF
        if batch is not None:
            time.sleep(0)

    def flush(self) -> None:
        """Sends all that is pending, whatever the window: somebody waits for it."""
        with self._lock:
            alone = not self.inflight
            while self._calls.pending and len(self.inflight) < self._hard_window:
                if self._form(alone=alone) is None:
                    break
                alone = False

    def last(self) -> Answered | None:
        """What is answered last of all that was issued: a Call or a Batch; None if nothing is on its way."""
        with self._lock:
            pending = self._calls.pending
            if pending:
                return pending[-1]
            if not self.inflight:
                return None
            # A batch may be made anew, of the same calls.
            batch = self.inflight[-1]
            return batch.calls[-1] if batch.calls else batch

    def _set_idle(self, sender: Sender[Batch], idle: bool) -> None:
        calls = self._calls
        with self._lock:
            sender.idle = idle
            calls.attention = self._sender.idle or calls.synchronous or self._channel.dead is not None

    # ---- the sender (a thread of ours) ---------------------------------------------------------------------------

    def _next(self, sender: Sender[Batch]) -> tuple[bytes, bool] | None:
        """See Stream."""
        calls = self._calls
        polls = 0
        doze = False
        while not sender.ended:
            idle = len(self.inflight) < self._window
            if idle is not sender.idle:
                self._set_idle(sender, idle)
            if idle and calls.pending:
                sender.queue.put(None)
            try:
                batch = sender.queue.get(timeout=None if doze or not idle else _POLL_S)
            except queue.Empty:
                # Nothing to do but to let dropped results go.
                polls += 1
                if calls.drops:
                    with self._lock:
                        while calls.drops and sender is self._sender and len(self.inflight) < self._window:
                            if self._form(frees_alone=True) is None:
                                break
                    polls = 0
                if polls > _POLLS_BEFORE_DOZING:
                    # From here on a dropped result wakes the sender (CallQueue.rouse), if none was just now.
                    calls.dozing = True
                    doze = not calls.drops
                continue
            calls.dozing = doze = False
            polls = 0
            if batch is not None:
                if sender.idle:
                    self._set_idle(sender, False)
                return batch.message, batch.alone
            if calls.pending and len(self.inflight) < self._window:
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
        queued = self._calls
        pending = queued.pending
        if not pending and not frees_alone:
            return None
        most = self._channel.max_message - FRAME_BYTES
        room = min(_MAX_BATCH_BYTES, most)
        # Before the calls are taken: what is dropped now can be an argument only of calls that are already pending.
        drops: list[bytes] = []
        if frees_alone:
            with contextlib.suppress(IndexError):  # another thread was quicker
                drops.extend(queued.drops.popleft() for _ in range(min(len(queued.drops), room // DROP_BYTES)))
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
        joined = b"".join(data)
        if len(joined) > room:
            sizes = list(map(len, data))
            count = bisect_right(list(itertools.accumulate(sizes)), room)
            if not count and not drops:
                # A call that is larger than a batch is one by itself.
                if sizes[0] > most and not size:
                    if len(data[0]) > HEAVY_BYTES:
                        queued.release_heavy(len(data[0]))
                    data[0] = refuse(calls[0], queued.drops, self._channel)
                count = int(sizes[0] <= most or not size)
            del calls[count:], data[count:]
            joined = b"".join(data)
        if drops and len(calls) < len(pending):
            queued.drops.extendleft(reversed(drops))
            drops = []
        if not calls and not drops and not size:
            return None
        heavy = _heavy(data) if queued.heavy else 0
        known = (before.operations, before.contexts)
        batch = Batch(before.seq + 1, calls, heavy, known[0] + len(operations), known[1] + len(contexts), known)
        batch.message = wire.stream_message(
            seq=batch.seq, acked=self._acked, operations=operations, contexts=contexts, calls=(joined,), frees=drops
        )
        batch.size = len(batch.message)
        batch.alone = alone and len(calls) == len(pending)
        self._newest = batch
        self._commit(batch)
        return batch

    def _commit(self, batch: Batch) -> None:
        """Moves the calls of a batch from pending to inflight, and the batch to the sender. Can be repeated."""
        queued = self._calls
        calls = batch.calls
        if calls and queued.pending and queued.pending[0] is calls[0]:
            del queued.pending[: len(calls)]
            self._channel.stats.calls += len(calls)
        if not batch.done and (not self.inflight or self.inflight[-1] is not batch):
            self.inflight.append(batch)
            self._channel.stats.batches += 1
        for call in calls:
            call.data = b""
        queued.relief = RELIEF
        self._sender.queue.put(batch)
        batch.committed = True

    # ---- the reader (a thread of ours) ---------------------------------------------------------------------------

    def _may_go_on(self, error: grpc.RpcError, failure: TensorError) -> bool:
        """See Stream."""
        return is_resumable(error, failure)

    def _gone(self, cause: str, failure: TensorError) -> TensorError:
        """See Stream."""
        return SessionLost(
            f"the connection to {self._channel.address} broke and could not be resumed for {self._patience_s:g} s "
            f"(the session's lease is {self._lease_s:g} s), so the session is gone; last failure: {cause}"
        )

    def _lost(self, failure: TensorError) -> None:
        """See Stream."""
        self._tell_lost(failure)

    def _again(self) -> Iterable[Batch]:
        """See Stream."""
        for batch in self.inflight:
            batch.resent = True
        if self.inflight and self._acked:
            # What has come meanwhile is acknowledged: the server may have no room for more replies. Of two values of a
            # field the later one counts.
            first = self.inflight[0]
            first.message = first.message[: first.size] + wire.acknowledgement(self._acked)
        return self.inflight

    def _narrow(self, limit: int, failure: TensorError, *, had_progress: bool) -> None:
        """After a message was too large for something on the way: none is from here on.

        Nobody has seen that batch, nor those behind it: their calls wait again, and those that are too large even alone
        fail. Raises the failure where this cannot be.
        """
        queued = self._calls
        with self._lock:
            if not self._newest.committed:
                self._commit(self._newest)
            batches = list(self.inflight)
            kept = next((index for index, batch in enumerate(batches) if len(batch.message) > limit), None)
            if kept is None:
                if had_progress or not batches:
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
                    call.data = wire.call([content.SerializeToString()])
                if batch.heavy:
                    # The same call may take more bytes, or fewer, when it is written anew.
                    queued.release_heavy(batch.heavy - _heavy([call.data for call in batch.calls]))
                calls += batch.calls
                queued.drops.extend(frees_of(message))
            queued.pending[:0] = calls
            self._newest = answered(taken_back[0].seq - 1, taken_back[0].known)
        self._notify()

    def _receive(self, message: bytes) -> None:
        inflight = self.inflight
        found = values_of(message) if len(message) <= SMALL_BYTES else None
        reply = None
        if found is not None:
            seq = found[0]
        else:
            reply = rpc.ExecuteStreamResponse.FromString(message).reply
            seq = reply.seq
        if seq <= self._acked:
            return  # a kept reply that we already have
        if not inflight or inflight[0].seq != seq:
            raise ServerFailed(
                f"the server at {self._channel.address} answered batch {seq}, "
                f"but batch {inflight[0].seq if inflight else 'none'} is the next to be answered"
            )
        batch = inflight[0]
        if found is not None:
            for index, value in found[1]:
                batch.calls[index].result = value
        elif reply is not None:
            self._settle(batch, reply, len(message))
        for call in batch.calls:
            call.done = True
        self._acked = seq
        batch.done = True
        inflight.popleft()
        if batch.heavy:
            self._calls.release_heavy(batch.heavy)
        self._notify()
        if len(inflight) == self._window - 1:
            # The window has opened: what gathered meanwhile may go.
            self._sender.queue.put(None)

    def _settle(self, batch: Batch, reply: pb.BatchReply, size_bytes: int) -> None:
        """Takes in an answer that may tell of more than values."""
        calls = batch.calls
        for result in reply.results:
            call = calls[result.call_index]
            if result.HasField("error"):
                self._deferred.note(batch.seq, result, call)
            elif size_bytes > _LARGE_REPLY_BYTES and result.value.WhichOneof("kind") == "tensor":
                # A description that outlives the reply must not keep all of it in memory.
                small = pb.Result()
                small.CopyFrom(result)
                result = small
            call.result = result
        for warning in reply.warnings:
            self._deferred.note_warning(warning, calls[warning.call_index])

    def abandon(self) -> list[Call]:
        """Gives up all calls that are not answered, and returns them."""
        with self._lock:
            self._sender.ended = True
            calls = [call for batch in self.inflight for call in batch.calls]
            for batch in self.inflight:
                batch.done = True
            calls.extend(self._calls.pending)
            self.inflight.clear()
            self._calls.pending.clear()
        self._sender.queue.put(None)
        return calls


def _heavy(data: Iterable[bytes]) -> int:
    """How many bytes of these calls are those of large ones."""
    return sum([len(piece) for piece in data if len(piece) > HEAVY_BYTES])
