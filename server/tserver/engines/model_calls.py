"""What a session and the models do together: forward passes on what a session holds, and models made of that.

Models are named as the registry has them; the session's own calls alone name them as its caller does.

Each is a call of the session, and has its place among them. What is taken and given are messages; tensors stay with
the engine. Knows sessions, models and the engine in this process.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.engine import inspect, streams
from tserver.engine.device import Device
from tserver.engine.dtypes import DTYPE_CODES
from tserver.engine.models import forwards
from tserver.engine.models.model import NewStore
from tserver.engine.models.sources import FileSource, ProgramSource, SpecSource
from tserver.engine.object_store import ObjectStore
from tserver.engine.operations import Operation
from tserver.engine.values import bytes_of
from tserver.errors import InvalidArgument
from tserver.identity import Identity
from tserver.models.batching import BatchingConfig
from tserver.models.manager import ModelManager
from tserver.models.owners import Claim, claim_of
from tserver.models.registry import ServedModel
from tserver.models.requests import Request, check_size
from tserver.session.calls import Calls, Operand, check_named, operand, operand_of, require
from tserver.session.registry import Sessions
from tserver.session.session import Session


class ModelCalls:
    """Requests of ModelService that need a session. A caller is known by its identity."""

    def __init__(
        self, sessions: Sessions, models: ModelManager, new_store: NewStore, device: Device, max_output_bytes: int
    ) -> None:
        """New models go to the device, programs with a store of their own; outputs in a message have at most so many
        bytes.
        """
        self._sessions = sessions
        self._models = models
        self._registry = models.registry
        self._new_store = new_store
        self._device = device
        self._max_output_bytes = max_output_bytes

    async def neuron(self, request: ms.NeuronForwardRequest, identity: Identity) -> ms.ForwardOutput:
        """A forward pass of the neuron in the request. Raises: InvalidArgument, CallFailed, as do those below."""
        operation = forwards.neuron_operation(request.activation)
        return await self._run(operation, _of_neuron(request), request, identity)

    async def perceptron(self, request: ms.PerceptronForwardRequest, identity: Identity) -> ms.ForwardOutput:
        """The same of the perceptron in the request."""
        return await self._run(forwards.perceptron_operation(), _of_neuron(request), request, identity)

    async def layer(self, request: ms.LayerForwardRequest, identity: Identity) -> ms.ForwardOutput:
        """The same of the layer in the request."""
        operation = forwards.layer_operation(request.activation)
        operands = [operand(request, "inputs"), operand(request, "weight"), operand(request, "bias", optional=True)]
        return await self._run(operation, operands, request, identity)

    async def forward_in_place(self, request: ms.MlpForwardRequest, identity: Identity) -> ms.MlpForwardResponse:
        """A forward pass of a model, by a numbered request: applied once."""
        served = self._registry.find(request.name, request.version)
        operation = forwards.model_operation(self._registry.find, served.name, served.version)
        output = await self._run(operation, [operand(request, "inputs")], request, identity)
        return ms.MlpForwardResponse(output=output, version=served.version)

    async def forward(
        self, request: ms.MlpForwardRequest, session: Session, deadline: float | None
    ) -> ms.MlpForwardResponse:
        """A forward pass of a model on a tensor of the session, or with an output that stays there, among others."""
        options = request.options
        if request.inputs.HasField("data"):
            data = request.inputs.data
            served, shape = self._registry.find(request.name, request.version), list(data.shape)
            wanted = self._models.request(served, data.dtype, shape, data.data)
            if _wants_data(request.options):
                served.check_outputs(wanted, self._max_output_bytes)
        else:
            served, wanted, shape = await self._read(session, request)
        wanted.as_tensor, wanted.share = options.keep, session.queue.share
        if wanted.outputs is None:
            wanted.priority, wanted.timeout_us, wanted.deadline = request.priority, request.timeout_us, deadline
            await self._models.run(served, wanted, session.principal)
        assert wanted.outputs is not None
        shape = [*shape[:-1], served.out_features]
        outputs = wanted.outputs[0]
        if wanted.as_tensor:
            most = self._max_output_bytes if options.return_data else 0
            output = await session.run(lambda store: forwards.keep(store, outputs, shape, most))
            return ms.MlpForwardResponse(output=output, version=served.version)
        return served.response(shape, await _elements(session, outputs))

    async def forward_by_name(self, request: ms.ModelForwardRequest, session: Session) -> ms.ModelForwardResponse:
        """A forward pass of a model in its place among the calls of the session, with inputs by name."""
        options, most = request.options, self._max_output_bytes
        given: dict[str, pb.Ref | pb.TensorData] = {}
        for each in request.inputs:
            if each.name in given:
                raise InvalidArgument(f"the input {each.name[:100]!r} is given twice")
            given[each.name] = found = operand_of(require(each, "operand"), "NamedOperand.operand")
            if isinstance(found, pb.Ref):
                check_named(found)
        version = self._registry.find(request.name, request.version).version

        def run(store: ObjectStore) -> list[tuple[str, Any, ms.ForwardOutput]]:
            inputs = {name: forwards.read(store, each) for name, each in given.items()}
            found = self._registry.find
            outputs = forwards.forward_by_name(found, store.state.pair, request.name, version, inputs)
            if _wants_data(options):
                check_size(sum(output.nbytes for _, output in outputs), most)
            return [
                (name, output, forwards.keep(store, output, output.shape, 0) if options.keep else ms.ForwardOutput())
                for name, output in outputs
            ]

        response = ms.ModelForwardResponse(version=version)
        for name, output, told in await session.run(run):
            if _wants_data(options):
                elements = bytes(await _elements(session, output))
                told.data.CopyFrom(pb.TensorData(dtype=DTYPE_CODES[output.dtype], shape=output.shape, data=elements))
            response.outputs.add(name=name, output=told)
        return response

    async def create_program(self, request: ms.CreateModelRequest, identity: Identity) -> ServedModel:
        """As `create`, of a program."""
        session = self._sessions.resolve(request.context.session, identity)
        operands: list[Operand] = [operand_of(each) for each in request.weights]
        return await self._create(request, session, ProgramSource(request.program), operands, claim_of(identity))

    async def create(self, request: ms.CreateMlpRequest, identity: Identity) -> ServedModel:
        """Make a model of what the request gives, and keep it.

        Raises: InvalidArgument, AlreadyExists, UnknownId, Exhausted, CallFailed.
        """
        session = self._sessions.resolve(request.context.session, identity)
        source: FileSource | SpecSource = SpecSource(request)
        operands: list[Operand] = []
        if request.HasField("file"):
            self._check_new(request, claim_of(identity))
            source = await self._file(request, session)
        else:
            for spec in request.layers:
                operands += [operand(spec, "weight", optional=True), operand(spec, "bias", optional=True)]
        return await self._create(request, session, source, operands, claim_of(identity))

    async def _create(
        self,
        request: ms.CreateMlpRequest | ms.CreateModelRequest,
        session: Session,
        source: FileSource | SpecSource | ProgramSource,
        operands: list[Operand],
        claim: Claim,
    ) -> ServedModel:
        batching = BatchingConfig.read(request.batching)
        self._check_new(request, claim)
        made: list[ServedModel] = []

        def create(store: ObjectStore, *given: Any) -> None:
            model = source.model(store, given, self._new_store, self._device)
            account = store.account
            room = (lambda used: None) if account is None else partial(account.check, "models")
            served = self._registry.add(request.name, request.version, model, batching, claim, room)
            served.replicas = request.replicas
            made.append(served)

        operation = Operation("CreateModel", create, has_effect=True, needs_store=True)

        async def make() -> ServedModel:
            await Calls(session, request.context.seq).add(operation, *operands, keep=False).run()
            # A repeat of a numbered request gets the kept reply, and runs nothing.
            served = made[0] if made else self._registry.find_here(request.name, request.version)
            await self._models.persist(served)
            return served

        # A caller who goes away does not take the call back: what it makes must come to the disk all the same.
        return await self._models.whole(make())

    def _check_new(self, request: ms.CreateMlpRequest | ms.CreateModelRequest, claim: Claim) -> None:
        """Before an upload is used up for nothing. A repeat of a numbered request has made the name itself."""
        self._registry.check_claim(request.name, claim)
        if not request.context.seq:
            self._registry.check_free(request.name, request.version)

    async def _run(
        self, operation: Operation, operands: list[Operand], request: Any, identity: Identity
    ) -> ms.ForwardOutput:
        """One call of the session."""
        options = request.options
        session = self._sessions.resolve(request.context.session, identity)
        most = self._max_output_bytes
        if not options.keep:
            operation = inspect.bounded(operation, most, keep=False)
            reply = await Calls(session, request.context.seq).add(operation, *operands, keep=False).run()
            return ms.ForwardOutput(data=reply.results[0].value.data)
        if options.return_data:
            operation = inspect.bounded(operation, most, keep=True)
        output = ms.ForwardOutput(tensor=await Calls(session, request.context.seq).add(operation, *operands).tensor())
        if options.return_data:
            wanted = ts.GetTensorRequest(tensor=output.tensor.id, include_data=True)
            output.data.CopyFrom((await session.get_tensor(wanted, most)).data)
        return output

    async def _read(self, session: Session, request: ms.MlpForwardRequest) -> tuple[ServedModel, Request, list[int]]:
        """The request for a tensor of the session, read in its place among the calls; who serves it, and its shape."""
        ref = request.inputs.tensor
        check_named(ref)

        def read(store: ObjectStore) -> tuple[ServedModel, Request, Any]:
            served = self._registry.find(request.name, request.version)
            tensor = store.tensor(ref)
            model = served.row_of_layers()
            rows = model.check_tensor(tensor)
            wanted = Request(rows, (), ((rows, model.in_features),), 0)
            if _wants_data(request.options):
                served.check_outputs(wanted, self._max_output_bytes)
            if rows >= served.batching.max_batch_size:
                # Nobody could join it: it is run here and now, and not copied.
                pair = store.state.pair
                wanted.outputs = [forwards.forward(self._registry.find, pair, served.name, served.version, tensor)]
            else:
                # What the session writes into the tensor later must not be seen.
                copied, wanted.made = forwards.rows_of(model, tensor)
                wanted.inputs = (copied,)
            return served, wanted, tensor

        served, wanted, tensor = await session.run(read)
        if wanted.outputs is None:
            # Meanwhile another version may have become the latest, and this one may be on its way out.
            served = self._registry.find(request.name, request.version)
            served.row_of_layers().check_tensor(tensor)
        return served, wanted, list(tensor.shape)

    async def _file(self, request: ms.CreateMlpRequest, session: Session) -> FileSource:
        """The file that a model is to be made of. Only of a numbered request is an upload left to the call itself."""
        kind = request.file.WhichOneof("source")
        if kind is None:
            raise InvalidArgument("WeightsFile is empty; set upload or path")
        source = FileSource(request)
        if kind == "path":
            await self._models.in_thread(source.parse, await self._models.read_file(request.file.path))
        elif not request.context.seq:
            uploaded = await session.run(lambda store: store.take_upload(request.file.upload))
            await self._models.in_thread(source.parse, uploaded.data)
        return source


def _of_neuron(request: Any) -> list[Operand]:
    return [operand(request, "inputs"), operand(request, "weights"), operand(request, "bias", optional=True)]


def _wants_data(options: ms.ForwardOptions) -> bool:
    return options.return_data or not options.keep


async def _elements(session: Session, output: Any) -> memoryview:
    """The elements of an output: those it is, or those of a tensor."""
    if isinstance(output, memoryview):
        return output
    if streams.runs_apart(output):
        # This thread must not wait for the device; what it gets here has arrived.
        output = (await session.run(lambda store: inspect.stage(store, output))).data
        return memoryview(output)
    return bytes_of(output).data
