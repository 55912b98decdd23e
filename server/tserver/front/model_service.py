"""ModelService: forward passes of neurons, layers, perceptrons and models, and the keeping of models.

A forward pass on what a session holds is a call of that session, and has its place among them. One by value has none:
it goes straight to the model's own queue, where it is batched with those of others.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tensorcompute.wire.chunks import chunk_message
from tserver.config import Config
from tserver.errors import ModelElsewhere, NotFound
from tserver.front.forward_stream import ForwardStream
from tserver.front.forwards import by_name, check_inputs, outputs_by_name
from tserver.front.rpc import OF_HOUSE, Rpc
from tserver.models.batching import BatchingConfig
from tserver.models.owners import Owners, check_may_change, new_name, told_name
from tserver.session.calls import operand

if TYPE_CHECKING:
    from tserver.engines.port import Engine, ServedModel, Session
    from tserver.front.replicas.elsewhere import Elsewhere
    from tserver.identity import Identity


class ModelServicer:
    """The RPCs of ModelService."""

    def __init__(self, config: Config, engine: Engine, elsewhere: Elsewhere | None = None) -> None:
        """`elsewhere` is what other engines have, in a house."""
        self._config = config
        self._elsewhere = elsewhere
        self._sessions = engine.sessions
        self._models = engine.models
        self._registry = engine.models.registry
        self._owners = Owners(self._registry.has)
        self._calls = engine.model_calls

    # --- forward passes of what is described in the request ---

    async def NeuronForward(self, request: ms.NeuronForwardRequest, rpc: Rpc) -> ms.NeuronForwardResponse:
        """See the proto."""
        return ms.NeuronForwardResponse(output=await self._calls.neuron(request, rpc.identity))

    async def LayerForward(self, request: ms.LayerForwardRequest, rpc: Rpc) -> ms.LayerForwardResponse:
        """See the proto."""
        return ms.LayerForwardResponse(output=await self._calls.layer(request, rpc.identity))

    async def PerceptronForward(self, request: ms.PerceptronForwardRequest, rpc: Rpc) -> ms.PerceptronForwardResponse:
        """See the proto."""
        return ms.PerceptronForwardResponse(output=await self._calls.perceptron(request, rpc.identity))

    # --- forward passes of models ---

    async def MlpForward(self, request: ms.MlpForwardRequest, rpc: Rpc) -> ms.MlpForwardResponse | bytes:
        """See the proto."""
        inputs = operand(request, "inputs")
        if request.context.seq:
            self._check_session(request, rpc)
            request.name = self._qualified(request, rpc)
            return await self._calls.forward_in_place(request, rpc.identity)
        is_by_value = isinstance(inputs, pb.TensorData)
        if is_by_value and not request.options.keep:
            self._check_session(request, rpc)
            served = self._find(request, rpc)
            if served is None:
                return await self._ask_front("MlpForward", request, rpc)
            return await self._forward_by_value(served, request, rpc)
        session = self._session(request, rpc)
        if is_by_value:
            check_inputs(len(request.inputs.data.data), self._config)
        request.name = self._qualified(request, rpc)
        return await self._calls.forward(request, session, rpc.deadline)

    async def MlpForwardStream(self, requests: AsyncIterator[ms.MlpForwardStreamRequest], rpc: Rpc) -> None:
        """See the proto."""
        await ForwardStream(self._models, rpc, self._config, self._elsewhere).run(requests)

    async def ModelForward(self, request: ms.ModelForwardRequest, rpc: Rpc) -> ms.ModelForwardResponse | bytes:
        """See the proto."""
        is_by_value = all(each.operand.HasField("data") for each in request.inputs)
        for each in request.inputs:
            check_inputs(len(each.operand.data.data), self._config)
        if not is_by_value or request.options.keep:
            session = self._session(request, rpc)
            request.name = self._qualified(request, rpc)
            return await self._calls.forward_by_name(request, session)
        self._check_session(request, rpc)
        given = by_name((each.name, each.operand.data) for each in request.inputs)
        check_inputs(sum(len(each.data) for each in given.values()), self._config)
        served = self._find(request, rpc)
        if served is None:
            return await self._ask_front("ModelForward", request, rpc)
        wanted = self._models.request_by_name(served, given)
        served.check_outputs(wanted, self._config.max_output_bytes)
        wanted.priority, wanted.timeout_us, wanted.deadline = request.priority, request.timeout_us, rpc.deadline
        await self._models.run(served, wanted, rpc.identity.principal)
        response = ms.ModelForwardResponse(version=served.version)
        for tensor in outputs_by_name(served, wanted, self._config.max_output_bytes):
            response.outputs.add(name=tensor.name, output=ms.ForwardOutput(data=tensor.data))
        return response

    async def ModelForwardStream(self, requests: AsyncIterator[ms.ModelForwardStreamRequest], rpc: Rpc) -> None:
        """See the proto."""
        await ForwardStream(self._models, rpc, self._config, self._elsewhere).run(requests)

    # --- the keeping of models ---

    async def CreateModel(self, request: ms.CreateModelRequest, rpc: Rpc) -> ms.CreateModelResponse | bytes:
        """See the proto."""
        if self._elsewhere is not None and not rpc.acts_here:
            return await self._elsewhere.ask("CreateModel", request, rpc)
        request.name = self._new_name(request, rpc)
        served = await self._calls.create_program(request, rpc.identity)
        return ms.CreateModelResponse(model=self._summary(served, rpc))

    async def CreateMlp(self, request: ms.CreateMlpRequest, rpc: Rpc) -> ms.CreateMlpResponse | bytes:
        """See the proto."""
        if self._elsewhere is not None and not rpc.acts_here:
            return await self._elsewhere.ask("CreateMlp", request, rpc)
        request.name = self._new_name(request, rpc)
        served = await self._calls.create(request, rpc.identity)
        return ms.CreateMlpResponse(mlp=self._summary(served, rpc))

    async def UpdateMlp(self, request: ms.UpdateMlpRequest, rpc: Rpc) -> ms.UpdateMlpResponse | bytes:
        """See the proto."""
        if self._is_of_front(request, rpc):
            return await self._ask_front("UpdateMlp", request, rpc)
        replicas = request.replicas if request.HasField("replicas") else None
        name = self._to_change(self._qualified(request, rpc), rpc)
        served = await self._models.update(name, request.version, BatchingConfig.read(request.batching), replicas)
        return ms.UpdateMlpResponse(mlp=self._summary(served, rpc))

    async def DescribeMlp(self, request: ms.DescribeMlpRequest, rpc: Rpc) -> ms.DescribeMlpResponse | bytes:
        """See the proto."""
        if self._is_of_front(request, rpc):
            return await self._ask_front("DescribeMlp", request, rpc)
        served = self._registry.find_here(self._qualified(request, rpc), request.version)
        return ms.DescribeMlpResponse(mlp=self._summary(served, rpc))

    async def ListMlps(self, request: ms.ListMlpsRequest, rpc: Rpc) -> ms.ListMlpsResponse | bytes:
        """See the proto."""
        if self._is_of_front(request, rpc):
            return await self._ask_front("ListMlps", request, rpc)
        seen = self._owners.visible(self._registry.index(), self._caller(rpc))
        return ms.ListMlpsResponse(mlps=[self._summary(served, rpc) for served in seen])

    async def UnloadMlp(self, request: ms.UnloadMlpRequest, rpc: Rpc) -> ms.UnloadMlpResponse | bytes:
        """See the proto."""
        if self._is_of_front(request, rpc):
            return await self._ask_front("UnloadMlp", request, rpc)
        await self._models.unload(self._to_change(self._qualified(request, rpc), rpc), request.version)
        return ms.UnloadMlpResponse()

    async def LoadMlp(self, request: ms.LoadMlpRequest, rpc: Rpc) -> ms.LoadMlpResponse | bytes:
        """See the proto."""
        if self._is_of_front(request, rpc):
            return await self._ask_front("LoadMlp", request, rpc)
        name = self._owners.to_load(request.name, request.version, self._caller(rpc))
        served = await self._models.load(self._to_change(name, rpc), request.version)
        return ms.LoadMlpResponse(mlp=self._summary(served, rpc))

    async def DeleteMlp(self, request: ms.DeleteMlpRequest, rpc: Rpc) -> ms.DeleteMlpResponse | bytes:
        """See the proto."""
        if self._is_of_front(request, rpc):
            return await self._ask_front("DeleteMlp", request, rpc)
        await self._models.delete(self._to_change(self._qualified(request, rpc), rpc), request.version)
        return ms.DeleteMlpResponse()

    async def DownloadMlp(self, request: ms.DownloadMlpRequest, rpc: Rpc) -> None:
        """See the proto."""
        if self._is_of_front(request, rpc):
            assert self._elsewhere is not None
            request.context.ClearField("session")
            return await self._elsewhere.pass_on("DownloadMlp", request, rpc)
        served = self._registry.find_here(self._qualified(request, rpc), request.version)
        data = memoryview(await self._models.export(served))
        header = ms.DownloadMlpHeader(mlp=self._summary(served, rpc), total_bytes=len(data))
        await rpc.write(ms.DownloadMlpResponse(header=header).SerializeToString())
        size = self._config.max_chunk_bytes
        for start in range(0, len(data), size):
            await rpc.write(chunk_message(data[start : start + size]))
        trailer = ts.DownloadTrailer(crc32=zlib.crc32(data))
        await rpc.write(ms.DownloadMlpResponse(trailer=trailer).SerializeToString())

    async def GetMlpStatistics(
        self, request: ms.GetMlpStatisticsRequest, rpc: Rpc
    ) -> ms.GetMlpStatisticsResponse | bytes:
        """See the proto."""
        if self._is_of_front(request, rpc):
            return await self._ask_front("GetMlpStatistics", request, rpc)
        served = self._registry.find_here(self._qualified(request, rpc), request.version)
        counted = await self._models.counted(served)
        counted.name = told_name(served.name, self._caller(rpc))
        return ms.GetMlpStatisticsResponse(statistics=counted)

    # --- what they are made of ---

    async def _forward_by_value(
        self, served: ServedModel, request: ms.MlpForwardRequest, rpc: Rpc
    ) -> ms.MlpForwardResponse:
        data = request.inputs.data
        elements = data.data
        check_inputs(len(elements), self._config)
        shape = list(data.shape)
        wanted = self._models.request(served, data.dtype, shape, elements)
        served.check_outputs(wanted, self._config.max_output_bytes)
        wanted.priority, wanted.timeout_us, wanted.deadline = request.priority, request.timeout_us, rpc.deadline
        await self._models.run(served, wanted, rpc.identity.principal)
        shape[-1] = served.out_features
        assert wanted.outputs is not None
        return served.response(shape, wanted.outputs[0])

    def _find(self, request: Any, rpc: Rpc) -> ServedModel | None:
        """The model that is named; None where the front knows where it is. Raises: NotFound."""
        if self._elsewhere is None or rpc.acts_here:
            return self._registry.find_here(self._qualified(request, rpc), request.version)
        try:
            return self._registry.find(self._qualified(request, rpc), request.version)
        except (ModelElsewhere, NotFound):
            return None

    # --- what models are called ---

    def _caller(self, rpc: Rpc) -> Identity:
        """In whose words models are named: those of the registry, where the front has found out what is meant."""
        return OF_HOUSE if rpc.acts_here else rpc.identity

    def _qualified(self, request: Any, rpc: Rpc) -> str:
        """The registry's name of the model that a caller names. Raises: NotFound."""
        return self._owners.qualified(request.name, self._caller(rpc))

    def _new_name(self, request: Any, rpc: Rpc) -> str:
        """The same of one that is to be made. Raises: InvalidArgument, PermissionDenied."""
        return request.name if rpc.acts_here else new_name(request.name, rpc.identity, public=request.public)

    def _to_change(self, name: str, rpc: Rpc) -> str:
        """The name of models that the caller may change. Raises: PermissionDenied."""
        if self._registry.has(name):
            check_may_change(self._registry.versions(name), self._caller(rpc))
        return name

    def _summary(self, served: ServedModel, rpc: Rpc) -> ms.MlpSummary:
        """A model as the caller is told of it."""
        summary = served.summary()
        summary.name = told_name(served.name, self._caller(rpc))
        return summary

    # --- sessions, and the front ---

    def _is_of_front(self, request: Any, rpc: Rpc) -> bool:
        """Whether a request is for the front, which changes models and tells of them in a house."""
        self._check_session(request, rpc)
        return self._elsewhere is not None and not rpc.acts_here

    async def _ask_front(self, method: str, request: Any, rpc: Rpc) -> bytes:
        """Have the front answer. The session was looked at, and is this engine's business."""
        assert self._elsewhere is not None
        request.context.ClearField("session")
        return await self._elsewhere.ask(method, request, rpc)

    def _check_session(self, request: Any, rpc: Rpc) -> None:
        """Nothing of a session is needed; but where one is named, it must be."""
        if request.context.session:
            self._session(request, rpc).touch()

    def _session(self, request: Any, rpc: Rpc) -> Session:
        return self._sessions.resolve(request.context.session, rpc.identity)
