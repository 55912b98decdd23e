"""Batches: calls that go out in one message, and the answers that settle them.

Batches are made of whatever waits at that moment: by the sending thread when it is idle, by an issuing thread when many
calls wait, by a thread that is about to wait for an answer. A batch stays in flight until it is answered; after a
broken connection all that are go again, in order, and the server applies each once. No lock is held during a write, so
the reader always gets on: no deadlock under back-pressure. Knows calls, not tensors.
"""

from __future__ import annotations

import itertools
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grpc

from tclient._codec import wire
from tclient._codec.operations import USED
from tclient._codec.replies import SMALL_BYTES, values_of
from tclient._exceptions import ServerFailed, SessionLost, TensorError
from tclient._native import contents, empty, settle
from tclient._session.batch import Batch, answered, definitions
from tclient._session.call_queue import DROP_BYTES, CallQueue
from tclient._session.calls import Call
from tclient._session.deferred import DeferredErrors
from tclient._session.modes import CONTEXTS
from tclient._session.oversize import refuse
from tclient._session.waiters import Waiters
from tclient._transport.channel import FRAME_BYTES, HEAVY_BYTES, TENSOR_SERVICE, Channel
from tclient._transport.lane import Answered, Lane
from tclient._transport.lanes import Lanes
from tclient._transport.statuses import is_resumable
from tclient._transport.stream import Sender, Stream
from tclient._transport.threads import Empty
from tclient._transport.tracing import TRACE_BYTES, Begun, of_line
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tensorcompute.wire.packed import GENERAL, WORD_BYTES, beginning, by_call, dropped_of, from_bytes, to_bytes
from tensorcompute.wire.varint import field

