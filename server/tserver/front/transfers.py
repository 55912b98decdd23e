"""What moves over the data endpoint: an upload's or a download's place among the calls of a session, and its memory.

Knows sessions and messages; does not know how bytes travel.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.engine import inspect
from tserver.errors import Exhausted
from tserver.front.binding import parse
from tserver.front.calls import require
from tserver.front.data_endpoint import TICKET_S, Admitted, Beat, DataEndpoint, Transfer, Transfers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tserver.engine.space import Space, Staged
    from tserver.engine.uploads import Upload
    from tserver.session.session import Session


async def begin_upload(session: Session, header: ts.UploadHeader) -> Upload:
    """Memory for an upload, in its place among the calls. Cancelled, it leaves none behind.

    Raises: InvalidArgument, Exhausted.
    """
    begun: list[Upload] = []

    def drop(space: Space) -> None:
        for upload in begun:
            space.uploads.drop(upload)

    try:
        await session.run(lambda space: begun.append(inspect.begin_upload(space, header)))
    except asyncio.CancelledError:
        # It may still begin, before this.
        session.forget(drop)
        raise
    return begun[0]


async def open_transfer(
    endpoint: DataEndpoint, session: Session, request: ts.OpenTransferRequest, device: str
) -> ts.OpenTransferResponse:
    """A ticket for what the request asks for. Raises: what Upload and Download raise, and Exhausted."""
    answer = ts.OpenTransferResponse(expires_s=TICKET_S)
    admitted: Admitted
    if request.HasField("connection"):
        admitted = _Connection(session)
    elif request.HasField("upload"):
        header = request.upload
        upload = await begin_upload(session, header)

        def finish() -> None:
            session.run_from_thread(lambda space: inspect.finish_upload(space, header, upload, device))

        admitted = _into(session, upload, finish)
        answer.size_bytes = len(upload.data)
    else:
        ref = require(request.download, "tensor")
        admitted = _out_of(session, await session.run(lambda space: inspect.staged(space, ref)), answer)
    try:
        answer.ticket, answer.key = endpoint.admit(admitted)
    except Exhausted:
        if isinstance(admitted, Transfer) and admitted.cancel is not None:
            admitted.cancel()
        raise
    return answer


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
            staged = session.run_from_thread(lambda space: inspect.staged(space, ref), lambda: beat(False))
            return _out_of(session, staged, answer), answer.SerializeToString()
        header: ts.UploadHeader = require(request, "upload")

        def begin(space: Space) -> Upload:
            upload = inspect.begin_upload(space, header)
            space.uploads.name(upload)
            return upload

        # Named from the beginning, so that nothing is left to do when the bytes are there. It waits for its turn among
        # the calls only where they tell whether there is room; if it is refused, it is sent again in its turn.
        space = session.lane.space
        if space.max_bytes:
            upload = session.run_from_thread(begin, lambda: beat(True))
        else:
            upload = session.run_here(begin)

        def finish() -> None:
            upload.complete = True

        return _into(session, upload, finish), b""


def _into(session: Session, upload: Upload, finish: Callable[[], None]) -> Transfer:
    return Transfer(
        len(upload.data),
        session.touch,
        target=upload.data,
        finish=finish,
        cancel=lambda: session.lane.space.uploads.drop(upload),
    )


def _out_of(session: Session, staged: Staged, answer: ts.OpenTransferResponse) -> Transfer:
    """The transfer of staged elements, which the answer tells of."""
    answer.size_bytes, answer.dtype = len(staged.data), staged.dtype
    answer.shape.extend(staged.shape)
    return Transfer(answer.size_bytes, session.touch, source=staged)
