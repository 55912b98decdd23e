"""The protocol itself, by hand: what Triton's client never sends, what is allowed and to whom, and restarts."""

from __future__ import annotations

import itertools
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from torch import nn

from tensorcompute.oip import inference_pb2 as oip_pb
from tensorcompute.v1 import model_service_pb2 as ms
from tests.models.networks import create, forward, relu_mlp
from tests.support.listeners import listener
from tests.support.raw import Raw
from tests.support.refusals import refused
from tests.support.serving import ServerProcess, serving, wait_until
from tserver.front.authentication import is_loopback

Code = grpc.StatusCode
Kept = tuple[str, nn.Sequential]
SERVICE = oip_pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
ROW = [0.5, -1.0, 2.0, 0.25]


def ask(channel: Any, method: str, request: Any = None, **fields: Any) -> Any:
    """Call an RPC with a message, its bytes, or its fields."""
    rpc = SERVICE.methods_by_name[method]
    if request is None:
        request = GetMessageClass(rpc.input_type)(**fields)
    data = request if isinstance(request, bytes) else request.SerializeToString()
    respond = GetMessageClass(rpc.output_type).FromString
    return channel.unary_unary(f"/{SERVICE.full_name}/{method}", None, respond)(data, timeout=20)


def infer_request(model: str, *, raw: bytes | None = None, **contents: Any) -> oip_pb.ModelInferRequest:
    """A request of one row, with its elements raw or typed."""
    request = oip_pb.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="input", datatype="FP32", shape=(1, 4))
    if contents:
        tensor.contents.CopyFrom(oip_pb.InferTensorContents(**contents))
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


def output_of(response: oip_pb.ModelInferResponse) -> torch.Tensor:
    """The one output, which is raw."""
    assert len(response.raw_output_contents) == len(response.outputs) == 1
    assert not response.outputs[0].HasField("contents")
    values = struct.unpack(f"<{response.outputs[0].shape[1]}f", response.raw_output_contents[0])
    return torch.tensor([values])


def test_typed_contents_are_taken_and_the_answer_is_raw(oip: Any, kept: Kept) -> None:
    response = ask(oip, "ModelInfer", infer_request(kept[0], fp32_contents=ROW))
    torch.testing.assert_close(output_of(response), kept[1](torch.tensor([ROW])))


def test_typed_doubles_are_taken(oip: Any, keep: Callable[..., Kept]) -> None:
    name, network = keep(4, 3, dtype=torch.float64)
    request = infer_request(name, fp64_contents=ROW)
    request.inputs[0].datatype = "FP64"
    response = ask(oip, "ModelInfer", request)
    values = struct.unpack("<3d", response.raw_output_contents[0])
    torch.testing.assert_close(torch.tensor([values], dtype=torch.float64), network(torch.tensor([ROW]).double()))


def test_an_id_of_any_text_comes_back(oip: Any, kept: Kept) -> None:
    request = infer_request(kept[0], fp32_contents=ROW)
    request.id = "ø" * 500
    assert ask(oip, "ModelInfer", request).id == request.id


def with_parameter(key: str, **value: Any) -> Callable[[oip_pb.ModelInferRequest], None]:
    return lambda request: request.parameters[key].CopyFrom(oip_pb.InferParameter(**value))


def in_region(region: str, **sizes: int) -> Callable[[oip_pb.ModelInferRequest], None]:
    def change(request: oip_pb.ModelInferRequest) -> None:
        parameters = request.inputs[0].parameters
        parameters["shared_memory_region"].string_param = region
        for key, size in sizes.items():
            parameters[f"shared_memory_{key}"].int64_param = size

    return change


def typed(request: oip_pb.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.extend(ROW)


def second_input(request: oip_pb.ModelInferRequest) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])


def without_inputs(request: oip_pb.ModelInferRequest) -> None:
    del request.inputs[:]


def without_elements(request: oip_pb.ModelInferRequest) -> None:
    del request.raw_input_contents[:]


def integers(request: oip_pb.ModelInferRequest) -> None:
    without_elements(request)
    request.inputs[0].contents.int_contents.extend([1, 2, 3, 4])


def too_few(request: oip_pb.ModelInferRequest) -> None:
    without_elements(request)
    request.inputs[0].contents.fp32_contents.extend(ROW[:3])


def second_raw(request: oip_pb.ModelInferRequest) -> None:
    request.raw_input_contents.append(b"")


