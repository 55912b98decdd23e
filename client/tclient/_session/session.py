"""Session: the face of what is open with a server, and which session `tclient.…` means.

A session puts together the queue of calls, the batches that carry them, the threads that wait, deferred errors and bulk
transfers; each has a room of its own. Does not know what a tensor is.
"""

from __future__ import annotations

import contextlib
import os
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import grpc

from tclient import _notebook
from tclient._exceptions import NotConnectedError, ServerFailed, SessionLost, SessionTakenOver, TensorError, fresh
from tclient._session import names as kept_names
from tclient._session.batches import Batches
from tclient._session.call_queue import CallQueue
from tclient._session.calls import Call
from tclient._session.credentials import SessionCredentials
from tclient._session.deferred import DeferredErrors
from tclient._session.forwards import Forwards
from tclient._session.kinds import Kinds
from tclient._session.vigil import keep_vigil
from tclient._session.waiters import Waiters
from tclient._transfer.progress import Wish
from tclient._transfer.transfers import Transfers
from tclient._transport.channel import TENSOR_SERVICE, Channel
from tclient._transport.stats import Stats
from tclient._transport.tracing import tracing_for
from tclient._transport.trust import Path, Tls, Token, Trust, hidden
from tensorcompute import __version__
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc

_CLOSE_TIMEOUT_S = 5.0
# How long closing is tried on a broken connection; behind that the lease ends the session.
_CLOSE_AGAIN_S = 1.0
_LEASE_S = 30.0
# From here on ids are the server's.
_FIRST_SERVER_ID = 1 << 48

