"""A session: the calls of this client on their way, in order, and what came back.

The issuing threads append calls to `pending`; the stream takes them from there into batches, and settles the batches
when they are answered. A waiting thread registers itself in `_waiting`. No lock is held during a write, so the reader
always gets on: no deadlock under back-pressure. Knows the stream; does not know what a tensor is.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import socket
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tclient import _state
from tclient._cell import Call
from tclient._connection import Connection, Tls
from tclient._exceptions import NotConnectedError, ServerFailed, SessionLost, TensorError
from tclient._limits import late
from tclient._oversize import FRAME_BYTES, HEAVY_BYTES, fit
from tclient._reports import Reports
from tclient._stream import Stream
from tclient._wire import FIRST_ID
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc

if TYPE_CHECKING:
    from tclient._data_lines import Line

# What gRPC takes where a server names no limit.
_MESSAGE_BYTES = 4 << 20
# Results let go with one call; the rest go with the next ones.
_MAX_DRAIN = 4096
# Calls that may wait to be sent before the issuing thread has to wait too.
_PENDING_LIMIT = 16_384
# Bytes of large calls (arrays by value) that may wait to be answered.
_HEAVY_LIMIT = 32 << 20
_CLOSE_TIMEOUT_S = 5.0
# Memory is shared by way of a Unix socket that has no place in the file system.
_CAN_SHARE = sys.platform == "linux" and hasattr(socket, "AF_UNIX") and hasattr(socket, "recv_fds")
# How long closing is tried on a broken connection; behind that the lease ends the session.
_CLOSE_AGAIN_S = 1.0
# The answers to such a batch are copied out of it, so that a small one does not keep all of it in memory.
_LARGE_REPLY_BYTES = 32_768

SESSIONS: weakref.WeakSet[Session] = weakref.WeakSet()


class Stats:
    """Counters of a session: waits (of a thread for an answer), batches, calls, uploads, downloads."""

    __slots__ = ("batches", "calls", "downloads", "uploads", "waits")

    def __init__(self) -> None:
        self.waits = self.batches = self.calls = self.uploads = self.downloads = 0

    def __repr__(self) -> str:
        return (
            f"Stats(waits={self.waits}, batches={self.batches}, calls={self.calls}, "
            f"uploads={self.uploads}, downloads={self.downloads})"
        )


class Session:
    """A name space of tensors on a server, with random state, default dtype and print options of its own.

    A context manager: within it, it is the session of `tclient.…`; at its end it is closed.
    """

    def __init__(
        self,
        address: str,
        *,
        synchronous: bool = False,
        timeout_s: float = 20.0,
        tls: Tls = False,
        shared_memory: bool = False,
        read_timeout_s: float | None = None,
    ) -> None:
        from tclient import __version__

        self.tls = tls
        connection = Connection(address, tls)
        self.address = connection.address
        try:
            opened = connection.open_session(f"tclient/{__version__}", timeout_s)
            if opened.endpoint and opened.endpoint != self.address:
                connection.close()
                connection = Connection(opened.endpoint, tls)
        except BaseException:
            connection.close()
            raise
        self.connection = connection
        self.opened: rpc.OpenSessionResponse = opened
        self.secret: bytes = opened.session
        self.lease_s: float = opened.lease_s or 30.0
        self.limits: rpc.Limits = opened.limits
        # Of a message to the server, of an array in one, and of a call that is not looked at twice; and how many
        # results one call lets go.
        self.max_message = self.max_inline = self.max_light = self.max_drain = 0
        self.bound_messages(opened.limits.max_message_bytes or _MESSAGE_BYTES)
        self.stats = Stats()
        # Where bulk bytes go outside gRPC; empty where nothing was named, or nothing answered.
        self.data_endpoint: str = opened.data_endpoint
        # The same through memory of this machine, where both sides want that.
        self.shared_memory: str = opened.shared_memory if shared_memory and _CAN_SHARE else ""
        # Connections to one of them that rest between two transfers.
        self.lines: list[Line] = []
        # Those that move bytes just now.
        self.lines_in_use: set[Line] = set()
        # When a new connection may be tried again, after one that broke while it opened.
        self.data_rests_until = 0.0
        # Whether bulk bytes carry a checksum of ours. They go over gRPC then.
        self.checksums = False
        # Whether a transfer of more than a second shows a bar on a terminal; or a function of (done, total) in bytes.
        self.progress: bool | Callable[[int, int], object] = True

        # Read and written by every call; see _issue.py.
        self.pending: list[Call] = []
        self.drops: deque[bytes] = deque()
        self.next_id = itertools.count(FIRST_ID).__next__
        # True when the next call must do more than append: wake the sender, wait for itself, or fail.
        self.attention = True
        # Pending calls from which on the issuing thread should let the sender have the interpreter.
        self.relief = 0
        # Raised by calls that may change requires_grad (epoch) or shapes and dtypes too (meta_epoch) of tensors known.
        self.epoch = 0
        self.meta_epoch = 0
        # True when the sender sleeps without a timeout, so that a dropped tensor has to wake it.
        self.dozing = False

        self.synchronous = synchronous
        # How long a thread waits for the server at most; None is for as long as it takes.
        self.read_timeout_s = read_timeout_s
        self.dead: TensorError | None = None
        self.closed = False
        self.default_dtype_known = True
        self._waiting: dict[int, tuple[Any, Callable[[], None]]] = {}
        self._tickets = itertools.count().__next__
        # Bytes of large calls that are not answered.
        self.heavy = 0
        self._heavy_lock = threading.Lock()
        self.reports = Reports(self.address, opened)
        # True when the next thread that waits has something to be told.
        self.noteworthy = False
        self._previous: Session | None = None
        self.stream = Stream(self)
        SESSIONS.add(self)
        self.stream.start()

    # ---- issuing -------------------------------------------------------------------------------------------------

    def attend(self, call: Call) -> None:
        """What a call needs beyond being appended: wake the sender, wait (synchronous mode), or fail (session gone)."""
        if self.dead is not None:
            self.pending.clear()
            raise self._again(self.dead)
        self.stream.wake()
        if self.synchronous:
            self.wait(call)

    def expect(self, call: Call) -> None:
        """Puts a call on its way that its thread waits for next: waiting sends it."""
        if self.dead is not None:
            raise self._again(self.dead)
        if len(call.data) > self.max_light:
            self.hold_heavy(call)
        self.pending.append(call)

    def relieve(self) -> None:
        """Called when many calls are pending: sends them, or blocks when there are too many."""
        self.stream.hand_over()
        self._while(lambda: len(self.pending) > _PENDING_LIMIT)

    def bound_messages(self, size_bytes: int) -> None:
        """Makes no message to the server larger than this from now on."""
        self.max_message = size_bytes
        self.max_inline = min(self.limits.max_inline_bytes or 1 << 20, size_bytes // 2)
        self.max_light = min(HEAVY_BYTES, size_bytes - FRAME_BYTES)
        self.max_drain = min(_MAX_DRAIN, size_bytes // 128)

    def hold_heavy(self, call: Call) -> None:
        """Called before a large call: blocks while many such bytes are on their way.

        Raises: RequestRefused for one that no message can carry.
        """
        if len(call.data) > self.max_message - FRAME_BYTES:
            fit(self, call)
        size_bytes = len(call.data)
        if size_bytes <= HEAVY_BYTES:
            return
        self._while(lambda: self.heavy > _HEAVY_LIMIT, call)
        with self._heavy_lock:
            self.heavy += size_bytes

    def _while(self, is_full: Callable[[], bool], call: Call | None = None) -> None:
        """Block while there is no room for more. Raises: ReadTimeout."""
        latest = math.inf if self.read_timeout_s is None else time.monotonic() + self.read_timeout_s
        while is_full() and self.dead is None:
            if time.monotonic() > latest:
                raise late(self, call)
            self.stream.wake()
            time.sleep(0.0005)

    def settle_heavy(self, size_bytes: int) -> None:
        """Called when such a call is answered."""
        with self._heavy_lock:
            self.heavy = max(0, self.heavy - size_bytes)

    def rouse(self) -> None:
        """Called when a tensor is dropped while the sender sleeps for long."""
        self.dozing = False
        self.stream.token()

    # ---- waiting -------------------------------------------------------------------------------------------------

    def wait(self, call: Call) -> pb.Value | None:
        """What the call returned, once it is answered; None if there is nothing to tell. Raises what went wrong."""
        if not call.done:
            self._block(call)
        return self.outcome(call)

    def outcome(self, call: Call) -> pb.Value | None:
        """What an answered call returned. Raises the first failed effect before it, or its own error."""
        if self.noteworthy:
            self.tell()
        result = call.result
        if result is None and call.failure is not None:
            raise self._again(call.failure)
        if result is None:
            return None
        if isinstance(result, bytes):
            return pb.Value.FromString(result)
        if result.HasField("error"):
            raise self.reports.exception(result.error, call)
        return result.value

    def tell(self) -> None:
        """Relays the warnings that came, and raises the first failed effect that nobody has been told of."""
        self.noteworthy = False
        self.reports.relay_warnings()
        if self.reports.troubles:
            self.noteworthy = True
            self.reports.raise_trouble()

    def _block(self, answered: Any) -> None:
        """Wait until `answered.done`. Ctrl-C ends the wait, and only the wait."""
        self.stats.waits += 1
        lock = threading.Lock()
        lock.acquire()
        ticket = self._tickets()
        self._waiting[ticket] = (answered, lock.release)
        try:
            self.stream.flush()
            if not answered.done:
                limit_s = self.read_timeout_s
                lock.acquire(timeout=-1 if limit_s is None else limit_s)
                if limit_s is not None and not answered.done:
                    raise late(self, answered)
        finally:
            self._waiting.pop(ticket, None)

    async def wait_async(self, call: Call) -> pb.Value | None:
        """As `wait`, without holding up the event loop."""
        import asyncio

        if not call.done:
            self.stats.waits += 1
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()

            def answer() -> None:
                if not future.done():
                    future.set_result(None)

            ticket = self._tickets()

            def release() -> None:
                loop.call_soon_threadsafe(answer)

            self._waiting[ticket] = (call, release)
            try:
                self.stream.flush()
                if not call.done:
                    try:
                        await asyncio.wait_for(future, self.read_timeout_s)
                    except TimeoutError:
                        raise late(self, call) from None
            finally:
                self._waiting.pop(ticket, None)
        return self.outcome(call)

    def notify(self) -> None:
        """Wakes the threads whose call is answered."""
        if self._waiting:
            for ticket, (answered, release) in list(self._waiting.items()):
                if answered.done and self._waiting.pop(ticket, None) is not None:
                    try:
                        release()
                    except RuntimeError:  # an event loop that is closed by now
                        pass

    def synchronize(self) -> None:
        """Wait until everything that was issued has run. Raises the first failed effect that was not raised yet."""
        if self.dead is not None:
            raise self._again(self.dead)
        self.catch_up()
        self._after_synchronize()

    def catch_up(self) -> None:
        """Wait until everything that was issued is answered, which is one wait however many batches it is in."""
        last = self.stream.last()
        if last is not None and not last.done:
            self._block(last)

    async def synchronize_async(self) -> None:
        """As `synchronize`, without holding up the event loop."""
        last = self.stream.last()
        if last is not None and not last.done:
            await self.wait_async(last)
        self._after_synchronize()

    def _after_synchronize(self) -> None:
        self.tell()
        if self.dead is not None:
            raise self._again(self.dead)

    # ---- settling (the reader's thread) --------------------------------------------------------------------------

    def settle_values(self, calls: list[Call], values: list[tuple[int, bytes]]) -> None:
        """Takes in the answer to a batch that has nothing but values in it, still encoded."""
        for index, value in values:
            calls[index].result = value
        for call in calls:
            call.done = True

    def settle(self, seq: int, calls: list[Call], reply: pb.BatchReply, size_bytes: int) -> None:
        """Takes in the answer to a batch."""
        for result in reply.results:
            call = calls[result.call_index]
            if result.HasField("error"):
                self.reports.note(seq, result, call)
                self.noteworthy = True
            elif size_bytes > _LARGE_REPLY_BYTES and result.value.WhichOneof("kind") == "tensor":
                # A description that outlives the reply must not keep all of it in memory.
                small = pb.Result()
                small.CopyFrom(result)
                result = small
            call.result = result
        for warning in reply.warnings:
            self.reports.warnings.append((warning, calls[warning.call_index]))
            self.noteworthy = True
        for call in calls:
            call.done = True

    def die(self, failure: TensorError) -> None:
        """The session is gone: every call that waits, and every later one, fails with this."""
        if self.dead is None:
            self.dead = failure
        self.attention = True
        self.drops = deque(maxlen=0)
        self.dozing = False
        for call in self.stream.abandon():
            call.failure = failure
            call.done = True
        self.notify()
        for line in list(self.lines_in_use):
            line.interrupt()

    # ---- errors --------------------------------------------------------------------------------------------------

    @staticmethod
    def _again(failure: TensorError) -> TensorError:
        """A fresh copy: one exception object raised in many places would collect their tracebacks."""
        copy = type(failure)(*failure.args)
        copy.reason = failure.reason
        return copy

    # ---- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Lets go of everything the session holds. Raises the first failed effect that was not raised yet."""
        if self.closed:
            return
        _state.leave(self)
        trouble: TensorError | None = None
        if self.dead is None:
            try:
                self._drain()
                self._after_synchronize()
            except TensorError as error:
                trouble = error
        self.closed = True
        self.stream.stop()
        if not isinstance(self.dead, (SessionLost, ServerFailed)):
            try:
                self.connection.call(
                    "CloseSession",
                    rpc.CloseSessionRequest(session=self.secret),
                    rpc.CloseSessionResponse,
                    timeout_s=_CLOSE_TIMEOUT_S,
                    again_s=_CLOSE_AGAIN_S,
                )
            except TensorError:
                pass  # the lease will end it
        self.die(NotConnectedError(f"the session with {self.address} is closed; open another with tclient.connect()"))
        self.connection.close()
        while self.lines:
            self.lines.pop().close()
        self.reports.warn_of_unread()
        if trouble is not None:
            raise trouble

    def _drain(self) -> None:
        """synchronize, but not for ever: the server may be gone."""
        last = self.stream.last()
        if last is None or last.done:
            return
        lock = threading.Lock()
        lock.acquire()
        ticket = self._tickets()
        self._waiting[ticket] = (last, lock.release)
        try:
            self.stream.flush()
            if not last.done:
                lock.acquire(timeout=_CLOSE_TIMEOUT_S)
        finally:
            self._waiting.pop(ticket, None)

    def after_fork(self) -> None:
        """In a child process: the connection belongs to the parent, and so do the tensors."""
        self.drops = deque(maxlen=0)
        self.dozing = False
        self.synchronous = False
        self._heavy_lock = threading.Lock()
        self._waiting = {}
        self.lines = []
        self.lines_in_use = set()
        self.reports.forget()
        self.pending.clear()
        self.closed = True
        self.attention = True
        self.dead = NotConnectedError(
            "this session was opened before the process forked and belongs to the parent process; "
            "open another in the child with tclient.connect()"
        )

    def use(self) -> contextlib.AbstractContextManager[Session]:
        """Within it this is the session of `tclient.…` for this thread or task; it stays open at the end."""
        return _state.using(self)

    def __enter__(self) -> Session:
        self._previous = _state.enter(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.close()
        except TensorError:
            if kind is None:
                raise
        finally:
            _state.restore(self._previous)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "lost" if self.dead is not None else "open"
        return f"<tclient.Session with {self.address}, {state}>"
