"""One RPC with messages both ways, as bytes: what a session's stream runs on.

gRPC's own class for such an RPC keeps two threads, one that asks for requests and one that hands on events, and they
tell each other of every message that was written: a third of the client's share of a lone round trip. Direct issues
the same operations itself, and the thread that reads takes their events off the RPC's own queue, as gRPC's blocking
calls do. These operations are not documented. Where they are not found as they are in grpcio 1.81 to 1.85, and on
channels with interceptors, Documented does the same in gRPC's own way. Knows gRPC and bytes; does not know batches.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import grpc

from tclient._transport.forks import GATE, Stay
from tclient._transport.statuses import CANCELLED, OK, Ended
from tclient._transport.threads import SimpleQueue, simple_queue

try:
    from grpc._cython import cygrpc  # type: ignore[attr-defined]
except ImportError:
    cygrpc = None

# Lone messages that go without an exchange, after one that held up another message.
_CROWDED = 1000


class Duplex(Protocol):
    """An RPC with messages both ways."""

    def send(self, message: bytes, alone: bool) -> None:
        """Put a message on its way, behind those before it; never waits. Not for the main thread: see Direct.

        `alone` says that there is likely nothing to send before its answer is there.
        """

    def __iter__(self) -> Iterator[bytes]:
        """The messages that come, for one thread. Raises grpc.RpcError if the RPC fails."""

    def cancel(self) -> None:
        """End it now."""


Metadata = Sequence[tuple[str, str | bytes]]


def open_duplex(
    channel: grpc.Channel, method: str, first: bytes, metadata: Metadata = (), *, answers_each: bool = True
) -> Duplex:
    """Begin an RPC with its first message. `answers_each` says that each message behind it is answered by one."""
    forks = False
    try:
        # GRPC_ENABLE_FORK_SUPPORT is for what gRPC documents: with it a fork waits for gRPC's own threads.
        forks = cygrpc.is_fork_support_enabled()
        if not forks:
            return Direct(channel, method, first, metadata, answers_each=answers_each)
    except (AttributeError, TypeError):
        pass
    return Documented(channel, method, first, metadata, forks=forks)


def gave_up_on_fork() -> bool:
    """In a child: whether gRPC's own support for forks could not have its threads wait; all that enters it hangs."""
    return bool(getattr(cygrpc, "_fork_handler_failed", False))


