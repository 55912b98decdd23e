"""The fast way for bulk bytes: the server's data endpoint, a TCP (or TLS) connection straight into and out of memory.

Whatever goes wrong here, the answer is False or None, and the bytes go over gRPC instead, whose errors say why. The
framing is described at OpenTransfer in the contract. Knows sockets; does not know what a tensor is.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator

from tclient._exceptions import ServerError
from tclient._progress import Progress
from tclient._session import Session
from tensorcompute.v1 import tensor_service_pb2 as rpc

log = logging.getLogger("tclient")

# Below this, a connection costs more than it saves.
FROM_BYTES = 2 << 20
_CONNECT_S = 2.0
# A server that neither sends nor takes anything for so long has gone.
_STALL_S = 20.0
# The server waits 5 s for a ticket.
_TICKET_PATIENCE_S = 2.0
_PIECE_BYTES = 8 << 20

Memory = Callable[[rpc.OpenTransferResponse], memoryview]


def send(session: Session, header: rpc.UploadHeader, view: memoryview) -> bool:
    """Upload; whether it is there. False: use gRPC."""
    if len(view) < FROM_BYTES:
        return False
    arrived = False
    with _transfer(session, rpc.OpenTransferRequest(upload=header)) as opened:
        if opened is None:
            return False
        connection, answer = opened
        if answer.size_bytes != len(view):
            return False
        connection.sendall(answer.ticket)
        with Progress(session, "upload", len(view)) as progress:
            position = 0
            while position < len(view):
                position += connection.send(view[position : position + _PIECE_BYTES])
                progress.reach(position)
        # The server keeps the upload in its place among the session's calls, which may take a while.
        _limit(connection, 0.0)
        arrived = connection.recv(1) == b"\0"
    return arrived


def receive(session: Session, request: rpc.DownloadRequest, memory: Memory) -> rpc.OpenTransferResponse | None:
    """Download into the memory that is made for it; what it is. None: use gRPC. Raises what `memory` raises."""
    with _transfer(session, rpc.OpenTransferRequest(download=request)) as opened:
        if opened is None:
            return None
        connection, answer = opened
        view = memory(answer)
        flags = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_WAITALL
        connection.sendall(answer.ticket)
        with Progress(session, "download", len(view)) as progress:
            position = 0
            while position < len(view):
                piece = view[position : position + _PIECE_BYTES]
                count = connection.recv_into(piece, 0, flags)
                if not count:
                    raise ConnectionError("the server ended the transfer")
                position += count
                progress.reach(position)
        if connection.recv(1) == b"\0":
            return answer
    return None


@contextlib.contextmanager
def _transfer(
    session: Session, request: rpc.OpenTransferRequest
) -> Iterator[tuple[socket.socket, rpc.OpenTransferResponse] | None]:
    """A connection and a ticket for it; None without. A connection that breaks ends the block, and nothing more."""
    address = _address(session)
    connection = _connect(session, address) if address is not None else None
    if connection is None or address is None:
        yield None
        return
    try:
        began = time.monotonic()
        try:
            answer = session.connection.call("OpenTransfer", request, rpc.OpenTransferResponse, timeout_s=None)
        except ServerError as error:
            log.debug("no ticket for the data endpoint: %s", error)
            answer = None
        if answer is not None and time.monotonic() - began > _TICKET_PATIENCE_S:
            connection.close()
            connection = _connect(session, address)
        if answer is None or connection is None:
            yield None
            return
        _limit(connection, _STALL_S)
        try:
            yield connection, answer
        except OSError as error:
            log.debug("the transfer over the data endpoint failed: %s", error)
    finally:
        if connection is not None:
            connection.close()


def _address(session: Session) -> tuple[str, int] | None:
    host, _, port = session.data_endpoint.rpartition(":")
    if not port.isdigit():
        return None
    if not host:
        # The server names a port only: it is where the session is.
        host = session.connection.address.rpartition(":")[0]
        if not host or "/" in host or host.startswith("unix"):
            return None
    return host.strip("[]"), int(port)


def _connect(session: Session, address: tuple[str, int]) -> socket.socket | None:
    try:
        connection = socket.create_connection(address, timeout=_CONNECT_S)
    except OSError as error:
        # A port that is closed stays closed: the session does not try again.
        log.debug("the data endpoint at %s:%s cannot be reached: %s", *address, error)
        session.data_endpoint = ""
        return None
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if session.tls:
        try:
            connection = _trusted("" if session.tls is True else os.fspath(session.tls)).wrap_socket(
                connection, server_hostname=address[0]
            )
        except OSError as error:
            log.debug("the data endpoint at %s:%s cannot be trusted: %s", *address, error)
            connection.close()
            session.data_endpoint = ""
            return None
    connection.settimeout(None)
    return connection


@functools.cache
def _trusted(authority: str) -> ssl.SSLContext:
    """Those whom the session trusts: the authority in that file; without one, those that the system trusts."""
    return ssl.create_default_context(cafile=authority or None)


def _limit(connection: socket.socket, seconds: float) -> None:
    """How long one call may get nowhere; 0 is for ever. A limit in the kernel: one call moves a whole piece."""
    if isinstance(connection, ssl.SSLSocket):
        connection.settimeout(seconds or None)
        return
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
