"""Which device is chosen, and how its refusals and failures are told. The GPU is stood in for where there is none."""

from __future__ import annotations

import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine import device
from tserver.engine.batch_run import BatchRun
from tserver.engine.engine import Engine
from tserver.engine.executor import Executor
from tserver.engine.failures import DeviceFailure
from tserver.engine.object_store import ObjectStore
from tserver.engine.operations import Operation
from tserver.errors import InvalidArgument


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which torch sees two CUDA devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which torch sees none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("wish", "chosen"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_taken_when_there_is_one(wish: str, chosen: str) -> None:
    assert device.choose_device(wish) == torch.device(chosen)


@pytest.mark.parametrize("wish", ["auto", "cpu"])
@pytest.mark.usefixtures("no_gpu")
def test_the_cpu_is_taken_when_there_is_no_gpu(wish: str) -> None:
    assert device.choose_device(wish) == torch.device("cpu")


@pytest.mark.parametrize("wish", ["cuda", "cuda:3", "mps", "meta", "gpu", "", "cuda:-1", "cuda:x"])
@pytest.mark.usefixtures("no_gpu")
def test_a_device_that_is_not_there_is_refused_by_name(wish: str) -> None:
    with pytest.raises(InvalidArgument) as told:
        device.choose_device(wish)
    assert repr(wish) in told.value.message
    assert "cpu" in told.value.message


@pytest.mark.usefixtures("two_gpus")
def test_a_third_gpu_of_two_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="'cuda:2' is not there: torch sees 2"):
        device.choose_device("cuda:2")


@pytest.fixture
def store(engine: Engine) -> ObjectStore:
    """An empty store with all operations."""
    return engine.open_queue().store


@pytest.fixture
def gpu_store(store: ObjectStore) -> ObjectStore:
    """A store whose default device is not the CPU. The meta device stands in for a GPU: it is on every machine."""
    store.default_device = torch.device("meta")
    return store


def run(on: ObjectStore, executor: Executor, *calls: tuple[str, list[pb.Value], dict[str, pb.Value]]) -> pb.BatchReply:
    """Run calls as a batch, with the ids 1, 2, …"""
    batch = pb.Batch(seq=1, define_operations=[name for name, _, _ in calls])
    on.define(batch.define_operations, batch.define_contexts)
    for index, (_, args, kwargs) in enumerate(calls):
        call = batch.calls.add(id=index + 1, operation=len(on.operations) - len(calls) + index, args=args)
        for name, value in kwargs.items():
            call.kwargs.add(name=name, value=value)
    under_way = BatchRun(batch)
    assert executor.run(on, under_way, float("inf"))
    return pb.BatchReply.FromString(under_way.encoded_reply())


SIZE = pb.Value(size=pb.Size(dims=[2, 3]))


@pytest.mark.parametrize("name", ["ones", "zeros", "empty", "rand", "randn"])
def test_new_tensors_go_to_the_default_device_of_the_server(gpu_store: ObjectStore, name: str) -> None:
    reply = run(gpu_store, Executor(), (name, [SIZE], {}))
    assert reply.results[0].value.tensor.device == "meta"


def test_a_device_that_is_asked_for_is_taken_before_the_default(gpu_store: ObjectStore) -> None:
    reply = run(gpu_store, Executor(), ("ones", [SIZE], {"device": pb.Value(device="cpu")}))
    assert reply.results[0].value.tensor.device == "cpu"


def test_what_is_made_from_a_tensor_stays_where_that_is(gpu_store: ObjectStore) -> None:
    gpu_store.objects[7] = torch.ones(2)
    reply = run(gpu_store, Executor(), ("ones_like", [pb.Value(result=7)], {}))
    assert reply.results[0].value.tensor.device == "cpu"


def failing(error: Exception) -> Operation:
    """An operation that fails so."""

    def fail() -> None:
        raise error

    return Operation("fail", fail)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        MemoryError("no memory"),
        RuntimeError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["of the device", "of the host", "pinned", "of a library"],
)
def test_memory_that_ran_out_is_an_error_of_the_call(store: ObjectStore, error: Exception) -> None:
    store.operations.append(failing(error))
    batch = pb.Batch(seq=1, calls=[pb.Call(id=1)])
    under_way = BatchRun(batch)
    assert Executor().run(store, under_way, float("inf"))
    told = pb.BatchReply.FromString(under_way.encoded_reply()).results[0].error
    assert (told.reason, told.type, told.message) == ("OUT_OF_MEMORY", "OutOfMemoryError", str(error))


@pytest.mark.parametrize(
    "message",
    ["CUDA error: device-side assert triggered", "CUDA error: an illegal memory access was encountered"],
)
def test_a_device_that_cannot_go_on_ends_the_process(store: ObjectStore, message: str) -> None:
    store.operations.append(failing(RuntimeError(message)))
    under_way = BatchRun(pb.Batch(seq=1, calls=[pb.Call(id=1)]))
    with pytest.raises(DeviceFailure, match=message):
        Executor().run(store, under_way, float("inf"))


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: invalid configuration argument",
        "CUDA error: invalid device ordinal\nGPU device may be out of range, do you have enough GPUs?",
        "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`",
        "einsum(): invalid subscript given: CUDA error: device-side assert triggered",
    ],
    ids=["a launch", "a GPU that is not there", "a library", "a caller's own text"],
)
def test_what_the_device_refuses_is_an_error_of_the_call(store: ObjectStore, message: str) -> None:
    store.operations.append(failing(RuntimeError(message)))
    under_way = BatchRun(pb.Batch(seq=1, calls=[pb.Call(id=1)]))
    assert Executor().run(store, under_way, float("inf"))
    told = pb.BatchReply.FromString(under_way.encoded_reply()).results[0].error
    assert (told.reason, told.type, told.message) == ("OPERATION_FAILED", "RuntimeError", message)
