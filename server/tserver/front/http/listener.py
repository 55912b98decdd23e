"""The HTTP server on one address: connections, how long they may take, and how much they may bring. By aiohttp.

Each connection costs memory and no thread. A connection that asks for nothing is closed after a while, or sooner where
there are too many; a body must keep coming, and an answer must keep being taken. Knows no application.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from tserver.config import Config
from tserver.credentials.certificates import told_by_ssl
from tserver.errors import DeadlineExceeded, Exhausted, InvalidArgument
from tserver.front import certificates
from tserver.front.http.encodings import deflated, wanted
from tserver.front.http.messages import Handler, HttpRequest, HttpResponse, Route, Routes
from tserver.front.listeners import most_connections
from tserver.host import total_bytes

log = logging.getLogger("tserver.front")

_PIECE_BYTES = 1 << 20
_PART_OF_FILES = 0.1
_MAX_CONNECTIONS = 4096
# Smaller ones hardly become smaller.
_MIN_COMPRESSED_BYTES = 1 << 10
_MAX_COMPRESSED_INLINE_BYTES = 64 << 10
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


class BodyTooSlow(DeadlineExceeded):
    """A body that does not come."""

    reason = "BODY_TOO_SLOW"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one listener lets its callers do."""

    # Connections at once; 0 is as many as the process can have.
    connections: int = 0
    # Until the headers of the next request have come, whole, on a connection that asks for nothing.
    idle_s: float = 60.0
    # Between two pieces of a body, and of an answer.
    stall_s: float = 30.0
    # What a body must have brought on average, beyond that time.
    slowest_bytes_per_s: int = 16 << 10
    # Bodies of all requests under way.
    held_bytes: int = field(default_factory=lambda: min(4 << 30, total_bytes() // 4))


class _Connection(web.RequestHandler):
    """A connection; what is no HTTP is refused as everything else is, in JSON, and is no matter for the log."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See aiohttp."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has been begun already")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("an HTTP request failed in a way it should not", exc_info=exc)
            message = "the server failed"
        text = " ".join((message or HTTPStatus(status).phrase).split())
        response = web.json_response({"error": text[:500]}, status=status)
        response.force_close()
        return response


class _Server(web.Server):
    """The connections of one listener. When there are too many, the one that has asked for nothing the longest goes."""

    def __init__(self, handler: Any, max_connections: int, **options: Any) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._max_connections = max_connections
        self._options = options
        # Those that ask for nothing now, the one that has done so the longest first.
        self._idle: dict[web.RequestHandler, None] = {}

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._options)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """See aiohttp."""
        if len(self._connections) >= self._max_connections:
            if self._idle:
                longest = next(iter(self._idle))
                del self._idle[longest]
                self._connections[longest].abort()
            else:
                transport.write(_FULL)
                handler.force_close()
        super().connection_made(handler, transport)
        self.rests(handler)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """See aiohttp."""
        self._idle.pop(handler, None)
        super().connection_lost(handler, exc)

    def asks(self, handler: web.RequestHandler) -> None:
        """A connection has a request."""
        self._idle.pop(handler, None)

    def rests(self, handler: web.RequestHandler) -> None:
        """It has none any more."""
        if handler.transport is not None:
            self._idle[handler] = None


class HttpListener:
    """A listener of one server."""

    def __init__(self, option: str, address: str, config: Config, answer: Handler, limits: Limits = Limits()) -> None:
        """`answer` makes the response to a request, also where that fails; `option` is what says the address."""
        self._option, self._address, self._config = option, address, config
        self._answer = answer
        self._limits = limits
        self._held_bytes = 0

    async def start(self) -> str:
        """Listen; the address. Raises: OSError that names the option."""
        limits = self._limits
        self._server = _Server(
            self._handle,
            limits.connections or min(_MAX_CONNECTIONS, most_connections(_PART_OF_FILES)),
            keepalive_timeout=limits.idle_s,
            lingering_time=min(5.0, limits.stall_s),
            auto_decompress=False,
            access_log=None,
        )
        host, _, port = self._address.rpartition(":")
        listening: socket.socket | None = None
        try:
            found = certificates.of(self._config)
            tls = None if found is None else found.http()
            # The family as the system prefers it for this host.
            family, kind, number, _, where = socket.getaddrinfo(
                host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listening = socket.socket(family, kind, number)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
            self._listening = await asyncio.get_running_loop().create_server(
                self._server,
                sock=listening,
                backlog=1024,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else limits.stall_s,
            )
        except (OSError, OverflowError) as error:
            if listening is not None:
                listening.close()
            raise OSError(
                f"cannot listen on {self._option} {self._address}: {error}; choose another address"
            ) from error
        return f"{host}:{listening.getsockname()[1]}"

    async def stop(self, grace_s: float) -> None:
        """End, once the requests under way are answered or the time is up."""
        self._listening.close()
        self._server.pre_shutdown()
        await self._server.shutdown(grace_s)

    async def _handle(self, given: web.BaseRequest) -> web.StreamResponse:
        connection = given.protocol
        self._server.asks(connection)
        request = HttpRequest(
            given.method,
            given.rel_url.raw_path,
            given.rel_url.raw_query_string,
            given.headers,
            _peer(given),
            _Body(given, self._limits).read,
            self._hold,
            certificate=_certificate(given),
        )
        try:
            return await self._send(given, await self._answer(request))
        finally:
            self._server.rests(connection)
            self._held_bytes -= request.body_bytes

    def _hold(self, size_bytes: int) -> None:
        if self._held_bytes + size_bytes > self._limits.held_bytes:
            raise Exhausted(
                f"the bodies of requests under way have {self._held_bytes} bytes, and {size_bytes} more are too many; "
                "retry later"
            )
        self._held_bytes += size_bytes

    async def _send(self, given: web.BaseRequest, response: HttpResponse) -> web.StreamResponse:
        parts, size = response.body, response.size_bytes
        headers = {"Content-Type": response.content_type, "Server": "tensorcompute", **response.headers}
        encoding = wanted(given.headers.get("Accept-Encoding", "")) if size >= _MIN_COMPRESSED_BYTES else ""
        if encoding:
            if size > _MAX_COMPRESSED_INLINE_BYTES:
                parts = (await asyncio.to_thread(deflated, parts, encoding),)
            else:
                parts = (deflated(parts, encoding),)
            headers["Content-Encoding"] = encoding
            size = len(parts[0])
        sent = web.StreamResponse(status=response.status, headers=headers)
        sent.content_length = size
        steps = (sent.write(piece) for piece in _pieces(parts)) if given.method != "HEAD" else ()
        try:
            await sent.prepare(given)
            for step in steps:
                async with asyncio.timeout(self._limits.stall_s):
                    await step
            async with asyncio.timeout(self._limits.stall_s):
                await sent.write_eof()
        except TimeoutError:
            if given.transport is not None:
                given.transport.abort()
            raise ConnectionResetError("the caller does not take the answer") from None
        return sent


class _Body:
    """The body of one request, as it comes."""

    def __init__(self, given: web.BaseRequest, limits: Limits) -> None:
        self._given, self._limits = given, limits
        self._began: float | None = None
        self._received = 0

    async def read(self) -> bytes:
        """The next piece; empty at the end. Raises: BodyTooSlow, InvalidArgument; CancelledError if nobody sends it."""
        given, limits = self._given, self._limits
        if self._began is None:
            self._began = time.monotonic()
            if given.headers.get("Expect", "").lower() == "100-continue":
                await given.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                given.writer.output_size = 0
        try:
            async with asyncio.timeout(limits.stall_s):
                piece = await given.content.readany()
        except TimeoutError:
            raise BodyTooSlow(f"nothing more came of the body for {limits.stall_s:g} s; send it again") from None
        except RequestPayloadError as error:
            raise InvalidArgument(f"the body is not as its headers say: {str(error)[:200]}") from None
        except ConnectionError:
            raise asyncio.CancelledError from None
        self._received += len(piece)
        if time.monotonic() > self._began + limits.stall_s + self._received / limits.slowest_bytes_per_s:
            raise BodyTooSlow(f"the body came slower than {limits.slowest_bytes_per_s} bytes a second; send it again")
        return piece


async def listen_as_wanted(
    config: Config, guarded: Callable[[Routes], Handler], metrics: Sequence[Route], inference: Sequence[Route]
) -> list[HttpListener]:
    """Listen at the addresses that the settings name, and say where; `guarded` makes of routes what answers."""
    found = []
    for name, address, routes in (
        ("metrics", config.metrics_listen, [*metrics]),
        ("http", config.http_listen, [*metrics, *inference]),
    ):
        if address:
            one = HttpListener(f"--{name}-listen", address, config, guarded(Routes(routes)))
            print(f"{name} listening on {await one.start()}", flush=True)
            found.append(one)
    return found


def _pieces(parts: Sequence[bytes | memoryview]) -> Iterator[memoryview]:
    for part in parts:
        for at in range(0, len(part), _PIECE_BYTES):
            yield memoryview(part)[at : at + _PIECE_BYTES]


def _peer(given: web.BaseRequest) -> str:
    """Who calls, as gRPC names it."""
    peer = given.transport.get_extra_info("peername") if given.transport is not None else None
    if not isinstance(peer, tuple):
        return ""
    host, port = peer[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def _certificate(given: web.BaseRequest) -> dict[str, list[bytes]]:
    """What is known of the caller's certificate, where it has shown one."""
    tls = given.transport.get_extra_info("ssl_object") if given.transport is not None else None
    return {} if tls is None else told_by_ssl(tls.getpeercert(), tls.getpeercert(binary_form=True))
