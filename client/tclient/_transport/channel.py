"""The one channel to a server, and the one gate through which every RPC of the client goes.

Here is what all RPCs have in common: how connections are opened, which way they go, metadata, deadlines, limits of
messages, forks. Knows gRPC; does not know calls or tensors.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import grpc

from tclient._exceptions import ConnectFailed, InvalidAddress, NotAuthenticated, ServerBusy, TensorError
from tclient._transport.duplex import Duplex, open_duplex
from tclient._transport.forks import GATE
from tclient._transport.limits import can_be_late, check, may_end
from tclient._transport.looking import Finding, look
from tclient._transport.obstacles import refuse_green_threads, refuse_torn_state
from tclient._transport.patience import Patience
from tclient._transport.stats import Stats
from tclient._transport.statuses import (
    is_broken,
    is_late,
    is_unauthenticated,
    is_unknown_method,
    translate,
)
from tclient._transport.tracing import HEADER, Tracing
from tclient._transport.trust import Metadata, Trust
from tclient._transport.ways import Way, Ways
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tensorcompute.wire.address import Address, beside, channel_options, host_of, parse

log = logging.getLogger("tclient")

TENSOR_SERVICE = "/tensorcompute.v1.TensorService/"
MODEL_SERVICE = "/tensorcompute.v1.ModelService/"
STORAGE_SERVICE = "/tensorcompute.v1.StorageService/"
_OIP_LIVE = "/inference.GRPCInferenceService/ServerLive"
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

# To an endpoint, which home stands in for: what leads nowhere is to be known soon.
_ENDPOINT_OPTIONS = (
    ("grpc.keepalive_time_ms", 15_000),
    # Of pings that measure the line. While one is under way there is none that keeps alive.
    ("grpc.http2.ping_timeout_ms", 30_000),
    ("grpc.min_reconnect_backoff_ms", 3_000),
)
# How long an endpoint has to answer before the session stays at home.
_REACH_S = 3.0
# How long home is asked by who can ask the engine as well.
_HOME_S = 1.0

# For a small answer. The line may be full of bulk bytes that go first: half a minute of a slow one lies in buffers.
ANSWER_S = 60.0
# How long it is looked at an address what is there.
_LOOK_S = 2.0
# How long a connection that broke while the session was opened is waited for again: where nobody listens, that is told
# soon; where it took a while to break, the server is far.
_REOPEN_S = 0.5
_REOPEN_TIMES = 10
_REOPEN_PAUSE_S = 0.02
# How long a connection that breaks while a session is taken over is made anew.
_REATTACH_S = 5.0

# As many chunks of a transfer say how fast the network is: they are more than lies in buffers.
_CHUNKS = 8

T = TypeVar("T")

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
        trust: Trust | None = None,
        *,
        read_timeout_s: float | None = None,
        transport: grpc.Channel | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """`transport` is a channel that is open already, in the place of a connection to the address. With `tracing`,
        what is done within a span of the program is traced.
        """
        self.tracing = tracing
        refuse_green_threads()
        refuse_torn_state()
        try:
            parsed = parse(address)
        except ValueError as error:
            raise InvalidAddress(f"connect: {error}") from None
        self.address = parsed.text
        self.trust = trust or Trust()
        if transport is None:
            self.trust.check(parsed)
        self._secured = self.trust.for_grpc() if transport is None else None
        self._ways = Ways(Way(parsed, self._connect if transport is None else lambda _: transport))
        # How long a thread waits for the server at most; None is for as long as it takes.
        self.read_timeout_s = read_timeout_s
        self._is_returning = False
        # Why nothing of the session goes over it any more.
        self.dead: TensorError | None = None
        self.stats = Stats()
        # Transfers over gRPC that are under way: they go before other messages where the network is slow.
        self.moves_bulk = 0
        # When the last of their chunks have moved, one more for each.
        self.chunks: deque[float] = deque(maxlen=_CHUNKS)
        # How often the connections were given up.
        self._renewals = 0
        # Of a message to the server, of an array within one, and of a call that need not be looked at, in bytes.
        self.max_message = self.max_inline = self.max_light = 0
        self._most_inline = _INLINE_BYTES
        self.bound_messages(_MESSAGE_BYTES)

    def _connect(self, address: Address) -> grpc.Channel:
        """A connection of gRPC's. To an endpoint it is verified as home is: the names of the two hosts may differ."""
        options: dict[str, str | int] = dict(_OPTIONS + channel_options(address))
        if address is not self._ways.home.address:
            options.update(_ENDPOINT_OPTIONS)
            if self._secured is not None and self.verified_as:
                options["grpc.ssl_target_name_override"] = self.verified_as
        if self._secured is not None:
            return grpc.secure_channel(address.text, self._secured, options=tuple(options.items()))
        return grpc.insecure_channel(address.text, options=tuple(options.items()))

    @property
    def metadata(self) -> Metadata:
        """What goes with every RPC. Raises: ConnectFailed where there is no token, and there should be one."""
        return self.trust.metadata()

    @property
    def _traced_metadata(self) -> Metadata:
        """The same, with the program's span that this thread is in."""
        return self.metadata if self.tracing is None else (*self.metadata, *self.tracing.headers())

    def translate(self, error: grpc.RpcError, address: str = "") -> TensorError:
        """The exception for a failed RPC, to home if no other address is given."""
        failure = translate(error, address or self.address)
        if is_unauthenticated(error):
            text = f"the server at {self.address} does not let this client in: {failure}; {self.trust.advice}"
            reason, failure = failure.reason, NotAuthenticated(text)
            failure.reason = reason
        return failure

    def _explained(self, failure: TensorError, within_s: float) -> TensorError:
        """The same failure to open a session, in words that say what is at the address, where that can be seen."""
        found: Finding | None = None
        if failure.reason == "UNIMPLEMENTED":
            found = self._another_service()
        elif isinstance(failure, ConnectFailed) and failure.reason == "UNAVAILABLE":
            found = look(self._ways.home.address, self.trust, min(_LOOK_S, within_s))
        if found is None:
            return failure
        told = ConnectFailed(found.text)
        told.reason = found.reason
        return told

    def _another_service(self) -> Finding:
        """What speaks gRPC, but knows no sessions."""
        empty = rpc.CloseSessionRequest()
        try:
            self.unary(_OIP_LIVE, empty, rpc.CloseSessionResponse, timeout_s=_LOOK_S)
            is_oip = True
        except grpc.RpcError as error:
            is_oip = not is_unknown_method(error)
        if is_oip:
            what = "the Open Inference Protocol, which --oip-listen is for: connect to the address of --listen"
            return Finding("OPEN_INFERENCE_PROTOCOL", f"at {self.address} is {what}")
        what = "a server of gRPC, but no tensor server: connect to the address where one listens"
        return Finding("ANOTHER_SERVER", f"at {self.address} is {what}")

    def check_alive(self) -> None:
        """Raises: SessionLost and its kin; TimeoutError."""
        check()
        if self.dead is not None:
            raise self.dead

    # ---- home and endpoint ---------------------------------------------------------------------------------------

    @property
    def way(self) -> Way:
        """Where RPCs go now."""
        return self._ways.current

    @property
    def turn(self) -> int:
        """Which turn an attempt is part of that begins now: see `broke`."""
        return self._ways.turn

    @property
    def engine_address(self) -> str:
        """Where the engine of the session is, whichever way RPCs go."""
        return (self._ways.endpoint or self._ways.home).address.text

    @property
    def verified_as(self) -> str:
        """Whom the certificate of the engine is to name, where that is another host than home; else empty."""
        home, endpoint = self._ways.home, self._ways.endpoint
        host = host_of(home.address)
        return host if endpoint is not None and host_of(endpoint.address) != host else ""

    def follow(self, opened: rpc.OpenSessionResponse) -> None:
        """Go where the server says that the session lives, if that can be reached."""
        self._ticket = rpc.OpenTransferRequest(lane=rpc.SessionContext(session=opened.session))
        self._add_endpoint(opened.endpoint)
        if self._ways.endpoint is not None and self._reach_endpoint(waits=False):
            # Many clients are no burden to a home that they do not need.
            self._ways.home.rest()

    def follow_to(self, named: str) -> None:
        """The server says that the session lives there, which after a restart is elsewhere; empty says nothing. RPCs go
        there when that was tried, soon.
        """
        if self._add_endpoint(named):
            self._return_when_due()

    def _add_endpoint(self, named: str) -> bool:
        address = beside(named, self._ways.home.address) if named else None
        if address is None or address.text in (self.address, self.engine_address) or not self.trust.may_go_to(address):
            return False
        self._ways.add_endpoint(Way(address, self._connect))
        return True

    def may_better(self, way: Way) -> bool:
        """Whether what goes this way may go a better one: to the endpoint, which can be reached again, or is due to be
        tried.
        """
        ways = self._ways
        return way is ways.home and ways.endpoint is not None and (ways.current is not way or ways.may_return)

    def return_to_endpoint(self) -> bool:
        """Try the endpoint again, if nobody else has; whether RPCs go there now."""
        # The connection may rest from an attempt that failed a moment ago.
        return not self._ways.is_aside or self._reach_endpoint(waits=True)

    def _return_when_due(self) -> None:
        """Have the endpoint tried again when it is time: by a thread of its own, which ends with that."""
        if self._ways.may_return and not self._is_returning:
            self._is_returning = True
            # Python starts no threads any more at its end.
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=self._return, name="tclient-endpoint", daemon=True).start()

    def _return(self) -> None:
        try:
            self.return_to_endpoint()
        except Exception:
            if self.dead is None:
                log.exception("the endpoint %s could not be tried", self.engine_address)
        finally:
            self._is_returning = False

    def _reach_endpoint(self, *, waits: bool) -> bool:
        """Have RPCs go to the endpoint from now on, if the session is found there."""
        if waits:
            self._ask_where()
        endpoint = self._ways.endpoint
        assert endpoint is not None
        # A ticket is what is given at once, whatever the engine has to do.
        method = self._method(endpoint, TENSOR_SERVICE + "OpenTransfer", self._ticket, rpc.OpenTransferResponse)
        options: Any = {"timeout": _REACH_S, "wait_for_ready": waits, "metadata": self.metadata}
        try:
            GATE.begin(lambda: method.future(self._ticket, **options), may_cancel=True).result()
        except grpc.FutureCancelledError:
            self._ways.stay("the process forks")
            return False
        except grpc.RpcError as error:
            error.__traceback__ = None  # see `again`
            failure = self.translate(error, self.engine_address)
            if not isinstance(failure, ServerBusy) and failure.reason != "NO_DATA_ENDPOINT":
                self._ways.stay(failure)
                return False
        self._ways.follow()
        return True

    def _ask_where(self) -> None:
        """Have home say where the session lives, which may be another endpoint by now."""
        path, options = TENSOR_SERVICE + "OpenTransfer", {"timeout": _HOME_S, "metadata": self.metadata}
        method = self._method(self._ways.home, path, self._ticket, rpc.OpenTransferResponse)
        try:
            answer = GATE.begin(lambda: method.future(self._ticket, **options), may_cancel=True).result()
            self._add_endpoint(answer.endpoint)
        except grpc.FutureCancelledError:
            pass
        except grpc.RpcError as error:
            error.__traceback__ = None  # see `again`

    def broke(self, turn: int, cause: object, *, worked: bool = False) -> None:
        """An attempt that began in that turn has failed as a broken connection does; `worked` says that it did so far.

        The next one may go the other way.
        """
        self._ways.broke(turn, cause, worked=worked)

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

    def question(self, path: str, request: Any, response: Any, timeout_s: float) -> Any:
        """As `call`, of who has no session: what is at the address is told where nothing answers that should.

        Raises: ConnectFailed, and another ServerError.
        """
        try:
            return self.call(path, request, response, timeout_s=timeout_s, again_s=_REOPEN_S)
        except TensorError as failure:
            raise self._explained(failure, min(_LOOK_S, timeout_s)) from None

    def ask_home(self, path: str, request: Any, response: Any) -> Any:
        """As `call`, of who speaks for all engines; of the engine itself where nobody else does, or can be reached."""
        ways = self._ways
        if ways.current is not ways.home:
            try:
                options = {"timeout": _HOME_S, "metadata": self.metadata}
                return self._unary_by(ways.home, path, request, response, options)
            except grpc.RpcError as error:
                error.__traceback__ = None  # see `again`
                if not (is_broken(error) or is_late(error)):
                    raise self.translate(error) from None
        return self.call(path, request, response)

    def unary(
        self, path: str, request: Any, response: Any, *, timeout_s: float | None, wait_for_ready: bool = False
    ) -> Any:
        """One unary RPC. Raises grpc.RpcError."""
        options: Any = {"timeout": timeout_s, "wait_for_ready": wait_for_ready, "metadata": self.metadata}
        return self._unary_by(self._ways.current, path, request, response, options)

    def _unary_by(self, way: Way, path: str, request: Any, response: Any, options: Any) -> Any:
        span = None if self.tracing is None else self.tracing.begin(path[1:])
        if span is None:
            return self._ask(way, path, request, response, options)
        options["metadata"] = (*options["metadata"], (HEADER, span.traceparent))
        with span:
            return self._ask(way, path, request, response, options)

    @GATE.inside()
    def _ask(self, way: Way, path: str, request: Any, response: Any, options: Any) -> Any:
        method = self._method(way, path, request, response)
        if not can_be_late():
            return method(request, **options)
        return _or_late(method.future(request, **options))

    def _method(self, way: Way, path: str, request: Any, response: Any) -> Any:
        method = way.unary.get(path)
        if method is None:
            method = way.unary[path] = way.channel.unary_unary(
                path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
            )
        return method

    @GATE.inside()
    def client_stream(self, path: str, messages: Iterator[bytes], response: Any) -> Any:
        """Bytes out, one response in. Raises grpc.RpcError."""
        method: Any = self.way.channel.stream_unary(path, response_deserializer=response.FromString)
        if not can_be_late():
            return method(messages, metadata=self._traced_metadata)
        return _or_late(method.future(messages, metadata=self._traced_metadata))

    def ask_apart(self, path: str, request: Any, response: Any, timeout_s: float) -> Any:
        """One unary RPC over a connection that nothing else goes over. Raises: grpc.RpcError."""
        way = Way(self._ways.current.address, self._connect)
        method = self._method(way, path, request, response)
        options: Any = {"timeout": timeout_s, "metadata": self.metadata}
        try:
            return GATE.begin(lambda: method.future(request, **options), may_cancel=True).result()
        except grpc.FutureCancelledError:
            raise TimeoutError from None
        finally:
            way.close()

    def renew(self) -> None:
        """Give the connections up: what is under way on them fails, and what follows takes new ones."""
        self._renewals += 1
        self._ways.rest()

    @contextlib.contextmanager
    def moving_bulk(self) -> Iterator[None]:
        """Within it bulk bytes move over gRPC."""
        self.moves_bulk += 1
        self.chunks.clear()
        try:
            yield
        finally:
            self.moves_bulk -= 1

    def server_stream(self, path: str, request: Any) -> Messages:
        """One request out, bytes in. Raises grpc.RpcError."""
        method: Any = self.way.channel.unary_stream(path, request_serializer=type(request).SerializeToString)
        metadata = self._traced_metadata
        responses: Any = GATE.begin(lambda: method(request, metadata=metadata))
        may_end(responses.cancel)
        found: Messages = responses
        return found

    def duplex(self, path: str, first: bytes, way: Way, metadata: Metadata, *, answers_each: bool) -> Duplex:
        """Bytes both ways, begun with the first message. `answers_each` says that each later one is answered by one."""
        return open_duplex(way.channel, path, first, metadata, answers_each=answers_each)

    def again(self, attempt: Callable[[], T], within_s: float) -> T:
        """The result of an idempotent attempt, repeated while the connection is broken, and what was refused before it
        was run when the server says; once more with another token, where there is one by then. Raises a ServerError.

        Attempts begin within so many seconds after the first one failed, or three times as long as that one took: what
        a slow line has carried for a while, it may try to carry again.
        """
        deadline: float | None = None
        pause_s = 0.05
        patience = Patience(within_s)
        ways = self._ways
        shown, is_renewed = self.metadata, False
        while True:
            began = time.monotonic()
            turn, renewals = ways.turn, self._renewals
            check()
            try:
                result = attempt()
                ways.worked()
                self._return_when_due()
                return result
            except grpc.RpcError as error:
                now = time.monotonic()
                # gRPC raises the very object of the RPC: by its traceback it would refer to itself, and keep what is
                # in the frames of all callers, tensors too, for a long time.
                error.__traceback__ = None
                if patience.heed(error, self.translate):
                    continue
                if is_unauthenticated(error) and not is_renewed and self.metadata != shown:
                    is_renewed = True
                    continue
                if deadline is None:
                    deadline = now + max(within_s, 3 * (now - began))
                if is_broken(error) or is_late(error):
                    ways.broke(turn, error.details(), was_silent=is_late(error))
                is_over = not is_broken(error) and renewals == self._renewals
                if is_over or now + pause_s > deadline:
                    raise self.translate(error) from None
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 1.0)

    def open_session(self, client: str, timeout_s: float, device: str = "") -> rpc.OpenSessionResponse:
        """The handshake. Raises ConnectFailed, NotAuthenticated, VersionMismatch, ServerBusy, RequestRefused."""
        request = rpc.OpenSessionRequest(min_protocol=PROTOCOL, max_protocol=PROTOCOL, client=client, device=device)
        began = time.monotonic()
        latest = began + timeout_s
        broken: grpc.RpcError | None = None
        patience = Patience(timeout_s)
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
                error.__traceback__ = None  # see `again`
                if patience.heed(error, self.translate):
                    continue
                if broken is None and is_broken(error):
                    broken = error
                    latest = min(latest, now + max(_REOPEN_S, _REOPEN_TIMES * (now - began)))
                elif not is_broken(error) or now > latest:
                    failed = broken if broken is not None and is_late(error) else error
                    raise self._explained(self.translate(failed), timeout_s) from None
            time.sleep(_REOPEN_PAUSE_S)

    def attach_session(self, secret: bytes, client: str, timeout_s: float | None) -> rpc.AttachSessionResponse:
        """Take a session over. Waits until all has run that was accepted of it before, for as long as that takes where
        there is no time. Raises: SessionLost, and a ServerError.
        """
        request = rpc.AttachSessionRequest(
            session=secret,
            attempt=secrets.token_bytes(16),
            min_protocol=PROTOCOL,
            max_protocol=PROTOCOL,
            client=client,
        )
        path = TENSOR_SERVICE + "AttachSession"
        # However often it is asked, it is done once.
        try:
            taken: rpc.AttachSessionResponse = self.again(
                lambda: self.unary(path, request, rpc.AttachSessionResponse, timeout_s=timeout_s), _REATTACH_S
            )
        except TensorError as failure:
            raise self._explained(failure, _LOOK_S) from None
        return taken

    def cancel_session(self, secret: bytes, through: int = 0) -> None:
        """End the calls of a session up to a batch; 0 is the last one that has come there. Raises: a ServerError."""
        request = rpc.CancelSessionRequest(session=secret, through_seq=through)
        self.call(TENSOR_SERVICE + "CancelSession", request, rpc.CancelSessionResponse)

    @GATE.inside()
    def close(self) -> None:
        """Ends every RPC of the channel."""
        self._ways.close()


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
