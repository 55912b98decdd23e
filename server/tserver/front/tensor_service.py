"""TensorService: sessions, batches, the typed operations, and bulk data.

A method says which operation a request is; order, ownership and limits are the session's, torch is the engine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import zlib
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from tensorcompute.v1 import tensor_service_pb2 as ts
from tensorcompute.wire.chunks import chunk_message, chunk_of
from tserver import __version__
from tserver.config import MAX_PROTOCOL, MIN_PROTOCOL, Config
from tserver.errors import InvalidArgument, ServerError
from tserver.front.binding import parse
from tserver.front.data_endpoint import DataEndpoint
from tserver.front.forward_stream import ForwardLane, ForwardLanes
from tserver.front.limits import limits_of, own_limits
from tserver.front.rpc import Rpc
from tserver.front.sending import Destination, Sender
from tserver.front.transfers import check_alive, open_transfer, permit
from tserver.session import listing
from tserver.session.calls import Calls, DeviceName, Dims, DTypeCode, creation_kwargs, require, scalar

if TYPE_CHECKING:
    from tserver.engines.port import Engine, Session, StreamAttachment
    from tserver.front.replicas.elsewhere import Elsewhere

log = logging.getLogger("tserver.front")

# The size of a download's chunks, where the caller names none: the fastest, as for uploads (see tclient._bulk).
# How long the engine may take to count tensors before what it has counted last is told.
_COUNT_S = 0.5
_CHUNK_BYTES = 960 << 10
# Transfers that are lanes: for a session of one's own, and wherever connections may be opened.
_LANES = ("lane", "forwards")


class TensorServicer:
    """The RPCs of TensorService."""

    def __init__(self, config: Config, engine: Engine, elsewhere: Elsewhere | None = None, house_key: str = "") -> None:
        self._config = config
        self._elsewhere = elsewhere
        self._engine = engine
        self._sessions = engine.sessions
        self._started_at = time.monotonic()
        self._house_key = house_key
        self._sender = Sender(config.places_to_send(), house_key)
        # Set before the first request comes, where there is one.
        self.data_endpoint: DataEndpoint | None = None

    # --- sessions and batches ---

    async def OpenSession(self, request: ts.OpenSessionRequest, rpc: Rpc) -> ts.OpenSessionResponse:
        """See the proto."""
        if request.device:
            self._engine.check_device(request.device)
        session, protocol = self._sessions.open(rpc.identity, request.min_protocol, request.max_protocol)
        self._log("session opened", session, request.client, rpc)
        return self._opened(session, protocol, rpc)

    async def AttachSession(self, request: ts.AttachSessionRequest, rpc: Rpc) -> ts.AttachSessionResponse:
        """See the proto."""
        taken, protocol = await self._sessions.attach(
            request.session, rpc.identity, request.attempt, request.min_protocol, request.max_protocol
        )
        self._log("session taken over", taken.session, request.client, rpc)
        return ts.AttachSessionResponse(
            opened=self._opened(taken.session, protocol, rpc),
            received_seq=taken.received,
            next_id=taken.next_id,
            errors=taken.errors,
        )

    def _log(self, what: str, session: Session, client: str, rpc: Rpc) -> None:
        session.client, session.peer = client[:100], rpc.identity.host
        who = {"session": session.id, "principal": session.principal, "peer": rpc.identity.host}
        log.info(what, extra={**who, "client": client[:100], "sessions": len(self._sessions)})

    def _opened(self, session: Session, protocol: int, rpc: Rpc) -> ts.OpenSessionResponse:
        data_endpoint, shared_memory, lane_socket = self._places(rpc)
        return ts.OpenSessionResponse(
            session=session.secret,
            lease_s=session.lease_s,
            boot_id=self._sessions.boot_id,
            protocol=protocol,
            server_version=__version__,
            torch_version=self._engine.torch_version,
            limits=limits_of(self._config),
            data_endpoint=data_endpoint,
            shared_memory=shared_memory,
            lane_socket=lane_socket,
            default_device=self._engine.device,
            operations_digest=self._engine.operations_digest,
            devices=self._engine.devices(),
        )

    def _places(self, rpc: Rpc) -> tuple[str, str, str]:
        """Where a caller's bulk bytes may go: the data endpoint, shared memory, and the socket of lanes."""
        data = self.data_endpoint
        if data is None:
            return "", "", ""
        local = data.local if rpc.is_local else ""
        return data.named(self._config.listen), local if self._config.shared_memory else "", local

    async def CloseSession(self, request: ts.CloseSessionRequest, rpc: Rpc) -> ts.CloseSessionResponse:
        """See the proto."""
        session = self._sessions.find_to_close(request.session, rpc.identity)
        if session is not None:
            self._sessions.close(session, "its client closed it")
        return ts.CloseSessionResponse()

    async def GetSessionProgress(
        self, request: ts.GetSessionProgressRequest, rpc: Rpc
    ) -> ts.GetSessionProgressResponse:
        """See the proto."""
        return self._sessions.find(request.session, rpc.identity).progress(request.forward_id)

    async def CancelSession(self, request: ts.CancelSessionRequest, rpc: Rpc) -> ts.CancelSessionResponse:
        """See the proto."""
        session = self._sessions.find(request.session, rpc.identity)
        return ts.CancelSessionResponse(batches=session.cancel(request.through_seq))

    async def Execute(self, request: ts.ExecuteRequest, rpc: Rpc) -> bytes:
        """See the proto."""
        session = self._sessions.find(request.session, rpc.identity)
        return await session.execute(require(request, "batch"))

    async def ExecuteStream(self, requests: AsyncIterator[ts.ExecuteStreamRequest], rpc: Rpc) -> None:
        """See the proto."""
        first = await anext(requests, None)
        if first is None or not first.session:
            raise InvalidArgument("the first message of the stream has no session; send its secret there")
        session = self._sessions.find(first.session, rpc.identity)
        attachment = session.attach_stream()
        receiving = asyncio.create_task(_receive(session, attachment, first, requests))
        try:
            await _send(attachment, rpc)
        finally:
            receiving.cancel()
            session.detach(attachment)

    # --- the typed operations ---

    async def CreateTensor(self, request: ts.CreateTensorRequest, rpc: Rpc) -> ts.CreateTensorResponse:
        """See the proto."""
        calls = self._calls(request, rpc)
        if request.device:
            self._engine.check_device(request.device)
        kwargs = creation_kwargs(request.dtype, request.device, request.requires_grad)
        shape = Dims(request.shape)
        source = request.WhichOneof("source")
        if source == "data":
            if request.dtype or request.shape:
                raise InvalidArgument("shape and dtype of data stand in data; leave those of the request empty")
            calls.add("asarray", request.data, **kwargs)
        elif source in ("empty", "ones", "zeros", "rand", "randn"):
            calls.add(source, shape, **kwargs)
        elif source == "full":
            calls.add("full", shape, scalar(request.full, "value"), **kwargs)
        elif source == "randint":
            calls.add("randint", request.randint.low, request.randint.high, shape, **kwargs)
        elif source == "arange":
            spec = request.arange
            start = scalar(spec, "start") if spec.HasField("start") else 0
            step = scalar(spec, "step") if spec.HasField("step") else 1
            calls.add("arange", start, scalar(spec, "end"), step, **kwargs)
        elif source == "eye":
            eye = request.eye
            calls.add("eye", eye.rows, eye.columns if eye.HasField("columns") else eye.rows, **kwargs)
        elif source == "linspace":
            calls.add("linspace", request.linspace.start, request.linspace.end, request.linspace.steps, **kwargs)
        else:
            raise InvalidArgument("CreateTensorRequest.source is not set; set data or a factory")
        return ts.CreateTensorResponse(tensor=await calls.tensor())

    async def Reshape(self, request: ts.ReshapeRequest, rpc: Rpc) -> ts.ReshapeResponse:
        """See the proto."""
        calls = self._calls(request, rpc).add("reshape", require(request, "input"), Dims(request.shape))
        return ts.ReshapeResponse(tensor=await calls.tensor())

    async def Transpose(self, request: ts.TransposeRequest, rpc: Rpc) -> ts.TransposeResponse:
        """See the proto."""
        calls = self._calls(request, rpc)
        calls.add("transpose", require(request, "input"), request.dim0, request.dim1)
        return ts.TransposeResponse(tensor=await calls.tensor())

    async def Permute(self, request: ts.PermuteRequest, rpc: Rpc) -> ts.PermuteResponse:
        """See the proto."""
        calls = self._calls(request, rpc).add("permute", require(request, "input"), Dims(request.dims))
        return ts.PermuteResponse(tensor=await calls.tensor())

    async def Add(self, request: ts.AddRequest, rpc: Rpc) -> ts.AddResponse:
        """See the proto."""
        calls = self._calls(request, rpc)
        addend = request.WhichOneof("addend")
        if addend is None:
            raise InvalidArgument("AddRequest.addend is not set; set other or scalar")
        other = request.other if addend == "other" else scalar(request, "scalar")
        kwargs: dict[str, Any] = {"alpha": scalar(request, "alpha")} if request.HasField("alpha") else {}
        target = require(request, "input")
        if not request.in_place:
            return ts.AddResponse(tensor=await calls.add("add", target, other, **kwargs).tensor())
        calls.add("Tensor.add_", target, other, keep=False, **kwargs)
        reply = await calls.add("tc.describe", target, keep=False).run()
        tensor = reply.results[-1].value.tensor
        tensor.id.CopyFrom(target)
        return ts.AddResponse(tensor=tensor)

    async def ToDevice(self, request: ts.ToDeviceRequest, rpc: Rpc) -> ts.ToDeviceResponse:
        """See the proto."""
        wishes: list[Any] = []
        if request.device:
            self._engine.check_device(request.device)
            wishes.append(DeviceName(request.device))
        if request.dtype:
            wishes.append(DTypeCode(request.dtype))
        target = require(request, "input")
        # With no wish at all, the tensor is asked to be as it is.
        calls = self._calls(request, rpc).add("Tensor.to", target, *(wishes or [target]), copy=request.copy)
        return ts.ToDeviceResponse(tensor=await calls.tensor())

    async def GetTensor(self, request: ts.GetTensorRequest, rpc: Rpc) -> ts.GetTensorResponse:
        """See the proto."""
        require(request, "tensor")
        session = self._session(request, rpc)
        return await session.get_tensor(request)

    async def ListTensors(self, request: ts.ListTensorsRequest, rpc: Rpc) -> ts.ListTensorsResponse:
        """See the proto."""
        session = self._session(request, rpc)
        return await session.list_tensors(request)

    async def ListSessions(self, request: ts.ListSessionsRequest, rpc: Rpc) -> ts.ListSessionsResponse:
        """See the proto. Tensors are as they were counted last where the engine is busy."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._engine.usage())), _COUNT_S)
        return ts.ListSessionsResponse(sessions=listing.listed(self._sessions, rpc.identity))

    async def ListSessionTensors(
        self, request: ts.ListSessionTensorsRequest, rpc: Rpc
    ) -> ts.ListSessionTensorsResponse:
        """See the proto."""
        session = listing.named(self._sessions, rpc.identity, request.id)
        asked = ts.ListTensorsRequest(page_size=request.page_size, page_token=request.page_token)
        return ts.ListSessionTensorsResponse(session=session.id, page=await session.tensors_for_others(asked))

    async def FreeTensors(self, request: ts.FreeTensorsRequest, rpc: Rpc) -> ts.FreeTensorsResponse:
        """See the proto."""
        session = self._session(request, rpc)
        return await session.free_tensors(request)

    # --- bulk ---

    async def Upload(self, requests: AsyncIterator[ts.UploadRequest], rpc: Rpc) -> ts.UploadResponse:
        """See the proto."""
        # The messages are taken as they come: their chunks are found by hand.
        data: Any = await rpc.first()
        first = None if data is grpc.aio.EOF else parse(ts.UploadRequest, data)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidArgument("the first message of an upload is not its header; send that first")
        header = first.header
        session = self._session(header, rpc)
        upload = await session.begin_upload(header)
        try:
            received = await self._fill(upload.data, header, session, rpc)
            session.check_alive()
        except BaseException:
            session.drop_upload(upload)
            raise
        tensor = await session.finish_upload(header, upload)
        return ts.UploadResponse(received_bytes=received, tensor=tensor)

    async def _fill(self, buffer: memoryview, header: ts.UploadHeader, session: Session, rpc: Rpc) -> int:
        """Put the chunks into the buffer; the number of bytes. Raises: InvalidArgument."""
        received = checksum = 0
        size, most, checked = len(buffer), self._config.max_chunk_bytes, header.HasField("crc32")
        read: Any = rpc.read  # the types of grpc leave out EOF
        while (data := await read()) is not grpc.aio.EOF:
            chunk = chunk_of(data)
            if chunk is None:
                request = parse(ts.UploadRequest, data)
                if request.WhichOneof("part") != "chunk":
                    raise InvalidArgument("a message behind the header is not a chunk")
                chunk = memoryview(request.chunk)
            end = received + len(chunk)
            if len(chunk) > most:
                raise InvalidArgument(f"a chunk has {len(chunk)} bytes; at most {most} are taken")
            if end > size:
                raise InvalidArgument(f"more than the {size} bytes came that the header declares")
            buffer[received:end] = chunk
            received = end
            if checked:
                checksum = zlib.crc32(chunk, checksum)
            session.chunk_bytes += len(chunk)
            # An upload may last longer than the lease; it is a sign of life.
            session.check_alive()
        if received != size:
            raise InvalidArgument(f"{received} bytes came, but the header declares {size}")
        if checked and checksum != header.crc32:
            raise InvalidArgument(
                f"the bytes have the crc32 {checksum:#010x}, but the header says {header.crc32:#010x}; send again",
                reason="CHECKSUM_MISMATCH",
            )
        return received

    async def Download(self, request: ts.DownloadRequest, rpc: Rpc) -> None:
        """See the proto."""
        ref = require(request, "tensor")
        session = self._session(request, rpc)
        staged = await session.stage(ref)
        total = len(staged.data)
        header = ts.DownloadHeader(dtype=staged.dtype, shape=staged.shape, total_bytes=total)
        await rpc.write(ts.DownloadResponse(header=header).SerializeToString())
        size = min(request.chunk_bytes or _CHUNK_BYTES, self._config.max_chunk_bytes)
        checksum = 0
        for start in range(0, total, size):
            with staged.lock:
                chunk = memoryview(staged.data)[start : start + size]
                if not request.without_crc32:
                    checksum = zlib.crc32(chunk, checksum)
                framed = chunk_message(chunk)
            await rpc.write(framed)
            session.chunk_bytes += len(chunk)
            # A download may last longer than the lease; it is a sign of life.
            session.check_alive()
        if not staged.intact():
            raise ServerError("the tensor was changed while it was sent; read it again", reason="CHANGED")
        trailer = ts.DownloadTrailer(crc32=None if request.without_crc32 else checksum)
        await rpc.write(ts.DownloadResponse(trailer=trailer).SerializeToString())

    async def OpenTransfer(self, request: ts.OpenTransferRequest, rpc: Rpc) -> ts.OpenTransferResponse:
        """See the proto."""
        endpoint, kind = self.data_endpoint, request.WhichOneof("transfer")
        if kind is None:
            raise InvalidArgument(
                "OpenTransferRequest.transfer is not set; set upload, download, connection, lane, forwards or receive"
            )
        if endpoint is None or not (endpoint.moves_bytes or kind in (*_LANES, "receive")):
            raise InvalidArgument("this server has no data endpoint; use Upload or Download", reason="NO_DATA_ENDPOINT")
        named = getattr(request, kind)
        context = named if kind == "connection" or kind in _LANES else named.context
        find = self._sessions.find if kind in _LANES else self._sessions.resolve
        session = find(context.session, rpc.identity)
        if kind == "forwards":
            known = (session, rpc.identity, self._engine.models, self._config, self._elsewhere)
            answer = permit(endpoint, ForwardLanes(session, partial(ForwardLane, *known)), rpc.identity)
        else:
            answer = await open_transfer(
                endpoint, session, rpc.identity, request, listen=self._config.listen, house_key=self._house_key
            )
        if kind != "receive":
            answer.data_endpoint, answer.shared_memory, answer.socket = self._places(rpc)
        return answer

    async def SendTensors(self, request: ts.SendTensorsRequest, rpc: Rpc) -> None:
        """See the proto."""
        session = self._session(request, rpc)
        staged = await asyncio.gather(*(session.stage(ref) for ref in request.tensors))
        to = Destination(
            request.key, request.data_endpoint, request.socket, request.certificate_sha256, request.house_proof
        )
        sending = self._sender.send(staged, request.size_bytes, to, lambda: check_alive(session))
        async with contextlib.aclosing(sending) as told:
            async for sent_bytes in told:
                session.check_alive()
                await rpc.write(ts.SendTensorsResponse(sent_bytes=sent_bytes).SerializeToString())
        await rpc.write(ts.SendTensorsResponse(sent_bytes=request.size_bytes, done=True).SerializeToString())

    async def GetServerInfo(self, request: ts.GetServerInfoRequest, rpc: Rpc) -> ts.GetServerInfoResponse:
        """See the proto."""
        usage = await asyncio.shield(asyncio.wrap_future(self._engine.usage()))
        return ts.GetServerInfoResponse(
            version=__version__,
            boot_id=self._sessions.boot_id,
            torch_version=self._engine.torch_version,
            devices=usage.devices,
            limits=limits_of(self._config),
            min_protocol=MIN_PROTOCOL,
            max_protocol=MAX_PROTOCOL,
            sessions=len(self._sessions),
            operations_digest=self._engine.operations_digest,
            uptime_s=time.monotonic() - self._started_at,
            own_limits=await own_limits(self._engine, rpc.identity, usage),
            used_memory_bytes=usage.memory_bytes,
            max_memory_bytes=usage.max_memory_bytes,
            principal=rpc.principal,
        )

    def _session(self, request: Any, rpc: Rpc) -> Session:
        return self._sessions.resolve(request.context.session, rpc.identity)

    def _calls(self, request: Any, rpc: Rpc) -> Calls:
        return Calls(self._session(request, rpc), request.context.seq, rpc.deadline)


async def _receive(
    session: Session,
    attachment: StreamAttachment,
    first: ts.ExecuteStreamRequest,
    requests: AsyncIterator[ts.ExecuteStreamRequest],
) -> None:
    """Hand the batches of a stream to its session, no faster than it takes them."""
    try:
        if first.HasField("batch"):
            session.receive(first.batch, attachment, first.ByteSize())
        async for request in requests:
            if attachment.full:
                await attachment.room()
            if (wait_s := session.wait_s()) > 0:
                await asyncio.sleep(wait_s)
            if request.session:
                raise InvalidArgument("a session is named again; it belongs in the first message of the stream")
            batch = request.batch if request.HasField("batch") else require(request, "batch")
            session.receive(batch, attachment, request.ByteSize())
        attachment.put(None)
    except Exception as error:
        attachment.put(error)


async def _send(attachment: StreamAttachment, rpc: Rpc) -> None:
    """Send replies until the client has closed its side and has all of them, or an error ends the stream."""
    closed = False
    replies = attachment.replies
    while not (closed and not attachment.wanted and not replies):
        if not replies:
            await attachment.reply()
            continue
        reply = replies.popleft()
        if isinstance(reply, bytes):
            await rpc.write(reply)
            attachment.make_room()
        elif reply is None:
            closed = True
        else:
            raise reply
