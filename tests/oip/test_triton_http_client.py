"""Triton's Python client for HTTP, unchanged, against this server. The oracle for outputs is torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tensorcompute.v1 import model_service_pb2 as ms
from tests.oip.test_triton_client import close, of_torch, one, rows
from tests.oip.triton import TIMEOUT_S, Array, Refusal, Triton
from tests.support.listeners import listener
from tests.support.serving import ServerProcess

Kept = tuple[str, nn.Sequential]
Keep = Callable[..., Kept]


@pytest.fixture
def triton(triton_http: Triton) -> Triton:
    """Triton's client for HTTP on that server."""
    return triton_http


# --- in the process of the client ---


def _input(array: Array, *, is_binary: bool = True) -> Any:
    import tritonclient.http
    from tritonclient.utils import np_to_triton_dtype

    made = tritonclient.http.InferInput("input", array.shape, np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, binary_data=is_binary)
    return made


def infer(
    client: Any, model: str, array: Array, ways: tuple[bool, bool | None], options: dict[str, Any]
) -> tuple[Array, dict[str, Any]]:
    """The output and the response: whether the input goes as bytes, and whether the output does (None: not named)."""
    import tritonclient.http

    outputs = None
    if ways[1] is not None:
        outputs = [tritonclient.http.InferRequestedOutput("output", binary_data=ways[1])]
    result = client.infer(model, [_input(array, is_binary=ways[0])], outputs=outputs, **options)
    return result.as_numpy("output"), result.get_response()


def infer_at_once(client: Any, model: str, arrays: Sequence[Array]) -> list[Array]:
    """The outputs of requests that are sent without waiting for one another."""
    asked = [client.async_infer(model, [_input(array)]) for array in arrays]
    return [each.get_result(timeout=TIMEOUT_S).as_numpy("output") for each in asked]


def infer_in_asyncio(client: Any, address: str, model: str, arrays: Sequence[Array]) -> list[Array]:
    """The outputs by Triton's client for asyncio."""
    import asyncio

    import tritonclient.http.aio

    async def ask() -> list[Array]:
        async with tritonclient.http.aio.InferenceServerClient(address) as other:
            assert await other.is_server_ready()
            found = await asyncio.gather(*(other.infer(model, [_input(array)]) for array in arrays))
            return [each.as_numpy("output") for each in found]

    return asyncio.run(ask())


def infer_in_shared_memory(client: Any, model: str, array: Array, width: int) -> tuple[Array, Any, Any]:
    """The output through one object with input and output in it, and the status of the regions before and after."""
    import tritonclient.http
    from tritonclient.utils import np_to_triton_dtype
    from tritonclient.utils import shared_memory as shm

    output_bytes = array.shape[0] * width * array.itemsize
    handle = shm.create_shared_memory_region("both", "/tserver_http_both", array.nbytes + output_bytes)
    try:
        shm.set_shared_memory_region(handle, [array])
        client.register_system_shared_memory("both", "/tserver_http_both", array.nbytes + output_bytes)
        source = tritonclient.http.InferInput("input", array.shape, np_to_triton_dtype(array.dtype))
        source.set_shared_memory("both", array.nbytes)
        target = tritonclient.http.InferRequestedOutput("output")
        target.set_shared_memory("both", output_bytes, offset=array.nbytes)
        try:
            client.infer(model, [source], outputs=[target])
            status = client.get_system_shared_memory_status()
        finally:
            client.unregister_system_shared_memory("both")
        shape = (array.shape[0], width)
        output = shm.get_contents_as_numpy(handle, array.dtype, shape, offset=array.nbytes).copy()
        return output, status, client.get_system_shared_memory_status()
    finally:
        shm.destroy_shared_memory_region(handle)


# --- tests ---


def test_the_server_and_a_model_describe_themselves(triton: Triton, kept: Kept) -> None:
    assert triton("is_server_live")
    assert triton("is_server_ready")
    assert triton("get_server_metadata")["name"] == "tensorcompute"
    assert triton("is_model_ready", kept[0])
    assert triton("is_model_ready", kept[0], "1")
    assert not triton("is_model_ready", kept[0], "2")
    assert not triton("is_model_ready", "nowhere")
    assert triton("get_model_metadata", kept[0])["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    config = triton("get_model_config", kept[0], "1")
    assert (config["max_batch_size"], config["output"][0]["dims"]) == (1024, [3])


@pytest.mark.parametrize("output", [None, True, False], ids=["not named", "bytes out", "JSON out"])
@pytest.mark.parametrize("is_binary", [True, False], ids=["bytes in", "JSON in"])
def test_outputs_are_those_of_torch_and_the_id_comes_back(
    triton: Triton, kept: Kept, is_binary: bool, output: bool | None
) -> None:
    name, network = kept
    found, response = triton.run(infer, name, rows(5), (is_binary, output), {"request_id": "request 5"})
    close(found, of_torch(network, rows(5)))
    assert (response["id"], response["model_name"], response["model_version"]) == ("request 5", name, "1")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=["FP64", "FP16"])
