"""For every RPC that names something: what is another's is answered as what never was, and stays as it is.

Which RPCs those are is read from the contract; one without an example here fails.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tests.models.networks import by_value, create, forward, relu_mlp
from tests.support.raw import Raw
from tests.support.refusals import parse
from tests.support.values import tensor_data
from tests.trust.principals import Server, oip, serving_principals
from tserver.front import routing
from tserver.front.oip.listener import SERVICE as OIP

ROWS = torch.arange(8, dtype=torch.float32).reshape(2, 4)
NETWORK = relu_mlp((4, 2))
SHM = Path("/dev/shm")


@dataclass(frozen=True)
class Held:
    """What a request names."""

    session: bytes = b""
    tensor: int = 0
    model: str = "net"
    name: str = "kept"
    region: str = "r"

    @property
    def context(self) -> dict[str, Any]:
        """In whose name."""
        return {"session": self.session}

    @property
    def ref(self) -> pb.Ref:
        """The tensor."""
        return pb.Ref(id=self.tensor)

    @property
    def batch(self) -> pb.Batch:
        """The tensor in a batch, which writes to it."""
        call = pb.Call(id=0, operation=0, args=[pb.Value(ref=self.ref)])
        return pb.Batch(seq=1, define_operations=["Tensor.zero_"], calls=[call])

    @property
    def operand(self) -> ms.Operand:
        """The tensor as that of a model."""
        return ms.Operand(tensor=self.ref)

    @property
    def shared(self) -> dict[str, Any]:
        """The region as the place of a tensor."""
        size = ROWS.nbytes
        return {"shared_memory_region": {"string_param": self.region}, "shared_memory_byte_size": {"int64_param": size}}


HEADER = {"id": 77, "dtype": pb.D_TYPE_FLOAT32, "shape": [2]}
LAST = ms.Operand(data=tensor_data(torch.ones(4)))

# By the RPC, the messages of a request that a caller could make of what it holds.
Example = Callable[[Held], "dict[str, Any] | list[dict[str, Any]]"]
EXAMPLES: dict[str, Example] = {
    "CloseSession": lambda of: {"session": of.session},
    "AttachSession": lambda of: {"session": of.session, "attempt": bytes(16), "min_protocol": 1, "max_protocol": 1},
    "GetSessionProgress": lambda of: {"session": of.session},
    "CancelSession": lambda of: {"session": of.session},
    "Execute": lambda of: {"session": of.session, "batch": of.batch},
    "ExecuteStream": lambda of: [{"session": of.session, "batch": of.batch}],
    "CreateTensor": lambda of: {"context": of.context, "ones": {}, "shape": [2]},
    "Reshape": lambda of: {"context": of.context, "input": of.ref, "shape": [8]},
    "Transpose": lambda of: {"context": of.context, "input": of.ref, "dim0": 0, "dim1": 1},
    "Permute": lambda of: {"context": of.context, "input": of.ref, "dims": [1, 0]},
    "Add": lambda of: {"context": of.context, "input": of.ref, "other": of.ref, "in_place": True},
    "ToDevice": lambda of: {"context": of.context, "input": of.ref, "dtype": pb.D_TYPE_FLOAT64},
    "GetTensor": lambda of: {"context": of.context, "tensor": of.ref, "include_data": True},
    "ListTensors": lambda of: {"context": of.context},
    "FreeTensors": lambda of: {"context": of.context, "tensors": [of.ref]},
    "Upload": lambda of: [{"header": {"context": of.context, **HEADER}}, {"chunk": bytes(8)}],
    "Download": lambda of: {"context": of.context, "tensor": of.ref},
    "OpenTransfer": lambda of: {"download": {"context": of.context, "tensor": of.ref}},
    "OpenTransfer upload": lambda of: {"upload": {"context": of.context, **HEADER}},
    "OpenTransfer connection": lambda of: {"connection": of.context},
    "OpenTransfer lane": lambda of: {"lane": of.context},
    "OpenTransfer forwards": lambda of: {"forwards": of.context},
    "OpenTransfer receive": lambda of: {"receive": {"context": of.context, "uploads": [HEADER]}},
    "SendTensors": lambda of: {"context": of.context, "tensors": [of.ref], "key": bytes(32), "size_bytes": 32},
    "NeuronForward": lambda of: {"context": of.context, "inputs": of.operand, "weights": LAST},
    "LayerForward": lambda of: {"context": of.context, "inputs": of.operand, "weight": by_value(ROWS)},
    "PerceptronForward": lambda of: {"context": of.context, "inputs": of.operand, "weights": LAST},
    "MlpForward": lambda of: {"context": of.context, "name": of.model, "inputs": of.operand},
    "MlpForward by value": lambda of: {"context": of.context, "name": of.model, "inputs": by_value(ROWS)},
    "MlpForward once": lambda of: {"context": {**of.context, "seq": 1}, "name": of.model, "inputs": of.operand},
    "MlpForwardStream": lambda of: [{"calls": [{"id": 1, "name": of.model, "inputs": tensor_data(ROWS)}]}],
    "ModelForward": lambda of: {"context": of.context, "name": of.model, "inputs": [_named(of.operand)]},
    "ModelForward by value": lambda of: {"context": of.context, "name": of.model, "inputs": [_named(by_value(ROWS))]},
    "ModelForwardStream": lambda of: [
        {"calls": [{"id": 1, "name": of.model, "tensors": [{"name": "input", "data": tensor_data(ROWS)}]}]}
    ],
    "CreateModel": lambda of: {"context": of.context, "name": "made", "program": _program(), "weights": [of.operand]},
    "CreateMlp": lambda of: {"context": of.context, "name": "made", "layers": [_layer(of.operand)]},
    "UpdateMlp": lambda of: {"context": of.context, "name": of.model, "batching": {"max_batch_size": 3}},
    "DescribeMlp": lambda of: {"context": of.context, "name": of.model},
    "ListMlps": lambda of: {"context": of.context},
    "UnloadMlp": lambda of: {"context": of.context, "name": of.model},
    "LoadMlp": lambda of: {"context": of.context, "name": of.model},
    "DeleteMlp": lambda of: {"context": of.context, "name": of.model},
    "DownloadMlp": lambda of: {"context": of.context, "name": of.model},
    "GetMlpStatistics": lambda of: {"context": of.context, "name": of.model},
    "Keep": lambda of: {"context": of.context, "name": "mine", "tensors": [{"name": "x", "tensor": of.ref}]},
    "Recall": lambda of: {"context": of.context, "name": of.name},
    "Checkpoint": lambda of: {"context": of.context, "name": "mine"},
    "Resume": lambda of: {"context": of.context, "name": of.name},
    "ListNames": lambda of: {"context": of.context},
    "Forget": lambda of: {"context": of.context, "name": of.name},
    "ModelReady": lambda of: {"name": of.model},
    "ModelMetadata": lambda of: {"name": of.model},
    "ModelConfig": lambda of: {"name": of.model},
    "ModelStatistics": lambda of: {"name": of.model},
    "TraceSetting": lambda of: {"model_name": of.model},
    "ModelInfer": lambda of: {"model_name": of.model, "inputs": [_shared_input(of)]},
    "ModelInfer outputs": lambda of: {
        "model_name": of.model,
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [2, 4]}],
        "raw_input_contents": [ROWS.numpy().tobytes()],
        "outputs": [{"name": "output", "parameters": of.shared}],
    },
    "ModelStreamInfer": lambda of: [{"model_name": of.model, "inputs": [_shared_input(of)]}],
    "RepositoryModelLoad": lambda of: {"model_name": of.model},
    "RepositoryModelUnload": lambda of: {"model_name": of.model},
    "SystemSharedMemoryStatus": lambda of: {"name": of.region},
    "SystemSharedMemoryUnregister": lambda of: {"name": of.region},
}
# What an RPC makes has a name that is the caller's own; and what is not served names nothing.
_CONNECTIONS = ("connection", "lane", "forwards")
_MAKES = {"CreateModel", "CreateMlp", "Keep", "Checkpoint", "SystemSharedMemoryRegister"}
_NOT_SERVED = {"CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"}
# Examples whose tensors are not there yet.
_MAKES_TENSORS = {"CreateTensor", *(f"OpenTransfer {kind}" for kind in ("upload", "receive", *_CONNECTIONS))}
# Those that are numbered.
_NEED_A_SESSION = {"Execute", "ExecuteStream", "MlpForward once"}
_INFERS = {"ModelInfer", "ModelStreamInfer"}

METHODS: dict[str, MethodDescriptor] = {
    method.name: method for service in routing.SERVICES for method in service.methods
}


def _named(operand: ms.Operand) -> ms.NamedOperand:
    return ms.NamedOperand(name="input", operand=operand)


def _layer(weight: ms.Operand) -> ms.LayerSpec:
    return ms.LayerSpec(in_features=4, out_features=2, weight=weight)


def _program() -> ms.ServedProgram:
    spec = ms.TensorSpec(name="x", dtype=pb.D_TYPE_FLOAT32, dimensions=[ms.Dimension(size=2), ms.Dimension(size=4)])
    call = pb.Call(id=3, operation=0, args=[pb.Value(ref=pb.Ref(id=1)), pb.Value(ref=pb.Ref(id=2))])
    return ms.ServedProgram(
        inputs=[spec],
        outputs=[spec],
        weights=["w"],
        operations=["add"],
        program=pb.Program(inputs=2, calls=[call], result=pb.Value(ref=pb.Ref(id=3))),
    )


def _shared_input(of: Held) -> dict[str, Any]:
    return {"name": "input", "datatype": "FP32", "shape": [2, 4], "parameters": of.shared}


def method_of(example: str) -> MethodDescriptor:
    return METHODS[example.split(maxsplit=1)[0]]


def fields_of(message: Descriptor, above: tuple[Descriptor, ...] = ()) -> Iterator[tuple[str, str]]:
    """All fields within a message: of which message each is, and its name."""
    for field in message.fields:
        yield message.full_name, field.name
        if field.message_type is not None and field.message_type not in (*above, message):
            yield from fields_of(field.message_type, (*above, message))


def is_named(method: MethodDescriptor, what: str) -> bool:
    """Whether requests of an RPC name such a thing."""
    fields = set(fields_of(method.input_type))
    messages = {message for message, _ in fields}
    if method.name in _NOT_SERVED:
        return False
    if what == "session":
        return bool(list(routing._secrets(method.input_type)))
    if what == "tensor":
        return pb.Ref.DESCRIPTOR.full_name in messages
    is_model = routing.ROUTINGS[f"/{method.containing_service.full_name}/{method.name}"]._name is not None
    if what == "model":
        return is_model and method.name not in _MAKES
    if what == "region":
        shared = method.name.startswith("SystemSharedMemory") and method.name not in _MAKES
        return shared or method.name in _INFERS
    own = {name for _, name in fields if _ == method.input_type.full_name}
    return "name" in own and not is_model and method.name not in _MAKES and method.containing_service is not OIP


WHAT = ("session", "tensor", "model", "name", "region")
CASES = {what: [each for each in EXAMPLES if is_named(method_of(each), what)] for what in WHAT}
CASES["tensor"] = [each for each in CASES["tensor"] if each not in _MAKES_TENSORS]


def test_every_rpc_that_names_something_has_an_example() -> None:
    named = {name for name, method in METHODS.items() if any(is_named(method, what) for what in WHAT)}
    assert named <= {example.split()[0] for example in EXAMPLES}
    # What the test itself may be wrong about: fields that lead to what belongs to somebody.
    kinds = {"session", "tensor", "tensors", "input", "inputs", "weights", "weight", "name", "model_name", "names"}
    silent = {name for name, method in METHODS.items() if name not in named}
    leads = {name for name in silent if any(field in kinds for _, field in fields_of(METHODS[name].input_type))}
    assert leads == _NOT_SERVED | {"SystemSharedMemoryRegister"}


def ask(raw: Raw, example: str, of: Held) -> tuple[object, ...]:
    """What a request is answered: the status and all that it tells, or the responses."""
    method = method_of(example)
    made = EXAMPLES[example](of)
    kind = GetMessageClass(method.input_type)
    requests: Sequence[Message] = [kind(**each) for each in (made if isinstance(made, list) else [made])]
    multi = raw.channel.stream_stream(
        f"/{method.containing_service.full_name}/{method.name}", None, GetMessageClass(method.output_type).FromString
    )
    try:
        answers = list(multi(iter([each.SerializeToString() for each in requests]), 20.0))
    except grpc.RpcError as error:
        if method.containing_service is OIP:
            failed: Any = error
            return (failed.code(), _plain(failed.details() or "", of))
        told = parse(error)
        return (told.code, told.reason, _plain(told.message, of), tuple(sorted(told.metadata.items())))
    return tuple(_plain(str(answer), of) for answer in answers)


def _plain(text: str, of: Held) -> str:
    """A text without what was asked for, which the caller has said itself."""
    text = text.replace("\\", "")
    for said, stands in ((of.model, "MODEL"), (of.name, "NAME"), (of.region, "REGION")):
        text = text.replace(f"'{said}'", stands).replace(f'"{said}"', stands)
    return re.sub(rf"\b{of.tensor}\b", "ID", text) if of.tensor else text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows its callers."""
    with serving_principals(tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture(scope="module")
def shm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A shared memory object of alice's."""
    path = SHM / f"tserver-owned-{secrets.token_hex(4)}"
    path.write_bytes(ROWS.numpy().tobytes() * 2)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def alice(server: Server, shm: Path) -> tuple[Raw, Held]:
    """Who has a tensor without a session, a model, a name and a region."""
    raw = server.raw("alice")
    tensor = raw.create(data=tensor_data(ROWS)).id.id
    create(raw, "net", NETWORK)
    kind = GetMessageClass(METHODS["Keep"].input_type)
    request = kind(name="kept", tensors=[{"name": "x", "tensor": pb.Ref(id=tensor)}])
    path = f"/{METHODS['Keep'].containing_service.full_name}/Keep"
    raw.channel.unary_unary(path)(request.SerializeToString(), 20.0)
    oip(raw, "SystemSharedMemoryRegister", name="r", key=f"/{shm.name}", byte_size=2 * ROWS.nbytes)
    return raw, Held(b"", tensor)


def check_whole(alice: tuple[Raw, Held], shm: Path) -> None:
    """All that alice has is as it was."""
    raw, held = alice
    assert torch.equal(raw.get(held.ref), ROWS)
    torch.testing.assert_close(forward(raw, "net", ROWS), NETWORK(ROWS))
    assert raw.ask("DescribeMlp", name="net").mlp.batching.max_batch_size == 1024
    assert [each.name for each in oip(raw, "SystemSharedMemoryStatus").regions.values()] == ["r"]
    assert shm.read_bytes() == ROWS.numpy().tobytes() * 2
    assert "kept" in str(ask(raw, "ListNames", held)).replace("NAME", "kept")


@pytest.mark.parametrize("example", CASES["session"])
def test_a_session_of_another_s_never_was(server: Server, example: str) -> None:
    bob = server.raw("bob")
    with server.raw("alice").open_session() as session:
        session.create(data=tensor_data(ROWS))
        tensor = session.ask("ListTensors").tensors[0].id.id
        never = session.secret[:8] + secrets.token_bytes(16)
        answers = [ask(bob, example, Held(secret, tensor)) for secret in (session.secret, never)]
        assert answers[0] == answers[1]
        assert answers[0][:2] == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        assert torch.equal(session.get(pb.Ref(id=tensor)), ROWS)
        assert session.held() == (1, ROWS.nbytes)
        # That the request is one which reaches a session.
        own = ask(server.raw("alice"), example, Held(session.secret, tensor))
        assert own[0] is not grpc.StatusCode.UNAUTHENTICATED
        secret = session.secret
    assert ask(bob, example, Held(secret, tensor)) == answers[1]


@pytest.mark.parametrize(
    ("example", "in_session"),
    [
        *(pytest.param(each, False, id=each) for each in CASES["tensor"] if each not in _NEED_A_SESSION),
        *(pytest.param(each, True, id=f"{each}, from a session") for each in CASES["tensor"]),
    ],
)
def test_a_tensor_of_another_s_is_not_there(
    server: Server, alice: tuple[Raw, Held], shm: Path, example: str, in_session: bool
) -> None:
    raw = server.raw("bob")
    create(raw, "net", NETWORK)
    try:
        held = alice[1]
        answers = []
        for tensor in (held.tensor, held.tensor + 1_000_000):
            if in_session:
                with raw.open_session() as session:
                    answers.append(ask(session, example, replace(held, session=session.secret, tensor=tensor)))
            else:
                answers.append(ask(raw, example, replace(held, tensor=tensor)))
        assert answers[0] == answers[1]
    finally:
        raw.ask("DeleteMlp", name="net")
    check_whole(alice, shm)


@pytest.mark.parametrize("example", CASES["model"])
def test_a_model_of_another_s_is_not_there(server: Server, alice: tuple[Raw, Held], shm: Path, example: str) -> None:
    raw = server.raw("bob")
    tensor = raw.create(data=tensor_data(ROWS)).id.id
    answers = []
    for model in ("net", "never"):
        with raw.open_session() as session:
            session.create(data=tensor_data(ROWS))
            own = session.ask("ListTensors").tensors[0].id.id
            answers += [ask(raw, example, replace(alice[1], session=session.secret, tensor=own, model=model))]
        answers += [ask(raw, example, replace(alice[1], tensor=tensor, model=model))]
    assert answers[:2] == answers[2:]
    assert "no network is named MODEL" in str(answers) or answers[0] == ("",), answers
    check_whole(alice, shm)


@pytest.mark.parametrize("example", CASES["name"])
def test_a_name_of_another_s_is_not_there(server: Server, alice: tuple[Raw, Held], shm: Path, example: str) -> None:
    raw = server.raw("bob")
    answers = [ask(raw, example, replace(alice[1], tensor=0, name=name)) for name in ("kept", "never")]
    assert answers[0] == answers[1]
    assert answers[0][0] is grpc.StatusCode.NOT_FOUND
    check_whole(alice, shm)


@pytest.mark.parametrize("example", CASES["region"])
def test_a_region_of_another_s_is_not_registered(
    server: Server, alice: tuple[Raw, Held], shm: Path, example: str
) -> None:
    raw = server.raw("bob")
    create(raw, "net", NETWORK)
    try:
        answers = [ask(raw, example, replace(alice[1], tensor=0, region=region)) for region in ("r", "never")]
    finally:
        raw.ask("DeleteMlp", name="net")
    assert answers[0] == answers[1]
    assert "no region of shared memory is registered as REGION" in str(answers) or answers[0] == ("",)
    check_whole(alice, shm)
