"""The one channel to a server: how it is opened, and what its failures mean.

Every status of gRPC becomes an exception of ours here and nowhere else. Knows gRPC; does not know calls or tensors.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from tclient._duplex import Duplex, open_duplex
from tclient._exceptions import BY_REASON, BY_STATUS, ConnectFailed, InvalidAddress, ServerFailed, TensorError
from tclient._forks import GATE
from tclient._limits import can_be_late, check, may_end
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tensorcompute.wire.address import channel_options, parse, proxy_before

SERVICE = "/tensorcompute.v1.TensorService/"
PROTOCOL = 1

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

# After these the session may still be there: open the stream again, and send again what was not answered.
_RESUMABLE = frozenset({"UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})


# What gRPC says of a message that is too large: in C and Go with the limit as the second number, in Java as the first.
_LARGER = re.compile(r"larger than max \(\d+ vs\. (\d+)\)|exceeds maximum size (\d+)")

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


class Connection:
    """A channel and the RPCs on it."""

    @GATE.inside()
    def __init__(self, address: str, tls: Tls = False) -> None:
        _refuse_green_threads()
        _refuse_torn_state()
        try:
            parsed = parse(address)
        except ValueError as error:
            raise InvalidAddress(f"connect: {error}") from None
        self.address = parsed.text
        options = _OPTIONS + channel_options(parsed)
        if tls:
            credentials = grpc.ssl_channel_credentials(_authority(tls))
            self.channel = grpc.secure_channel(self.address, credentials, options=options)
        else:
            self.channel = grpc.insecure_channel(self.address, options=options)
        self._unary: dict[str, Any] = {}

    def call(
        self, method: str, request: Any, response: Any, *, timeout_s: float = ANSWER_S, again_s: float = ANSWER_S
    ) -> Any:
        """One unary RPC of TensorService that may be applied twice: repeated while the connection is broken, for so
        long. Raises a ServerError.
        """
        deadline = time.monotonic() + timeout_s

        def attempt() -> Any:
            return self.unary(SERVICE + method, request, response, timeout_s=max(0.0, deadline - time.monotonic()))

        return again(attempt, self.address, min(again_s, timeout_s))

    @GATE.inside()
    def unary(
        self, path: str, request: Any, response: Any, *, timeout_s: float | None, wait_for_ready: bool = False
    ) -> Any:
        """One unary RPC of any service. Raises grpc.RpcError."""
        method = self._unary.get(path)
        if method is None:
            method = self._unary[path] = self.channel.unary_unary(
                path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
            )
        if not can_be_late():
            return method(request, timeout=timeout_s, wait_for_ready=wait_for_ready)
        return _or_late(method.future(request, timeout=timeout_s, wait_for_ready=wait_for_ready))

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
                    SERVICE + "OpenSession",
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
                    is_late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                    raise translate(broken if broken is not None and is_late else error, self.address) from None
            time.sleep(_REOPEN_PAUSE_S)

    def execute_stream(self, first: bytes) -> Duplex:
        """Opens the stream: bytes out, bytes in."""
        return open_duplex(self.channel, SERVICE + "ExecuteStream", first)

    @GATE.inside()
    def upload(self, messages: Iterator[bytes]) -> rpc.UploadResponse:
        """Bytes out, one response in. Raises grpc.RpcError."""
        method: Any = self.channel.stream_unary(SERVICE + "Upload", response_deserializer=rpc.UploadResponse.FromString)
        if not can_be_late():
            response: rpc.UploadResponse = method(messages)
            return response
        late_or_not: rpc.UploadResponse = _or_late(method.future(messages))
        return late_or_not

    def download(self, request: rpc.DownloadRequest) -> Iterable[bytes]:
        """One request out, bytes in. Raises grpc.RpcError."""
        method: Any = self.channel.unary_stream(
            SERVICE + "Download", request_serializer=rpc.DownloadRequest.SerializeToString
        )
        responses: Any = GATE.begin(lambda: method(request))
        may_end(responses.cancel)
        found: Iterable[bytes] = responses
        return found

    @GATE.inside()
    def close(self) -> None:
        """Ends every RPC of the channel."""
        self.channel.close()


def _or_late(under_way: Any) -> Any:
    """The answer to an RPC. Raises: grpc.RpcError; TimeoutError where it was ended because it took too long."""
    may_end(under_way.cancel)
    try:
        return under_way.result()
    except grpc.FutureCancelledError as error:
        raise TimeoutError from error


def is_resumable(error: grpc.RpcError, failure: TensorError) -> bool:
    """Whether the session may have survived."""
    if failure.reason in BY_REASON:
        return False
    return error.code().name in _RESUMABLE


def message_limit(error: grpc.RpcError) -> int | None:
    """The size of a message in bytes that the server, or a proxy before it, takes, where one was refused as larger."""
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return None
    found = _LARGER.search(error.details() or "")
    return int(found[1] or found[2]) if found else None


def translate(error: grpc.RpcError, address: str) -> TensorError:
    """The exception for a status of gRPC, with its reason."""
    status = error.code().name
    reason, details = _error_info(error)
    if message_limit(error) is not None:
        reason = "MESSAGE_TOO_LARGE"
    kind = BY_REASON.get(reason) or BY_STATUS.get(status, ServerFailed)
    text = error.details() or status
    if kind is ConnectFailed:
        text = f"no tensor server answers at {address} ({text}); {_advice(address)}"
    elif details.get("cause") and details["cause"] not in text:
        text = f"{text} (cause: {details['cause']})"
    failure = kind(text)
    failure.reason = reason or status
    return failure


def _advice(address: str) -> str:
    parsed = parse(address)
    proxy = proxy_before(parsed)
    advice = f"start it with: tserver serve --listen {address}, or connect to the address where it listens"
    if proxy is None:
        return advice
    return (
        f"connections to it go through the proxy {proxy}, which {proxy.variable} names: to go past it, add "
        f"{parsed.host} to no_proxy. If no server is there, {advice}"
    )


def _error_info(error: grpc.RpcError) -> tuple[str, dict[str, str]]:
    """reason and metadata of the ErrorInfo that rides in the trailer."""
    trailers: Any = error.trailing_metadata()
    for key, value in trailers or ():
        if key == "grpc-status-details-bin":
            # Not needed before something fails, and not free to import.
            from tensorcompute.v1 import status_pb2

            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                if detail.type_url.endswith("/google.rpc.ErrorInfo"):
                    info = status_pb2.ErrorInfo.FromString(detail.value)
                    return info.reason, dict(info.metadata)
    return "", {}


def is_broken(error: grpc.RpcError) -> bool:
    """Whether there was no connection, or it broke, or the server is stopping."""
    return bool(error.code() is grpc.StatusCode.UNAVAILABLE)


def again(attempt: Callable[[], Any], address: str, within_s: float) -> Any:
    """The result of an idempotent attempt, repeated while the connection is broken. Raises a ServerError.

    Attempts begin within so many seconds after the first one failed, or three times as long as that one took: what a
    slow line has carried for a while, it may try to carry again.
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
            if deadline is None:
                deadline = now + max(within_s, 3 * (now - began))
            if not is_broken(error) or now + pause_s > deadline:
                raise translate(error, address) from None
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 1.0)
