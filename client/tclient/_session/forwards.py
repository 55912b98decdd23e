"""Forward passes of models on arrays of the client: the requests of all threads of a session on one stream.

A request that finds the sender busy leaves with the next message, together with the others. Over a lane the threads
that wait send and read themselves, one of them for all. Forward passes change nothing, so one that a broken connection
left unanswered is simply sent again. Knows the contract's messages; does not know what a model is.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable

import grpc

from tclient._exceptions import ServerBusy, TensorError
from tclient._transport.channel import MODEL_SERVICE, Channel
from tclient._transport.lane import Lane
from tclient._transport.lanes import Lanes
from tclient._transport.limits import late
from tclient._transport.stats import waiting
from tclient._transport.statuses import is_repeatable
from tclient._transport.stream import Sender, Stream
from tclient._transport.threads import Empty
from tensorcompute.v1 import model_service_pb2 as rpc
from tensorcompute.v1 import tensor_service_pb2 as tensors

# The size of a message of requests, where the server takes that.
_MESSAGE_BYTES = 1 << 20
# How often it is seen that somebody reads a lane.
_TEND_S = 0.005
# What is around a request in a message, at most.
_CALL_BYTES = 8
# How often something is sent beside a request that waits over gRPC.
_POKE_S = 0.6


class Waiter:
    """One thread that waits for one answer."""

    __slots__ = ("answer", "answered", "call", "done", "failure", "is_sent", "size_bytes")

    def __init__(self, call: rpc.MlpForwardCall) -> None:
        self.call = call
        # Released when there is an answer, or its thread is to read on for the others.
        self.answered = threading.Lock()
        self.answered.acquire()
        # Whether it is in a message; one that is lost with its connection is in none.
        self.is_sent = False
        self.done = False
        self.answer: rpc.MlpForwardAnswer | None = None
        self.failure: TensorError | None = None
        self.size_bytes = call.ByteSize() + _CALL_BYTES

    def fail(self, failure: TensorError) -> None:
        """There will be no answer."""
        self.failure = failure
        self.end()

    def end(self) -> None:
        """There is an answer, or a failure."""
        self.done = True
        self.wake()

    def wake(self) -> None:
        """Its thread is to look."""
        with contextlib.suppress(RuntimeError):  # it is about to
            self.answered.release()


class Forwards:
    """The stream of a session, opened with its first request, and again after it was lost."""

    def __init__(
        self, channel: Channel, opened: tensors.OpenSessionResponse, lanes: Lanes | None, poke: Callable[[], None]
    ) -> None:
        """`poke` has the session send something else, over gRPC where forward passes go over that."""
        self._channel = channel
        self._poke = poke
        # The request that waited at the last look, and since when.
        self._seen, self._seen_since = 0, 0.0
        self._lease_s = opened.lease_s
        self._secret = opened.session
        self._lanes = lanes
        self._ids = itertools.count(1).__next__
        self._lock = threading.Lock()
        self._stream: _ForwardStream | None = None

    def run(self, call: rpc.MlpForwardCall, timeout_s: float | None) -> rpc.MlpForwardAnswer:
        """The answer to a request. Raises: ServerError if the server cannot be reached, or does not answer in time."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        call.id = self._ids()
        tracing = self._channel.tracing
        span = None if tracing is None else tracing.begin(f"forward {call.name}")
        if span is None:
            return self._answer(call, deadline, timeout_s)
        call.traceparent = span.traceparent
        with span:
            answer = self._answer(call, deadline, timeout_s)
        return answer

    def _answer(
        self, call: rpc.MlpForwardCall, deadline: float | None, timeout_s: float | None
    ) -> rpc.MlpForwardAnswer:
        waiter = Waiter(call)
        stream = self._current()
        while not stream.put(waiter):
            stream = self._current()
        limit_s = self._channel.read_timeout_s
        wait_s = math.inf if deadline is None else max(0.0, deadline - time.monotonic())
        wait_s = wait_s if limit_s is None else min(wait_s, limit_s)
        with waiting(call.name):
            is_answered = stream.wait(waiter, None if wait_s == math.inf else time.monotonic() + wait_s)
        if not is_answered:
            stream.forget(waiter)
            raise late(self._channel, call.name) if wait_s == limit_s else _too_late(timeout_s)
        if waiter.failure is not None:
            raise waiter.failure
        assert waiter.answer is not None
        return waiter.answer

    def end(self, failure: TensorError) -> None:
        """The session has ended: who waits is told why."""
        with self._lock:
            if self._stream is not None and not self._stream.is_over:
                self._stream.cancel()
                self._stream.fail(failure)

    def stop(self, failure: TensorError) -> None:
        """As `end`, and wait a moment for the threads of the stream."""
        self.end(failure)
        if self._stream is not None:
            self._stream.stop()

    def first_owed(self) -> int:
        """See vigil.Owing. Of requests over gRPC the server does not know whose they are: while one of them waits,
        something else is sent over the same connection now and then, whose answer is looked for.
        """
        stream = self._stream
        owed = 0 if stream is None or stream.is_over else stream.first_owed()
        if not owed or stream is None or stream.has_lane:
            return owed
        now = time.monotonic()
        if owed != self._seen:
            self._seen, self._seen_since = owed, now
        elif now > self._seen_since + _POKE_S:
            self._seen_since = now
            self._poke()
        return 0

    yields_to_bulk = True

    def patience_s(self) -> float:
        """See vigil.Owing."""
        return 0.0

    def question(self, owed: int) -> tensors.GetSessionProgressRequest:
        """See vigil.Owing."""
        return tensors.GetSessionProgressRequest(session=self._secret, forward_id=owed)

    def on_its_way(self, owed: int, progress: tensors.GetSessionProgressResponse) -> int | None:
        """See vigil.Owing. What the server has answered it does not keep."""
        return None if progress.has_forward or self._stream is None else self._stream.owed_bytes()

    def leave(self) -> list[Callable[[], None]]:
        """See Stream; nothing where there is none."""
        return [] if self._stream is None or self._stream.is_over else [self._stream.leave()]

    def after_fork(self) -> None:
        """In a child process: the connection is the parent's."""
        if self._stream is not None:
            self._stream.after_fork()

    def _current(self) -> _ForwardStream:
        self._channel.check_alive()
        stream = self._stream
        if stream is None or stream.is_over:
            with self._lock:
                self._channel.check_alive()
                stream = self._stream
                if stream is None or stream.is_over:
                    stream = _ForwardStream(self._channel, self._lease_s, self._lanes)
                    stream.start()
                    # Only now: other threads take it from here without the lock.
                    self._stream = stream
        return stream