# What a session says of its tensors, which nothing here knows: filled in by who does.
OF_TENSORS: dict[str, Callable[..., Any]] = {}
SESSIONS: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """A name space of tensors on a server, with random state, default dtype and print options of its own.

    A context manager: within it, it is the session of `tclient.…`; at its end it is closed.
    """

    def __init__(
        self,
        channel: Channel,
        opened: rpc.OpenSessionResponse,
        *,
        shared_memory: bool,
        lane: bool,
        taken: rpc.AttachSessionResponse | None = None,
    ) -> None:
        """Made by `open`; and by `attach`, where it was taken over as it is told there."""
        self.channel = channel
        self.opened = opened
        self.transfers = Transfers(channel, opened, shared_memory=shared_memory)
        self.deferred = DeferredErrors(channel.address, opened)
        self.waiters = Waiters(channel, self.deferred)
        self.queue = CallQueue(self.transfers, self.waiters.wait, 0 if taken is None else taken.next_id)
        self._batches = Batches(
            channel,
            opened,
            self.queue,
            self.deferred,
            waiters=self.waiters,
            lost=self.die,
            lanes=self.transfers.endpoint.lanes(self.waiters.has_tasks) if lane else None,
            received=0 if taken is None else taken.received_seq,
        )
        self.queue.send_with(self._batches)
        self.waiters.send_with(self._batches)
        self.forwards = Forwards(
            channel, opened, self.transfers.endpoint.lanes_of_forwards() if lane else None, self._batches.poke
        )
        owing = (self._batches, self.forwards, self.transfers)
        self._vigils = [keep_vigil(channel, each, self._renew) for each in owing]
        self.closed = False
        # The name of its last checkpoint.
        self._checkpoint = ""
        # True from the beginning of its end on: `tclient.…` does not mean it any more.
        self.is_ending = False
        # Kept for as long as it is open.
        self.held: list[Any] = []
        # Whether tensors may have names, and from where on ids are made here.
        self.has_names = taken is not None
        self._first_id = 0 if taken is None else taken.next_id
        # Whether it is torch's own, as in every session to begin with.
        self.default_dtype_known = taken is None
        if taken is not None:
            self.deferred.take_over(taken.errors)
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
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        token: Token | None = None,
        trust: Trust | None = None,
        shared_memory: bool = False,
        read_timeout_s: float | None = None,
        transport: grpc.Channel | None = None,
        lane: bool = True,
        device: str = "",
        trace: bool | None = None,
    ) -> Session:
        """A new session with the server at an address; see `tclient.connect`.

        `transport` is a channel that is open already, in the place of a connection, and `trust` what else tls,
        tls_cert, tls_key and token make.
        Raises: ConnectFailed, NotAuthenticated, InvalidAddress, VersionMismatch, ServerBusy, RequestRefused.
        """
        token = hidden(token)
        given = trust or Trust(tls, tls_cert=tls_cert, tls_key=tls_key, token=token)
        tracing = tracing_for(trace)
        channel = Channel(address, given, read_timeout_s=read_timeout_s, transport=transport, tracing=tracing)
        with _closing_if_it_fails(channel):
            opened = channel.open_session(f"tclient/{__version__}", timeout_s, device)
            return cls._begun(channel, opened, synchronous, shared_memory=shared_memory, lane=lane)

    @classmethod
    def attach(
        cls,
        credentials: SessionCredentials,
        *,
        trust: Trust | None = None,
        synchronous: bool = False,
        timeout_s: float | None = None,
        shared_memory: bool = False,
        read_timeout_s: float | None = None,
        transport: grpc.Channel | None = None,
        lane: bool = True,
        trace: bool | None = None,
    ) -> Session:
        """A session of another process, from which it is taken over; see `tclient.attach`."""
        trust = trust or Trust(credentials.trusts)
        tracing, at = tracing_for(trace), credentials.address
        channel = Channel(at, trust, read_timeout_s=read_timeout_s, transport=transport, tracing=tracing)
        with _closing_if_it_fails(channel):
            taken = channel.attach_session(credentials.secret, f"tclient/{__version__}", timeout_s)
            return cls._begun(channel, taken.opened, synchronous, shared_memory=shared_memory, lane=lane, taken=taken)

    @classmethod
    def _begun(cls, channel: Channel, opened: rpc.OpenSessionResponse, synchronous: bool, **how: Any) -> Session:
        channel.follow(opened)
        channel.take_limits(opened.limits)
        opened.lease_s = opened.lease_s or _LEASE_S
        session = cls(channel, opened, **how)
        session.queue.synchronous = synchronous
        session._batches.start()
        SESSIONS.add(session)
        return session

    # ---- tensors by name -----------------------------------------------------------------------------------------

    def tensors(self) -> Any:
        """The tensors that have names (`x.name = "weights"`), as a dict by those. Its `others` are those that
        are in the session without one and that nobody here holds, as a process before this one has left them. Waits.
        """
        return OF_TENSORS["tensors"](self)

    def name(self, module: Any, prefix: str = "") -> None:
        """Give every parameter and buffer of a module a name: its key in the state_dict, behind the prefix and a dot.
        So it is for the tensors of a dict; a tensor gets the prefix alone.
        """
        OF_TENSORS["name"](self, module, prefix)

    def is_of_others(self, number: int) -> bool:
        """Whether an id was made by somebody else: another process that had the session, or the server."""
        return number < self._first_id or number >= _FIRST_SERVER_ID

    # ---- another process -----------------------------------------------------------------------------------------

    def credentials(self) -> SessionCredentials:
        """What another process needs to take the session over: `tclient.attach(credentials)`.

        They stay good for that until the session ends, also when others have attached to it meanwhile.
        """
        if self.dead is not None:
            raise fresh(self.dead)
        tls = self.channel.trust.tls
        named = os.path.abspath(os.fspath(tls)) if not isinstance(tls, bool) else "1" if tls else ""
        return SessionCredentials(self.address, self.secret, named)

    def detach(self) -> SessionCredentials:
        """Let go of the session here, and leave it to its lease on the server, with all that it holds; what another
        process needs to go on with it. Waits until everything that was issued has run. Raises the first failed effect
        that was not raised yet; the session stays open then.
        """
        self.synchronize()
        credentials = self.credentials()
        self._end(closes=False)
        return credentials

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

    def profile(self) -> Any:
        """Within `with session.profile() as profile:` it is noted what the time goes into: calls and turns on the
        server, kernels of its GPU, and the lines here that wait. `print(profile)` sums up, and
        `profile.save("trace.json")` writes a trace that https://ui.perfetto.dev opens. Calls are slower meanwhile.
        """
        return OF_TENSORS["profile"](self)

    # ---- what outlives it -----------------------------------------------------------------------------------------

    def keep(self, name: str, obj: Any, *, overwrite: bool = True) -> None:
        """As `tclient.keep`, of what this session holds."""
        OF_TENSORS["keep"](self, name, obj, overwrite=overwrite)

    def recall(self, name: str, device: Any = None, *, weights_only: bool | None = None) -> Any:
        """As `tclient.recall`, into this session."""
        return OF_TENSORS["recall"](self, name, device, weights_only=weights_only)

    def checkpoint(self, name: str, *, overwrite: bool = True) -> None:
        """Keep all that the session holds on the server's disk under a name: tensors, gradients, optimisers, random
        state and settings. Waits. The session goes on; `tclient.resume(name)` is another one with all that, on any day.

        Graphs of autograd are not in it: call it between two steps. What else is not in it, a warning names.
        Raises: ValueError for what is no name, or for one that is taken; OutOfMemoryError; ServerBusy where the disk is
        full; RequestRefused where the server has no data directory; the first failed effect that was not raised yet.
        """
        self.synchronize()
        for each in kept_names.checkpoint(self, name, overwrite=overwrite):
            warnings.warn(f"checkpoint {name!r} is without {each}", stacklevel=2)
        self._checkpoint = name

    def names(self) -> list[kept_names.KeptName]:
        """As `tclient.names`, of the server of this session."""
        return kept_names.names(self)

    def forget(self, name: str) -> None:
        """As `tclient.forget`, of the server of this session."""
        kept_names.forget(self, name)

    def cancel(self) -> None:
        """End what was issued, at the next call: what runs on the server, and what waits there. From any thread.

        Calls that had run by then are done, and their results are there. Of the others none is begun any more: who
        reads a result of theirs is raised CallCancelled, and so is the next thread that waits, once, where one with an
        effect was among them. The session goes on. A kernel, or a compiled function, is one call: it is run to its
        end, which is not waited for here. `tclient.cancel(credentials)` does the same from another process.
        """
        if self.dead is not None:
            raise fresh(self.dead)
        self._batches.flush()
        self.channel.cancel_session(self.secret, self._batches.newest)

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
        self._end(closes=not isinstance(self.dead, (SessionLost, SessionTakenOver, ServerFailed)))
        self.deferred.warn_of_unread()
        if failed is not None:
            raise failed

    def _end(self, *, closes: bool) -> None:
        """Nothing goes over it any more from here. `closes` says that the server is to end it."""
        self.is_ending = self.closed = True
        self._batches.stop()
        over = NotConnectedError(
            f"the session with {self.address} is closed; open another with tclient.connect()"
            if closes or self.dead is not None
            else f"the session with {self.address} was detached; tclient.attach(credentials) goes on with it"
        )
        self.forwards.stop(over)
        if closes:
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

    def _renew(self) -> None:
        """Go on over other connections: those that there are lead nowhere."""
        ends = [self._batches.leave(), *self.forwards.leave()]
        self.channel.renew()
        for end in ends:
            end()
        self.transfers.endpoint.leave()

    def die(self, failure: TensorError) -> None:
        """The session is gone: every call that waits, and every later one, fails with this."""
        if self._checkpoint and type(failure) is SessionLost:
            advice = f"tclient.resume({self._checkpoint!r}) opens one with all that was in it at its last checkpoint"
            failure, reason = SessionLost(f"{failure}; {advice}"), failure.reason
            failure.reason = reason
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

    def _repr_html_(self) -> str:
        return _notebook.of_session(self)


@contextlib.contextmanager
def _closing_if_it_fails(channel: Channel) -> Iterator[None]:
    try:
        yield
    except BaseException:
        channel.close()
        raise


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
