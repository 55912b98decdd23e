"""Forward passes of models on arrays of the client: the requests of all threads of a session on one stream.

A request that finds the sender busy leaves with the next message, together with the others. Forward passes change
nothing, so one that a broken connection left unanswered is simply sent again. Knows the contract's messages; does not
know what a model is.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterable

import grpc

from tclient._exceptions import ServerBusy, TensorError
from tclient._transport.channel import MODEL_SERVICE, Channel
from tclient._transport.limits import late
from tclient._transport.stats import waiting
from tclient._transport.statuses import is_repeatable
from tclient._transport.stream import Sender, Stream
from tensorcompute.v1 import model_service_pb2 as rpc

# The size of a message of requests, where the server takes that.
_MESSAGE_BYTES = 1 << 20
# What is around a request in a message, at most.
_CALL_BYTES = 8


class Waiter:
    """One thread that waits for one answer."""

    __slots__ = ("answer", "answered", "call", "failure", "size_bytes")

    def __init__(self, call: rpc.MlpForwardCall) -> None:
        self.call = call
        self.answered = threading.Lock()
        self.answered.acquire()
        self.answer: rpc.MlpForwardAnswer | None = None
        self.failure: TensorError | None = None
        self.size_bytes = call.ByteSize() + _CALL_BYTES

    def fail(self, failure: TensorError) -> None:
        """There will be no answer."""
        self.failure = failure
        self.answered.release()


class Forwards:
    """The stream of a session, opened with its first request, and again after it was lost."""

    def __init__(self, channel: Channel, lease_s: float) -> None:
        self._channel = channel
        self._lease_s = lease_s
        self._ids = itertools.count(1).__next__
        self._lock = threading.Lock()
        self._stream: _ForwardStream | None = None

    def run(self, call: rpc.MlpForwardCall, timeout_s: float | None) -> rpc.MlpForwardAnswer:
        """The answer to a request. Raises: ServerError if the server cannot be reached, or does not answer in time."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        call.id = self._ids()
        waiter = Waiter(call)
        stream = self._current()
        while not stream.put(waiter):
            stream = self._current()
        limit_s = self._channel.read_timeout_s
        wait_s = math.inf if deadline is None else max(0.0, deadline - time.monotonic())
        wait_s = wait_s if limit_s is None else min(wait_s, limit_s)
        with waiting(call.name):
            is_answered = waiter.answered.acquire(timeout=-1.0 if wait_s == math.inf else wait_s)
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

    def _current(self) -> _ForwardStream:
        self._channel.check_alive()
        stream = self._stream
        if stream is None or stream.is_over:
            with self._lock:
                self._channel.check_alive()
                stream = self._stream
                if stream is None or stream.is_over:
                    stream = _ForwardStream(self._channel, self._lease_s)
                    stream.start()
                    # Only now: other threads take it from here without the lock.
                    self._stream = stream
        return stream


class _ForwardStream(Stream[None]):
    def __init__(self, channel: Channel, lease_s: float) -> None:
        # The first message is empty, and not answered.
        super().__init__(
            channel,
            MODEL_SERVICE + "MlpForwardStream",
            b"",
            name="tclient-forwards",
            answers_each=False,
            patience_s=lease_s,
        )
        self.is_over = False
        self._pending: list[Waiter] = []
        self._waiting: dict[int, Waiter] = {}

    def put(self, waiter: Waiter) -> bool:
        """Send a request with the next message; whether the stream still does that."""
        with self._lock:
            if self.is_over:
                return False
            self._waiting[waiter.call.id] = waiter
            self._pending.append(waiter)
            if len(self._pending) == 1:
                self._sender.queue.put(None)
        return True

    def forget(self, waiter: Waiter) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._waiting.pop(waiter.call.id, None)

    def _next(self, sender: Sender[None]) -> tuple[bytes, bool] | None:
        """See Stream."""
        while True:
            if not self._pending:
                sender.queue.get()
            if sender.ended:
                return None
            if len(self._waiting) > 1:
                # Who was answered just now asks again: let them, and take their requests along.
                time.sleep(0)
            most = min(_MESSAGE_BYTES, self._channel.max_message)
            with self._lock:
                size = count = 0
                for waiter in self._pending:
                    size += waiter.size_bytes
                    if count and size > most:
                        break
                    count += 1
                taken = self._pending[:count]
                del self._pending[:count]
            if taken:
                message = rpc.MlpForwardStreamRequest(calls=[waiter.call for waiter in taken])
                return message.SerializeToString(), False

    def _receive(self, message: bytes) -> None:
        """See Stream."""
        for answer in rpc.MlpForwardStreamResponse.FromString(message).answers:
            waiter = self._waiting.pop(answer.id, None)
            if waiter is not None:
                waiter.answer = answer
                waiter.answered.release()

    def _again(self) -> Iterable[None]:
        """See Stream."""
        self._pending = list(self._waiting.values())
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