def test_other_datatypes_are_served(triton: Triton, keep: Keep, dtype: torch.dtype) -> None:
    name, network = keep(4, 3, dtype=dtype)
    array = rows(2, dtype=str(dtype).removeprefix("torch."))
    output, _ = triton.run(infer, name, array, (True, None), {})
    expected = of_torch(network, array)
    assert output.dtype == expected.dtype
    np.testing.assert_allclose(output, expected, rtol=1e-2 if dtype == torch.float16 else 1e-12)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_requests_and_answers_go_compressed(triton: Triton, kept: Kept, algorithm: str) -> None:
    name, network = kept
    options = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    output, _ = triton.run(infer, name, rows(500), (True, None), options)
    close(output, of_torch(network, rows(500)))


def test_a_priority_a_queue_timeout_and_parameters_are_accepted(triton: Triton, kept: Kept) -> None:
    options = {"priority": 1, "timeout": 10_000_000, "parameters": {"colour": "blue"}}
    output, _ = triton.run(infer, kept[0], rows(1), (True, None), options)
    close(output, of_torch(kept[1], rows(1)))


def test_requests_at_once_are_batched_and_each_gets_its_own_rows(triton: Triton, keep: Keep) -> None:
    name, network = keep(4, 8, 3, batching=ms.BatchingConfig(max_queue_delay_us=50_000, preferred_batch_size=[36]))
    arrays = [rows(count) for count in range(1, 9)]
    for output, array in zip(triton.run(infer_at_once, name, arrays), arrays, strict=True):
        close(output, of_torch(network, array))
    stats = one(triton("get_inference_statistics", name))
    assert stats["inference_count"] == 36
    assert stats["execution_count"] < 8


def test_the_client_for_asyncio_works(triton: Triton, open_server: ServerProcess, kept: Kept) -> None:
    arrays = [rows(count) for count in range(1, 5)]
    found = triton.run(infer_in_asyncio, listener(open_server, "http"), kept[0], arrays)
    for output, array in zip(found, arrays, strict=True):
        close(output, of_torch(kept[1], array))


def test_tensors_of_many_megabytes_go_both_ways(triton: Triton, keep: Keep) -> None:
    name, network = keep(256, 1000, batching=ms.BatchingConfig(max_batch_size=8192))
    output, _ = triton.run(infer, name, rows(8192, 256), (True, None), {})
    np.testing.assert_allclose(output, of_torch(network, rows(8192, 256)), rtol=1e-3, atol=1e-4)


def test_a_model_is_unloaded_and_loaded_again(triton: Triton, kept: Kept) -> None:
    name, network = kept
    triton("unload_model", name)
    index = {each["name"]: each for each in triton("get_model_repository_index")}
    assert index[name] == {"name": name, "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    with pytest.raises(Refusal) as told:
        triton.run(infer, name, rows(1), (True, None), {})
    assert told.value.status == "503"
    triton("load_model", name)
    close(triton.run(infer, name, rows(1), (True, None), {})[0], of_torch(network, rows(1)))


def test_tensors_go_through_shared_memory_and_back(triton: Triton, kept: Kept) -> None:
    output, during, after = triton.run(infer_in_shared_memory, kept[0], rows(5), 3)
    close(output, of_torch(kept[1], rows(5)))
    assert [region["name"] for region in during] == ["both"]
    assert after == []


REFUSED: dict[str, tuple[str, Callable[[str], tuple[Any, ...]], str, str]] = {
    "a model that is not there": ("get_model_metadata", lambda _: ("nowhere",), "404", "nowhere"),
    "a version that is not there": ("get_model_config", lambda name: (name, "7"), "404", "version 7"),
    "statistics of nothing": ("get_inference_statistics", lambda _: ("nowhere",), "404", "nowhere"),
    "what is not there to be loaded": ("load_model", lambda _: ("nowhere",), "404", "nowhere"),
    "CUDA shared memory": ("get_cuda_shared_memory_status", lambda _: (), "501", "CUDA"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_errors_reach_the_client(triton: Triton, kept: Kept, case: tuple[str, Any, str, str]) -> None:
    method, arguments, status, naming = case
    with pytest.raises(Refusal) as told:
        triton(method, *arguments(kept[0]))
    assert told.value.status == status
    assert naming in told.value.text


def test_a_wrong_shape_reaches_the_client(triton: Triton, kept: Kept) -> None:
    with pytest.raises(Refusal) as told:
        triton.run(infer, kept[0], rows(2, 5), (True, None), {})
    assert told.value.status == "400"
    assert "[2, 5]" in told.value.text
