"""What moves over the data endpoint: an upload's or a download's place among the calls of a session, and its memory.

Knows sessions and messages; does not know how bytes travel.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.errors import Exhausted, SessionLost, Superseded
from tserver.front.binding import parse
from tserver.front.data_endpoint import TICKET_S, Admitted, Beat, DataEndpoint, Takes, Transfer, Transfers
from tserver.front.sending import house_proof
from tserver.session.calls import require

if TYPE_CHECKING:
    from tserver.engines.port import Session, Staged, Upload
    from tserver.identity import Identity


async def open_transfer(
    endpoint: DataEndpoint,
    session: Session,
    identity: Identity,
    request: ts.OpenTransferRequest,
    *,
    listen: str,
    house_key: str,
) -> ts.OpenTransferResponse:
    """A ticket for what a caller's request asks for. `listen` is where the callers of this server come; the key is that
    of the house that it stands in, if it does.

    Raises: what Upload and Download raise, and Exhausted.
    """
    answer = ts.OpenTransferResponse(expires_s=TICKET_S)
    admitted: Admitted
    if request.HasField("lane"):
        admitted = _Lane(session)
    elif request.HasField("connection"):
        admitted = _Connection(session)
    elif request.HasField("receive"):
        admitted = await _received(session, request.receive.uploads)
        answer.size_bytes = admitted.size_bytes
        answer.socket, answer.certificate_sha256 = endpoint.local, endpoint.certificate_sha256
        answer.data_endpoint = (endpoint.named_within() if house_key else "") or endpoint.named(listen)
    elif request.HasField("upload"):
        header = request.upload
        upload = await session.begin_upload(header)

        def finish() -> None:
            session.finish_upload_from_thread(header, upload)

        admitted = _into(session, upload, finish)
        answer.size_bytes = len(upload.data)
    else:
        ref = require(request.download, "tensor")
        admitted = _out_of(session, await session.stage(ref), answer)
    try:
        answer.ticket, answer.key = endpoint.admit(admitted, identity)
        if answer.data_endpoint and house_key:
            answer.house_proof = house_proof(house_key, answer.key, answer.data_endpoint)
    except Exhausted:
        if isinstance(admitted, Transfer) and admitted.cancel is not None:
            admitted.cancel()
        raise
    return answer


def permit(endpoint: DataEndpoint, admitted: Admitted, identity: Identity) -> ts.OpenTransferResponse:
    """A ticket for something that moves nothing yet. Raises: Exhausted."""
    ticket, key = endpoint.admit(admitted, identity)
    return ts.OpenTransferResponse(ticket=ticket, key=key, expires_s=TICKET_S)


class _Lane(Takes):
    """The batches of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def take(self, connection: socket.socket) -> None:
        """See Takes."""
        self._session.open_lane(connection)


class _Connection(Transfers):
    """The transfers of one connection."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def next(self, message: bytes, beat: Beat) -> tuple[Transfer, bytes]:
        """See Transfers."""
        request: ts.OpenTransferRequest = parse(ts.OpenTransferRequest, message)
        session = self._session
        if request.HasField("download"):
            ref = require(request.download, "tensor")
            answer = ts.OpenTransferResponse()
            staged = session.stage_from_thread(ref, lambda: beat(False))
            return _out_of(session, staged, answer), answer.SerializeToString()
        header: ts.UploadHeader = require(request, "upload")

        # Named from the beginning, so that nothing is left to do when the bytes are there; if it is refused, it is sent
        # again in its place among the calls.
        upload = session.begin_upload_from_thread(header, lambda: beat(True))

        def finish() -> None:
            check_alive(session)
            session.complete_upload(upload)

        return _into(session, upload, finish), b""


def _into(session: Session, upload: Upload, finish: Callable[[], None]) -> Transfer:
    return Transfer(
        len(upload.data),
        lambda: check_alive(session),
        targets=(upload.data,),
        finish=finish,
        cancel=lambda: session.drop_upload(upload),
    )


async def _received(session: Session, headers: Sequence[ts.UploadHeader]) -> Transfer:
    """The transfer of all these uploads, which another server brings. Raises: as Upload; none has begun then."""
    uploads: list[Upload] = []

    def drop() -> None:
        for upload in uploads:
            session.drop_upload(upload)

    try:
        for header in headers:
            # One by one: those that have begun are dropped if the next one is refused.
            uploads.append(await session.begin_named_upload(header))  # noqa: PERF401
    except BaseException:
        drop()
        raise

    def finish() -> None:
        check_alive(session)
        for upload in uploads:
            session.complete_upload(upload)

    return Transfer(
        sum(len(upload.data) for upload in uploads),
        lambda: check_alive(session),
        targets=[upload.data for upload in uploads],
        finish=finish,
        cancel=drop,
        is_from_server=True,
    )


def check_alive(session: Session) -> None:
    """End a transfer whose session has ended, or has another holder. From any thread. Raises: ConnectionError."""
    try:
        session.check_alive()
    except (SessionLost, Superseded) as error:
        raise ConnectionError(error.message) from error


def _out_of(session: Session, staged: Staged, answer: ts.OpenTransferResponse) -> Transfer:
    """The transfer of staged elements, which the answer tells of."""
    answer.size_bytes, answer.dtype = len(staged.data), staged.dtype
    answer.shape.extend(staged.shape)
    return Transfer(answer.size_bytes, lambda: check_alive(session), source=staged)
