"""Forward passes of kept networks on arrays of the client: the requests of all threads of a session on one stream.

A request that finds the stream's writer busy leaves with the next message, together with the others. Forward passes
change nothing, so one that a broken connection left unanswered is simply sent again. Knows the contract's messages;
does not know what a network is.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc

from tclient._connection import message_limit, translate
from tclient._exceptions import ServerError, TensorError
from tclient._forks import GATE
from tclient._limits import late
from tensorcompute.v1 import model_service_pb2 as rpc

if TYPE_CHECKING:
    from tclient._session import Session

_METHOD = "/tensorcompute.v1.ModelService/MlpForwardStream"
# The size of a message of requests, where the server takes that.
_MESSAGE_BYTES = 1 << 20
# CANCELLED is a fork.
_RESUMABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED)
# What is around a request in a message, at most.
_CALL_BYTES = 8
_ANY_SIZE = 1 << 62


class Waiter:
    """One thread that waits for one answer."""

    __slots__ = ("answer", "answered", "call", "failure", "may_resume", "size_bytes")

    def __init__(self, call: rpc.MlpForwardCall) -> None:
        self.call = call
        self.answered = threading.Lock()
        self.answered.acquire()
        self.answer: rpc.MlpForwardAnswer | None = None
        self.failure: TensorError | None = None
        # Whether the request may be sent again after the failure.
        self.may_resume = False
        self.size_bytes = call.ByteSize() + _CALL_BYTES


class Forwards:
    """The stream of a session, opened with its first request and again after it broke."""

    def __init__(self) -> None:
        self._ids = itertools.count(1).__next__
        self._lock = threading.Lock()
        self._stream: _Stream | None = None

    def run(self, session: Session, call: rpc.MlpForwardCall, timeout_s: float | None) -> rpc.MlpForwardAnswer:
        """The answer to a request. Raises: ServerError if the server cannot be reached, or does not answer in time."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        give_up: float | None = None
        pause_s = 0.05
        while True:
            call.id = self._ids()
            waiter = Waiter(call)
            stream = self._current(session)
            stream.send(waiter)
            limit_s = session.read_timeout_s
            wait_s = math.inf if deadline is None else max(0.0, deadline - time.monotonic())
            wait_s = wait_s if limit_s is None else min(wait_s, limit_s)
            if not waiter.answered.acquire(timeout=-1.0 if wait_s == math.inf else wait_s):
                stream.forget(waiter)
                raise late(session, what=call.name) if wait_s == limit_s else _too_late(timeout_s)
            if waiter.answer is not None:
                return waiter.answer
            assert waiter.failure is not None
            # From the first failure on: an answer may take longer than a lease.
            give_up = give_up or time.monotonic() + session.lease_s
            latest = give_up if deadline is None else min(deadline, give_up)
            if session.dead is not None or time.monotonic() + pause_s > latest or not waiter.may_resume:
                raise waiter.failure
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 1.0)

    def _current(self, session: Session) -> _Stream:
        if session.dead is not None:
            raise session.dead
        stream = self._stream
        if stream is None or stream.is_over:
            with self._lock:
                stream = self._stream
                if stream is None or stream.is_over:
                    stream = self._stream = _Stream(session)
        return stream


class _Stream:
    def __init__(self, session: Session) -> None:
        self.is_over = False
        self._session = session
        self._lock = threading.Lock()
        self._pending: list[Waiter] = []
        self._waiting: dict[int, Waiter] = {}
        self._wake = threading.Semaphore(0)
        method: Any = session.connection.channel.stream_stream(
            _METHOD,
            request_serializer=rpc.MlpForwardStreamRequest.SerializeToString,
            response_deserializer=rpc.MlpForwardStreamResponse.FromString,
        )
        # A fork ends it; what is not answered then is sent again.
        self._responses = GATE.begin(lambda: method(self._requests()), may_cancel=True)
        threading.Thread(target=self._read, name="tclient-forwards", daemon=True).start()

    def send(self, waiter: Waiter) -> None:
        with self._lock:
            if self.is_over:
                waiter.may_resume = True
                self._fail(waiter, ServerError("the stream has ended"))
                return
            self._waiting[waiter.call.id] = waiter
            self._pending.append(waiter)
            is_first = len(self._pending) == 1
        if is_first:
            self._wake.release()

    def forget(self, waiter: Waiter) -> None:
        with self._lock:
            self._waiting.pop(waiter.call.id, None)

    def _requests(self) -> Iterator[rpc.MlpForwardStreamRequest]:
        while True:
            self._wake.acquire()
            if len(self._waiting) > 1:
                # Who was answered just now asks again: let them, and take their requests along.
                time.sleep(0)
            with self._lock:
                pending, self._pending = self._pending, []
            if self.is_over:
                return
            most = min(_MESSAGE_BYTES, self._session.max_message)
            while pending:
                size = count = 0
                for waiter in pending:
                    size += waiter.size_bytes
                    if count and size > most:
                        break
                    count += 1
                yield rpc.MlpForwardStreamRequest(calls=[waiter.call for waiter in pending[:count]])
                del pending[:count]

    def _read(self) -> None:
        session = self._session
        # The size of the requests that may be sent again.
        most = 0
        failure: TensorError = ServerError(f"the server at {session.address} ended the stream of forward passes")
        try:
            for response in self._responses:
                for answer in response.answers:
                    waiter = self._waiting.pop(answer.id, None)
                    if waiter is not None:
                        waiter.answer = answer
                        waiter.answered.release()
        except grpc.RpcError as error:
            failure = translate(error, session.address)
            limit = message_limit(error)
            if limit is not None:
                # Those that fit go on, without the one that did not.
                session.bound_messages(limit)
                most = limit
            elif error.code() in _RESUMABLE:
                most = _ANY_SIZE
        except ValueError:
            pass  # the channel was closed before the stream began
        with self._lock:
            self.is_over = True
            waiters = [*self._waiting.values()]
            self._waiting.clear()
        self._wake.release()
        for waiter in waiters:
            waiter.may_resume = waiter.size_bytes <= most
            self._fail(waiter, failure)

    @staticmethod
    def _fail(waiter: Waiter, failure: TensorError) -> None:
        waiter.failure = failure
        waiter.answered.release()


def _too_late(timeout_s: float | None) -> TensorError:
    from tclient._exceptions import ServerBusy

    failure = ServerBusy(f"no answer within {timeout_s} s; allow more time, or try again later")
    failure.reason = "DEADLINE_EXCEEDED"
    return failure