class _ForwardStream(Stream[None]):
    def __init__(self, channel: Channel, lease_s: float, lanes: Lanes | None) -> None:
        # The first message is empty, and not answered.
        super().__init__(
            channel,
            MODEL_SERVICE + "MlpForwardStream",
            b"",
            name="tclient-forwards",
            answers_each=False,
            patience_s=lease_s,
            lanes=lanes,
        )
        self.is_over = False
        # Whether the thread that looks after a lane has nothing to look after.
        self._is_asleep = False
        self._pending: list[Waiter] = []
        self._waiting: dict[int, Waiter] = {}

    def put(self, waiter: Waiter) -> bool:
        """Send a request with the next message; whether the stream still does that."""
        # Before the lock: over a lane, whoever sends just now takes it along.
        self._waiting[waiter.call.id] = waiter
        self._pending.append(waiter)
        with self._lock:
            if self.is_over:
                self._waiting.pop(waiter.call.id, None)
                return waiter.done
            if self._sender.lane is not None:
                self._send_out(self._sender.lane)
            elif not waiter.is_sent:
                self._sender.queue.put(None)
        return True

    def wait(self, waiter: Waiter, until: float | None) -> bool:
        """Wait for the answer, or the failure; False if it is late."""
        while not waiter.done:
            lane = self._sender.lane
            if lane is not None and lane.read_until(waiter, until, self._receive):
                self._pass_on()
                return waiter.done
            if not waiter.answered.acquire(timeout=-1 if until is None else max(0.0, until - time.monotonic())):
                return False
        return True

    def forget(self, waiter: Waiter) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._waiting.pop(waiter.call.id, None)

    def first_owed(self) -> int:
        """The request that has waited longest; 0 without."""
        with contextlib.suppress(RuntimeError):  # another one came just now
            return next(iter(self._waiting), 0)
        return 0

    @property
    def has_lane(self) -> bool:
        """Whether requests go over a lane."""
        return self._sender.lane is not None

    def _next(self, sender: Sender[None]) -> tuple[bytes, bool] | None:
        """See Stream."""
        if sender.lane is not None:
            self._tend(sender, sender.lane)
            return None
        while True:
            if not self._pending:
                sender.queue.get()
            if sender.ended:
                return None
            if len(self._waiting) > 1:
                # Who was answered just now asks again: let them, and take their requests along.
                time.sleep(0)
            with self._lock:
                message = self._take_message()
            if message:
                return message, False

    def _take_message(self) -> bytes:
        """A message of requests that wait, or no bytes. The lock is held."""
        most = min(_MESSAGE_BYTES, self._channel.max_message)
        size = count = 0
        for waiter in self._pending:
            size += waiter.size_bytes
            if count and size > most:
                break
            count += 1
        taken = [waiter for waiter in self._pending[:count] if not waiter.is_sent]
        del self._pending[:count]
        if not taken:
            return b""
        for waiter in taken:
            waiter.is_sent = True
        return rpc.MlpForwardStreamRequest(calls=[waiter.call for waiter in taken]).SerializeToString()

    def _tend(self, sender: Sender[None], lane: Lane) -> None:
        """Over a lane, those who wait send and read; here it is seen that one of them does."""
        while not sender.ended:
            self._is_asleep = not self._waiting
            try:
                sender.queue.get(timeout=None if self._is_asleep else _TEND_S)
            except Empty:
                if lane.owes:
                    lane.flush()
                if self._waiting and lane.read_now(self._receive):
                    self._pass_on()

    def _send_out(self, lane: Lane) -> None:
        """Send over a lane what waits. The lock is held."""
        while message := self._take_message():
            lane.send(message)
        if self._is_asleep:
            self._is_asleep = False
            self._sender.queue.put(None)

    def _pass_on(self) -> None:
        """Nobody reads any more: another thread that waits is to."""
        for waiter in list(self._waiting.values()):
            if not waiter.done:
                waiter.wake()
                return

    def _send_again(self, lane: Lane) -> None:
        """See Stream."""
        self._again()
        self._send_out(lane)

    def _owed_bytes(self) -> int:
        """See Stream."""
        return sum([waiter.size_bytes for waiter in list(self._waiting.values())])

    def _renewed(self) -> None:
        """See Stream."""
        self._pass_on()

    def _receive(self, message: bytes) -> None:
        """See Stream."""
        for answer in rpc.MlpForwardStreamResponse.FromString(message).answers:
            waiter = self._waiting.pop(answer.id, None)
            if waiter is not None:
                waiter.answer = answer
                waiter.end()

    def _again(self) -> Iterable[None]:
        """See Stream."""
        self._pending = list(self._waiting.values())
        for waiter in self._pending:
            waiter.is_sent = False
        return [None]

    def _narrow(self, limit: int, failure: TensorError, *, had_progress: bool) -> None:
        """See Stream. Those that fit go on, without the one that did not."""
        with self._lock:
            large = [waiter for waiter in self._waiting.values() if waiter.size_bytes > limit]
            for waiter in large:
                del self._waiting[waiter.call.id]
        for waiter in large:
            waiter.fail(failure)
        if not large and not had_progress:
            raise failure

    def _may_go_on(self, error: grpc.RpcError, failure: TensorError) -> bool:
        """See Stream."""
        return is_repeatable(error)

    def _gone(self, cause: str, failure: TensorError) -> TensorError:
        """See Stream."""
        return failure

    def _lost(self, failure: TensorError) -> None:
        """See Stream."""
        self.fail(failure)

    def fail(self, failure: TensorError) -> None:
        """Nothing will be answered any more."""
        with self._lock:
            self.is_over = True
            self._sender.ended = True
            waiters = [*self._waiting.values()]
            self._waiting.clear()
            self._pending.clear()
        self._sender.queue.put(None)
        for waiter in waiters:
            waiter.fail(failure)


def _too_late(timeout_s: float | None) -> TensorError:
    failure = ServerBusy(f"no answer within {timeout_s} s; allow more time, or try again later")
    failure.reason = "DEADLINE_EXCEEDED"
    return failure
