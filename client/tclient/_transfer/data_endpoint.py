"""The fast way for bulk bytes: the server's data endpoint, connections straight into and out of memory.

A connection is opened with a ticket, carries transfer after transfer and rests between them with its session. Whatever
goes wrong here, the answer is False or None, and the bytes go over gRPC instead, whose errors say why. An endpoint that
cannot be reached, or where another program answers, is not tried again. The framing is described at OpenTransfer in the
contract. Knows connections; does not know what a tensor is.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from tclient._exceptions import RequestRefused, ServerError
from tclient._transfer.connections import Connection, NotProved, connect, connect_locally
from tclient._transfer.progress import Progress, Wish
from tclient._transport.channel import TENSOR_SERVICE, Channel
from tclient._transport.lane import IS_SUPPORTED, Lane
from tclient._transport.lanes import Lanes, Tries
from tclient._transport.limits import check, may_end
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tensorcompute.wire.data_endpoint import DONE, LENGTH, WAIT, sized

log = logging.getLogger("tclient")

_MAX_RESTING = 4
# What each step of opening a connection may take beside two round trips.
_PATIENCE_S = 1.5
# How long a ticket for a lane is waited for.
_LANE_S = 5.0
# After a connection that broke while it opened: a server with no place for it ends it, too.
REST_S = 60.0
# Memory is shared by way of a Unix socket that has no place in the file system.
_CAN_SHARE = sys.platform == "linux" and hasattr(socket, "AF_UNIX") and hasattr(socket, "recv_fds")

T = TypeVar("T")
Memory = Callable[[rpc.OpenTransferResponse], memoryview]


class DataEndpoint:
    """The data endpoint that a server names for a session, and the connections to it."""

    def __init__(self, channel: Channel, opened: rpc.OpenSessionResponse, *, shared_memory: bool) -> None:
        self._channel = channel
        self._ticket = rpc.OpenTransferRequest(connection=rpc.SessionContext(session=opened.session))
        self._shares_memory = shared_memory and _CAN_SHARE
        self._named: tuple[str, str, str] | None = None
        self._go_to(opened.data_endpoint, opened.shared_memory, opened.lane_socket)
        self._tries = Tries("lane", f"calls to {channel.address} stay on gRPC: no lane can be opened")
        # Connections that rest between two transfers, and those that move bytes just now.
        self.resting: list[Connection] = []
        self._in_use: set[Connection] = set()
        self._closed = False

    def _go_to(self, data_endpoint: str, shared_memory: str, lane_socket: str) -> None:
        """The server names these places. What came of them so far stands as long as they are the same."""
        named = data_endpoint, shared_memory, lane_socket
        if named == self._named:
            return
        self._named = named
        # Where it is; empty where nothing was named, or nothing answered.
        self.address = data_endpoint
        # The same through memory of this machine, where both sides want that.
        self.shared_memory = shared_memory if self._shares_memory else ""
        # Where lanes are opened: where bytes are, whatever came of that, or a Unix socket of this machine.
        self.lane_address = data_endpoint
        self.lane_socket = lane_socket if _CAN_SHARE else ""
        # When a new connection may be tried again, after one that broke while it opened.
        self.rests_until = 0.0

    def _follow(self, answer: rpc.OpenTransferResponse) -> None:
        """A ticket says where it is good, which is elsewhere after a restart. Who says nothing has not moved."""
        self._channel.follow_to(answer.endpoint)
        if answer.data_endpoint or answer.shared_memory or answer.socket:
            self._go_to(answer.data_endpoint, answer.shared_memory, answer.socket)

    def upload(self, header: rpc.UploadHeader, view: memoryview, wish: Wish) -> bool:
        """Send an upload; whether it is there. False: use gRPC."""
        head = _message(rpc.OpenTransferRequest(upload=header))

        def move(connection: Connection) -> bool | None:
            connection.write(head)
            with Progress(wish, "upload", len(view)) as progress:
                connection.send(view, progress)
            # The server takes an upload when the engine has a moment for it, which may be a while.
            while (status := connection.read(1)) == WAIT:
                pass
            return status == DONE or None

        return self._over_a_connection("upload", move) is not None

    def download(self, request: rpc.DownloadRequest, memory: Memory, wish: Wish) -> rpc.OpenTransferResponse | None:
        """Download into the memory that is made for it; what it is. None: use gRPC. Raises what `memory` raises."""
        head = _message(rpc.OpenTransferRequest(download=request))

        def move(connection: Connection) -> rpc.OpenTransferResponse | None:
            connection.write(head)
            while not (length := LENGTH.unpack(connection.read(LENGTH.size))[0]):
                pass
            answer = rpc.OpenTransferResponse.FromString(connection.read(length))
            view = memory(answer)
            with Progress(wish, "download", len(view)) as progress:
                connection.receive(view, progress)
            return answer if connection.read(1) == DONE else None

        return self._over_a_connection("download", move)

    def lanes(self, has_tasks: Callable[[], bool]) -> Lanes | None:
        """Lanes for the batches of the session; see Lane. None: use gRPC."""
        return self._lanes(rpc.OpenTransferRequest(lane=self._ticket.connection), has_tasks)

    def lanes_of_forwards(self) -> Lanes | None:
        """Lanes for forward passes of models. None: use gRPC."""
        return self._lanes(rpc.OpenTransferRequest(forwards=self._ticket.connection), lambda: False)

    def _lanes(self, ticket: rpc.OpenTransferRequest, has_tasks: Callable[[], bool]) -> Lanes | None:
        if not (IS_SUPPORTED and (self.lane_socket or self.lane_address)):
            return None
        return Lanes(self._tries, lambda: self._lane(ticket, has_tasks))

    def _lane(self, ticket: rpc.OpenTransferRequest, has_tasks: Callable[[], bool]) -> Lane | None:
        refusal: OSError | None = None
        for is_local in (True, False):
            if not (self.lane_socket if is_local else self.lane_address):
                continue
            asked = time.monotonic()
            connection = None
            try:
                answer = self._channel.call(
                    TENSOR_SERVICE + "OpenTransfer", ticket, rpc.OpenTransferResponse, timeout_s=_LANE_S, again_s=0.0
                )
                within_s = _PATIENCE_S + 2 * (time.monotonic() - asked)
                self._follow(answer)
                if not is_local:
                    connection = self._connect(self.lane_address, within_s)
                elif self.lane_socket:
                    connection = connect_locally(self.lane_socket, within_s, shares_memory=False)
                else:
                    continue
                return Lane(connection.socket, connection.challenge(answer.ticket, answer.key, within_s), has_tasks)
            except RequestRefused as error:
                # A server that knows no lanes.
                self._tries.end(error)
                return None
            except ServerError as error:
                # What is wrong is said over gRPC, too.
                self._tries.failed(error)
                return None
            except OSError as error:
                refusal = error
                if connection is not None:
                    connection.close()
                if is_local and self.lane_address and isinstance(error, ConnectionRefusedError | NotProved):
                    # The server is on another machine.
                    self.lane_socket = ""
        self._tries.refused(refusal)
        return None

    def _connect(self, where: str, within_s: float) -> Connection:
        channel = self._channel
        return connect(where, channel.engine_address, channel.trust, within_s, verified_as=channel.verified_as)

    def heard_ago_s(self) -> float | None:
        """How long ago anything came over those that move bytes; None without any."""
        return min((connection.heard_ago_s() for connection in list(self._in_use)), default=None)

    def leave(self) -> None:
        """The connections lead nowhere: others take their place."""
        self._end_resting()
        self.interrupt()

    def interrupt(self) -> None:
        """The session has ended: whoever waits for a connection is told."""
        for connection in list(self._in_use):
            connection.interrupt()

    def close(self) -> None:
        """No connection rests any more."""
        self._closed = True
        self._end_resting()

    def after_fork(self) -> None:
        """In a child process: the connections are the parent's."""
        self.resting = []
        self._in_use = set()
        self._closed = True

    def _over_a_connection(self, what: str, move: Callable[[Connection], T | None]) -> T | None:
        """What `move` gives on the first connection on which all went well; that one rests for the next transfer."""
        for connection in self._connections():
            try:
                with self._ending_with_session(connection):
                    moved = move(connection)
                if moved is not None:
                    self._rest(connection)
                    return moved
            except (BlockingIOError, TimeoutError) as error:
                # Nothing came through for long: nothing will on the others that rest.
                log.debug("the %s over the data endpoint stalled: %s", what, error)
                self._end_resting()
            except OSError as error:
                log.debug("the %s over the data endpoint failed: %s", what, error)
            finally:
                connection.release()
        return None

    @contextlib.contextmanager
    def _ending_with_session(self, connection: Connection) -> Iterator[None]:
        """Within it the connection ends when the session does, and whoever waits for it is told. Raises: OSError."""
        check()
        may_end(connection.interrupt)
        self._in_use.add(connection)
        try:
            if self._channel.dead is not None:
                raise ConnectionError("the session has ended")
            yield
        finally:
            self._in_use.discard(connection)

    def _connections(self) -> Iterator[Connection]:
        """Those that rest, which the server may have ended by now, and then a new one."""
        where = self.shared_memory or self.address
        while where:
            try:
                connection = self.resting.pop()
            except IndexError:
                break
            if connection.where != where or not connection.seems_alive():
                connection.release()
                continue
            yield connection
        fresh = self._open()
        if fresh is not None:
            yield fresh

    def _rest(self, connection: Connection) -> None:
        if not self._closed and len(self.resting) < _MAX_RESTING:
            connection.keep()
            self.resting.append(connection)

    def _end_resting(self) -> None:
        while self.resting:
            self.resting.pop().close()

    def _open(self) -> Connection | None:
        """A new connection to who has proved to be the server, the fastest that there is; None without."""
        while (self.shared_memory or self.address) and time.monotonic() > self.rests_until:
            asked = time.monotonic()
            try:
                answer = self._channel.call(TENSOR_SERVICE + "OpenTransfer", self._ticket, rpc.OpenTransferResponse)
            except ServerError as error:
                log.debug("no ticket for the data endpoint: %s", error)
                return None
            self._follow(answer)
            # On a road that other bulk bytes fill, a round trip takes as long as that took.
            connection = self._proved(answer, _PATIENCE_S + 2 * (time.monotonic() - asked))
            if connection is not None:
                return connection
        return None

    def _proved(self, answer: rpc.OpenTransferResponse, within_s: float) -> Connection | None:
        """A connection that has opened; None, and not to be tried again, without."""
        connection = None
        where = self.shared_memory or self.address
        try:
            if not answer.key:
                raise NotProved("the server knows no proofs")
            if self.shared_memory:
                connection = connect_locally(self.shared_memory, within_s)
            else:
                connection = self._connect(self.address, within_s)
            with self._ending_with_session(connection):
                connection.prove(answer.ticket, answer.key, within_s)
            return connection
        except OSError as error:
            log.debug("the data endpoint %r is not used: %s", where, error)
            if connection is not None:
                connection.release()
                if isinstance(error, ConnectionError):
                    self.rests_until = time.monotonic() + REST_S
                    return None
            if self.shared_memory:
                self.shared_memory = ""
            else:
                self.address = ""
            return None


def _message(request: rpc.OpenTransferRequest) -> bytes:
    return sized(request.SerializeToString())