def classify(request: oip_pb.ModelInferRequest) -> None:
    request.outputs.add(name="output").parameters["classification"].int64_param = 2


REFUSED: dict[str, tuple[Callable[[oip_pb.ModelInferRequest], None], grpc.StatusCode, str]] = {
    "raw and typed": (typed, Code.INVALID_ARGUMENT, "contents"),
    "no elements": (without_elements, Code.INVALID_ARGUMENT, "0 entries"),
    "elements of two inputs": (second_raw, Code.INVALID_ARGUMENT, "2 entries"),
    "typed in a wrong field": (integers, Code.INVALID_ARGUMENT, "fp32_contents"),
    "typed and too few": (too_few, Code.INVALID_ARGUMENT, "12 bytes"),
    "an input twice": (second_input, Code.INVALID_ARGUMENT, "exactly one"),
    "no input": (without_inputs, Code.INVALID_ARGUMENT, "exactly one"),
    "classification": (classify, Code.UNIMPLEMENTED, "classification"),
    "an unknown parameter of Triton's": (
        with_parameter("triton_secret", bool_param=True),
        Code.INVALID_ARGUMENT,
        "triton_secret",
    ),
    "a priority that is text": (with_parameter("priority", string_param="1"), Code.INVALID_ARGUMENT, "priority"),
    "a negative timeout": (with_parameter("timeout", int64_param=-1), Code.INVALID_ARGUMENT, "timeout"),
    "a region that is not there": (in_region("nowhere", byte_size=16), Code.NOT_FOUND, "nowhere"),
    "a size without a region": (
        lambda request: (
            request.inputs[0].parameters["shared_memory_byte_size"].MergeFrom(oip_pb.InferParameter(int64_param=16))
        ),
        Code.INVALID_ARGUMENT,
        "shared_memory_region",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_request_that_contradicts_itself_is_refused(oip: Any, kept: Kept, case: tuple[Any, Code, str]) -> None:
    change, code, naming = case
    request = infer_request(kept[0], raw=struct.pack("<4f", *ROW))
    change(request)
    with refused(code, naming=naming):
        ask(oip, "ModelInfer", request)


ACCEPTED = {
    "the flag of perf_analyzer": with_parameter("triton_enable_empty_final_response", bool_param=True),
    "a priority as int64": with_parameter("priority", int64_param=1),
    "a priority that is none": with_parameter("priority", uint64_param=(1 << 64) - 1),
    "a sequence": with_parameter("sequence_id", uint64_param=0),
    "parameters of one's own": with_parameter("colour", string_param="blue"),
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_parameters_of_the_protocol_are_accepted(oip: Any, kept: Kept, change: Any) -> None:
    request = infer_request(kept[0], raw=struct.pack("<4f", *ROW))
    change(request)
    torch.testing.assert_close(output_of(ask(oip, "ModelInfer", request)), kept[1](torch.tensor([ROW])))


def streamed(channel: Any, requests: Any) -> Any:
    """The answers to requests on one stream."""
    respond = oip_pb.ModelStreamInferResponse.FromString
    return channel.stream_stream(f"/{SERVICE.full_name}/ModelStreamInfer", None, respond)(requests, timeout=20)


def test_a_stream_outlives_what_is_no_message(oip: Any, kept: Kept) -> None:
    request = infer_request(kept[0], fp32_contents=ROW)
    request.id = "good"
    first, second = streamed(oip, iter([b"\xff\xff", request.SerializeToString()]))
    assert "ModelInferRequest" in first.error_message
    assert (second.error_message, second.infer_response.id) == ("", "good")


def test_a_stream_without_requests_ends_well(oip: Any) -> None:
    assert list(streamed(oip, iter([]))) == []


def test_requests_of_a_stream_that_is_gone_leave_the_queue(oip: Any, raw: Raw, keep: Callable[..., Kept]) -> None:
    name, _ = keep(4, 3, batching=ms.BatchingConfig(max_queue_delay_us=30_000_000))

    def count(which: str) -> int:
        return int(getattr(raw.ask("GetMlpStatistics", name=name).statistics, which))

    request = infer_request(name, fp32_contents=ROW).SerializeToString()
    call = streamed(oip, iter([request] * 3))
    wait_until(lambda: count("waiting") == 3, 10.0, "the requests to wait")
    call.cancel()
    wait_until(lambda: count("cancelled") == 3, 10.0, "the requests to leave the queue")
    assert count("waiting") == 0


def test_a_stream_of_more_requests_than_are_taken_at_once_is_answered_in_order(oip: Any, kept: Kept) -> None:
    def requests() -> Iterator[bytes]:
        for number in range(1500):
            request = infer_request(kept[0], fp32_contents=ROW)
            request.id = str(number)
            yield request.SerializeToString()

    answers = [answer.infer_response.id for answer in streamed(oip, requests())]
    assert answers == [str(number) for number in range(1500)]


def test_answers_that_are_not_taken_hold_back_the_stream(
    oip: Any, raw: Raw, open_server: ServerProcess, keep: Callable[..., Kept]
) -> None:
    name, _ = keep(1, 50_000)
    request = infer_request(name, raw=bytes(4 * 100))
    request.inputs[0].shape[:] = (100, 1)  # 20 MB of outputs each
    seen: list[int] = []

    def stands() -> bool:
        seen.append(raw.ask("GetMlpStatistics", name=name).statistics.success.count)
        return seen[-1] > 0 and seen[-3:] == seen[-1:] * 3

    with grpc.insecure_channel(
        listener(open_server, "oip"), options=[("grpc.max_receive_message_length", -1)]
    ) as channel:
        call = streamed(channel, iter([request.SerializeToString()] * 60))
        wait_until(stands, 30.0, "the stream to stand", 0.3)
        assert seen[-1] < 20
        assert sum(1 for _ in itertools.islice(call, 60)) == 60


def test_a_caller_who_leaves_while_an_answer_is_sent_is_no_defect(
    oip: Any, raw: Raw, open_server: ServerProcess, keep: Callable[..., Kept]
) -> None:
    name, _ = keep(1, 50_000)
    request = infer_request(name, raw=bytes(4 * 100))
    request.inputs[0].shape[:] = (100, 1)
    before = sum("should not" in line for line in open_server.stderr)
    call = streamed(oip, iter([request.SerializeToString()] * 10))
    wait_until(lambda: raw.ask("GetMlpStatistics", name=name).statistics.success.count > 0, 20.0, "an answer")
    time.sleep(0.2)
    call.cancel()
    wait_until(lambda: ask(oip, "ServerReady").ready, 10.0, "the server to go on")
    time.sleep(0.2)
    assert sum("should not" in line for line in open_server.stderr) == before


def test_an_output_that_no_message_can_hold_is_refused_before_it_is_made(oip: Any, keep: Callable[..., Kept]) -> None:
    name, _ = keep(1, 1000, batching=ms.BatchingConfig(max_batch_size=1 << 20))
    request = infer_request(name, raw=bytes(4 * 600_000))
    request.inputs[0].shape[:] = (600_000, 1)
    with refused(Code.INVALID_ARGUMENT, naming="fewer rows"):
        ask(oip, "ModelInfer", request)


def test_what_is_no_message_is_refused(oip: Any) -> None:
    for method in ("ModelInfer", "ModelReady", "ModelConfig"):
        with refused(Code.INVALID_ARGUMENT):
            ask(oip, method, b"\xff\xff")


@pytest.fixture
def region(oip: Any) -> Iterator[Path]:
    """A shared memory object of 64 bytes, registered as "r"."""
    path = Path(f"/dev/shm/tserver-oip-{os.getpid()}")
    path.write_bytes(struct.pack("<4f", *ROW) + bytes(48))
    ask(oip, "SystemSharedMemoryRegister", name="r", key=path.name, byte_size=64)
    yield path
    ask(oip, "SystemSharedMemoryUnregister", name="r")
    path.unlink()


def shared_request(model: str, *, size: int = 16, offset: int = 0, output_size: int = 12) -> oip_pb.ModelInferRequest:
    """A request with its input and output in that region."""
    request = infer_request(model)
    in_region("r", byte_size=size, offset=offset)(request)
    parameters = request.outputs.add(name="output").parameters
    parameters["shared_memory_region"].string_param = "r"
    parameters["shared_memory_byte_size"].int64_param = output_size
    parameters["shared_memory_offset"].int64_param = 32
    return request


def test_an_output_in_shared_memory_is_told_with_an_empty_entry(oip: Any, kept: Kept, region: Path) -> None:
    response = ask(oip, "ModelInfer", shared_request(kept[0]))
    assert list(response.raw_output_contents) == [b""]
    assert response.outputs[0].parameters["shared_memory_region"].string_param == "r"
    found = torch.tensor([struct.unpack("<3f", region.read_bytes()[32:44])])
    torch.testing.assert_close(found, kept[1](torch.tensor([ROW])))
    assert region.read_bytes()[44:] == bytes(20)


SIZES: dict[str, tuple[dict[str, int], grpc.StatusCode]] = {
    "too large": ({"size": 65}, Code.INVALID_ARGUMENT),
    "an offset beyond": ({"offset": 64}, Code.INVALID_ARGUMENT),
    "a sum beyond 64 bits": ({"size": 16, "offset": (1 << 63) - 1}, Code.INVALID_ARGUMENT),
    "a negative size": ({"size": -1}, Code.INVALID_ARGUMENT),
    "not what the shape needs": ({"size": 12}, Code.INVALID_ARGUMENT),
    "no room for the output": ({"output_size": 11}, Code.INTERNAL),
}


@pytest.mark.parametrize("case", SIZES.values(), ids=SIZES.keys())
def test_sizes_in_shared_memory_are_checked(
    oip: Any, kept: Kept, region: Path, case: tuple[dict[str, int], Code]
) -> None:
    sizes, code = case
    with refused(code):
        ask(oip, "ModelInfer", shared_request(kept[0], **sizes))
    assert region.read_bytes()[16:] == bytes(48)


def test_a_region_larger_than_memory_is_not_read(oip: Any, kept: Kept, region: Path) -> None:
    with region.open("r+b") as hollow:
        hollow.truncate(1 << 45)
    ask(oip, "SystemSharedMemoryRegister", name="hollow", key=region.name, byte_size=1 << 45)
    request = infer_request(kept[0])
    in_region("hollow", byte_size=1 << 45)(request)
    try:
        with refused(Code.INVALID_ARGUMENT, naming=str(1 << 45)):
            ask(oip, "ModelInfer", request)
    finally:
        ask(oip, "SystemSharedMemoryUnregister", name="hollow")


def test_shared_memory_that_shrinks_fails_requests_and_not_the_server(oip: Any, kept: Kept, region: Path) -> None:
    os.truncate(region, 8)
    with refused(Code.INTERNAL, naming="smaller"):
        ask(oip, "ModelInfer", shared_request(kept[0]))
    assert ask(oip, "ServerReady").ready


def test_a_region_that_is_unregistered_serves_the_requests_that_use_it(
    oip: Any, raw: Raw, region: Path, keep: Callable[..., Kept]
) -> None:
    name, network = keep(4, 3, batching=ms.BatchingConfig(preferred_batch_size=[2], max_queue_delay_us=20_000_000))
    call = oip.unary_unary(f"/{SERVICE.full_name}/ModelInfer", None, oip_pb.ModelInferResponse.FromString)
    waiting = call.future(shared_request(name).SerializeToString(), timeout=20)
    wait_until(lambda: raw.ask("GetMlpStatistics", name=name).statistics.waiting == 1, 10.0, "the request to wait")
    ask(oip, "SystemSharedMemoryUnregister", name="r")
    assert not ask(oip, "SystemSharedMemoryStatus").regions
    ask(oip, "ModelInfer", infer_request(name, fp32_contents=ROW))
    assert list(waiting.result().raw_output_contents) == [b""]
    found = torch.tensor([struct.unpack("<3f", region.read_bytes()[32:44])])
    torch.testing.assert_close(found, network(torch.tensor([ROW])))


def test_elements_and_shared_memory_exclude_each_other(oip: Any, kept: Kept, region: Path) -> None:
    request = shared_request(kept[0])
    request.raw_input_contents.append(struct.pack("<4f", *ROW))
    with refused(Code.INVALID_ARGUMENT, naming="leave those out"):
        ask(oip, "ModelInfer", request)


PEERS = {
    "ipv4:127.0.0.1:5": True,
    "ipv4:127.9.9.9:5": True,
    "ipv6:%5B::1%5D:5": True,
    "ipv6:[::ffff:127.0.0.1]:5": True,
    "unix:/run/x": True,
    "ipv4:10.0.0.1:5": False,
    "ipv6:%5Bfe80::1%25eth0%5D:5": False,
    "ipv6:[::ffff:10.0.0.1]:5": False,
    "": False,
    "strange": False,
}


@pytest.mark.parametrize("peer", PEERS)
def test_only_this_machine_is_local(peer: str) -> None:
    assert is_loopback(peer) == PEERS[peer]


# --- a server that was told to allow nothing ---


@pytest.fixture(scope="module")
def plain_server() -> Iterator[ServerProcess]:
    with serving("--oip-listen", "127.0.0.1:0") as running:
        yield running


@pytest.fixture
def plain(plain_server: ServerProcess) -> Iterator[Any]:
    with grpc.insecure_channel(listener(plain_server, "oip")) as channel:
        yield channel


def test_loading_and_unloading_are_refused_unless_allowed(plain: Any, plain_server: ServerProcess) -> None:
    with Raw(plain_server.address) as raw:
        create(raw, "steady", relu_mlp((4, 3)))
        for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
            with refused(Code.PERMISSION_DENIED, naming="--oip-model-control"):
                ask(plain, method, model_name="steady")
        assert ask(plain, "ModelReady", name="steady").ready
        assert [each.state for each in ask(plain, "RepositoryIndex").models] == ["READY"]


def test_shared_memory_is_refused_unless_allowed(plain: Any) -> None:
    with refused(Code.PERMISSION_DENIED, naming="--oip-shared-memory"):
        ask(plain, "SystemSharedMemoryRegister", name="r", key="/r", byte_size=1)
    with refused(Code.PERMISSION_DENIED):
        ask(plain, "SystemSharedMemoryStatus")
    assert "system_shared_memory" not in ask(plain, "ServerMetadata").extensions


def test_there_is_one_repository_without_a_name(plain: Any) -> None:
    with refused(Code.INVALID_ARGUMENT, naming="other"):
        ask(plain, "RepositoryIndex", repository_name="other")


def test_the_listener_tells_its_health(plain: Any) -> None:
    stub: Any = health_pb2_grpc.HealthStub(plain)
    for service in ("", SERVICE.full_name):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_main_port_does_not_serve_the_protocol(plain_server: ServerProcess) -> None:
    with grpc.insecure_channel(plain_server.address) as channel, pytest.raises(grpc.RpcError) as told:
        ask(channel, "ServerLive")
    assert told.value.code() is Code.UNIMPLEMENTED


def test_the_listener_keeps_its_port_when_the_server_is_started_again(plain_server: ServerProcess) -> None:
    address = listener(plain_server, "oip")
    before = plain_server.engine_pid()
    os.kill(before, signal.SIGKILL)

    def is_back() -> bool:
        try:
            with grpc.insecure_channel(address) as channel:
                return bool(ask(channel, "ServerReady").ready)
        except grpc.RpcError:
            return False

    wait_until(is_back, 40.0, "the listener to come back", interval_s=0.2)
    assert plain_server.engine_pid() != before
    # Told once, not at each start.
    assert listener(plain_server, "oip") == address


def test_an_address_that_is_taken_is_told_and_nothing_starts(plain_server: ServerProcess) -> None:
    server = ServerProcess("--oip-listen", listener(plain_server, "oip"))
    assert server.wait(40.0) != 0
    assert "--oip-listen" in server.log()


BAD_ADDRESSES = {
    "no port": (("--oip-listen", "127.0.0.1"), "HOST:PORT"),
    "reachable from outside": (("--oip-listen", "0.0.0.0:0"), "--insecure"),
    "metrics reachable from outside": (("--metrics-listen", "[::]:0"), "--insecure"),
}


@pytest.mark.parametrize("case", BAD_ADDRESSES.values(), ids=BAD_ADDRESSES.keys())
def test_an_address_that_should_not_be_is_refused_at_once(case: tuple[tuple[str, str], str]) -> None:
    options, naming = case
    server = ServerProcess(*options)
    assert server.wait(20.0) != 0
    assert naming in server.log()


def test_batches_of_the_main_port_and_of_the_protocol_are_the_same(
    oip: Any, raw: Raw, keep: Callable[..., Kept]
) -> None:
    name, network = keep(4, 3, batching=ms.BatchingConfig(preferred_batch_size=[2], max_queue_delay_us=20_000_000))
    call = oip.unary_unary(f"/{SERVICE.full_name}/ModelInfer", None, oip_pb.ModelInferResponse.FromString)
    waiting = call.future(infer_request(name, fp32_contents=ROW).SerializeToString(), timeout=20)
    wait_until(lambda: raw.ask("GetMlpStatistics", name=name).statistics.waiting == 1, 10.0, "the request to wait")
    expected = network(torch.tensor([ROW]))
    torch.testing.assert_close(forward(raw, name, torch.tensor([ROW])), expected)
    torch.testing.assert_close(output_of(waiting.result()), expected)
    assert raw.ask("GetMlpStatistics", name=name).statistics.execution_count == 1
