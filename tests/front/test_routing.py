"""Whom a request names: read for each RPC, and compared with what the contract says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.front.routing import ROUTINGS, SERVICES, Named

SECRET = bytes(range(24))
METHODS = {f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods}
TENSORS, MODELS, NAMES, OIP = (f"/{service.full_name}/" for service in SERVICES)
# Uploads that another server brings: the contract says that the context of each is not used.
UNUSED = {("receive", "uploads", "context", "session")}
NO_MODEL = {"ServerLive", "ServerReady", "ServerMetadata", "RepositoryIndex", "LogSettings"}
Path = tuple[FieldDescriptor, ...]


def fields_of(message: Descriptor, above: Path = ()) -> Iterator[Path]:
    """All fields of a message, and of those within it, however they are repeated."""
    for field in message.fields:
        path = (*above, field)
        yield path
        if field.message_type is not None and field.message_type not in [one.containing_type for one in path]:
            yield from fields_of(field.message_type, path)


def with_value(method: MethodDescriptor, path: Path, value: object) -> Any:
    """A request with a value at a place of it."""
    request = found = GetMessageClass(method.input_type)()
    for field in path[:-1]:
        found = getattr(found, field.name)
        if field.is_repeated:
            found = found.add()
    setattr(found, path[-1].name, value)
    return request


def with_name(request: Any) -> Any:
    """The request of something that may have a name without being a model."""
    if "name" in request.DESCRIPTOR.fields_by_name:
        request.name = "digits"
    return request


def test_every_rpc_has_a_routing() -> None:
    assert set(ROUTINGS) == set(METHODS)


@pytest.mark.parametrize("path", METHODS)
def test_the_secret_is_found_wherever_a_request_has_one(path: str) -> None:
    places = [place for place in fields_of(METHODS[path].input_type) if place[-1].name == "session"]
    for place in places:
        if tuple(field.name for field in place) in UNUSED:
            continue
        assert place[-1].type == FieldDescriptor.TYPE_BYTES
        request = with_value(METHODS[path], place, SECRET)
        assert ROUTINGS[path].secret(request.SerializeToString()) == SECRET, [field.name for field in place]
    assert ROUTINGS[path].secret(b"") is None


def test_the_rpcs_that_name_no_session_are_known() -> None:
    without = {
        path
        for path, method in METHODS.items()
        if not any(place[-1].name == "session" for place in fields_of(method.input_type))
    }
    assert {path for path in without if not path.startswith(OIP)} == {
        f"{TENSORS}OpenSession",
        f"{TENSORS}ListSessions",
        f"{TENSORS}ListSessionTensors",
        f"{TENSORS}GetServerInfo",
        f"{MODELS}MlpForwardStream",
        f"{MODELS}ModelForwardStream",
    }


@pytest.mark.parametrize("path", [path for path in METHODS if path.startswith(MODELS)])
def test_the_model_is_found_wherever_a_request_names_one(path: str) -> None:
    names = ("NeuronForward", "LayerForward", "PerceptronForward", "ListMlps")
    if METHODS[path].name in names:
        assert ROUTINGS[path].model(b"") is None
        return
    request: Any = GetMessageClass(METHODS[path].input_type)()
    named = request if METHODS[path].name not in {"MlpForwardStream", "ModelForwardStream"} else request.calls.add()
    named.name, named.version = "digits", 7
    assert ROUTINGS[path].model(request.SerializeToString()) == ("digits", 7)


@pytest.mark.parametrize("path", [path for path in METHODS if path.startswith(OIP)])
def test_the_model_is_found_in_requests_of_the_open_inference_protocol(path: str) -> None:
    names_none = "SharedMemory" in path or METHODS[path].name in NO_MODEL
    fields = METHODS[path].input_type.fields_by_name
    request: Any = GetMessageClass(METHODS[path].input_type)()
    if names_none:
        assert ROUTINGS[path].model(with_name(request).SerializeToString()) is None
        return
    prefix = "model_" if "model_name" in fields else ""
    setattr(request, f"{prefix}name", "digits")
    has_version = f"{prefix}version" in fields
    if has_version:
        setattr(request, f"{prefix}version", "7")
    assert ROUTINGS[path].model(request.SerializeToString()) == ("digits", 7 if has_version else 0)


@pytest.mark.parametrize("version", ["", "-1", "x", "٣", "9" * 30], ids=repr)
def test_a_version_that_is_no_number_is_left_to_the_engine(version: str) -> None:
    path = f"{OIP}ModelReady"
    request = GetMessageClass(METHODS[path].input_type)(name="digits", version=version)
    assert ROUTINGS[path].model(request.SerializeToString()) == ("digits", 0)


def test_of_many_models_the_first_one_counts() -> None:
    request = ms.MlpForwardStreamRequest(calls=[ms.MlpForwardCall(name="a", version=1), ms.MlpForwardCall(name="b")])
    assert ROUTINGS[f"{MODELS}MlpForwardStream"].read(request.SerializeToString()) == Named(b"", "a", 1)


def test_a_secret_stands_beside_a_model_and_beside_what_is_large() -> None:
    inputs = ms.Operand(data=pb.TensorData(data=bytes(1 << 20)))
    request = ms.MlpForwardRequest(context={"session": SECRET, "seq": 9}, name="digits", inputs=inputs)
    assert ROUTINGS[f"{MODELS}MlpForward"].read(request.SerializeToString()) == Named(SECRET, "digits", 0)


def parts(*messages: Message) -> bytes:
    """Messages of one kind as one, which protobuf takes for their merger."""
    return b"".join(message.SerializeToString() for message in messages)


@pytest.mark.parametrize(
    "message",
    [
        parts(
            ts.AddRequest(context=ts.SessionContext(session=b"another")),
            ts.AddRequest(in_place=True),
            ts.AddRequest(context=ts.SessionContext(session=SECRET)),
            ts.AddRequest(context=ts.SessionContext(seq=3)),
        ),
        ts.AddRequest(in_place=True).SerializeToString()
        + ts.AddRequest(context=ts.SessionContext(session=SECRET)).SerializeToString()
        + b"\xf8\x7f\x01",
    ],
    ids=["said twice", "behind others, before an unknown field"],
)
def test_messages_that_are_odd_are_read_as_an_engine_reads_them(message: bytes) -> None:
    assert ts.AddRequest.FromString(message).context.session == SECRET
    assert ROUTINGS[f"{TENSORS}Add"].secret(message) == SECRET


def test_of_a_oneof_the_last_one_counts() -> None:
    mine, other = ts.SessionContext(session=SECRET), ts.SessionContext(session=b"another")
    message = parts(ts.OpenTransferRequest(lane=other), ts.OpenTransferRequest(connection=mine))
    assert ROUTINGS[f"{TENSORS}OpenTransfer"].secret(message) == SECRET
    message = parts(ts.UploadRequest(header=ts.UploadHeader(context=other)), ts.UploadRequest(chunk=b"x"))
    assert ROUTINGS[f"{TENSORS}Upload"].secret(message) is None


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\x7f", b"\x0b"], ids=repr)
@pytest.mark.parametrize("path", METHODS)
def test_what_is_no_message_names_nobody(path: str, message: bytes) -> None:
    assert ROUTINGS[path].read(message) == Named()


def test_what_is_no_message_within_another_names_nobody() -> None:
    assert ROUTINGS[f"{TENSORS}Add"].read(b"\x0a\x02\x0a\x05") == Named()
