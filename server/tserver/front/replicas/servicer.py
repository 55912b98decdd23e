"""ModelService, as the front of a house answers it: for callers who come here, and for engines that were asked.

What belongs to a session goes to its engine, which comes back with what is not its own. Without a session a forward
pass by value goes to a replica, and tensors are those of the caller's engine.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.errors import SessionLost, Unreachable
from tserver.front.replicas.choosing import Choosing, rows_of
from tserver.front.replicas.links import MODEL_SERVICE
from tserver.front.replicas.streams import ReplicaStream
from tserver.front.rpc import Rpc, house_metadata
from tserver.front.status import error_of
from tserver.models.batching import BatchingConfig
from tserver.models.owners import Owners, check_may_change, new_name, told_name

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tserver.engines.directory import Directory, Entry
    from tserver.front.replicas.coordinator import ModelCoordinator
    from tserver.front.replicas.records import Record


class HouseModels:
    """The RPCs of ModelService."""

    def __init__(
        self,
        coordinator: ModelCoordinator,
        choosing: Choosing,
        directory: Directory,
        home: Callable[[str], Awaitable[Entry]],
        of_session: Callable[[bytes, Rpc], Awaitable[Entry]],
    ) -> None:
        """`home` finds the engine of callers without a session, by the principal; `of_session` that of a session."""
        self._coordinator = coordinator
        self._records = coordinator.records
        self._owners = Owners(self._records.has)
        self._links = coordinator.links
        self._choosing = choosing
        self._directory = directory
        self._home = home
        self._of_session = of_session

    async def _settled(self, rpc: Rpc) -> None:
        """Wait until it is known what there is. Where engines are made for who comes, one is made."""
        if not self._directory.engines:
            await self._home(rpc.principal)
        await self._coordinator.settled()

    # --- forward passes ---

    async def NeuronForward(self, request: ms.NeuronForwardRequest, rpc: Rpc) -> bytes:
        """See the proto."""
        return await self._to_engine("NeuronForward", request, rpc)

    async def LayerForward(self, request: ms.LayerForwardRequest, rpc: Rpc) -> bytes:
        """See the proto."""
        return await self._to_engine("LayerForward", request, rpc)

    async def PerceptronForward(self, request: ms.PerceptronForwardRequest, rpc: Rpc) -> bytes:
        """See the proto."""
        return await self._to_engine("PerceptronForward", request, rpc)

    async def MlpForward(self, request: ms.MlpForwardRequest, rpc: Rpc) -> bytes:
        """See the proto."""
        is_by_value = request.inputs.HasField("data") and not (request.options.keep or request.context.seq)
        if request.context.session or not is_by_value:
            return await self._to_engine("MlpForward", request, rpc)
        return await self._forward("MlpForward", request, rows_of(request.inputs.data.shape, by_name=False), rpc)

    async def ModelForward(self, request: ms.ModelForwardRequest, rpc: Rpc) -> bytes:
        """See the proto."""
        is_by_value = all(each.operand.HasField("data") for each in request.inputs) and not request.options.keep
        if request.context.session or not is_by_value:
            return await self._to_engine("ModelForward", request, rpc)
        shape = request.inputs[0].operand.data.shape if request.inputs else ()
        return await self._forward("ModelForward", request, rows_of(shape, by_name=True), rpc)

    async def MlpForwardStream(self, requests: AsyncIterator[ms.MlpForwardStreamRequest], rpc: Rpc) -> None:
        """See the proto."""
        await self._settled(rpc)
        await ReplicaStream(self._coordinator, self._choosing, rpc).run(requests)

    async def ModelForwardStream(self, requests: AsyncIterator[ms.ModelForwardStreamRequest], rpc: Rpc) -> None:
        """See the proto."""
        await self._settled(rpc)
        await ReplicaStream(self._coordinator, self._choosing, rpc).run(requests)

    # --- the keeping of models ---

    async def CreateMlp(self, request: ms.CreateMlpRequest, rpc: Rpc) -> ms.CreateMlpResponse:
        """See the proto."""
        return ms.CreateMlpResponse(mlp=await self._create("CreateMlp", request, rpc))

    async def CreateModel(self, request: ms.CreateModelRequest, rpc: Rpc) -> ms.CreateModelResponse:
        """See the proto."""
        return ms.CreateModelResponse(model=await self._create("CreateModel", request, rpc))

    async def UpdateMlp(self, request: ms.UpdateMlpRequest, rpc: Rpc) -> ms.UpdateMlpResponse | bytes:
        """See the proto."""
        if request.context.session:
            return await self._to_engine("UpdateMlp", request, rpc)
        await self._settled(rpc)
        batching = BatchingConfig.read(request.batching)
        wanted = request.replicas if request.HasField("replicas") else None
        name = self._to_change(self._owners.qualified(request.name, rpc.identity), rpc)
        record = await self._coordinator.update(name, request.version, batching, wanted)
        return ms.UpdateMlpResponse(mlp=_summary(record, rpc))

    async def DescribeMlp(self, request: ms.DescribeMlpRequest, rpc: Rpc) -> ms.DescribeMlpResponse | bytes:
        """See the proto."""
        if request.context.session:
            return await self._to_engine("DescribeMlp", request, rpc)
        await self._settled(rpc)
        return ms.DescribeMlpResponse(mlp=_summary(self._find(request, rpc), rpc))

    async def ListMlps(self, request: ms.ListMlpsRequest, rpc: Rpc) -> ms.ListMlpsResponse | bytes:
        """See the proto."""
        if request.context.session:
            return await self._to_engine("ListMlps", request, rpc)
        await self._settled(rpc)
        seen = self._owners.visible(self._records.index(), rpc.identity)
        return ms.ListMlpsResponse(mlps=[_summary(record, rpc) for record in seen])

    async def UnloadMlp(self, request: ms.UnloadMlpRequest, rpc: Rpc) -> ms.UnloadMlpResponse | bytes:
        """See the proto."""
        if request.context.session:
            return await self._to_engine("UnloadMlp", request, rpc)
        await self._settled(rpc)
        name = self._to_change(self._owners.qualified(request.name, rpc.identity), rpc)
        await self._coordinator.unload(name, request.version)
        return ms.UnloadMlpResponse()

    async def LoadMlp(self, request: ms.LoadMlpRequest, rpc: Rpc) -> ms.LoadMlpResponse | bytes:
        """See the proto."""
        if request.context.session:
            return await self._to_engine("LoadMlp", request, rpc)
        await self._settled(rpc)
        name = self._owners.to_load(request.name, request.version, rpc.identity)
        record = await self._coordinator.load(self._to_change(name, rpc), request.version)
        return ms.LoadMlpResponse(mlp=_summary(record, rpc))

    async def DeleteMlp(self, request: ms.DeleteMlpRequest, rpc: Rpc) -> ms.DeleteMlpResponse | bytes:
        """See the proto."""
        if request.context.session:
            return await self._to_engine("DeleteMlp", request, rpc)
        await self._settled(rpc)
        name = self._to_change(self._owners.qualified(request.name, rpc.identity), rpc)
        await self._coordinator.delete(name, request.version)
        return ms.DeleteMlpResponse()

    async def GetMlpStatistics(
        self, request: ms.GetMlpStatisticsRequest, rpc: Rpc
    ) -> ms.GetMlpStatisticsResponse | bytes:
        """See the proto."""
        if request.context.session:
            return await self._to_engine("GetMlpStatistics", request, rpc)
        await self._settled(rpc)
        record = self._find(request, rpc)
        statistics = await self._coordinator.statistics(record)
        statistics.name = told_name(record.name, rpc.identity)
        return ms.GetMlpStatisticsResponse(statistics=statistics)

    async def DownloadMlp(self, request: ms.DownloadMlpRequest, rpc: Rpc) -> None:
        """See the proto."""
        if request.context.session:
            # Its engine looks at the session, and is told so by any request.
            asked = ms.DescribeMlpRequest(name=request.name, version=request.version, context=request.context)
            await self._to_engine("DescribeMlp", asked, rpc)
            request.context.ClearField("session")
        await self._settled(rpc)
        record = self._find(request, rpc)
        request.name, request.version = record.name, record.version
        _, entry = await self._choosing.choose(record, [], rpc.deadline)
        async for message in self._links.stream(entry, MODEL_SERVICE + "DownloadMlp", request.SerializeToString()):
            # Only the first has a header, which is to tell of the whole house.
            if message[:1] == _HEADER:
                told = ms.DownloadMlpResponse.FromString(message)
                told.header.mlp.CopyFrom(_summary(record, rpc))
                message = told.SerializeToString()
            await rpc.write(message)

    # --- what they are made of ---

    async def _forward(
        self, method: str, request: ms.MlpForwardRequest | ms.ModelForwardRequest, rows: int, rpc: Rpc
    ) -> bytes:
        """A forward pass by value."""
        await self._settled(rpc)
        record = self._find(request, rpc)
        request.name, request.version = record.name, record.version
        data = request.SerializeToString()
        deadline = rpc.deadline

        async def ask(entry: Entry) -> bytes:
            timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            return await self._links.unary(entry, MODEL_SERVICE + method, data, timeout_s=timeout_s)

        return await self._choosing.run(record, rows, deadline, ask)

    async def _create(
        self, method: str, request: ms.CreateMlpRequest | ms.CreateModelRequest, rpc: Rpc
    ) -> ms.MlpSummary:
        await self._settled(rpc)
        entry = await self._entry(request.context.session, rpc)
        request.name = new_name(request.name, rpc.identity, public=request.public)
        try:
            record: Record = await self._coordinator.create(method, request, entry, rpc.identity)
        except Unreachable as error:
            raise await self._gone(request.context.session, entry, error) from None
        return _summary(record, rpc)

    def _find(self, request: Any, rpc: Rpc) -> Record:
        """The model that a caller names. Raises: NotFound."""
        return self._records.find(self._owners.qualified(request.name, rpc.identity), request.version)

    def _to_change(self, name: str, rpc: Rpc) -> str:
        """The name of models that the caller may change. Raises: PermissionDenied."""
        if self._records.has(name):
            check_may_change(self._records.versions(name), rpc.identity)
        return name

    async def _to_engine(self, method: str, request: Message, rpc: Rpc) -> bytes:
        """The answer of the engine of the session, or of the caller. Raises: ServerError."""
        session: bytes = request.context.session  # type: ignore[attr-defined]
        entry = await self._entry(session, rpc)
        call: Any = self._links.channel(entry).unary_unary(MODEL_SERVICE + method)
        metadata = house_metadata(self._links.key, rpc.identity)
        deadline = rpc.deadline
        timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            answer: bytes = await call(request.SerializeToString(), metadata=metadata, timeout=timeout_s)
        except grpc.aio.AioRpcError as told:
            error = error_of(told)
            raise (await self._gone(session, entry, error) if isinstance(error, Unreachable) else error) from None
        return answer

    async def _entry(self, session: bytes, rpc: Rpc) -> Entry:
        """The engine of a session, or of who has none. Raises: SessionLost, Unauthenticated, Exhausted."""
        if session:
            return await self._of_session(session, rpc)
        asked_by = self._directory.engines.get(rpc.engine)
        return asked_by if asked_by is not None else await self._home(rpc.principal)

    async def _gone(self, session: bytes, entry: Entry, error: Unreachable) -> Unreachable | SessionLost:
        """What is told of an engine that does not answer: of a session, what has become of it."""
        if session and await self._coordinator.has_ended(entry):
            return self._directory.gone(entry.info.boot_id)
        return error


def _summary(record: Record, rpc: Rpc) -> ms.MlpSummary:
    """A model as the caller is told of it."""
    summary = record.summary()
    summary.name = told_name(record.name, rpc.identity)
    return summary


# The tag of DownloadMlpResponse.header.
_HEADER = b"\x0a"
