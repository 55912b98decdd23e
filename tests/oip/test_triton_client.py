"""Triton's Python client, unchanged, against this server. The oracle for outputs is torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tensorcompute.oip import inference_pb2 as oip_pb
from tensorcompute.v1 import model_service_pb2 as ms
from tests.models.networks import create, relu_mlp
from tests.oip import triton as remote
from tests.oip.triton import Refusal, Triton
from tests.support.raw import Raw

Kept = tuple[str, nn.Sequential]
Keep = Callable[..., Kept]


def rows(count: int, width: int = 4, dtype: str = "float32") -> Any:
    """Inputs that are the same each time."""
    return np.random.default_rng(count).standard_normal((count, width)).astype(dtype)


def of_torch(network: nn.Sequential, array: Any) -> Any:
    """What torch makes of them."""
    return network(torch.from_numpy(array)).numpy()


def close(output: Any, expected: Any) -> None:
    """Equal but for rounding in the last places, which batching may change."""
    assert output.dtype == expected.dtype
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def one(stats: dict[str, Any]) -> dict[str, Any]:
    """The only entry of some statistics."""
    (entry,) = stats["model_stats"]
    found: dict[str, Any] = entry
    return found


# --- the server and its models ---


def test_the_server_is_live_and_ready(triton: Triton) -> None:
    assert triton("is_server_live")
    assert triton("is_server_ready")


def test_a_model_is_ready_and_one_that_is_not_there_is_not(triton: Triton, kept: Kept) -> None:
    assert triton("is_model_ready", kept[0])
    assert triton("is_model_ready", kept[0], "1")
    assert not triton("is_model_ready", kept[0], "2")
    assert not triton("is_model_ready", "nowhere")


def test_the_server_names_itself_and_only_extensions_that_it_has(triton: Triton) -> None:
    told = triton("get_server_metadata", as_json=True)
    assert told["name"] == "tensorcompute"
    assert set(told["extensions"]) == {
        "binary_tensor_data",
        "logging",
        "model_configuration",
        "model_repository",
        "parameters",
        "statistics",
        "system_shared_memory",
        "trace",
    }


def test_metadata_tell_inputs_and_outputs_with_the_rows_first(triton: Triton, kept: Kept) -> None:
    told = triton("get_model_metadata", kept[0], as_json=True)
    assert told == {
        "name": kept[0],
        "versions": ["1"],
        "platform": "tensorcompute",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": ["-1", "4"]}],
        "outputs": [{"name": "output", "datatype": "FP32", "shape": ["-1", "3"]}],
    }


def test_the_configuration_tells_batching_and_sizes_without_the_rows(triton: Triton, keep: Keep) -> None:
    batching = ms.BatchingConfig(
        max_batch_size=64,
        preferred_batch_size=[8, 16],
        max_queue_delay_us=7,
        priority_levels=2,
        default_priority_level=2,
    )
    batching.priority_queue_policy[1].timeout_action = ms.TIMEOUT_ACTION_DELAY
    batching.priority_queue_policy[1].default_timeout_us = 5
    name, _ = keep(4, 3, batching=batching)
    config = triton("get_model_config", name, as_json=True)["config"]
    assert config["max_batch_size"] == 64
    assert config["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": ["4"]}]
    assert config["output"] == [{"name": "output", "data_type": "TYPE_FP32", "dims": ["3"]}]
    dynamic = config["dynamic_batching"]
    assert dynamic["preferred_batch_size"] == [8, 16]
    assert dynamic["max_queue_delay_microseconds"] == "7"
    assert dynamic["priority_levels"] == dynamic["default_priority_level"] == "2"
    policy = {"timeout_action": "DELAY", "default_timeout_microseconds": "5", "max_queue_size": 10000}
    assert dynamic["priority_queue_policy"] == {"1": policy}


# --- inference ---


def test_outputs_are_those_of_torch_and_the_id_comes_back(triton: Triton, kept: Kept) -> None:
    name, network = kept
    output, response = triton.infer(name, rows(5), request_id="request 5")
    close(output, of_torch(network, rows(5)))
    assert response["id"] == "request 5"
    assert response["model_name"] == name
    assert response["model_version"] == "1"
    assert response["outputs"] == [{"name": "output", "datatype": "FP32", "shape": ["5", "3"]}]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=["FP64", "FP16"])
def test_other_datatypes_are_served(triton: Triton, keep: Keep, dtype: torch.dtype) -> None:
    name, network = keep(4, 3, dtype=dtype)
    array = rows(2, dtype=str(dtype).removeprefix("torch."))
    output, _ = triton.infer(name, array)
    expected = of_torch(network, array)
    assert output.dtype == expected.dtype
    np.testing.assert_allclose(output, expected, rtol=1e-2 if dtype == torch.float16 else 1e-12)


def test_bfloat16_is_served(triton: Triton, keep: Keep) -> None:
    import ml_dtypes

    name, network = keep(4, 3, dtype=torch.bfloat16)
    output, response = triton.infer(name, rows(2).astype(ml_dtypes.bfloat16))
    expected = network(torch.from_numpy(rows(2)).bfloat16()).float().numpy()
    np.testing.assert_allclose(output.astype("float32"), expected, rtol=2e-2, atol=1e-2)
    assert response["outputs"][0]["datatype"] == "BF16"


def test_the_version_that_is_asked_for_is_run(triton: Triton, raw: Raw, kept: Kept) -> None:
    name, first = kept
    second = relu_mlp((4, 3), seed=2)
    create(raw, name, second, version=2)
    for version, number, network in (("1", "1", first), ("2", "2", second), ("", "2", second)):
        output, response = triton.infer(name, rows(2), model_version=version)
        close(output, of_torch(network, rows(2)))
        assert response["model_version"] == number
    assert triton("get_model_metadata", name, as_json=True)["versions"] == ["1", "2"]


def test_requests_at_once_are_batched_and_each_gets_its_own_rows(triton: Triton, keep: Keep) -> None:
    name, network = keep(4, 8, 3, batching=ms.BatchingConfig(max_queue_delay_us=50_000, preferred_batch_size=[36]))
    arrays = [rows(count) for count in range(1, 9)]
    for output, array in zip(triton.run(remote.infer_at_once, name, arrays), arrays, strict=True):
        close(output, of_torch(network, array))
    stats = one(triton("get_inference_statistics", name, as_json=True))
    assert stats["inference_count"] == "36"
    assert int(stats["execution_count"]) < 8


def test_a_priority_and_a_queue_timeout_are_accepted(triton: Triton, kept: Kept) -> None:
    name, network = kept
    output, _ = triton.infer(name, rows(1), priority=1, timeout=10_000_000, sequence_id=0, outputs=["output"])
    close(output, of_torch(network, rows(1)))


def test_tensors_of_many_megabytes_go_both_ways(triton: Triton, keep: Keep) -> None:
    name, network = keep(256, 1000, batching=ms.BatchingConfig(max_batch_size=8192))
    array = rows(8192, 256)
    output, _ = triton.infer(name, array)
    np.testing.assert_allclose(output, of_torch(network, array), rtol=1e-3, atol=1e-4)


def test_an_answer_comes_within_the_deadline_or_not_at_all(triton: Triton, keep: Keep) -> None:
    name, _ = keep(4, 3, batching=ms.BatchingConfig(max_queue_delay_us=30_000_000))
    with pytest.raises(Refusal) as told:
        triton.infer(name, rows(1), client_timeout=0.2)
    assert told.value.status == "DEADLINE_EXCEEDED"


def test_a_request_may_bound_its_time_in_the_queue(triton: Triton, keep: Keep) -> None:
    policy = ms.QueuePolicy(allow_timeout_override=True)
    name, _ = keep(4, 3, batching=ms.BatchingConfig(max_queue_delay_us=30_000_000, default_queue_policy=policy))
    with pytest.raises(Refusal) as told:
        triton.infer(name, rows(1), timeout=50_000, client_timeout=15)
    assert told.value.status == "DEADLINE_EXCEEDED"
    assert "waited" in told.value.text


def test_a_cancelled_request_leaves_the_queue(triton: Triton, raw: Raw, keep: Keep) -> None:
    name, _ = keep(4, 3, batching=ms.BatchingConfig(max_queue_delay_us=30_000_000))
    assert triton.run(remote.cancel, name, rows(1)) == "CANCELLED"
    assert raw.ask("GetMlpStatistics", name=name).statistics.waiting == 0


# --- streams ---


def test_a_stream_answers_each_request_in_order_under_its_id(triton: Triton, kept: Kept) -> None:
    name, network = kept
    requests = [(str(count), name, rows(count)) for count in range(1, 40)]
    answers = triton.run(remote.stream, requests, None)
    assert [answer[0] for answer in answers] == [request[0] for request in requests]
    for (_, _, array), (_, output, parameters) in zip(requests, answers, strict=True):
        close(output, of_torch(network, array))
        assert parameters == {}


def test_a_failed_request_of_a_stream_is_told_and_the_stream_goes_on(triton: Triton, kept: Kept) -> None:
    name, network = kept
    requests = [("a", name, rows(1)), ("b", name, rows(1, 5)), ("c", "nowhere", rows(1)), ("d", name, rows(2))]
    first, second, third, fourth = triton.run(remote.stream, requests, None)
    assert (first[0], fourth[0]) == ("a", "d")
    close(fourth[1], of_torch(network, rows(2)))
    assert "[1, 5]" in second[1]
    assert "nowhere" in third[1]


def test_a_stream_that_wants_statuses_ends_with_one(triton: Triton, kept: Kept) -> None:
    requests = [("a", kept[0], rows(1)), ("b", "nowhere", rows(1)), ("c", kept[0], rows(2))]
    answers = triton.run(remote.stream, requests, {"triton_grpc_error": "true"})
    assert [answer[0] for answer in answers] == ["a", "NOT_FOUND"]


def test_the_mark_of_the_final_response_is_set_where_it_is_asked_for(triton: Triton, kept: Kept) -> None:
    ((name, output, parameters),) = triton.run(remote.stream_with_flag, [("x", kept[0], rows(1))])
    assert (name, output.shape) == ("x", (1, 3))
    assert parameters == {"triton_final_response": {"bool_param": True}}


# --- what is refused ---


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a model that is not there": ({"model": "nowhere"}, "NOT_FOUND", "nowhere"),
    "a version that is not there": ({"model_version": "7"}, "NOT_FOUND", "version 7"),
    "a version that is no number": ({"model_version": "v1"}, "INVALID_ARGUMENT", "v1"),
    "version 0": ({"model_version": "0"}, "INVALID_ARGUMENT", "'0'"),
    "a wrong width": ({"array": rows(2, 5)}, "INVALID_ARGUMENT", "[2, 5]"),
    "no rows": ({"array": rows(0)}, "INVALID_ARGUMENT", "[0, 4]"),
    "one dimension": ({"array": rows(1)[0]}, "INVALID_ARGUMENT", "[4]"),
    "three dimensions": ({"array": rows(2)[None]}, "INVALID_ARGUMENT", "[1, 2, 4]"),
    "too many rows": ({"array": rows(1025)}, "INVALID_ARGUMENT", "1024"),
    "a wrong datatype": ({"array": rows(1, dtype="float64")}, "INVALID_ARGUMENT", "FP32"),
    "a datatype that is none": ({"datatype": "FP33"}, "INVALID_ARGUMENT", "FP33"),
    "a shape with more elements than there are": ({"shape": [2, 4]}, "INVALID_ARGUMENT", "16 bytes"),
    "a shape that overflows": ({"shape": [1 << 62, 4]}, "INVALID_ARGUMENT", "rows"),
    "a negative shape": ({"shape": [-1, 4]}, "INVALID_ARGUMENT", "[-1, 4]"),
    "an input of another name": ({"name": "inputs"}, "INVALID_ARGUMENT", "'inputs'"),
    "an output of another name": ({"outputs": ["logits"]}, "INVALID_ARGUMENT", "'logits'"),
    "an output twice": ({"outputs": ["output", "output"]}, "INVALID_ARGUMENT", "exactly one"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_request_that_cannot_be_right_is_refused(
    triton: Triton, kept: Kept, case: tuple[dict[str, Any], str, str]
) -> None:
    options, status, naming = case
    with pytest.raises(Refusal) as told:
        triton.infer(**{"model": kept[0], "array": rows(1), **options})
    assert told.value.status == status
    assert naming in told.value.text
    close(triton.infer(kept[0], rows(1))[0], of_torch(kept[1], rows(1)))


def test_a_full_queue_is_told_from_an_outage(triton: Triton, keep: Keep) -> None:
    policy = ms.QueuePolicy(max_queue_size=1)
    batching = ms.BatchingConfig(max_queue_delay_us=300_000, default_queue_policy=policy)
    name, _ = keep(4, 3, batching=batching)
    with pytest.raises(Refusal) as told:
        triton.run(remote.infer_at_once, name, [rows(1)] * 3)
    assert told.value.status == "RESOURCE_EXHAUSTED"


# --- statistics and the repository ---


def test_statistics_grow_with_requests_and_name_numeric_versions(triton: Triton, kept: Kept) -> None:
    before = one(triton("get_inference_statistics", kept[0], as_json=True))
    assert before["version"] == "1"
    for _ in range(3):
        triton.infer(kept[0], rows(2))
    after = one(triton("get_inference_statistics", kept[0], "1", as_json=True))
    assert after["inference_count"] == "6"
    assert after["execution_count"] == "3"
    assert int(after["last_inference"]) > 1_600_000_000_000
    for kind in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert after["inference_stats"][kind]["count"] == "3", kind
    assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in after["batch_stats"]] == [("2", "3")]
    assert after["memory_usage"] == [{"type": "CPU", "byte_size": str(4 * (8 * 5 + 3 * 9))}]


def test_statistics_of_all_models_are_had_by_no_name(triton: Triton, kept: Kept) -> None:
    stats = triton("get_inference_statistics", as_json=True)["model_stats"]
    assert kept[0] in [entry["name"] for entry in stats]
    with pytest.raises(Refusal) as told:
        triton("get_inference_statistics", "nowhere")
    assert told.value.status == "NOT_FOUND"


def test_a_model_is_unloaded_and_loaded_again(triton: Triton, kept: Kept) -> None:
    name, network = kept
    triton("unload_model", name)
    assert not triton("is_model_ready", name)
    index = {each["name"]: each for each in triton("get_model_repository_index", as_json=True)["models"]}
    assert index[name] == {"name": name, "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    with pytest.raises(Refusal) as told:
        triton.infer(name, rows(1))
    assert told.value.status == "UNAVAILABLE"
    triton("load_model", name)
    close(triton.infer(name, rows(1))[0], of_torch(network, rows(1)))


def test_what_is_not_there_is_not_loaded(triton: Triton) -> None:
    for method in ("load_model", "unload_model"):
        with pytest.raises(Refusal) as told:
            triton(method, "nowhere")
        assert told.value.status == "NOT_FOUND"


def test_a_configuration_is_not_taken_in_loading(triton: Triton, kept: Kept) -> None:
    with pytest.raises(Refusal) as told:
        triton("load_model", kept[0], config='{"max_batch_size": 1}')
    assert told.value.status == "UNIMPLEMENTED"


@pytest.mark.parametrize("output_offset", [4096, 4100], ids=["on a page", "off a page"])
def test_tensors_go_through_shared_memory_and_back(triton: Triton, kept: Kept, output_offset: int) -> None:
    name, network = kept
    output, response, status = triton.run(remote.infer_in_shared_memory, name, rows(5), 3, output_offset)
    close(output, of_torch(network, rows(5)))
    # An empty entry for the output: the C++ client indexes without looking.
    assert response["raw_output_contents"] == [""]
    assert list(status["regions"]) == ["both"]
    assert triton("get_system_shared_memory_status", as_json=True) == {}


def test_large_tensors_go_through_shared_memory(triton: Triton, keep: Keep) -> None:
    name, network = keep(1000, 256)
    array = rows(1000, 1000)
    output, _, _ = triton.run(remote.infer_in_shared_memory, name, array, 256, array.nbytes)
    np.testing.assert_allclose(output, of_torch(network, array), rtol=1e-3, atol=1e-4)


def test_cuda_shared_memory_is_not_served(triton: Triton) -> None:
    with pytest.raises(Refusal) as told:
        triton("get_cuda_shared_memory_status")
    assert told.value.status == "UNIMPLEMENTED"


def test_every_message_has_the_numbers_and_types_of_tritons_own(triton: Triton) -> None:
    ours = remote.fields_of(oip_pb.DESCRIPTOR)
    theirs = triton.run(remote.fields_of_triton)
    assert len(ours) > 150
    assert ours.items() <= theirs.items()
