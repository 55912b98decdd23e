"""connect, and what happens to sessions when the process forks or ends."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import traceback
from typing import Any

from tclient._exceptions import ConnectFailed, NotConnectedError, TensorError
from tclient._session import names as kept_names
from tclient._session.credentials import SessionCredentials, given_credentials
from tclient._session.session import SESSIONS, Session, connected, forget_current, make_current
from tclient._transport.channel import Channel
from tclient._transport.duplex import gave_up_on_fork
from tclient._transport.forks import GATE
from tclient._transport.trust import Path, Tls, Token, Trust, hidden

_lock = threading.RLock()
# In a forked child the channels of the parent are kept for ever: ending them there would block or disturb the parent.
_kept: list[Any] = []
synchronous_default = False
# Where a server listens that was told nothing else.
_DEFAULT_ADDRESS = "127.0.0.1:50051"


def current() -> Session:
    """The session that new tensors belong to. Opens one if TCLIENT_ADDRESS says where. Raises NotConnectedError."""
    session = connected()
    if session is not None:
        return session
    address = os.environ.get("TCLIENT_ADDRESS")
    if address:
        with _lock:
            return connected() or connect(address)
    raise NotConnectedError(
        'not connected to a tensor server; call tclient.connect("host:port") first, or set TCLIENT_ADDRESS=host:port '
        "(start a server with: tserver serve --listen 127.0.0.1:50051)"
    )


def connect(
    address: str | None = None,
    *,
    synchronous: bool | None = None,
    timeout_s: float = 20.0,
    tls: Tls | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    token: Token | None = None,
    shared_memory: bool | None = None,
    read_timeout_s: float | None = None,
    lane: bool | None = None,
    device: object = None,
    trace: bool | None = None,
) -> Session:
    """Open a session with the server at `address` ("host:port") and make it the current one.

    Without an address it is TCLIENT_ADDRESS, and without that 127.0.0.1:50051, where a server of this machine listens.
    With synchronous=True every call waits, and raises its error at its own line. For a server with TLS, tls=True trusts
    the authorities that the machine knows, and a path those of a PEM file; None takes TCLIENT_TLS (1, or a path).
    tls_cert and tls_key are PEM files of a certificate of the client's own, where the server wants one; None takes
    TCLIENT_TLS_CERT and TCLIENT_TLS_KEY. token says who calls: text, bytes, or a function that gives it and is asked
    for each RPC; None takes TCLIENT_TOKEN, or the file TCLIENT_TOKEN_FILE, which is read again when it changes. It goes
    over TLS, or to this machine, and is refused elsewhere. With shared_memory=True, large arrays go through memory of
    this machine, if the server is on it and allows that; None takes TCLIENT_SHARED_MEMORY (1). timeout_s is for
    connecting as a whole; read_timeout_s for each wait for an answer later, and for each transfer that does not get on:
    ReadTimeout is raised then, and the session goes on. None waits for as long as it takes. Calls travel over a socket
    of their own beside gRPC, where that can be reached; lane=False keeps them on gRPC, None takes TCLIENT_LANE (0 keeps
    them there). Where a server has several engines, device is the one of the server's devices that the session is to
    live on, such as "cuda:3"; None is wherever there is room. trace says whether what is done within spans of
    OpenTelemetry goes on in spans here and on the server; None takes TCLIENT_TRACE (1 or 0), or whether the program has
    set OpenTelemetry up.
    Raises: ConnectFailed if nothing answers there that can be trusted; NotAuthenticated; InvalidAddress;
    VersionMismatch; ServerBusy; RequestRefused if the server has no such device.
    """
    token = hidden(token)
    address = address or os.environ.get("TCLIENT_ADDRESS")
    try:
        session = Session.open(
            address or _DEFAULT_ADDRESS,
            synchronous=synchronous_default if synchronous is None else synchronous,
            timeout_s=timeout_s,
            trust=Trust.given(tls, tls_cert, tls_key, token),
            shared_memory=os.environ.get("TCLIENT_SHARED_MEMORY") == "1" if shared_memory is None else shared_memory,
            read_timeout_s=read_timeout_s,
            lane=os.environ.get("TCLIENT_LANE") != "0" if lane is None else lane,
            device="" if device is None else str(device),
            trace=trace,
        )
    except ConnectFailed as error:
        if not address:
            error.args = (
                f"no address was given and TCLIENT_ADDRESS is not set, so {_DEFAULT_ADDRESS} was tried: {error}",
            )
        raise
    with _lock:
        session.previous = connected()
        make_current(session)
    return session


def attach(
    credentials: SessionCredentials | str | os.PathLike[str] | None = None,
    *,
    synchronous: bool | None = None,
    timeout_s: float | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    token: Token | None = None,
    shared_memory: bool | None = None,
    read_timeout_s: float | None = None,
    lane: bool | None = None,
    trace: bool | None = None,
) -> Session:
    """Take a running session over from another process, and make it the current one: what it holds is there as it was.

    `credentials` are what `session.credentials()` gave there, their `text()`, or the path of a file that their `save`
    has written; TCLIENT_SESSION, if None, is one of the last two. Who had the session is fenced: its next call raises
    SessionTakenOver. What it had sent by then runs to its end, once, which is waited for (timeout_s; None is for as
    long as it takes); errors of effects that nobody was told of are raised here. Default dtype, print options and
    random state are those of the session; the modes of this thread (no_grad and its kin) are its own. The other
    arguments are as those of `connect`.
    Raises: ConnectFailed; NotAuthenticated; SessionLost if the session is not there any more, or is not this caller's;
    VersionMismatch.
    """
    token = hidden(token)
    given = _given("attach", credentials)
    session = Session.attach(
        given,
        trust=Trust.given(given.trusts, tls_cert, tls_key, token),
        synchronous=synchronous_default if synchronous is None else synchronous,
        timeout_s=timeout_s,
        shared_memory=os.environ.get("TCLIENT_SHARED_MEMORY") == "1" if shared_memory is None else shared_memory,
        read_timeout_s=read_timeout_s,
        lane=os.environ.get("TCLIENT_LANE") != "0" if lane is None else lane,
        trace=trace,
    )
    with _lock:
        session.previous = connected()
        make_current(session)
    return session


def cancel(
    credentials: SessionCredentials | str | os.PathLike[str] | None = None,
    *,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    token: Token | None = None,
) -> None:
    """End what a session of another process runs, at the next call; see `Session.cancel`. That process goes on with it.

    The arguments are as those of `attach`. Raises: ConnectFailed; NotAuthenticated; SessionLost; SessionTakenOver where
    the credentials are from before somebody attached to it.
    """
    token = hidden(token)
    given = _given("cancel", credentials)
    channel = Channel(given.address, Trust.given(given.trusts, tls_cert, tls_key, token))
    try:
        channel.cancel_session(given.secret)
    finally:
        channel.close()


def _given(what: str, credentials: SessionCredentials | str | os.PathLike[str] | None) -> SessionCredentials:
    credentials = credentials or os.environ.get("TCLIENT_SESSION")
    if not credentials:
        raise NotConnectedError(
            f"{what}: give the credentials of a session, as session.credentials() gives them, or set TCLIENT_SESSION"
        )
    return given_credentials(credentials)


def resume(name: str, address: str | None = None, **how: Any) -> Session:
    """A session with all that another one held when it was kept by `session.checkpoint(name)`; it is the current one.

    `session.tensors()` are those that had names there (`x.name = "weights"`), with their gradients; default dtype,
    random state and print options are as they were. The checkpoint stays, and may be resumed again. The other
    arguments are those of `connect`.
    Raises: as `connect`; KeyError for a name that nothing has, ValueError for one that is no checkpoint;
    OutOfMemoryError; RequestRefused for what is damaged on the server's disk.
    """
    how["token"] = hidden(how.get("token"))
    before = connected()
    begun = connect(address, **how)
    try:
        kept_names.resume(begun, name)
        # Whoever attaches is told which ids are free.
        credentials = begun.detach()
    except BaseException:
        begun.close()
        raise
    finally:
        make_current(before)
    rest = ("synchronous", "tls_cert", "tls_key", "token", "shared_memory", "read_timeout_s", "lane")
    return attach(credentials, **{each: how[each] for each in rest if each in how})


def disconnect() -> None:
    """Close the current session, if there is one. Raises the first failed effect that was not raised yet."""
    session = connected()
    if session is not None:
        session.close()


def close_sessions() -> None:
    """Close all sessions at the end of the process, and say what failed that nobody read."""
    for session in list(SESSIONS):
        try:
            session.close()
        except TensorError:
            # Raised into nowhere at this point; said as a warning instead, as all errors that nobody read.
            print("tclient: a failed operation was not read before the program ended:", file=sys.stderr)
            traceback.print_exc()


def _after_fork() -> None:
    global _lock
    GATE.after_in_child()
    GATE.is_torn |= gave_up_on_fork()
    _lock = threading.RLock()
    for session in list(SESSIONS):
        _kept.append((session, session.channel))
        session.after_fork()
    forget_current()


def install() -> None:
    """Called once by the package."""
    atexit.register(close_sessions)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=GATE.before, after_in_parent=GATE.after_in_parent, after_in_child=_after_fork)


class synchronous:
    """Every call waits and raises its error at its own line: a switch, and a context manager that switches back.

    `tclient.synchronous(True)` holds for the current session and for those opened later.
    """

    def __init__(self, mode: bool = True) -> None:
        global synchronous_default
        self._session = connected()
        self._before = (synchronous_default, self._session.synchronous if self._session else False)
        synchronous_default = bool(mode)
        if self._session is not None:
            self._session.synchronous = bool(mode)

    def __enter__(self) -> synchronous:
        return self

    def __exit__(self, *exc: object) -> None:
        global synchronous_default
        synchronous_default, before = self._before
        if self._session is not None:
            self._session.synchronous = before
