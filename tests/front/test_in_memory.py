"""The services and a client in one process, without a socket: what holds over a wire holds there."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tests.models.networks import create, forward, relu_mlp
from tests.support.in_memory import InMemoryChannel, serving_in_memory
from tests.support.raw import Raw, RawSession, path_of
from tests.support.refusals import refused, status_of
from tests.support.values import Kept, tensor_of
from tserver.config import Config
from tserver.engine.engine import Engine

Code = grpc.StatusCode
ROWS = torch.arange(12, dtype=torch.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def channel() -> Iterator[InMemoryChannel]:
    """A channel to services in this process, whose settings of torch they leave alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "_prepare", lambda self: None)
        with serving_in_memory(Config(device="cpu")) as channel:
            yield channel


@pytest.fixture
def session(channel: InMemoryChannel) -> Iterator[RawSession]:
    with Raw("in memory", channel=channel).open_session() as session:
        yield session


def test_typed_calls_are_answered(session: RawSession) -> None:
    ones = session.create(ones={}, shape=[2, 3])
    added = session.ask("Add", input=ones.id, scalar=pb.Value(integer=2)).tensor
    assert torch.equal(session.get(added.id), torch.full((2, 3), 3.0))


def test_an_error_brings_its_status_and_its_details(session: RawSession) -> None:
    with refused(Code.NOT_FOUND, reason="UNKNOWN_ID", naming="id 7"):
        session.ask("Reshape", input=pb.Ref(id=7), shape=[1])


def test_what_is_no_message_is_refused(session: RawSession) -> None:
    with refused(Code.INVALID_ARGUMENT, naming="AddRequest"):
        session.send("Add", b"\xff")


def test_batches_are_answered_on_their_stream(session: RawSession) -> None:
    with session.stream() as stream:
        stream.send(session.batch(session.call(1, "ones", [2]), session.call(0, "Tensor.tolist", Kept(1))))
        assert stream.receive().clean().value() == [1.0, 1.0]
        stream.finish()


def test_bytes_go_up_and_come_down_in_chunks(session: RawSession) -> None:
    data = ROWS.numpy().tobytes()
    header = service_pb.UploadHeader(
        context=session.context(), dtype=pb.D_TYPE_FLOAT32, shape=[3, 4], create_tensor=True
    )
    uploaded = session.upload(header, [data[:20], data[20:]])
    assert uploaded.received_bytes == len(data)
    first, *chunks, last = session.download(uploaded.tensor.id, chunk_bytes=16)
    assert first.header.total_bytes == len(data)
    assert b"".join(message.chunk for message in chunks) == data
    assert len(chunks) == 3
    assert last.WhichOneof("part") == "trailer"


def test_a_model_serves_forward_passes(session: RawSession) -> None:
    network = relu_mlp((4, 5, 2))
    create(session, "in-memory", network)
    torch.testing.assert_close(forward(session, "in-memory", ROWS), network(ROWS))
    kept = session.ask("MlpForward", name="in-memory", inputs={"tensor": session.create(ones={}, shape=[1, 4]).id})
    torch.testing.assert_close(tensor_of(kept.output.data), network(torch.ones(1, 4)))


def test_a_method_that_is_not_there_is_unimplemented(channel: InMemoryChannel) -> None:
    assert status_of(lambda: channel.unary_unary("/nobody/Nothing")(b"")) is Code.UNIMPLEMENTED
    assert status_of(lambda: list(channel.stream_stream("/nobody/Nothing")(iter(())))) is Code.UNIMPLEMENTED


def test_a_deadline_and_a_cancellation_end_an_rpc(session: RawSession) -> None:
    method = session.channel.stream_stream(path_of("ExecuteStream"))
    first = service_pb.ExecuteStreamRequest(session=session.secret).SerializeToString()
    over = threading.Event()

    def requests() -> Iterator[bytes]:
        yield first
        over.wait(20.0)

    assert status_of(lambda: list(method(requests(), timeout=0.05))) is Code.DEADLINE_EXCEEDED
    call = method(requests())
    call.cancel()
    assert status_of(lambda: list(call)) is Code.CANCELLED
    over.set()


def test_a_call_may_be_a_future(session: RawSession) -> None:
    request = service_pb.GetServerInfoRequest().SerializeToString()
    method = session.channel.unary_unary(
        path_of("GetServerInfo"), response_deserializer=service_pb.GetServerInfoResponse.FromString
    )
    future = method.future(request)
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    assert future.result(20.0).torch_version == torch.__version__
    assert done.wait(20.0)
    response, call = method.with_call(request)
    assert response.max_protocol == 2
    assert call.code() is Code.OK
