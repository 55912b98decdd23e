"""Tensors on their way to another server: where this one may connect, and what it says there.

A caller names the place, so it is looked at first whether that is allowed (--send-to). Until the other side has proved
that it has the key of the permission, it is sent nothing that a caller chose: a ticket that follows from the key, and
random bytes. Of whoever else answers there, the caller learns nothing. Each sending has a thread, and there is a bound
on them. Knows sockets; does not know what a tensor is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from tensorcompute.wire import data_endpoint as said
from tserver.errors import Exhausted, InvalidArgument, NotSent, PermissionDenied
from tserver.front.connections import Connection, Pace, Source, TcpConnection, TlsConnection

log = logging.getLogger("tserver.data")

# How long the other side may take to answer, and to prove itself.
_CONNECT_S = 3.0
_PROOF_S = 5.0
# How often the caller is told how far it is.
_TOLD_S = 1.0
_MAX_SENDINGS = 16
# What the sockets of data endpoints are called: nothing else on this machine is connected to.
_SOCKET = re.compile(r"tserver-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where tensors go, as the permission of the other server says."""

    key: bytes
    # "host:port", and the name of a Unix socket; empty where there is none.
    data_endpoint: str
    socket: str
    # Of the certificate that is shown at the address; empty without TLS.
    certificate_sha256: bytes
    # By which a server of this house shows that the address is its own.
    house_proof: bytes = b""


def house_proof(house_key: str, key: bytes, address: str) -> bytes:
    """What shows others of a house that the one that gave the permission with this key is there."""
    return hmac.digest(house_key.encode(), b"receives" + key + address.encode(), "sha256")


class SendTo:
    """Where this server may connect: the setting --send-to."""

    def __init__(self, places: Collection[str], house_key: str = "") -> None:
        self._house_key = house_key
        self._any = "any" in places
        self._house = self._any or "house" in places
        self._named = frozenset(places)

    def check_socket(self, name: str) -> None:
        """Raises: PermissionDenied where the socket of a server of this machine must not be used."""
        if not self._house or _SOCKET.fullmatch(name) is None:
            raise PermissionDenied(
                "this server may not send to another one on its machine (--send-to)", reason="SEND_NOT_ALLOWED"
            )

    def resolved(self, to: Destination) -> list[tuple[Any, Any]]:
        """The families and addresses to connect to. Raises: PermissionDenied, OSError."""
        address = to.data_endpoint
        host, _, port = address.rpartition(":")
        bare = host.strip("[]")
        is_near = self._house and (_is_loopback(bare) or self._is_of_house(to))
        if not port.isdigit() or not (self._any or address in self._named or is_near):
            raise PermissionDenied(
                f"this server may not send to {address[:200]} (--send-to); fetch the elements, and send them yourself",
                reason="SEND_NOT_ALLOWED",
            )
        found = socket.getaddrinfo(bare, int(port), type=socket.SOCK_STREAM)
        return [(family, where) for family, _, _, _, where in found]

    def _is_of_house(self, to: Destination) -> bool:
        """Whether another engine of this house says that it is there."""
        if not self._house_key:
            return False
        return hmac.compare_digest(to.house_proof, house_proof(self._house_key, to.key, to.data_endpoint))


