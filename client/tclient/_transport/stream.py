"""The engine of a stream: messages out, messages in, and the way back after a broken connection.

Over gRPC one thread sends and one reads; over a lane, those that have something to send or wait for an answer. When the
connection breaks, a new one takes over with what was not answered, for as long as the session may still be there. From
gRPC the stream goes over to a lane in the same way, once there is one, and from home to the session's endpoint. What
the messages are, and which of them go again, is said by a subclass. Knows RPCs; does not know calls.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import grpc

from tclient._exceptions import ServerFailed, TensorError
from tclient._transport.channel import Channel
from tclient._transport.duplex import Duplex
from tclient._transport.lane import Lane
from tclient._transport.lanes import Lanes
from tclient._transport.statuses import is_exhausted, is_unauthenticated, message_limit
from tclient._transport.threads import SimpleQueue, pause, simple_queue
from tclient._transport.trust import Metadata

log = logging.getLogger("tclient")

# A moment is quiet when no more than this would go again; how long one is waited for, and how often it is looked.
_LIGHT_BYTES = 64 << 10
_QUIET_S = 1.0
_LOOK_S = 0.005
# What ends sooner than that was not let in, or led nowhere.
_STOOD_S = 5.0

M = TypeVar("M")


class Sender(Generic[M]):
    """What one RPC, or lane, has to send. Another one follows it after a break."""

    def __init__(self, rpc: Duplex, resend: Iterable[M] = ()) -> None:
        self.rpc = rpc
        # Where there is one, messages go from the thread that has them.
        self.lane = rpc if isinstance(rpc, Lane) else None
        # What to send; None says that there may be something to do.
        self.queue: SimpleQueue[M | None] = simple_queue()
        for item in resend:
            self.queue.put(item)
        # True while it waits for something to send, and may send it.
        self.idle = False
        self.ended = False


class Stream(ABC, Generic[M]):
    """Sends what there is, and takes in what comes back, until it is stopped or lost."""

    def __init__(
        self,
        channel: Channel,
        path: str,
        opening: bytes,
        *,
        name: str,
        answers_each: bool,
        patience_s: float,
        lanes: Lanes | None,
    ) -> None:
        """`opening` is the first message of each RPC, and `patience_s` how long a broken connection is tried again.

        `lanes` are taken in the place of the RPC, where there are any.
        """
        self._channel = channel
        self._path, self._opening, self._answers_each = path, opening, answers_each
        self._patience_s = patience_s
        self._lanes = lanes
        # Whether the RPC is ended for something better, the lane that follows it then, and whether that is looked for.
        self._goes_over = False
        self._next_lane: Lane | None = None
        self._is_looking = False
        # The way of the RPC, and the turn that it is an attempt of.
        self._way, self._turn = channel.way, channel.turn
        # With what, and since when it is open; and when another token was shown in the place of one that was no good.
        self._shown: Metadata = ()
        self._opened_at = 0.0
        self._renewed_at = -_STOOD_S
        self._name = name
        # Held while it is decided what goes next, by the threads that send or have something sent.
        self._lock = threading.Lock()
        self._stopped = False
        self._sender: Sender[M]
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=f"{name}-{what}", daemon=True)
            for work, what in ((self._send, "sender"), (self._read, "reader"))
        ]

    def start(self) -> None:
        """Opens the RPC, and begins to send and to read."""
        self._sender = Sender(self._open())
        for each in self._threads:
            each.start()

    def cancel(self) -> None:
        """Ends the RPC, and sends nothing more."""
        self._stopped = True
        with self._lock:
            self._sender.ended = True
        self._sender.queue.put(None)
        self._sender.rpc.cancel()
        self._discard_next()

    def leave(self) -> Callable[[], None]:
        """The connection leads nowhere. What ends it is returned, for once the channel has given its own up, too: the
        stream goes on over another one. From any thread of ours.
        """
        sender = self._sender
        with self._lock:
            # The end of a lane is noticed as it is.
            self._goes_over = sender.lane is None and not self._stopped
        return sender.rpc.cancel

    def owed_bytes(self) -> int:
        """How much is under way."""
        with self._lock:
            return self._owed_bytes()

    def stop(self) -> None:
        """Ends the stream, and waits a moment for its threads: the process may be about to end."""
        self.cancel()
        for each in self._threads:
            if threading.current_thread() is not each:
                each.join(timeout=2.0)

    # ---- what a subclass says ------------------------------------------------------------------------------------

    @abstractmethod
    def _next(self, sender: Sender[M]) -> tuple[bytes, bool] | None:
        """The next message to send, and whether nothing is likely to follow before it is answered; waits for one.

        None when the sender has ended.
        """

    @abstractmethod
    def _receive(self, message: bytes) -> None:
        """Take in a message."""

    @abstractmethod
    def _again(self) -> Iterable[M]:
        """What a new RPC is to send again. The lock is held."""

    @abstractmethod
    def _owed_bytes(self) -> int:
        """How much a new RPC would have to send again. The lock is held."""

    @abstractmethod
    def _narrow(self, limit: int, failure: TensorError, *, had_progress: bool) -> None:
        """A message was larger than something on the way takes: none is from here on. Raises the failure otherwise."""

    @abstractmethod
    def _may_go_on(self, error: grpc.RpcError, failure: TensorError) -> bool:
        """Whether another RPC may follow one that failed like this."""

    @abstractmethod
    def _gone(self, cause: str, failure: TensorError) -> TensorError:
        """The failure of a stream that was tried again for too long."""

    @abstractmethod
    def _lost(self, failure: TensorError) -> None:
        """The stream is over, and nothing will be answered any more."""

    # ---- the threads ---------------------------------------------------------------------------------------------

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except TensorError as error:
            self._lost(error)
        except BaseException as error:
            if self._stopped:
                # The channel is closed under a thread that was about to begin anew.
                return
            log.exception("a thread of the session with %s failed", self._channel.address)
            self._lost(ServerFailed(f"the client could not go on with {self._channel.address}: {error!r}"))

    def _send(self) -> None:
        sender = None
        while sender is not self._sender:
            sender = self._sender
            while (found := self._next(sender)) is not None:
                sender.rpc.send(*found)
                if sender.lane is None and (self._lane_is_due() or self._channel.may_better(self._way)):
                    self._look_around(sender)

    def _lane_is_due(self) -> bool:
        return self._lanes is not None and self._lanes.tries.are_due

    def _look_around(self, sender: Sender[M]) -> None:
        """Have a better way looked for. By a thread of its own, which ends with that: it may wait for the network."""
        if not self._is_looking and not self._goes_over:
            self._is_looking = True
            # Python starts no threads any more at its end.
            with contextlib.suppress(RuntimeError):
                threading.Thread(
                    target=self._find_better, args=(sender,), name=f"{self._name}-lane", daemon=True
                ).start()

    def _find_better(self, sender: Sender[M]) -> None:
        """A lane, or else the way to the endpoint, if the session is at home in its place."""
        channel = self._channel
        try:
            lanes = self._lanes if self._lane_is_due() else None
            lane = lanes.open() if lanes is not None else None
            if lanes is not None and lane is not None:
                if self._go_over(sender, lane):
                    # Where it got through, other connections are likely to.
                    channel.return_to_endpoint()
                else:
                    lane.discard()
                    lanes.tries.failed("there was no moment for it")
            elif channel.may_better(self._way) and channel.return_to_endpoint():
                self._go_over(sender, None)
        except Exception:
            if not self._stopped:
                log.exception("a better way to %s failed", self._channel.address)
        finally:
            self._is_looking = False

    def _go_over(self, sender: Sender[M], lane: Lane | None) -> bool:
        """End the RPC at a quiet moment, which the lane then follows, or one by a better way; whether that was so."""
        until = time.monotonic() + _QUIET_S
        while time.monotonic() < until:
            with self._lock:
                if self._stopped or sender is not self._sender:
                    return False
                is_quiet = self._owed_bytes() <= _LIGHT_BYTES
                if is_quiet:
                    self._next_lane = lane
                    self._goes_over = True
            if is_quiet:
                sender.rpc.cancel()
                return True
            pause(_LOOK_S)
        return False

    def _read(self) -> None:
        broken_since: float | None = None
        pause_s = 0.0
        while not self._is_stopped():
            was_refused = False
            failure: TensorError = ServerFailed(f"the server at {self._channel.address} ended the stream")
            try:
                for message in self._sender.rpc:
                    broken_since, pause_s = None, 0.0
                    self._receive(message)
                cause = "the server ended the stream"
            except grpc.RpcError as error:
                if self._is_stopped():
                    return
                if self._goes_over:
                    self._renew()
                    continue
                failure = self._channel.translate(error)
                cause = error.details() or failure.reason
                was_refused = is_exhausted(error)
                limit = message_limit(error)
                if limit is not None:
                    self._channel.bound_messages(limit)
                    self._narrow(limit, failure, had_progress=pause_s == 0.0 and broken_since is None)
                elif is_unauthenticated(error) and self._has_another_token():
                    broken_since, pause_s = None, 0.0
                    self._renew()
                    continue
                elif not self._may_go_on(error, failure):
                    raise failure from None
            if self._is_stopped():
                return
            now = time.monotonic()
            if self._was_at_rest():
                broken_since, pause_s = None, 0.0
            is_first = broken_since is None and pause_s == 0.0
            if self._sender.lane is None and not was_refused:
                self._channel.broke(self._turn, cause, worked=is_first)
            broken_since = broken_since or now
            if now - broken_since > self._patience_s:
                raise self._gone(cause, failure)
            if is_first and not was_refused:
                # A lane that ends costs little, and what is wrong is seen when nothing follows it.
                log.log(
                    logging.DEBUG if self._sender.lane is not None else logging.WARNING,
                    "the connection to %s broke (%s); trying again for %g s",
                    self._way.address,
                    cause,
                    self._patience_s,
                )
            pause(pause_s)
            pause_s = min(max(pause_s * 2, 0.02), 1.0)
            self._renew()

    def _is_stopped(self) -> bool:
        return self._stopped

    def _has_another_token(self) -> bool:
        """Whether there is another token by now than the one that was shown, and it was not refused as well."""
        now = time.monotonic()
        if self._channel.metadata == self._shown or now < self._renewed_at + _STOOD_S:
            return False
        self._renewed_at = now
        return True

    def _was_at_rest(self) -> bool:
        """Whether what has ended is a lane that nothing was owed over, after a while: that speaks against nothing."""
        with self._lock:
            is_lane = self._sender.lane is not None
            return is_lane and time.monotonic() > self._opened_at + _STOOD_S and not self._owed_bytes()

    def _open(self, before: Lane | None = None) -> Duplex:
        """A lane, but for one that is to follow one on which nothing came."""
        lane = self._take_next()
        self._opened_at = time.monotonic()
        if lane is None and self._lanes is not None and (before is None or self._lanes.tries.judge(before)):
            lane = self._lanes.open()
        if lane is None:
            self._way, self._turn = self._channel.way, self._channel.turn
            self._shown = self._channel.metadata
            return self._channel.duplex(
                self._path, self._opening, self._way, self._shown, answers_each=self._answers_each
            )
        lane.begin()
        return lane

    def _take_next(self) -> Lane | None:
        with self._lock:
            lane, self._next_lane = self._next_lane, None
            self._goes_over = False
        return lane

    def _discard_next(self) -> None:
        lane = self._take_next()
        if lane is not None:
            lane.discard()

    def _renew(self) -> None:
        """A new sender takes over, with all that was not answered."""
        old = self._sender
        opened = self._open(None if self._was_at_rest() else old.lane)
        with self._lock:
            if isinstance(opened, Lane):
                self._send_again(opened)
                self._sender = Sender(opened)
            else:
                self._sender = Sender(opened, self._again())
            old.ended = True
            if self._stopped:
                opened.cancel()
        self._discard_next()
        old.queue.put(None)
        self._renewed()

    def _renewed(self) -> None:
        """There is a new sender."""

    def _send_again(self, lane: Lane) -> None:
        """Send over a lane what was not answered. The lock is held."""
        raise NotImplementedError

    def after_fork(self) -> None:
        """In a child process: the connection is the parent's."""
        self._stopped = True
        if self._next_lane is not None:
            self._next_lane.discard()
        if self._sender.lane is not None:
            self._sender.lane.after_fork()
