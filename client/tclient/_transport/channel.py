"""The one channel to a server, and the one gate through which every RPC of the client goes.

Here is what all RPCs have in common: how the channel is opened, metadata, deadlines, limits of messages, forks. Knows
gRPC; does not know calls or tensors.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import grpc

from tclient._exceptions import ConnectFailed, InvalidAddress, TensorError
from tclient._transport.duplex import Duplex, open_duplex
from tclient._transport.forks import GATE
from tclient._transport.limits import can_be_late, check, may_end
from tclient._transport.stats import Stats
from tclient._transport.statuses import is_broken, is_late, translate
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tensorcompute.wire.address import channel_options, parse

TENSOR_SERVICE = "/tensorcompute.v1.TensorService/"
MODEL_SERVICE = "/tensorcompute.v1.ModelService/"
PROTOCOL = 2
# What gRPC takes where a server names no limit.
_MESSAGE_BYTES = 4 << 20
_INLINE_BYTES = 1 << 20

# Agrees with the server, which permits pings from 10 s on, also without calls.
_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Chunks of bulk data come in few frames.
    ("grpc.http2.max_frame_size", 1 << 20),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Despite its name: how long one attempt to connect may take. A far link with TLS needs four round trips.
    ("grpc.min_reconnect_backoff_ms", 20_000),
    # Each session has a connection of its own: one slow reader does not hold up another.
    ("grpc.use_local_subchannel_pool", 1),
)

# For a small answer. The line may be full of bulk bytes that go first: half a minute of a slow one lies in buffers.
ANSWER_S = 60.0
# How long a connection that broke while the session was opened is waited for again: where nobody listens, that is told
# soon; where it took a while to break, the server is far.
_REOPEN_S = 0.5
_REOPEN_TIMES = 10
_REOPEN_PAUSE_S = 0.02

T = TypeVar("T")
# False is plain text; True trusts the authorities that gRPC knows; a path is a PEM file of those to trust.
Tls = bool | str | os.PathLike[str]


def _authority(tls: Tls) -> bytes | None:
    if isinstance(tls, bool):
        return None
    try:
        with open(tls, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConnectFailed(f"connect: tls={str(tls)!r} is not a file that can be read: {error.strerror}") from error


def _refuse_green_threads() -> None:
    """gRPC waits outside Python: threads that only take turns within it would wait with it for ever.

    Raises: ConnectFailed where that is so.
    """
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading") and not _gevent_is_known_to_grpc():
        raise ConnectFailed(
            "connect: gevent has replaced the threads of this program, and gRPC does not know of it: call "
            "grpc.experimental.gevent.init_gevent() before connecting"
        )
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        raise ConnectFailed(
            "connect: eventlet has replaced the threads of this program, and gRPC does not work with that: patch "
            "without them, eventlet.monkey_patch(thread=False), or use gevent"
        )


def _gevent_is_known_to_grpc() -> bool:
    try:
        from grpc._cython import cygrpc  # type: ignore[attr-defined]

        return bool(cygrpc.g_gevent_activated)
    except (ImportError, AttributeError):
        return True  # it cannot be told


def _refuse_torn_state() -> None:
    """With what a fork copied of gRPC in the midst of its work, this process would disturb its parent's connections.

    Raises: ConnectFailed where that is so.
    """
    if GATE.is_torn:
        raise ConnectFailed(
            "connect: another thread of the parent process was inside gRPC when this process was forked, and gRPC "
            "cannot be used here since; fork while no thread of the parent connects or moves data, and without "
            "GRPC_ENABLE_FORK_SUPPORT, or start workers by the method spawn or forkserver"
        )


# What is around the content of a message, at most.
FRAME_BYTES = 64
# A call from this size on is a large one: it carries an array.
HEAVY_BYTES = 4096


class Channel:
    """A channel, the RPCs on it, and what all of them have in common."""

    @GATE.inside()
    def __init__(
        self,
        address: str,
        tls: Tls = False,
        *,
        read_timeout_s: float | None = None,
        transport: grpc.Channel | None = None,
    ) -> None:
        """`transport` is a channel that is open already, in the place of a connection to the address."""
        _refuse_green_threads()
        _refuse_torn_state()
        try:
            parsed = parse(address)
        except ValueError as error:
            raise InvalidAddress(f"connect: {error}") from None
        self.address = parsed.text
        self.tls = tls
        # How long a thread waits for the server at most; None is for as long as it takes.
        self.read_timeout_s = read_timeout_s
        # Why nothing of the session goes over it any more.
        self.dead: TensorError | None = None
        self.stats = Stats()
        # What goes with every RPC.
        self.metadata: tuple[tuple[str, str | bytes], ...] = ()
        # Of a message to the server, of an array within one, and of a call that need not be looked at, in bytes.
        self.max_message = self.max_inline = self.max_light = 0
        self._most_inline = _INLINE_BYTES
        self.bound_messages(_MESSAGE_BYTES)
        self._unary: dict[str, Any] = {}
        options = _OPTIONS + channel_options(parsed)
        if transport is not None:
            self._channel = transport
        elif tls:
            credentials = grpc.ssl_channel_credentials(_authority(tls))
            self._channel = grpc.secure_channel(self.address, credentials, options=options)
        else:
            self._channel = grpc.insecure_channel(self.address, options=options)

    def check_alive(self) -> None:
        """Raises: SessionLost and its kin; TimeoutError."""
        check()
        if self.dead is not None:
            raise self.dead

    # ---- the size of messages ------------------------------------------------------------------------------------

    def take_limits(self, limits: rpc.Limits) -> None:
        """Keep to what the server takes."""
        self._most_inline = limits.max_inline_bytes or _INLINE_BYTES
        self.bound_messages(limits.max_message_bytes or _MESSAGE_BYTES)

    def bound_messages(self, size_bytes: int) -> None:
        """Makes no message to the server larger than this from now on."""
        self.max_message = size_bytes
        self.max_inline = min(self._most_inline, size_bytes // 2)
        self.max_light = min(HEAVY_BYTES, size_bytes - FRAME_BYTES)

    # ---- the RPCs ------------------------------------------------------------------------------------------------

    def call(
        self, path: str, request: Any, response: Any, *, timeout_s: float = ANSWER_S, again_s: float = ANSWER_S
    ) -> Any:
        """One unary RPC that may be applied twice: repeated while the connection is broken, for so long.

        Raises: a ServerError.
        """
        deadline = time.monotonic() + timeout_s

        def attempt() -> Any:
            return self.unary(path, request, response, timeout_s=max(0.0, deadline - time.monotonic()))

        return self.again(attempt, min(again_s, timeout_s))

    @GATE.inside()
    def unary(
        self, path: str, request: Any, response: Any, *, timeout_s: float | None, wait_for_ready: bool = False
    ) -> Any:
        """One unary RPC. Raises grpc.RpcError."""
        method = self._unary.get(path)
        if method is None:
            method = self._unary[path] = self._channel.unary_unary(
                path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
            )
        options: Any = {"timeout": timeout_s, "wait_for_ready": wait_for_ready, "metadata": self.metadata}
        if not can_be_late():
            return method(request, **options)
        return _or_late(method.future(request, **options))

    @GATE.inside()
    def client_stream(self, path: str, messages: Iterator[bytes], response: Any) -> Any:
        """Bytes out, one response in. Raises grpc.RpcError."""
        method: Any = self._channel.stream_unary(path, response_deserializer=response.FromString)
        if not can_be_late():
            return method(messages, metadata=self.metadata)
        return _or_late(method.future(messages, metadata=self.metadata))

    def server_stream(self, path: str, request: Any) -> Messages:
        """One request out, bytes in. Raises grpc.RpcError."""
        method: Any = self._channel.unary_stream(path, request_serializer=type(request).SerializeToString)
        responses: Any = GATE.begin(lambda: method(request, metadata=self.metadata))
        may_end(responses.cancel)
        found: Messages = responses
        return found

    def duplex(self, path: str, first: bytes, *, answers_each: bool) -> Duplex:
        """Bytes both ways, begun with the first message. `answers_each` says that each later one is answered by one."""
        return open_duplex(self._channel, path, first, self.metadata, answers_each=answers_each)

    def again(self, attempt: Callable[[], T], within_s: float) -> T:
        """The result of an idempotent attempt, repeated while the connection is broken. Raises a ServerError.

        Attempts begin within so many seconds after the first one failed, or three times as long as that one took: what
        a slow line has carried for a while, it may try to carry again.
        """
        deadline: float | None = None
        pause_s = 0.05
        while True:
            began = time.monotonic()
            check()
            try:
                return attempt()
            except grpc.RpcError as error:
                now = time.monotonic()
                # gRPC raises the very object of the RPC: by its traceback it would refer to itself, and keep what is
                # in the frames of all callers, tensors too, for a long time.
                error.__traceback__ = None
                if deadline is None:
                    deadline = now + max(within_s, 3 * (now - began))
                if not is_broken(error) or now + pause_s > deadline:
                    raise translate(error, self.address) from None
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 1.0)

    def open_session(self, client: str, timeout_s: float) -> rpc.OpenSessionResponse:
        """The handshake. Raises ConnectFailed, VersionMismatch, ServerBusy."""
        request = rpc.OpenSessionRequest(min_protocol=PROTOCOL, max_protocol=PROTOCOL, client=client)
        began = time.monotonic()
        latest = began + timeout_s
        broken: grpc.RpcError | None = None
        while True:
            try:
                # One that was opened, but not heard of, ends with its lease. When a connection broke, gRPC lets none
                # but those calls wait for the next one that ask for it.
                opened: rpc.OpenSessionResponse = self.unary(
                    TENSOR_SERVICE + "OpenSession",
                    request,
                    rpc.OpenSessionResponse,
                    timeout_s=max(0.0, latest - time.monotonic()),
                    wait_for_ready=broken is not None,
                )
                return opened
            except grpc.RpcError as error:
                now = time.monotonic()
                if broken is None and is_broken(error):
                    broken = error
                    latest = min(latest, now + max(_REOPEN_S, _REOPEN_TIMES * (now - began)))
                elif not is_broken(error) or now > latest:
                    raise translate(broken if broken is not None and is_late(error) else error, self.address) from None
            time.sleep(_REOPEN_PAUSE_S)

    @GATE.inside()
    def close(self) -> None:
        """Ends every RPC of the channel."""
        self._channel.close()


class Messages(Protocol):
    """The messages that a server streams."""

    def __iter__(self) -> Iterator[bytes]:
        """As they come. Raises grpc.RpcError if the RPC fails."""

    def cancel(self) -> object:
        """End it now."""


def _or_late(under_way: Any) -> Any:
    """The answer to an RPC. Raises: grpc.RpcError; TimeoutError where it was ended because it took too long."""
    may_end(under_way.cancel)
    try:
        return under_way.result()
    except grpc.FutureCancelledError as error:
        raise TimeoutError from error
