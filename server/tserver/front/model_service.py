"""ModelService: forward passes of neurons, layers, perceptrons and kept networks, and the keeping of networks.

A forward pass on what a session holds is a call of that session, and has its place among them. One by value has none:
it goes straight to the network's own line, where it is batched with those of others.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.config import Config
from tserver.engine import inspect, streams
from tserver.engine.dtypes import DTYPE_CODES
from tserver.engine.models import BatchingConfig, ModelDoor, Served, activation_layer, run_network
from tserver.engine.models.requests import Request
from tserver.engine.models.sources import FileSource, SpecSource
from tserver.engine.operations import Operation
from tserver.engine.values import bytes_of, dtype_of
from tserver.errors import InvalidArgument
from tserver.front.calls import Callers, Calls, require
from tserver.front.forward_stream import ForwardStream, check_inputs, check_outputs
from tserver.front.rpc import Rpc
from tserver.session.framing import chunk_frame

if TYPE_CHECKING:
    from tserver.session.registry import Sessions
    from tserver.session.session import Session


class ModelServicer:
    """The RPCs of ModelService."""

    def __init__(self, config: Config, door: ModelDoor, sessions: Sessions) -> None:
        self._config = config
        self._door = door
        self._registry = door.registry
        self._callers = Callers(sessions)

    # --- forward passes of what is described in the request ---

    async def NeuronForward(self, request: ms.NeuronForwardRequest, rpc: Rpc) -> ms.NeuronForwardResponse:
        """See the proto."""
        output = await self._neuron("NeuronForward", request, rpc, activation_layer(request.activation))
        return ms.NeuronForwardResponse(output=output)

    async def LayerForward(self, request: ms.LayerForwardRequest, rpc: Rpc) -> ms.LayerForwardResponse:
        """See the proto."""
        activation = activation_layer(request.activation)

        def forward(inputs: Any, weight: Any, bias: Any) -> Any:
            return run_network([{"kind": "linear", "weight": weight, "bias": bias}, activation], inputs)

        operands = [_operand(request, "inputs"), _operand(request, "weight"), _operand(request, "bias", optional=True)]
        output = await self._forward(Operation("LayerForward", forward), operands, request, rpc)
        return ms.LayerForwardResponse(output=output)

    async def PerceptronForward(self, request: ms.PerceptronForwardRequest, rpc: Rpc) -> ms.PerceptronForwardResponse:
        """See the proto."""
        output = await self._neuron("PerceptronForward", request, rpc, {"kind": "sign"})
        return ms.PerceptronForwardResponse(output=output)

    # --- forward passes of kept networks ---

    async def MlpForward(self, request: ms.MlpForwardRequest, rpc: Rpc) -> ms.MlpForwardResponse:
        """See the proto."""
        operand = _operand(request, "inputs")
        if request.context.seq:
            return await self._forward_in_place(request, rpc)
        if isinstance(operand, pb.TensorData) and not request.options.keep:
            self._check_session(request, rpc)
            return await self._forward_by_value(request, operand, rpc)
        session = self._session(request, rpc)
        if isinstance(operand, pb.TensorData):
            check_inputs(len(operand.data), self._config)
            served, shape = self._registry.find(request.name, request.version), list(operand.shape)
            wanted = self._door.request(served, dtype_of(operand.dtype), shape, operand.data)
            if _wants_data(request):
                check_outputs(served, wanted.rows, self._config)
        else:
            served, wanted, shape = await self._read(session, request)
        wanted.as_tensor = request.options.keep
        if wanted.output is None:
            wanted.priority, wanted.timeout_us = request.priority, request.timeout_us
            wanted.deadline = rpc.deadline
            await self._door.run(served, wanted)
        shape = [*shape[:-1], served.out_features]
        if not wanted.as_tensor:
            outputs = wanted.output
            if not isinstance(outputs, memoryview) and streams.runs_apart(outputs):
                # This thread must not wait for the device; what it gets here has arrived.
                staged = await session.run(lambda space: inspect.stage(space, outputs))
                wanted.output = memoryview(staged.data)
            return self._response(served, wanted.output, shape)
        output = await session.run(
            lambda space: _keep(
                space, wanted.output, shape, self._config.max_output_bytes if request.options.return_data else 0
            )
        )
        return ms.MlpForwardResponse(output=output, version=served.version)

    async def MlpForwardStream(self, requests: AsyncIterator[ms.MlpForwardStreamRequest], rpc: Rpc) -> None:
        """See the proto."""
        await ForwardStream(self._door, rpc, self._config).run(requests)

    # --- the keeping of networks ---

    async def CreateMlp(self, request: ms.CreateMlpRequest, rpc: Rpc) -> ms.CreateMlpResponse:
        """See the proto."""
        session = self._session(request, rpc)
        batching = BatchingConfig.read(request.batching)
        if not request.context.seq:
            # Before an upload is used up for nothing. A repeat of a numbered request has made the name itself.
            self._registry.check_free(request.name, request.version)
        source: FileSource | SpecSource = SpecSource(request)
        operands: list[pb.Ref | pb.TensorData | None] = []
        if request.HasField("file"):
            source = await self._file(request, session)
        else:
            for spec in request.layers:
                operands += [_operand(spec, "weight", optional=True), _operand(spec, "bias", optional=True)]
        made: list[Served] = []

        def create(space: Any, *given: Any) -> None:
            model = source.model(space, given, self._registry.device)
            made.append(self._registry.add(request.name, request.version, model, batching))

        operation = Operation("CreateMlp", create, has_effect=True, needs_space=True)

        async def make() -> Served:
            await Calls(session, request.context.seq).add(operation, *operands, keep=False).run()
            # A repeat of a numbered request gets the kept reply, and runs nothing.
            served = made[0] if made else self._registry.find(request.name, request.version)
            await self._door.adopt(served)
            return served

        # A caller who goes away does not take the call back: what it makes must come to the disk all the same.
        served = await self._door.whole(make())
        return ms.CreateMlpResponse(mlp=served.summary())

    async def UpdateMlp(self, request: ms.UpdateMlpRequest, rpc: Rpc) -> ms.UpdateMlpResponse:
        """See the proto."""
        self._check_session(request, rpc)
        served = await self._door.update(request.name, request.version, BatchingConfig.read(request.batching))
        return ms.UpdateMlpResponse(mlp=served.summary())

    async def DescribeMlp(self, request: ms.DescribeMlpRequest, rpc: Rpc) -> ms.DescribeMlpResponse:
        """See the proto."""
        self._check_session(request, rpc)
        return ms.DescribeMlpResponse(mlp=self._registry.find(request.name, request.version).summary())

    async def ListMlps(self, request: ms.ListMlpsRequest, rpc: Rpc) -> ms.ListMlpsResponse:
        """See the proto."""
        self._check_session(request, rpc)
        return ms.ListMlpsResponse(mlps=[served.summary() for served in self._registry.index()])

    async def UnloadMlp(self, request: ms.UnloadMlpRequest, rpc: Rpc) -> ms.UnloadMlpResponse:
        """See the proto."""
        self._check_session(request, rpc)
        await self._door.unload(request.name, request.version)
        return ms.UnloadMlpResponse()

    async def LoadMlp(self, request: ms.LoadMlpRequest, rpc: Rpc) -> ms.LoadMlpResponse:
        """See the proto."""
        self._check_session(request, rpc)
        served = await self._door.load(request.name, request.version)
        return ms.LoadMlpResponse(mlp=served.summary())

    async def DeleteMlp(self, request: ms.DeleteMlpRequest, rpc: Rpc) -> ms.DeleteMlpResponse:
        """See the proto."""
        self._check_session(request, rpc)
        await self._door.delete(request.name, request.version)
        return ms.DeleteMlpResponse()

    async def DownloadMlp(self, request: ms.DownloadMlpRequest, rpc: Rpc) -> None:
        """See the proto."""
        self._check_session(request, rpc)
        served = self._registry.find(request.name, request.version)
        data = memoryview(await self._door.export(served))
        header = ms.DownloadMlpHeader(mlp=served.summary(), total_bytes=len(data))
        await rpc.write(ms.DownloadMlpResponse(header=header).SerializeToString())
        size = self._config.max_chunk_bytes
        for start in range(0, len(data), size):
            await rpc.write(chunk_frame(data[start : start + size]))
        trailer = ts.DownloadTrailer(crc32=zlib.crc32(data))
        await rpc.write(ms.DownloadMlpResponse(trailer=trailer).SerializeToString())

    async def GetMlpStatistics(self, request: ms.GetMlpStatisticsRequest, rpc: Rpc) -> ms.GetMlpStatisticsResponse:
        """See the proto."""
        self._check_session(request, rpc)
        served = self._registry.find(request.name, request.version)
        message = served.statistics.message(served.name, served.version, served.waiting)
        return ms.GetMlpStatisticsResponse(statistics=message)

    # --- what they are made of ---

    async def _neuron(self, name: str, request: Any, rpc: Rpc, activation: dict[str, Any]) -> ms.ForwardOutput:
        def forward(inputs: Any, weights: Any, bias: Any) -> Any:
            return run_network([{"kind": "neuron", "weight": weights, "bias": bias}, activation], inputs)

        operands = [_operand(request, "inputs"), _operand(request, "weights"), _operand(request, "bias", optional=True)]
        return await self._forward(Operation(name, forward), operands, request, rpc)

    async def _forward(
        self,
        operation: Operation,
        operands: list[pb.Ref | pb.TensorData | None],
        request: Any,
        rpc: Rpc,
    ) -> ms.ForwardOutput:
        """One call of the session."""
        options = request.options
        session = self._session(request, rpc)
        most = self._config.max_output_bytes
        if not options.keep:
            operation = inspect.bounded(operation, most, keep=False)
            reply = await Calls(session, request.context.seq).add(operation, *operands, keep=False).run()
            return ms.ForwardOutput(data=reply.results[0].value.data)
        if options.return_data:
            operation = inspect.bounded(operation, most, keep=True)
        output = ms.ForwardOutput(tensor=await Calls(session, request.context.seq).add(operation, *operands).tensor())
        if options.return_data:
            wanted = ts.GetTensorRequest(tensor=output.tensor.id, include_data=True)
            response = await session.run(lambda space: inspect.get_tensor(space, wanted, most))
            output.data.CopyFrom(response.data)
        return output

    async def _forward_in_place(self, request: ms.MlpForwardRequest, rpc: Rpc) -> ms.MlpForwardResponse:
        served = self._registry.find(request.name, request.version)

        def forward(space: Any, inputs: Any) -> Any:
            return self._registry.forward(space.state.line, served.name, served.version, inputs)

        operation = Operation("MlpForward", forward, needs_space=True)
        output = await self._forward(operation, [_operand(request, "inputs")], request, rpc)
        return ms.MlpForwardResponse(output=output, version=served.version)

    async def _forward_by_value(
        self, request: ms.MlpForwardRequest, data: pb.TensorData, rpc: Rpc
    ) -> ms.MlpForwardResponse:
        elements = data.data
        check_inputs(len(elements), self._config)
        served = self._registry.find(request.name, request.version)
        shape = list(data.shape)
        wanted = self._door.request(served, dtype_of(data.dtype), shape, elements)
        check_outputs(served, wanted.rows, self._config)
        wanted.priority, wanted.timeout_us = request.priority, request.timeout_us
        wanted.deadline = rpc.deadline
        await self._door.run(served, wanted)
        shape[-1] = served.out_features
        return self._response(served, wanted.output, shape)

    async def _read(self, session: Session, request: ms.MlpForwardRequest) -> tuple[Served, Request, list[int]]:
        """The request for a tensor of the session, read in its place among the calls; who serves it, and its shape."""
        ref = request.inputs.tensor
        if not ref.id:
            raise InvalidArgument("a tensor is not named: its id is 0 or the field is not set")

        def read(space: Any) -> tuple[Served, Request, Any]:
            served = self._registry.find(request.name, request.version)
            tensor = space.tensor(ref)
            model = served.ready()
            wanted = Request(model.check(tensor.dtype, tensor.shape), None)
            if _wants_data(request):
                check_outputs(served, wanted.rows, self._config)
            if wanted.rows >= served.batching.max_batch_size:
                # Nobody could join it: it is run here and now, and not copied.
                wanted.output = self._registry.forward(space.state.line, served.name, served.version, tensor)
            else:
                # What the session writes into the tensor later must not be seen.
                wanted.tensor = tensor.detach().to(model.device).reshape(-1, model.in_features).clone()
                wanted.made = streams.mark(wanted.tensor)
            return served, wanted, tensor

        served, wanted, tensor = await session.run(read)
        if wanted.output is None:
            # Meanwhile another version may have become the latest, and this one may be on its way out.
            served = self._registry.find(request.name, request.version)
            served.ready().check(tensor.dtype, tensor.shape)
        return served, wanted, list(tensor.shape)

    def _response(self, served: Served, output: Any, shape: list[int]) -> ms.MlpForwardResponse:
        data = output if isinstance(output, memoryview) else bytes_of(output).data
        elements = pb.TensorData(dtype=DTYPE_CODES[served.dtype], shape=shape, data=bytes(data))
        return ms.MlpForwardResponse(output=ms.ForwardOutput(data=elements), version=served.version)

    async def _file(self, request: ms.CreateMlpRequest, session: Session) -> FileSource:
        """The file that a network is to be made of. Only of a numbered request is an upload left to the call itself."""
        kind = request.file.WhichOneof("source")
        if kind is None:
            raise InvalidArgument("WeightsFile is empty; set upload or path")
        source = FileSource(request)
        if kind == "path":
            await self._door.in_thread(source.parse, await self._door.read_file(request.file.path))
        elif not request.context.seq:
            uploaded = await session.run(lambda space: space.take_upload(request.file.upload))
            await self._door.in_thread(source.parse, uploaded.data)
        return source

    def _check_session(self, request: Any, rpc: Rpc) -> None:
        """Nothing of a session is needed; but where one is named, it must be."""
        if request.context.session:
            self._session(request, rpc).touch()

    def _session(self, request: Any, rpc: Rpc) -> Session:
        return self._callers.session(request.context.session, rpc)


def _wants_data(request: ms.MlpForwardRequest) -> bool:
    return request.options.return_data or not request.options.keep


def _keep(space: Any, tensor: Any, shape: list[int], max_data_bytes: int) -> ms.ForwardOutput:
    """Leave an output in the session, and return its elements, too, unless they may have no bytes."""
    tensor = streams.adopt(tensor).reshape(shape)
    if space.max_bytes:
        space.charge("MlpForward", tensor, elsewhere=False)
    call_id = space.new_server_id()
    space.keep(call_id, tensor)
    ref = pb.Ref(id=call_id)
    output = ms.ForwardOutput(tensor=inspect.description(tensor, ref))
    if max_data_bytes:
        wanted = ts.GetTensorRequest(tensor=ref, include_data=True)
        output.data.CopyFrom(inspect.get_tensor(space, wanted, max_data_bytes).data)
    return output


def _operand(message: Any, field: str, *, optional: bool = False) -> pb.Ref | pb.TensorData | None:
    """A tensor of the session or one by value; None if it may be, and is, left out. Raises: InvalidArgument."""
    if optional and not message.HasField(field):
        return None
    operand = require(message, field)
    source = operand.WhichOneof("source")
    if source is None:
        raise InvalidArgument(f"{message.DESCRIPTOR.name}.{field} is empty; set tensor or data")
    found: pb.Ref | pb.TensorData = operand.tensor if source == "tensor" else operand.data
    return found
