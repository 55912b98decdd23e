"""The data endpoint: a TCP (or TLS) listener that moves bytes straight into and out of memory, and hands lanes on.

Who comes names a ticket, which was given over gRPC (OpenTransfer) and is good for one connection, and both prove that
they have its key, before anything else is said. It stands for one transfer (also one that another server brings), for
all those that the connection will ask for, or for a lane, whose connection the session takes over. What is said is in
tensorcompute.wire.data_endpoint. Whatever goes wrong ends the connection: the client falls back to gRPC, which says
why. Each connection has a thread, which spends its time in the kernel; there is a bound on them, and beyond it the one
that has rested longest is ended.
For a machine's own clients a second listener, a Unix socket, takes lanes, and does the same through memory that both
have where that is wanted. Knows sockets and tickets; does not know what a tensor is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensorcompute.wire import data_endpoint as said
from tensorcompute.wire.address import parse
from tserver.audit import Audit
from tserver.config import Config
from tserver.errors import Exhausted, ServerError
from tserver.front import certificates
from tserver.front.authentication import host_of
from tserver.front.connections import (
    Connection,
    Pace,
    SharedMemoryConnection,
    Source,
    TcpConnection,
    TlsConnection,
)
from tserver.front.opened import Opened
from tserver.identity import LOOPBACK, Identity

log = logging.getLogger("tserver.data")

TICKET_S = 30.0
_MAX_TICKETS = 1024
_MAX_CONNECTIONS = 32
_MAX_REQUEST_BYTES = 64 << 10
# The first word must come within this time.
_OPENING_S = 5.0


@dataclass(slots=True, eq=False)
class Transfer:
    """An upload into `targets`, one after the other, or a download of `source`."""

    size_bytes: int
    # Says that the session is alive; from any thread, as are those below.
    touch: Callable[[], None]
    targets: Sequence[memoryview] = ()
    source: Source | None = None
    # An upload's: keeps what came, or lets it go.
    finish: Callable[[], None] | None = None
    cancel: Callable[[], None] | None = None
    # Whether another server brings it: its bytes go over the socket of this machine, too.
    is_from_server: bool = False


Beat = Callable[[bool], None]


class Transfers(ABC):
    """What a ticket stands for that is good for a whole connection."""

    @abstractmethod
    def next(self, message: bytes, beat: Beat) -> tuple[Transfer, bytes]:
        """The transfer that a message asks for, and what a download's answer begins with.

        Runs on the connection's thread; calls `beat` now and then while it waits, with whether it is for an upload.
        Raises: ServerError.
        """


class Takes(ABC):
    """What a ticket stands for that takes the connection, and needs no thread of this endpoint."""

    @abstractmethod
    def take(self, connection: socket.socket) -> None:
        """Keep it, and close it at the end. Raises: ServerError, OSError."""


Admitted = Transfer | Transfers | Takes


def wanted_address(config: Config) -> str:
    """Where to listen; empty is nowhere."""
    if config.data_listen != "auto":
        return config.data_listen
    listen = parse(config.listen, listening=True)
    # Elsewhere a port that nobody has chosen is one that a firewall closes; and who chose a unix socket wants no port.
    return f"{listen.text.rpartition(':')[0]}:0" if listen.is_local and listen.host else ""


class _Moved:
    """What the audit log is told of a connection that moved bytes, at its end."""

    def __init__(self) -> None:
        self.whose: Identity | None = None
        self._began = time.perf_counter()
        self._transfers = self._bytes_in = self._bytes_out = 0
        self._is_whole = True

    def move(self, connection: Connection, transfer: Transfer, lag: Callable[[], None]) -> bool:
        """As `_move`; bytes of a transfer that is cut off are not counted."""
        self._transfers += 1
        self._is_whole = False
        self._is_whole = _move(connection, transfer, lag)
        if self._is_whole and transfer.source is None:
            self._bytes_in += transfer.size_bytes
        elif self._is_whole:
            self._bytes_out += transfer.size_bytes
        return self._is_whole

    def tell(self, log: Audit) -> None:
        """The connection has ended."""
        log.add(
            "data connection",
            self.whose,
            "",
            outcome="OK" if self._is_whole else "CANCELLED",
            transfers=self._transfers,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            seconds=round(time.perf_counter() - self._began, 6),
        )


class DataEndpoint:
    """The listeners and their tickets."""

    def __init__(self, config: Config, address: str, opened: Opened, audit: Audit | None = None) -> None:
        self._audit = audit
        self._loop = asyncio.get_running_loop()
        self._opened = opened
        # The key of each ticket, what it stands for, and whose it is.
        self._tickets: dict[bytes, tuple[bytes, Admitted, Identity]] = {}
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self._open: set[socket.socket] = set()
        # Connections between two transfers, those that have rested longest first, and such as are slow.
        self._resting: dict[socket.socket, None] = {}
        self._stopping = False
        self._certificates = certificates.of(config)
        self._listeners: list[socket.socket] = []
        self.address = ""
        if address:
            listener = _listener(address)
            self.address = f"{address.rpartition(':')[0]}:{listener.getsockname()[1]}"
            self._start(listener, self._over_tls if self._certificates is not None else TcpConnection)
        # The name of the Unix socket, which is nowhere in the file system.
        self.local = f"tserver-{secrets.token_hex(8)}"
        self._shares_memory = config.shared_memory
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        local.bind(f"\0{self.local}")
        local.listen(128)
        self._start(local, SharedMemoryConnection)

    @property
    def certificate_sha256(self) -> bytes:
        """Of the certificate that is shown, by which another server knows this one; empty without TLS."""
        return b"" if self._certificates is None else self._certificates.current().sha256

    @property
    def moves_bytes(self) -> bool:
        """Whether transfers may come here."""
        return bool(self.address) or self._shares_memory

    def named(self, listen: str) -> str:
        """How clients are told of it: without its host, where that is the one that they know already."""
        if not self.address:
            return ""
        host, _, port = self.address.rpartition(":")
        same = host == listen.rpartition(":")[0] or host.strip("[]") in ("", "0.0.0.0", "::")
        return f":{port}" if same else self.address

    def named_within(self) -> str:
        """How others of the house are told of it; empty where its host says nothing to them."""
        host = self.address.rpartition(":")[0]
        return "" if host.strip("[]") in ("", "0.0.0.0", "::") else self.address

    def admit(self, admitted: Admitted, identity: Identity) -> tuple[bytes, bytes]:
        """A ticket for who asks, and its key; on the event loop. Raises: Exhausted."""
        if len(self._tickets) >= _MAX_TICKETS:
            raise Exhausted(
                f"{len(self._tickets)} tickets of the data endpoint are not used, which is the limit; use gRPC"
            )
        key = secrets.token_bytes(said.KEY_BYTES)
        ticket = said.ticket_of(key)
        self._tickets[ticket] = key, admitted, identity
        self._loop.call_later(TICKET_S, self._expire, ticket)
        return ticket, key

    def stop(self) -> None:
        """Take no more connections, and end those there are."""
        self._stopping = True
        for connection in (*self._listeners, *self._open):
            # What waits in accept or recv wakes up; close alone would leave it there.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for listener in self._listeners:
            listener.close()

    def _start(self, listener: socket.socket, connect: Callable[[socket.socket], Connection]) -> None:
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, connect), name="data", daemon=True).start()

    def _expire(self, ticket: bytes) -> None:
        if (found := self._tickets.pop(ticket, None)) is not None:
            _let_go(found[1])

    # --- threads of their own ---

    def _accept(self, listener: socket.socket, connect: Callable[[socket.socket], Connection]) -> None:
        while not self._stopping:
            try:
                accepted, _ = listener.accept()
            except OSError:
                # Out of descriptors, or a peer that left at once; the listener itself ends only when told to.
                time.sleep(0.01)
                continue
            if not self._free.acquire(blocking=False) and not self._make_room():
                accepted.close()
                continue
            self._open.add(accepted)
            threading.Thread(target=self._serve, args=(accepted, connect), name="data transfer", daemon=True).start()

    def _make_room(self) -> bool:
        """End the connection that has rested longest, and take its place; False if none rests."""
        try:
            rested = next(iter(self._resting))
        except (StopIteration, RuntimeError):
            return False
        with contextlib.suppress(OSError):
            rested.shutdown(socket.SHUT_RDWR)
        return self._free.acquire(timeout=1.0)

    def _over_tls(self, accepted: socket.socket) -> Connection:
        assert self._certificates is not None
        # Who comes proves itself by the key of its ticket, which it was given over gRPC.
        return TlsConnection(self._certificates.current().plain.wrap_socket(accepted, server_side=True))

    def _serve(self, accepted: socket.socket, connect: Callable[[socket.socket], Connection]) -> None:
        speaking = accepted
        taken = False
        moved = _Moved()
        try:
            with contextlib.suppress(OSError, ValueError, ServerError):
                if accepted.family != socket.AF_UNIX:
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                accepted.settimeout(_OPENING_S)
                connection = connect(accepted)
                speaking = connection.socket
                proved = self._prove(connection)
                if proved is None:
                    return
                admitted, identity = proved
                if isinstance(admitted, Takes):
                    admitted.take(speaking)
                    taken = True
                    return
                if isinstance(connection, SharedMemoryConnection):
                    if isinstance(admitted, Transfer) and admitted.is_from_server:
                        connection = TcpConnection(speaking)
                    elif not self._shares_memory:
                        return
                connection.begin()
                moved.whose = identity

                def lag() -> None:
                    self._resting[accepted] = None

                if isinstance(admitted, Transfer):
                    moved.move(connection, admitted, lag)
                else:
                    self._follow(connection, accepted, admitted, lag, moved)
        except Exception:
            log.exception("a transfer failed")
        finally:
            self._open.discard(accepted)
            self._resting.pop(accepted, None)
            if not taken:
                with contextlib.suppress(OSError):
                    speaking.close()
            self._free.release()
            if self._audit is not None and moved.whose is not None:
                moved.tell(self._audit)

    def _prove(self, connection: Connection) -> tuple[Admitted, Identity] | None:
        """What a peer is admitted for that has proved itself, and to whom we have, and whose it is; None without.

        Raises: OSError.
        """
        if connection.read(len(said.OPENING), _OPENING_S) != said.OPENING:
            return None
        opening = connection.read(said.TICKET_BYTES + said.NONCE_BYTES, _OPENING_S) or b""
        ticket, theirs = opening[: said.TICKET_BYTES], opening[said.TICKET_BYTES :]
        found = self._tickets.pop(ticket, None)
        if found is None:
            return None
        key, admitted, identity = found
        try:
            nonces = theirs + secrets.token_bytes(said.NONCE_BYTES)
            connection.write(said.OPENING + nonces[said.NONCE_BYTES :] + said.proof(key, "server", nonces))
            if (
                said.proves(connection.read(said.PROOF_BYTES, said.STALL_S) or b"", key, "client", nonces)
                and _comes_from(connection.socket, admitted, identity)
                and self._opened.add(connection.socket, identity)
            ):
                return admitted, identity
        except OSError:
            pass
        _let_go(admitted)
        return None

    def _follow(
        self,
        connection: Connection,
        accepted: socket.socket,
        transfers: Transfers,
        lag: Callable[[], None],
        moved: _Moved,
    ) -> None:
        """Transfer after transfer, until the client leaves, rests for too long, or one fails."""
        while not self._stopping:
            self._resting[accepted] = None
            head = connection.read(said.LENGTH.size, said.STALL_S)
            self._resting.pop(accepted, None)
            if head is None:
                return
            (length,) = said.LENGTH.unpack(head)
            message = connection.read(length, said.STALL_S) if 0 < length <= _MAX_REQUEST_BYTES else None
            if message is None:
                return
            transfer, answer = transfers.next(
                message, lambda is_upload: connection.beat(said.WAIT if is_upload else said.NO_ANSWER_YET)
            )
            if transfer.source is not None:
                connection.write(said.sized(answer))
            if not moved.move(connection, transfer, lag):
                return


def _comes_from(connection: socket.socket, admitted: Admitted, identity: Identity) -> bool:
    """Whether who comes is on the host that the ticket was given to; or another server, where that is meant."""
    if isinstance(admitted, Transfer) and admitted.is_from_server:
        return True
    if (host := _host_of(connection)) == identity.host:
        return True
    log.info("a ticket came from another host; its caller stays on gRPC", extra={"from": host, "of": identity.host})
    return False


def _host_of(connection: socket.socket) -> str:
    if connection.family == socket.AF_UNIX:
        return LOOPBACK
    host, port = connection.getpeername()[:2]
    return host_of(f"{'ipv6' if connection.family == socket.AF_INET6 else 'ipv4'}:[{host}]:{port}")


def _let_go(admitted: Admitted) -> None:
    if isinstance(admitted, Transfer) and admitted.cancel is not None:
        admitted.cancel()


def _move(connection: Connection, transfer: Transfer, lag: Callable[[], None]) -> bool:
    """Move the bytes; whether all is well. Raises: OSError."""
    beat = None if transfer.source is not None else lambda: connection.beat(said.WAIT)
    pace = Pace(transfer.size_bytes, transfer.touch, beat, lag)
    if transfer.source is not None:
        connection.send(transfer.source, pace)
        whole = transfer.source.intact()
        connection.write(said.DONE if whole else said.FAILED)
        return whole
    assert transfer.finish is not None
    assert transfer.cancel is not None
    try:
        whole = all(connection.receive(target, pace) for target in transfer.targets)
    except OSError:
        whole = False
    if not whole:
        transfer.cancel()
        return False
    try:
        transfer.finish()
    except Exception as error:
        log.debug("an upload was not kept: %s", error)
        connection.write(said.FAILED)
        return False
    connection.write(said.DONE)
    return True


def _listener(address: str) -> socket.socket:
    """Raises: OSError that names the option."""
    host, _, port = address.rpartition(":")
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        return socket.create_server((bare, int(port)), family=family, backlog=128)
    except OSError as error:
        raise OSError(f"cannot listen on --data-listen {address}: {error}; choose another address") from error
