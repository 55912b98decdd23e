"""Session: the face of what is open with a server, and which session `tclient.…` means.

A session puts together the queue of calls, the batches that carry them, the threads that wait, deferred errors and bulk
transfers; each has a room of its own. Does not know what a tensor is.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import grpc

from tclient._exceptions import NotConnectedError, ServerFailed, SessionLost, TensorError, fresh
from tclient._session.batches import Batches
from tclient._session.call_queue import CallQueue
from tclient._session.calls import Call
from tclient._session.deferred import DeferredErrors
from tclient._session.forwards import Forwards
from tclient._session.kinds import Kinds
from tclient._session.waiters import Waiters
from tclient._transfer.progress import Wish
from tclient._transfer.transfers import Transfers
from tclient._transport.channel import TENSOR_SERVICE, Channel, Tls
from tclient._transport.stats import Stats
from tensorcompute import __version__
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc

_CLOSE_TIMEOUT_S = 5.0
# How long closing is tried on a broken connection; behind that the lease ends the session.
_CLOSE_AGAIN_S = 1.0
_LEASE_S = 30.0

SESSIONS: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """A name space of tensors on a server, with random state, default dtype and print options of its own.

    A context manager: within it, it is the session of `tclient.…`; at its end it is closed.
    """

    def __init__(self, channel: Channel, opened: rpc.OpenSessionResponse, *, shared_memory: bool, lane: bool) -> None:
        """Made by `open`."""
        self.channel = channel
        self.opened = opened
        self.transfers = Transfers(channel, opened, shared_memory=shared_memory)
        self.deferred = DeferredErrors(channel.address, opened)
        self.waiters = Waiters(channel, self.deferred)
        self.queue = CallQueue(self.transfers, self.waiters.wait)
        self._batches = Batches(
            channel,
            opened,
            self.queue,
            self.deferred,
            waiters=self.waiters,
            lost=self.die,
            lanes=self.transfers.endpoint.lanes(self.waiters.has_tasks) if lane else None,
        )
        self.queue.send_with(self._batches)
        self.waiters.send_with(self._batches)
        self.forwards = Forwards(channel, opened.lease_s, self.transfers.endpoint.lanes_of_forwards() if lane else None)
        self.closed = False
        # True from the beginning of its end on: `tclient.…` does not mean it any more.
        self.is_ending = False
        self.default_dtype_known = True
        # The caller's own code in graphs (autograd/_callers.py); None until there is some.
        self.callers: Any = None
        self.kinds = Kinds()
        # The one that was meant before it.
        self.previous: Session | None = None

    @classmethod
    def open(
        cls,
        address: str,
        *,
        synchronous: bool = False,
        timeout_s: float = 20.0,
        tls: Tls = False,
        shared_memory: bool = False,
        read_timeout_s: float | None = None,
        transport: grpc.Channel | None = None,
        lane: bool = True,
        device: str = "",
    ) -> Session:
        """A new session with the server at an address; see `tclient.connect`.

        `transport` is a channel that is open already, in the place of a connection.
        Raises: ConnectFailed, InvalidAddress, VersionMismatch, ServerBusy, RequestRefused.
        """
        channel = Channel(address, tls, read_timeout_s=read_timeout_s, transport=transport)
        try:
            opened = channel.open_session(f"tclient/{__version__}", timeout_s, device)
            channel.follow(opened)
            channel.take_limits(opened.limits)
            opened.lease_s = opened.lease_s or _LEASE_S
            session = cls(channel, opened, shared_memory=shared_memory, lane=lane)
            session.queue.synchronous = synchronous
            session._batches.start()
        except BaseException:
            channel.close()
            raise
        SESSIONS.add(session)
        return session

    # ---- what is known of it -------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Of the server."""
        return self.channel.address

    @property
    def endpoint(self) -> str:
        """Where what it asks for goes now: its own engine's address, where a server of many engines has named one."""
        return self.channel.way.address.text

    @property
    def secret(self) -> bytes:
        """What proves to the server that the session is ours."""
        return self.opened.session

    @property
    def lease_s(self) -> float:
        """How long the server keeps the session while no connection to it is there."""
        return self.opened.lease_s

    @property
    def limits(self) -> rpc.Limits:
        """What the server takes at most."""
        return self.opened.limits

    @property
    def stats(self) -> Stats:
        """What went over the connection."""
        return self.channel.stats

    @property
    def dead(self) -> TensorError | None:
        """Why the session is gone; None while it is there."""
        return self.channel.dead

    @property
    def synchronous(self) -> bool:
        """Whether every call waits, and raises its error at its own line."""
        return self.queue.synchronous

    @synchronous.setter
    def synchronous(self, mode: bool) -> None:
        self.queue.set_synchronous(mode)

    @property
    def read_timeout_s(self) -> float | None:
        """How long a thread waits for the server at most; None is for as long as it takes."""
        return self.channel.read_timeout_s

    @read_timeout_s.setter
    def read_timeout_s(self, limit_s: float | None) -> None:
        self.channel.read_timeout_s = limit_s

    @property
    def checksums(self) -> bool:
        """Whether bulk bytes carry a checksum of ours. They go over gRPC then."""
        return self.transfers.checksums

    @checksums.setter
    def checksums(self, wanted: bool) -> None:
        self.transfers.checksums = wanted

    @property
    def progress(self) -> Wish:
        """Whether a transfer of more than a second shows a bar; or a function of (done, total) in bytes."""
        return self.transfers.progress

    @progress.setter
    def progress(self, wish: Wish) -> None:
        self.transfers.progress = wish

    # ---- waiting -------------------------------------------------------------------------------------------------

    def wait(self, call: Call) -> pb.Value | None:
        """What the call returned, once it is answered; None if there is nothing to tell. Raises what went wrong."""
        return self.waiters.wait(call)

    async def wait_async(self, call: Call) -> pb.Value | None:
        """As `wait`, without holding up the event loop."""
        return await self.waiters.wait_async(call)

    def synchronize(self) -> None:
        """Wait until everything that was issued has run. Raises the first failed effect that was not raised yet."""
        if self.dead is not None:
            raise fresh(self.dead)
        self.catch_up()
        self._after_synchronize()

    def catch_up(self) -> None:
        """Wait until everything that was issued is answered, which is one wait however many batches it is in."""
        last = self._batches.last()
        if last is not None and not last.done:
            self.waiters.block(last)

    async def synchronize_async(self) -> None:
        """As `synchronize`, without holding up the event loop."""
        last = self._batches.last()
        if last is not None and not last.done:
            await self.waiters.block_async(last)
        self._after_synchronize()

    def _after_synchronize(self) -> None:
        self.deferred.tell()
        if self.dead is not None:
            raise fresh(self.dead)

    # ---- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Lets go of everything the session holds. Raises the first failed effect that was not raised yet."""
        if self.closed:
            return
        self.is_ending = True
        failed: TensorError | None = None
        if self.dead is None:
            try:
                last = self._batches.last()
                if last is not None and not last.done:
                    # Not for ever: the server may be gone.
                    self.waiters.block_for(last, _CLOSE_TIMEOUT_S)
                self._after_synchronize()
            except TensorError as error:
                failed = error
        self.closed = True
        self._batches.stop()
        over = NotConnectedError(f"the session with {self.address} is closed; open another with tclient.connect()")
        self.forwards.end(over)
        if not isinstance(self.dead, (SessionLost, ServerFailed)):
            try:
                self.channel.call(
                    TENSOR_SERVICE + "CloseSession",
                    rpc.CloseSessionRequest(session=self.secret),
                    rpc.CloseSessionResponse,
                    timeout_s=_CLOSE_TIMEOUT_S,
                    again_s=_CLOSE_AGAIN_S,
                )
            except TensorError:
                pass  # the lease will end it
        self.die(over)
        self.channel.close()
        self.transfers.endpoint.close()
        self.deferred.warn_of_unread()
        if failed is not None:
            raise failed

    def die(self, failure: TensorError) -> None:
        """The session is gone: every call that waits, and every later one, fails with this."""
        if self.channel.dead is None:
            self.channel.dead = failure
        self.queue.end()
        for call in self._batches.abandon():
            call.failure = failure
            call.done = True
        self.waiters.notify()
        self.forwards.end(failure)
        self.transfers.endpoint.interrupt()

    def after_fork(self) -> None:
        """In a child process: the connection belongs to the parent, and so do the tensors."""
        self._batches.after_fork()
        self.forwards.after_fork()
        self.queue.after_fork()
        self.queue.end()
        self.waiters.after_fork()
        self.transfers.endpoint.after_fork()
        self.deferred.forget()
        self.closed = self.is_ending = True
        self.channel.dead = NotConnectedError(
            "this session was opened before the process forked and belongs to the parent process; "
            "open another in the child with tclient.connect()"
        )

    # ---- which session is meant ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def use(self) -> Iterator[Session]:
        """Within it this is the session of `tclient.…` for this thread or task; it stays open at the end."""
        token = _within.set(self)
        try:
            yield self
        finally:
            _within.reset(token)

    def __enter__(self) -> Session:
        before = connected()
        self.previous = before if before is not self else self.previous
        make_current(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.close()
        except TensorError:
            if kind is None:
                raise
        finally:
            previous = self.previous
            make_current(previous if previous is not None and not previous.closed else None)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "lost" if self.dead is not None else "open"
        moved = f" at {self.endpoint}" if self.endpoint != self.address else ""
        return f"<tclient.Session with {self.address}{moved}, {state}>"


_current: Session | None = None
# Within `with session.use()`: the one that this thread or task means, whatever others mean.
_within: ContextVar[Session | None] = ContextVar("tclient session", default=None)


def connected() -> Session | None:
    """The current session, if there is one."""
    for session in (_within.get(), _current):
        if session is not None and not session.is_ending:
            return session
    return None


def make_current(session: Session | None) -> None:
    """Make a session the one that is meant, by this thread or task where it means one of its own."""
    global _current
    within = _within.get()
    if within is not None and not within.is_ending:
        _within.set(session)
    else:
        _current = session


def forget_current() -> None:
    """No session is meant any more."""
    global _current
    _within.set(None)
    _current = None