def _is_loopback(host: str) -> bool:
    """Whether it is this machine by its very name: none is looked up to find out."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Sender:
    """The sendings of a server."""

    def __init__(self, places: Collection[str], house_key: str = "") -> None:
        self._allowed = SendTo(places, house_key)
        self._under_way = 0

    async def send(
        self, sources: Sequence[Source], size_bytes: int, to: Destination, check_alive: Callable[[], None]
    ) -> AsyncGenerator[int, None]:
        """Send all of these; how many bytes have left, now and then. Cancelled, it ends at once.

        `check_alive` is called while bytes move, from a thread; what it raises (OSError) ends the sending.
        Raises: InvalidArgument, PermissionDenied, NotSent, Exhausted.
        """
        total = sum(len(source.data) for source in sources)
        if total != size_bytes:
            raise InvalidArgument(f"the tensors have {total} bytes, but the permission is for {size_bytes}")
        if len(to.key) != said.KEY_BYTES:
            raise InvalidArgument(f"the key has {len(to.key)} bytes; it has {said.KEY_BYTES}")
        if self._under_way >= _MAX_SENDINGS:
            raise Exhausted(
                f"{self._under_way} transfers to other servers are under way, which is the limit; retry later",
                retry_after_s="1",
            )
        self._under_way += 1
        sending = _Sending(self._allowed, sources, total, to, check_alive)
        try:
            running = asyncio.wrap_future(sending.start())
            while not running.done():
                await asyncio.wait({running}, timeout=_TOLD_S)
                yield sending.pace.moved_bytes
            running.result()
        finally:
            self._under_way -= 1
            sending.stop()


class _Sending:
    """One of them: what its thread does, and how it is ended."""

    def __init__(
        self,
        allowed: SendTo,
        sources: Sequence[Source],
        total: int,
        to: Destination,
        check_alive: Callable[[], None],
    ) -> None:
        self._allowed, self._sources, self._to = allowed, sources, to
        self.pace = Pace(total, check_alive)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._stopped = False

    def start(self) -> Future[None]:
        """Begin, on a thread of its own; what becomes of it: PermissionDenied and NotSent among others."""
        over: Future[None] = Future()

        def run() -> None:
            try:
                self._run()
            except Exception as error:
                over.set_exception(error)
            else:
                over.set_result(None)

        threading.Thread(target=run, name="sending", daemon=True).start()
        return over

    def _run(self) -> None:
        connection = self._proved()
        try:
            self.pace.began()
            for source in self._sources:
                connection.send(source, self.pace)
            # The other side takes an upload when its engine has a moment for it.
            while (status := connection.read(1, said.STALL_S)) == said.WAIT:
                self.pace.moved(0)
        except OSError as error:
            raise NotSent(
                f"the transfer to the other server broke after {self.pace.moved_bytes} bytes: {error}",
                reason="PEER_LEFT",
            ) from error
        finally:
            self._close()
        if status != said.DONE:
            raise NotSent("the other server did not keep what was sent", reason="PEER_LEFT")
        if not all(source.intact() for source in self._sources):
            raise NotSent("a tensor was changed while it was sent; send it again", reason="PEER_LEFT")

    def stop(self) -> None:
        """End it, wherever it is. From any thread."""
        with self._lock:
            self._stopped = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _proved(self) -> Connection:
        """A connection to who has the key. Raises: PermissionDenied, NotSent."""
        to = self._to
        refusal: Exception | None = None
        tries: list[Callable[[], list[tuple[Any, Any]]]] = []
        if to.socket:
            tries.append(lambda: self._local(to.socket))
        if to.data_endpoint:
            tries.append(lambda: self._allowed.resolved(to))
        for find in tries:
            try:
                for family, where in find():
                    try:
                        return self._opened(family, where)
                    except OSError as error:
                        log.debug("another server was not reached: %s", error)
                        refusal = error
                        self._close()
            except PermissionDenied as error:
                refusal = error
            except OSError as error:
                log.debug("another server was not found: %s", error)
                refusal = error
        if isinstance(refusal, PermissionDenied):
            raise refusal
        # The same words whatever is there, if anything is.
        raise NotSent(
            "nobody who has the key of the permission was reached; fetch the elements, and send them yourself",
            reason="PEER_NOT_REACHED",
        )

    def _local(self, name: str) -> list[tuple[Any, Any]]:
        self._allowed.check_socket(name)
        return [(socket.AF_UNIX, f"\0{name}")]

    def _opened(self, family: Any, where: Any) -> Connection:
        """Raises: OSError."""
        connected = socket.socket(family, socket.SOCK_STREAM)
        self._keep(connected)
        connected.settimeout(_CONNECT_S)
        connected.connect(where)
        self._keep(connected)
        if family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._to.certificate_sha256:
                return self._greeted(TlsConnection(self._over_tls(connected)))
        return self._greeted(TcpConnection(connected))

    def _over_tls(self, connected: socket.socket) -> ssl.SSLSocket:
        """The other side is known by its certificate itself, which the permission names. Raises: OSError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        wrapped = context.wrap_socket(connected)
        self._keep(wrapped)
        shown = hashlib.sha256(wrapped.getpeercert(binary_form=True) or b"").digest()
        if not hmac.compare_digest(shown, self._to.certificate_sha256):
            raise ConnectionError("another certificate is shown there")
        return wrapped

    def _greeted(self, connection: Connection) -> Connection:
        """Have the other side prove itself, and do so. Raises: OSError."""
        key = self._to.key
        ours = secrets.token_bytes(said.NONCE_BYTES)
        connection.write(said.OPENING + said.ticket_of(key) + ours)
        answer = connection.read(len(said.OPENING) + said.NONCE_BYTES + said.PROOF_BYTES, _PROOF_S) or b""
        theirs = answer[len(said.OPENING) :]
        nonces = ours + theirs[: said.NONCE_BYTES]
        if not answer.startswith(said.OPENING) or not said.proves(theirs[said.NONCE_BYTES :], key, "server", nonces):
            raise ConnectionError("another program answers there")
        connection.write(said.proof(key, "client", nonces))
        return connection

    def _keep(self, connected: socket.socket) -> None:
        """The one to end. Raises: ConnectionError if that has been asked for."""
        with self._lock:
            self._socket = connected
            if self._stopped:
                connected.close()
                raise ConnectionError("the caller has left")

    def _close(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
