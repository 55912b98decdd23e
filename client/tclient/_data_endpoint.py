"""The fast way for bulk bytes: the server's data endpoint, connections straight into and out of memory.

A connection is opened with a ticket, carries transfer after transfer and rests between them with its session. Whatever
goes wrong here, the answer is False or None, and the bytes go over gRPC instead, whose errors say why. The framing is
described at OpenTransfer in the contract. Knows connections; does not know what a tensor is.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

from tclient._data_lines import STALL_S, Line, connect
from tclient._exceptions import ServerError
from tclient._progress import Progress
from tclient._session import Session
from tensorcompute.v1 import tensor_service_pb2 as rpc

log = logging.getLogger("tclient")

_LENGTH = struct.Struct(">I")
_MAX_RESTING = 4

T = TypeVar("T")
Memory = Callable[[rpc.OpenTransferResponse], memoryview]


def send(session: Session, header: rpc.UploadHeader, view: memoryview) -> bool:
    """Upload; whether it is there. False: use gRPC."""
    head = _message(rpc.OpenTransferRequest(upload=header))

    def move(line: Line) -> bool | None:
        line.write(head)
        with Progress(session, "upload", len(view)) as progress:
            line.send(view, progress)
        # The server takes an upload when the engine has a moment for it, which may be a while.
        return line.read(1, 0.0) == b"\0" or None

    return _over_a_line(session, "upload", move) is not None


def receive(session: Session, request: rpc.DownloadRequest, memory: Memory) -> rpc.OpenTransferResponse | None:
    """Download into the memory that is made for it; what it is. None: use gRPC. Raises what `memory` raises."""
    head = _message(rpc.OpenTransferRequest(download=request))

    def move(line: Line) -> rpc.OpenTransferResponse | None:
        line.write(head)
        (length,) = _LENGTH.unpack(line.read(_LENGTH.size, 0.0))
        answer = rpc.OpenTransferResponse.FromString(line.read(length, STALL_S))
        view = memory(answer)
        with Progress(session, "download", len(view)) as progress:
            line.receive(view, progress)
        return answer if line.read(1, STALL_S) == b"\0" else None

    return _over_a_line(session, "download", move)


def _over_a_line(session: Session, what: str, move: Callable[[Line], T | None]) -> T | None:
    """What `move` gives on the first line on which all went well; such a line rests for the next transfer."""
    for line in _lines(session):
        try:
            moved = move(line)
            if moved is not None:
                _rest(session, line)
                return moved
        except OSError as error:
            log.debug("the %s over the data endpoint failed: %s", what, error)
        finally:
            line.release()
    return None


def _message(request: rpc.OpenTransferRequest) -> bytes:
    encoded = request.SerializeToString()
    return _LENGTH.pack(len(encoded)) + encoded


def _lines(session: Session) -> Iterator[Line]:
    """Those that rest, which the server may have ended by now, and then a new one."""
    where = session.shared_memory or session.data_endpoint
    while where:
        try:
            line = session.lines.pop()
        except IndexError:
            break
        if line.where != where or not line.seems_alive():
            line.release()
            continue
        yield line
    fresh = _open(session)
    if fresh is not None:
        yield fresh


def _rest(session: Session, line: Line) -> None:
    if not session.closed and len(session.lines) < _MAX_RESTING:
        line.keep()
        session.lines.append(line)


def _open(session: Session) -> Line | None:
    line = connect(session)
    if line is None:
        return None
    context = rpc.SessionContext(session=session.secret)
    try:
        answer = session.connection.call(
            "OpenTransfer", rpc.OpenTransferRequest(connection=context), rpc.OpenTransferResponse
        )
        line.write(answer.ticket)
    except (ServerError, OSError) as error:
        log.debug("no ticket for the data endpoint: %s", error)
        line.release()
        return None
    return line