class Direct:
    """The RPC as operations of gRPC's core: each is started, and an event comes when it is done.

    One send and one receive may be under way. Where each message is answered by one, a lone message is sent and its
    answer received by one operation, an exchange: one event less wakes the reader. What is sent meanwhile goes when the
    answer is there, so there are no exchanges while several threads send. Elsewhere it is received all the time.

    Starting takes a lock of the channel that is written in Python, and an exception out of a signal handler could leave
    it locked. That is why the main thread, where those run, does not send.
    """

    def __init__(
        self, channel: Any, method: str, first: bytes, metadata: Metadata = (), *, answers_each: bool = True
    ) -> None:
        given = tuple(metadata) or None
        beginning = (
            ("status", (cygrpc.SendInitialMetadataOperation(given, 0), cygrpc.ReceiveStatusOnClientOperation(0))),
            ("headers", (cygrpc.ReceiveInitialMetadataOperation(0),)),
            ("sent", (cygrpc.SendMessageOperation(first, 0),)),
        )
        # Held while an operation is started, which does not wait for the network.
        self._lock = threading.Lock()
        # Messages that wait for the one that is being sent.
        self._outbox: deque[bytes] = deque()
        self._sending = True
        self._receiving = False
        self._exchanging = False
        # Messages that are not answered; the first is not counted. One that never comes keeps receiving.
        self._owed = 0 if answers_each else 1
        self._answers_each = answers_each
        # Lone messages from now on that are no exchanges.
        self._crowded = 0
        # Events that will come. Behind the last one there is no queue any more to take an event from.
        self._due = len(beginning)
        self._status: Any = None
        with GATE.inside():
            self._call = channel._channel.segregated_call(
                cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS,
                method.encode(),
                None,  # host
                None,  # deadline
                given,
                None,  # credentials
                tuple((operations, tag) for tag, operations in beginning),
            )
        if not answers_each:
            with GATE.inside(), self._lock:
                self._receive()

    def send(self, message: bytes, alone: bool) -> None:
        """See Duplex."""
        with self._lock:
            if self._sending:
                self._outbox.append(message)
                if self._exchanging:
                    self._crowded = _CROWDED
            else:
                self._send(message, alone)

    def __iter__(self) -> Iterator[bytes]:
        with GATE.inside(self._make_way) as stay:
            yield from self._messages(stay)

    def _messages(self, stay: Stay) -> Iterator[bytes]:
        try:
            while (event := self._next_event(stay)) is not None:
                if event.tag in ("received", "exchanged"):
                    message = event.batch_operations[-1].message()
                    if message is not None:
                        yield message
                        with self._lock:
                            self._owed -= self._answers_each
                            if self._owed:
                                self._receive()
        finally:
            # Events are due if the reader gave up.
            self.cancel()
            while self._next_event(stay) is not None:
                pass
        if self._status.code() != OK:
            raise Ended(self._status)

    def cancel(self) -> None:
        """See Duplex."""
        with GATE.inside():
            self._call.cancel(CANCELLED, "the client ended the stream")

    def _make_way(self) -> None:
        """Have the reader, and who sends, keep out of gRPC until the process has forked."""
        with self._lock:
            # Without operations it is done at once, and its event wakes the reader.
            self._start("fork")

    def _next_event(self, stay: Stay) -> Any:
        """Wait for the next event and take note of it; None when there will be no more."""
        if not self._due:
            return None
        event = self._call.next_event()
        tag = event.tag
        with self._lock:
            self._due -= 1
            if tag == "fork":
                GATE.step_aside(stay)
            if tag == "status":
                self._status = event.batch_operations[1]
            if tag in ("received", "exchanged"):
                self._receiving = False
            if tag in ("sent", "exchanged"):
                self._sending = self._exchanging = False
                if self._outbox:
                    self._send(self._outbox.popleft(), alone=False)
        return event

    def _send(self, message: bytes, alone: bool) -> None:
        self._owed += self._answers_each
        send = cygrpc.SendMessageOperation(message, 0)
        if alone and not self._receiving and not self._crowded:
            started = self._start("exchanged", send, cygrpc.ReceiveMessageOperation(0))
            self._sending = self._receiving = self._exchanging = started
            return
        if alone and self._crowded:
            self._crowded -= 1
        self._sending = self._start("sent", send)
        self._receive()

    def _receive(self) -> None:
        if not self._receiving:
            self._receiving = self._start("received", cygrpc.ReceiveMessageOperation(0))

    def _start(self, tag: str, *operations: Any) -> bool:
        """Start operations with one event, unless the RPC has ended. The caller holds the lock."""
        started = bool(self._call.operate(operations, tag))
        self._due += started
        return started


class Documented:
    """The RPC as gRPC documents it. A fork ends it, unless gRPC itself is to support forks."""

    def __init__(
        self, channel: grpc.Channel, method: str, first: bytes, metadata: Metadata = (), *, forks: bool = False
    ) -> None:
        self._requests: SimpleQueue[bytes | None] = simple_queue()
        self._requests.put(first)
        opened: Any = channel.stream_stream(method)
        requests = iter(self._requests.get, None)

        def begin() -> Any:
            return opened(requests, metadata=tuple(metadata))

        self._responses = begin() if forks else GATE.begin(begin, may_cancel=True)

    def send(self, message: bytes, alone: bool) -> None:
        """See Duplex."""
        self._requests.put(message)

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._responses
        finally:
            self.cancel()

    def cancel(self) -> None:
        """See Duplex."""
        # Lets gRPC's thread go that waits for a request.
        self._requests.put(None)
        self._responses.cancel()
