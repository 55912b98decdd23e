"""The fast way for bulk bytes: the server's data endpoint, connections straight into and out of memory.

A connection is opened with a ticket, carries transfer after transfer and rests between them with its session. Whatever
goes wrong here, the answer is False or None, and the bytes go over gRPC instead, whose errors say why. An endpoint that
cannot be reached, or where another program answers, is not tried again. The framing is described at OpenTransfer in the
contract. Knows connections; does not know what a tensor is.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from tclient._data_lines import Line, NotProved, connect
from tclient._exceptions import ServerError
from tclient._limits import check, may_end
from tclient._progress import Progress
from tclient._session import Session
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tensorcompute.wire.data_endpoint import DONE, LENGTH, WAIT, sized

log = logging.getLogger("tclient")

_MAX_RESTING = 4
# What each step of opening a connection may take beside two round trips.
_PATIENCE_S = 1.5
# After a connection that broke while it opened: a server with no place for it ends it, too.
_REST_S = 60.0

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
        while (status := line.read(1)) == WAIT:
            pass
        return status == DONE or None

    return _over_a_line(session, "upload", move) is not None


def receive(session: Session, request: rpc.DownloadRequest, memory: Memory) -> rpc.OpenTransferResponse | None:
    """Download into the memory that is made for it; what it is. None: use gRPC. Raises what `memory` raises."""
    head = _message(rpc.OpenTransferRequest(download=request))

    def move(line: Line) -> rpc.OpenTransferResponse | None:
        line.write(head)
        while not (length := LENGTH.unpack(line.read(LENGTH.size))[0]):
            pass
        answer = rpc.OpenTransferResponse.FromString(line.read(length))
        view = memory(answer)
        with Progress(session, "download", len(view)) as progress:
            line.receive(view, progress)
        return answer if line.read(1) == DONE else None

    return _over_a_line(session, "download", move)


def _over_a_line(session: Session, what: str, move: Callable[[Line], T | None]) -> T | None:
    """What `move` gives on the first line on which all went well; such a line rests for the next transfer."""
    for line in _lines(session):
        try:
            with _ending_with(session, line):
                moved = move(line)
            if moved is not None:
                _rest(session, line)
                return moved
        except (BlockingIOError, TimeoutError) as error:
            # Nothing came through for long: nothing will on the others that rest.
            log.debug("the %s over the data endpoint stalled: %s", what, error)
            _end_resting(session)
        except OSError as error:
            log.debug("the %s over the data endpoint failed: %s", what, error)
        finally:
            line.release()
    return None


@contextlib.contextmanager
def _ending_with(session: Session, line: Line) -> Iterator[None]:
    """Within it the line ends when the session does, and whoever waits for it is told. Raises: OSError."""
    check()
    may_end(line.interrupt)
    session.lines_in_use.add(line)
    try:
        if session.dead is not None:
            raise ConnectionError("the session has ended")
        yield
    finally:
        session.lines_in_use.discard(line)


def _end_resting(session: Session) -> None:
    while session.lines:
        session.lines.pop().close()


def _message(request: rpc.OpenTransferRequest) -> bytes:
    return sized(request.SerializeToString())


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
    """A new connection to who has proved to be the server, the fastest that there is; None without."""
    request = rpc.OpenTransferRequest(connection=rpc.SessionContext(session=session.secret))
    while (session.shared_memory or session.data_endpoint) and time.monotonic() > session.data_rests_until:
        asked = time.monotonic()
        try:
            answer = session.connection.call("OpenTransfer", request, rpc.OpenTransferResponse)
        except ServerError as error:
            log.debug("no ticket for the data endpoint: %s", error)
            return None
        # On a line that other bulk bytes fill, a round trip takes as long as that took.
        line = _proved(session, answer, _PATIENCE_S + 2 * (time.monotonic() - asked))
        if line is not None:
            return line
    return None


def _proved(session: Session, answer: rpc.OpenTransferResponse, within_s: float) -> Line | None:
    """A connection that has opened; None, and not to be tried again, without."""
    line = None
    where = session.shared_memory or session.data_endpoint
    try:
        if not answer.key:
            raise NotProved("the server knows no proofs")
        line = connect(session, within_s)
        with _ending_with(session, line):
            line.prove(answer.ticket, answer.key, within_s)
        return line
    except OSError as error:
        log.debug("the data endpoint %r is not used: %s", where, error)
        if line is not None:
            line.release()
            if isinstance(error, ConnectionError):
                session.data_rests_until = time.monotonic() + _REST_S
                return None
        if session.shared_memory:
            session.shared_memory = ""
        else:
            session.data_endpoint = ""
        return None