# Batches that may be on their way. More would not hide more latency, only make batches smaller.
WINDOW = 4
_MAX_BATCH_CALLS = 4096
_MAX_BATCH_BYTES = 1 << 20
# Operations that the span of a batch names.
_NAMED_OPERATIONS = 20
# Pending calls from which on an issuing thread sends them itself; 256 measured best, 64 costs 8 % more.
RELIEF = 256
# How often a sender without calls looks for results that were dropped.
_POLL_S = 0.04
_POLLS_BEFORE_DOZING = 25
# Over a lane, how often it is looked for what nobody waits for, and for how long after there was something.
_TICK_S = 0.001
_TICKS = 50
# Such calls go out at the second look, more of them at the first.
_FEW = 16
# How often it is looked while a batch is under way for longer.
_OWED_POLL_S = 0.005
# A lane on which nothing is answered for so long is given up for another.
_SILENCE_S = 15.0
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
        waiters: Waiters,
        lost: Callable[[TensorError], None],
        lanes: Lanes | None,
        received: int = 0,
    ) -> None:
        """`lost` is told that nothing will be answered any more; `lanes` are None where calls are to keep to gRPC. So
        many batches have been `received` that others have sent.
        """
        self._lease_s = opened.lease_s
        self._secret = opened.session
        super().__init__(
            channel,
            TENSOR_SERVICE + "ExecuteStream",
            field(b"\x0a", opened.session),
            name="tclient",
            answers_each=True,
            patience_s=opened.lease_s + RESTART_S,
            lanes=lanes,
        )
        self._calls = calls
        self._deferred = deferred
        self._waiters = waiters
        self._tell_lost = lost
        self.inflight: deque[Batch] = deque()
        self._acked = received
        # The newest batch; to begin with, one that was never needed.
        self._newest = answered(received, (0, 0))
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
        lane = self._sender.lane
        if lane is not None and len(self.inflight) >= self._window:
            self._look(lane)
        with self._lock:
            batch = self._form() if len(self.inflight) < self._window else None
            self._calls.relief = len(self._calls.pending) + RELIEF
        if batch is not None and lane is None:
            time.sleep(0)

    def flush(self) -> Lane | None:
        """Sends all that is pending, whatever the window: somebody waits for it. Over a lane, who waits reads, too."""
        with self._lock:
            alone = not self.inflight
            while self._calls.pending and len(self.inflight) < self._hard_window:
                if self._form(alone=alone) is None:
                    break
                alone = False
            return self._sender.lane

    @property
    def newest(self) -> int:
        """The number of the last batch that was made."""
        return self._newest.seq

    def read_until(self, lane: Lane, answered: Answered, until: float | None) -> bool:
        """Take in what comes over a lane until it is answered or late, or the lane ends; False if others do."""
        return lane.read_until(answered, until, self._receive)

    def poke(self) -> None:
        """Send a batch of nothing, if none is under way: its answer shows that the connection leads somewhere."""
        with self._lock:
            if not self.inflight and not self._calls.pending:
                self._form(frees_alone=True, even_nothing=True)

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
            calls.attention = self._sender.idle or calls.needs_attention

    def first_owed(self) -> int:
        """The number of the batch that is answered next; 0 if none is under way."""
        try:
            return self.inflight[0].seq
        except IndexError:
            return 0

    yields_to_bulk = True

    def patience_s(self) -> float:
        """See vigil.Owing."""
        return 0.0

    def question(self, owed: int) -> rpc.GetSessionProgressRequest:
        """See vigil.Owing."""
        return rpc.GetSessionProgressRequest(session=self._secret)

    def on_its_way(self, owed: int, progress: rpc.GetSessionProgressResponse) -> int | None:
        """See vigil.Owing."""
        if progress.answered_seq >= owed:
            return progress.kept_bytes
        is_there = progress.received_seq >= owed or progress.has_unread
        return None if is_there else self.owed_bytes()

    def _look(self, lane: Lane) -> None:
        """Take in what has come, if nobody else does; another thread may wait for it by then."""
        if self.inflight and lane.read_now(self._receive):
            self._waiters.pass_on()

    # ---- the sender (a thread of ours) ---------------------------------------------------------------------------

    def _next(self, sender: Sender[Batch]) -> tuple[bytes, bool] | None:
        """See Stream."""
        if sender.lane is not None:
            self._tend(sender, sender.lane)
            return None
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
            except Empty:
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

    def _tend(self, sender: Sender[Batch], lane: Lane) -> None:
        """Over a lane, whoever waits sends and reads. Here is done what nobody waits for, with some delay."""
        calls = self._calls
        # How often there was nothing to do, and since when the same batch is the next to be answered.
        quiet = 0
        owed, owed_since = 0, 0.0
        # The call that waited longest at the last look, in a list.
        seen: list[Call] = []
        self._set_idle(sender, False)
        while not sender.ended:
            is_asleep = quiet >= _TICKS and not (calls.pending or self.inflight)
            if is_asleep is not sender.idle:
                self._set_idle(sender, is_asleep)
                continue
            dozes = is_asleep and quiet > _TICKS + _POLLS_BEFORE_DOZING
            # Before the last look: from here on a dropped result wakes this thread.
            calls.dozing = dozes
            try:
                if quiet < _TICKS or seen:
                    timeout_s: float | None = _TICK_S
                elif not is_asleep:
                    timeout_s = _OWED_POLL_S
                else:
                    timeout_s = None if dozes and not calls.drops else _POLL_S
                sender.queue.get(timeout=timeout_s)
                quiet = min(quiet, _TICKS)
            except Empty:
                quiet += 1
            if lane.owes and not lane.flush():
                quiet = 0
            self._look(lane)
            frees = is_asleep and bool(calls.drops)
            # Who has issued a few calls just now may be about to wait, and sends them then.
            first = calls.pending[:1]
            is_due = bool(first) and (first == seen or len(calls.pending) > _FEW)
            seen = first
            if is_due or frees:
                quiet = 0 if is_due else min(quiet, _TICKS)
                with self._lock:
                    while (calls.pending or (frees and calls.drops)) and len(self.inflight) < self._window:
                        if sender is not self._sender or self._form(frees_alone=not calls.pending) is None:
                            break
            number = self.first_owed()
            now = time.monotonic()
            if number != owed:
                owed, owed_since = number, now
            elif owed and now > owed_since + _SILENCE_S:
                # The engine may be busy; or the connection leads nowhere.
                lane.cancel()

    def _form(self, frees_alone: bool = False, alone: bool = False, even_nothing: bool = False) -> Batch | None:
        """Makes a batch of what is pending and hands it to the sender. The caller holds the lock.

        Ctrl-C may strike at any line. Up to the one that sets `_newest` nothing has happened; what is behind it is
        finished by the next thread that comes here.
        """
        before = self._newest
        if not before.committed:
            self._commit(before)
        queued = self._calls
        pending = queued.pending
        if not pending and not frees_alone:
            return None
        most = self._channel.max_message - FRAME_BYTES
        room = min(_MAX_BATCH_BYTES, most)
        # Before the calls are taken: what is dropped now can be an argument only of calls that are already pending.
        behind = queued.take_drops(room // DROP_BYTES) if frees_alone else []
        calls = pending[:_MAX_BATCH_CALLS]
        origin = None
        if queued.origins and calls:
            origin = queued.of_one_origin(calls)
            room -= TRACE_BYTES
            most -= TRACE_BYTES
        # By now all is defined that calls which are pending name.
        operations: Sequence[str] = ()
        contexts: Sequence[bytes] = ()
        size = 0
        if before.operations < len(USED) or before.contexts < len(CONTEXTS):
            operations, contexts, size, are_all = definitions(before, room)
            room -= size
            most -= size
            if not are_all:
                calls = []
        data, words = contents(calls)
        if sum(map(len, data)) + WORD_BYTES * (len(words) + len(behind)) > room:
            sizes = [len(call.data) + WORD_BYTES * len(call.words) for call in calls]
            count = bisect_right(list(itertools.accumulate(sizes)), room)
            if not count:
                # A call that is larger than a batch is one by itself.
                if sizes[0] > most and not size:
                    sizes[0] = self._make_fit(calls[0], most)
                count = int(sizes[0] <= most or not size)
            del calls[count:]
            data, words = contents(calls)
        if behind and len(calls) < len(pending):
            queued.drops.extendleft(reversed(dropped_of(behind)))
            behind = []
        words.extend(behind)
        if not words and not size and not even_nothing:
            return None
        heavy = _heavy(data) if queued.heavy else 0
        known = (before.operations, before.contexts)
        batch = Batch(before.seq + 1, calls, heavy, known[0] + len(operations), known[1] + len(contexts), known)
        if origin is not None and calls:
            batch.origin, batch.span = origin, self._span(calls, origin)
        batch.message = wire.stream_message(
            seq=batch.seq,
            acked=self._acked,
            operations=operations,
            contexts=contexts,
            calls=data,
            packed=to_bytes(words),
            traceparent="" if batch.span is None else batch.span.traceparent,
        )
        batch.size = len(batch.message)
        batch.alone = alone and len(calls) == len(pending)
        self._newest = batch
        self._commit(batch)
        return batch

    def _span(self, calls: list[Call], origin: Any) -> Begun | None:
        assert self._channel.tracing is not None
        names = list(dict.fromkeys(call.operation.name for call in calls))[:_NAMED_OPERATIONS]
        told = {"tclient.calls": len(calls), "tclient.operations": names, **of_line(calls[0].site())}
        return self._channel.tracing.begin("batch", origin, told)

    def _make_fit(self, call: Call, most: int) -> int:
        """A call that is too large for a message, without what is let go with it, or refused; the size that it has."""
        queued = self._calls
        begin = beginning(call.words)
        queued.drops.extendleft(reversed(dropped_of(call.words[:begin])))
        call.words = call.words[begin:]
        if len(call.data) + WORD_BYTES * len(call.words) > most:
            if len(call.data) > HEAVY_BYTES:
                queued.release_heavy(len(call.data))
            refuse(call, self._channel)
        return len(call.data) + WORD_BYTES * len(call.words)

    def _commit(self, batch: Batch) -> None:
        """Moves the calls of a batch from pending to inflight, and the batch to the sender. Can be repeated."""
        queued = self._calls
        calls = batch.calls
        if calls and queued.pending and queued.pending[0] is calls[0]:
            del queued.pending[: len(calls)]
            self._channel.stats.calls += len(calls)
        if queued.origins:
            for call in calls:
                queued.origins.pop(call, None)
        if not batch.done and (not self.inflight or self.inflight[-1] is not batch):
            self.inflight.append(batch)
            self._channel.stats.batches += 1
        empty(calls)
        queued.relief = RELIEF
        sender = self._sender
        if sender.lane is None:
            sender.queue.put(batch)
        else:
            # Twice does no harm: it is applied once.
            sender.lane.send(batch.message)
            if sender.lane.owes:
                sender.queue.put(None)
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
        self._let_go()
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
                contents = iter(message.calls)
                pieces = by_call(from_bytes(message.packed))
                for call, (words, kind) in zip(batch.calls, pieces, strict=False):
                    call.words = words
                    call.data = wire.call([next(contents).SerializeToString()]) if kind == GENERAL else b""
                queued.drops.extend(dropped_of([word for words, _ in pieces for word in words]))
                if batch.heavy:
                    # The same call may take more bytes, or fewer, when it is written anew.
                    queued.release_heavy(batch.heavy - _heavy([call.data for call in batch.calls]))
                if batch.span is not None:
                    batch.span.end("too large for something on the way")
                    queued.origins.update(dict.fromkeys(batch.calls, batch.origin))
                calls += batch.calls
            queued.pending[:0] = calls
            self._newest = answered(taken_back[0].seq - 1, taken_back[0].known)
        self._waiters.notify()

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
            # A kept reply that we already have. Who took that in may have been interrupted before it said so.
            self._let_go()
            self._waiters.notify()
            return
        if inflight and inflight[0].seq != seq:
            self._let_go()
        if not inflight or inflight[0].seq != seq:
            raise ServerFailed(
                f"the server at {self._channel.address} answered batch {seq}, "
                f"but batch {inflight[0].seq if inflight else 'none'} is the next to be answered"
            )
        # Over a lane Ctrl-C may strike here, too: up to the line that sets `_acked` the same message is taken in again.
        batch = inflight[0]
        if reply is not None:
            self._settle(batch, reply, len(message))
        settle(batch.calls, found[1] if found is not None else ())
        batch.done = True
        if batch.span is not None:
            batch.span.end(_failed(reply))
        self._acked = seq
        self._let_go()
        self._waiters.notify()
        if self._sender.lane is None and len(inflight) == self._window - 1:
            # The window has opened: what gathered meanwhile may go.
            self._sender.queue.put(None)

    def _let_go(self) -> None:
        """What is answered is not in flight. Can be repeated."""
        inflight = self.inflight
        while inflight and inflight[0].seq <= self._acked:
            if inflight[0].heavy:
                self._calls.release_heavy(inflight[0].heavy)
            inflight.popleft()

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

    def _send_again(self, lane: Lane) -> None:
        """See Stream."""
        for batch in self._again():
            lane.send(batch.message)

    def _owed_bytes(self) -> int:
        """See Stream."""
        return sum([batch.size for batch in self.inflight])

    def _renewed(self) -> None:
        """See Stream."""
        self._waiters.notify()
        self._waiters.pass_on()

    def abandon(self) -> list[Call]:
        """Gives up all calls that are not answered, and returns them."""
        with self._lock:
            self._sender.ended = True
            calls = [call for batch in self.inflight for call in batch.calls]
            for batch in self.inflight:
                batch.done = True
                if batch.span is not None:
                    batch.span.end("not answered")
            calls.extend(self._calls.pending)
            self.inflight.clear()
            self._calls.pending.clear()
        self._sender.queue.put(None)
        return calls


def _failed(reply: pb.BatchReply | None) -> str:
    """What the first call has failed of, in a word; empty where none has."""
    results = () if reply is None else reply.results
    return next((result.error.type for result in results if result.HasField("error")), "")


def _heavy(data: Iterable[bytes]) -> int:
    """How many bytes of these calls are those of large ones."""
    return sum([len(piece) for piece in data if len(piece) > HEAVY_BYTES])
