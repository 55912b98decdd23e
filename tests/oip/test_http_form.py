"""The protocol over HTTP, by hand: paths, JSON, elements as bytes, what is refused. Outputs are those of torch."""

from __future__ import annotations

import gzip
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tensorcompute.v1 import model_service_pb2 as ms
from tests.models.networks import create, forward, relu_mlp
from tests.oip.test_protocol import ask, infer_request, output_of
from tests.support.http import Caller, Reply, request
from tests.support.listeners import listener
from tests.support.raw import Raw
from tests.support.serving import ServerProcess, serving, wait_until

Kept = tuple[str, nn.Sequential]
Keep = Callable[..., Kept]
ROW = [0.5, -1.0, 2.0, 0.25]
BYTES = struct.pack("<4f", *ROW)
LENGTH = "Inference_Header_Content_Length"


def infer(http: Caller, model: str, told: Any, binary: bytes = b"", **headers: str) -> Reply:
    """Ask for inference."""
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    lengths = {LENGTH: str(len(text))} if binary else {}
    return http.ask("POST", f"/v2/models/{model}/infer", text + binary, **{**lengths, **headers})


def row(**changes: Any) -> dict[str, Any]:
    """An input of one row, as a request in JSON has it; what is changed to None is left out."""
    told = {"name": "input", "datatype": "FP32", "shape": [1, 4], "data": ROW, **changes}
    return {key: value for key, value in told.items() if value is not None}


def binary_row(**changes: Any) -> dict[str, Any]:
    """The same with its elements behind the JSON."""
    return row(**{"data": None, "parameters": {"binary_data_size": 16}, **changes})


def expected(kept: Kept) -> torch.Tensor:
    """What torch makes of the row."""
    output: torch.Tensor = kept[1](torch.tensor([ROW]))
    return output


def numbers(reply: Reply, code: str = "f") -> torch.Tensor:
    """The one output of an answer, from JSON or from behind it."""
    size = int(reply.headers.get("inference-header-content-length", len(reply.body)))
    (output,) = json.loads(reply.body[:size])["outputs"]
    behind = reply.body[size:]
    if "data" in output:
        assert not behind
        data = output["data"]
    else:
        assert output["parameters"] == {"binary_data_size": len(behind)}
        data = [each for (each,) in struct.iter_unpack(f"<{code}", behind)]
    dtype = torch.float64 if output["datatype"] == "FP64" else torch.float32
    return torch.tensor(data, dtype=dtype).reshape(output["shape"])


# --- the server and its models ---


def test_the_server_is_live_and_ready_and_names_itself(http: Caller) -> None:
    assert http.ask("GET", "/v2/health/live").json == {"live": True}
    assert http.ask("GET", "/v2/health/ready").json == {"ready": True}
    told = http.ask("GET", "/v2").json
    assert set(told) == {"name", "version", "extensions"}
    assert told["name"] == "tensorcompute"
    assert {"binary_tensor_data", "system_shared_memory"} <= set(told["extensions"])


def test_metadata_and_configuration_tell_numbers_as_numbers(http: Caller, kept: Kept) -> None:
    for path in (kept[0], f"{kept[0]}/versions/1"):
        assert http.ask("GET", f"/v2/models/{path}").json == {
            "name": kept[0],
            "versions": ["1"],
            "platform": "tensorcompute",
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 3]}],
        }
    config = http.ask("GET", f"/v2/models/{kept[0]}/config").json
    assert config["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": [4]}]
    assert config["output"] == [{"name": "output", "data_type": "TYPE_FP32", "dims": [3]}]
    assert config["max_batch_size"] == 1024
    assert config["dynamic_batching"]["default_queue_policy"]["timeout_action"] == "REJECT"
    assert config["dynamic_batching"]["priority_queue_policy"] == {}
    assert config["model_transaction_policy"] == {"decoupled": False}


def test_readiness_of_a_model_is_told_by_the_status(http: Caller, kept: Kept) -> None:
    assert http.ask("GET", f"/v2/models/{kept[0]}/ready").status == 200
    assert http.ask("GET", f"/v2/models/{kept[0]}/versions/2/ready").status == 400
    assert http.ask("GET", "/v2/models/nowhere/ready").json == {"name": "nowhere", "ready": False}


def test_statistics_are_those_of_all_wires(http: Caller, oip: Any, raw: Raw, kept: Kept) -> None:
    assert infer(http, kept[0], {"inputs": [row()]}).status == 200
    ask(oip, "ModelInfer", infer_request(kept[0], fp32_contents=ROW))
    forward(raw, kept[0], torch.tensor([ROW]))
    (stats,) = http.ask("GET", f"/v2/models/{kept[0]}/stats").json["model_stats"]
    assert (stats["inference_count"], stats["version"]) == (3, "1")
    assert stats["inference_stats"]["success"]["count"] == 3
    assert stats["inference_stats"]["fail"] == {"count": 0, "ns": 0}
    everyone = http.ask("GET", "/v2/models/stats").json["model_stats"]
    assert kept[0] in [each["name"] for each in everyone]


def test_names_in_paths_may_be_escaped(http: Caller, kept: Kept) -> None:
    escaped = "".join(f"%{ord(character):02x}" for character in kept[0])
    assert http.ask("GET", f"/v2/models/{escaped}").json["name"] == kept[0]


# --- inference ---

DATA = {
    "flat": [*ROW, *ROW],
    "in rows": [ROW, ROW],
}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA.keys())
def test_json_goes_both_ways(http: Caller, kept: Kept, data: Any) -> None:
    reply = infer(http, kept[0], {"id": "ø 1", "inputs": [row(shape=[2, 4], data=data)]})
    assert reply.headers["content-type"] == "application/json"
    assert {key: reply.json[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": kept[0],
        "model_version": "1",
        "id": "ø 1",
    }
    (output,) = reply.json["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("output", "FP32", [2, 3])
    torch.testing.assert_close(numbers(reply), torch.cat([expected(kept)] * 2))


def test_an_answer_without_a_request_s_id_has_none(http: Caller, kept: Kept) -> None:
    assert "id" not in infer(http, kept[0], {"inputs": [row()]}).json


OUTPUTS: dict[str, tuple[dict[str, Any], bool]] = {
    "nothing is said": ({}, False),
    "all as bytes": ({"parameters": {"binary_data_output": True}}, True),
    "this one as bytes": ({"outputs": [{"name": "output", "parameters": {"binary_data": True}}]}, True),
    "all but this one as bytes": (
        {
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "output", "parameters": {"binary_data": False}}],
        },
        False,
    ),
    "named": ({"outputs": [{"name": "output"}], "parameters": {"binary_data_output": True}}, True),
}


@pytest.mark.parametrize("is_binary", [False, True], ids=["JSON in", "bytes in"])
@pytest.mark.parametrize("case", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_elements_go_as_bytes_where_that_is_wanted(
    http: Caller, kept: Kept, case: tuple[dict[str, Any], bool], is_binary: bool
) -> None:
    options, wants_binary = case
    tensor, behind = (binary_row(), BYTES) if is_binary else (row(), b"")
    reply = infer(http, kept[0], {"inputs": [tensor], **options}, behind)
    assert ("inference-header-content-length" in reply.headers) == wants_binary
    assert (reply.headers["content-type"] == "application/octet-stream") == wants_binary
    torch.testing.assert_close(numbers(reply), expected(kept))


@pytest.mark.parametrize("code", ["d", "e"], ids=["FP64", "FP16"])
def test_other_datatypes_are_served(http: Caller, keep: Keep, code: str) -> None:
    dtype, name = (torch.float64, "FP64") if code == "d" else (torch.float16, "FP16")
    kept = keep(4, 3, dtype=dtype)
    behind = struct.pack(f"<4{code}", *ROW)
    tensor = binary_row(datatype=name, parameters={"binary_data_size": len(behind)})
    reply = infer(http, kept[0], {"inputs": [tensor], "parameters": {"binary_data_output": True}}, behind)
    wanted = kept[1](torch.tensor([ROW], dtype=dtype))
    torch.testing.assert_close(numbers(reply, code), wanted.float() if code == "e" else wanted)


def test_doubles_in_json_are_exact(http: Caller, keep: Keep) -> None:
    kept = keep(4, 3, dtype=torch.float64)
    values = [1 / 3, 1e-300, -1e300, 5e-324]
    reply = infer(http, kept[0], {"inputs": [row(datatype="FP64", data=values)]})
    wanted = kept[1](torch.tensor([values], dtype=torch.float64))
    torch.testing.assert_close(numbers(reply), wanted, rtol=1e-12, atol=0)


def test_what_is_no_number_goes_both_ways(http: Caller, kept: Kept) -> None:
    reply = infer(http, kept[0], {"inputs": [row(data=[float("nan"), float("inf"), 1.0, 2.0])]})
    wanted = kept[1](torch.tensor([[float("nan"), float("inf"), 1.0, 2.0]]))
    torch.testing.assert_close(numbers(reply), wanted, equal_nan=True)


def test_both_wires_answer_alike(http: Caller, oip: Any, kept: Kept) -> None:
    over_http = infer(http, kept[0], {"inputs": [binary_row()], "parameters": {"binary_data_output": True}}, BYTES)
    over_grpc = ask(oip, "ModelInfer", infer_request(kept[0], raw=BYTES))
    torch.testing.assert_close(numbers(over_http), output_of(over_grpc), rtol=0, atol=0)


def test_batches_of_both_wires_are_the_same(http: Caller, raw: Raw, keep: Keep) -> None:
    kept = keep(4, 3, batching=ms.BatchingConfig(preferred_batch_size=[2], max_queue_delay_us=20_000_000))
    http.send(request("POST", f"/v2/models/{kept[0]}/infer", json.dumps({"inputs": [row()]}).encode()))
    wait_until(lambda: raw.ask("GetMlpStatistics", name=kept[0]).statistics.waiting == 1, 10.0, "the request to wait")
    torch.testing.assert_close(forward(raw, kept[0], torch.tensor([ROW])), expected(kept))
    torch.testing.assert_close(numbers(http.reply()), expected(kept))
    assert raw.ask("GetMlpStatistics", name=kept[0]).statistics.execution_count == 1


def test_a_caller_who_leaves_takes_the_request_out_of_the_queue(
    open_server: ServerProcess, raw: Raw, keep: Keep
) -> None:
    name, _ = keep(4, 3, batching=ms.BatchingConfig(max_queue_delay_us=30_000_000))

    def count(which: str) -> int:
        return int(getattr(raw.ask("GetMlpStatistics", name=name).statistics, which))

    with Caller(listener(open_server, "http")) as leaving:
        leaving.send(request("POST", f"/v2/models/{name}/infer", json.dumps({"inputs": [row()]}).encode()))
        wait_until(lambda: count("waiting") == 1, 10.0, "the request to wait")
    wait_until(lambda: count("cancelled") == 1, 10.0, "the request to leave the queue")


def test_pipelined_requests_are_answered_in_order(http: Caller, kept: Kept) -> None:
    for number in range(100):
        told = json.dumps({"id": str(number), "inputs": [row()]}).encode()
        http.send(request("POST", f"/v2/models/{kept[0]}/infer", told))
    assert [http.reply().json["id"] for _ in range(100)] == [str(number) for number in range(100)]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_requests_and_answers_go_compressed(http: Caller, keep: Keep, encoding: str) -> None:
    kept = keep(4, 600)
    text = json.dumps({"inputs": [binary_row()], "parameters": {"binary_data_output": True}}).encode()
    whole = (gzip if encoding == "gzip" else zlib).compress(text + BYTES)
    headers = {LENGTH: str(len(text)), "Content_Encoding": encoding, "Accept_Encoding": encoding}
    reply = http.ask("POST", f"/v2/models/{kept[0]}/infer", whole, **headers)
    assert reply.headers["content-encoding"] == encoding
    plain = Reply(reply.status, reply.headers, zlib.decompress(reply.body, 47))
    torch.testing.assert_close(numbers(plain), expected(kept))


def test_a_large_tensor_goes_as_bytes_and_not_as_json(http: Caller, keep: Keep) -> None:
    name, network = keep(256, 256, batching=ms.BatchingConfig(max_batch_size=8192))
    rows = torch.randn(8192, 256, generator=torch.Generator().manual_seed(1))
    behind = rows.numpy().tobytes()
    tensor = binary_row(shape=[8192, 256], parameters={"binary_data_size": len(behind)})
    reply = infer(http, name, {"inputs": [tensor], "parameters": {"binary_data_output": True}}, behind)
    torch.testing.assert_close(numbers(reply), network(rows), rtol=1e-3, atol=1e-4)
    as_json = infer(http, name, {"inputs": [tensor]}, behind)
    assert as_json.status == 400
    assert "ask for binary_data" in as_json.error


# --- what is refused ---


def changed(**changes: Any) -> dict[str, Any]:
    """A request with its input changed."""
    return {"inputs": [row(**changes)]}


REFUSED: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{inputs}", "not JSON"),
    "no object": (b"[1]", "object"),
    "text that is no UTF-8": (b'{"id": "\xff"}', "not JSON"),
    "a great depth": (b"[" * 100_000, "not JSON"),
    "a number without an end": (b'{"id": ' + b"1" * 10_000 + b"}", "not JSON"),
    "nothing": (b"", "exactly one"),
    "no inputs": ({}, "exactly one"),
    "inputs that are none": ({"inputs": 5}, "inputs"),
    "an input that is none": ({"inputs": [5]}, "inputs"),
    "an input twice": ({"inputs": [row(), row()]}, "exactly one"),
    "another input": (changed(name="other"), "'other'"),
    "a name that is no text": (changed(name=5), "name"),
    "a datatype that is none": (changed(datatype="FP33"), "FP33"),
    "another datatype": (changed(datatype="INT32", data=[1, 2, 3, 4]), "FP32"),
    "a shape that is none": (changed(shape="1,4"), "shape"),
    "a shape of fractions": (changed(shape=[1.5, 4]), "shape"),
    "another shape": (changed(shape=[4, 1]), "[4, 1]"),
    "a shape that overflows": (changed(shape=[1 << 70, 4]), "rows"),
    "too many rows": (changed(shape=[1025, 4]), "1024"),
    "no elements": (changed(data=None), "no elements"),
    "too few elements": (changed(data=ROW[:3]), "12 bytes"),
    "too many elements": (changed(data=[*ROW, 1.0]), "20 bytes"),
    "elements that are no list": (changed(data="abcd"), "list"),
    "elements that are text": (changed(data=[*ROW[:3], "1"]), "'1'"),
    "elements that are truth values": (changed(data=[*ROW[:3], True]), "True"),
    "rows that are no rows": (changed(data=[ROW[:2], ROW[2:]]), "[1, 4]"),
    "rows and elements": (changed(data=[ROW[:3], 1.0]), "[1, 4]"),
    "rows in rows": (changed(data=[[ROW]]), "[1, 4]"),
    "an element that is a list": (changed(data=[1.0, 2.0, 3.0, [4.0]]), "FP32"),
    "an element out of all range": (changed(data=[10**400, 1, 1, 1]), "range"),
    "an id that is no text": ({"id": 5, "inputs": [row()]}, "id"),
    "parameters that are none": ({"parameters": [], "inputs": [row()]}, "parameters"),
    "a parameter that is an object": ({"parameters": {"a": {}}, "inputs": [row()]}, "parameters"),
    "an unknown parameter of Triton's": ({"parameters": {"triton_x": 1}, "inputs": [row()]}, "triton_x"),
    "a priority that is text": ({"parameters": {"priority": "1"}, "inputs": [row()]}, "priority"),
    "a negative timeout": ({"parameters": {"timeout": -1}, "inputs": [row()]}, "timeout"),
    "bytes that are text": ({"parameters": {"binary_data_output": "yes"}, "inputs": [row()]}, "binary_data_output"),
    "another output": ({"inputs": [row()], "outputs": [{"name": "logits"}]}, "'logits'"),
    "an output twice": ({"inputs": [row()], "outputs": [{"name": "output"}] * 2}, "exactly one"),
    "elements in two places": (changed(parameters={"binary_data_size": 16}), "more than one place"),
    "a size without a region": (changed(parameters={"shared_memory_byte_size": 16}), "shared_memory_region"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_request_that_cannot_be_right_is_refused(http: Caller, kept: Kept, case: tuple[Any, str]) -> None:
    told, naming = case
    reply = infer(http, kept[0], told)
    assert reply.status == 400, reply.body
    assert naming in reply.error
    torch.testing.assert_close(numbers(infer(http, kept[0], {"inputs": [row()]})), expected(kept))


SIZES: dict[str, tuple[int, bytes, dict[str, str], str]] = {
    "less than is said": (16, BYTES[:12], {}, "12 are left"),
    "more than is said": (16, BYTES + b"more", {}, "20 bytes are behind the JSON"),
    "not what the shape needs": (12, BYTES[:12], {}, "needs 16"),
    "a negative size": (-16, BYTES, {}, "binary_data_size"),
    "a huge size": (1 << 62, BYTES, {}, "16 are left"),
    "a JSON longer than the body": (16, BYTES, {LENGTH: "100000"}, "within them"),
    "a length that is none": (16, BYTES, {LENGTH: "abc"}, "'abc'"),
    "a negative length": (16, BYTES, {LENGTH: "-1"}, "'-1'"),
    "a JSON cut short": (16, BYTES, {LENGTH: "20"}, "not JSON"),
    "no length": (16, BYTES, {LENGTH: ""}, "not JSON"),
}


@pytest.mark.parametrize("case", SIZES.values(), ids=SIZES.keys())
def test_sizes_of_bytes_are_checked(http: Caller, kept: Kept, case: tuple[int, bytes, dict[str, str], str]) -> None:
    size, behind, headers, naming = case
    reply = infer(http, kept[0], {"inputs": [binary_row(parameters={"binary_data_size": size})]}, behind, **headers)
    assert reply.status == 400
    assert naming in reply.error


def test_numbers_of_16_bits_have_no_form_in_json(http: Caller, keep: Keep) -> None:
    name, _ = keep(4, 3, dtype=torch.bfloat16)
    reply = infer(http, name, changed(datatype="BF16"))
    assert (reply.status, "BF16" in reply.error) == (400, True)
    tensor = binary_row(datatype="BF16", parameters={"binary_data_size": 8})
    reply = infer(http, name, {"inputs": [tensor]}, BYTES[:8])
    assert (reply.status, "binary_data" in reply.error) == (400, True)


STATUSES = {
    "/v2/models/nowhere": 404,
    "/v2/models/{model}/versions/7": 404,
    "/v2/models/{model}/versions/v1": 400,
    "/v2/models/{model}/versions/0": 400,
    "/v2/models/{model}/nothing": 404,
    "/v2/models/nowhere/config": 404,
    "/v2/models/nowhere/stats": 404,
    "/v2/models/{model}/infer": 405,
    "/v2/models/nowhere/trace/setting": 404,
    "/v2/cudasharedmemory/status": 501,
    "/v2/systemsharedmemory/region/nowhere/status": 404,
}


@pytest.mark.parametrize("path", STATUSES)
def test_errors_have_tritons_statuses(http: Caller, kept: Kept, path: str) -> None:
    reply = http.ask("GET", path.format(model=kept[0]))
    assert (reply.status, bool(reply.error)) == (STATUSES[path], True)


def test_classification_is_not_served(http: Caller, kept: Kept) -> None:
    outputs = [{"name": "output", "parameters": {"classification": 2}}]
    assert infer(http, kept[0], {"inputs": [row()], "outputs": outputs}).status == 501


def test_a_model_that_is_not_there_is_told_before_the_body_comes(http: Caller) -> None:
    http.send(
        request("POST", "/v2/models/nowhere/infer", Content_Length=str(1 << 30), Inference_Header_Content_Length="5")
    )
    assert http.reply().status == 404


def test_bodies_of_json_are_bounded(http: Caller, kept: Kept) -> None:
    path = f"/v2/models/{kept[0]}/infer"
    http.send(request("POST", path, Content_Length=str(5 << 20)))
    assert http.reply().status == 413


def test_the_json_before_bytes_is_bounded(http: Caller, kept: Kept) -> None:
    path = f"/v2/models/{kept[0]}/infer"
    reply = http.ask("POST", path, b" " * (6 << 20), **{LENGTH: str(5 << 20)})
    assert (reply.status, "of JSON" in reply.error) == (400, True)


def test_a_length_beyond_all_messages_is_refused_before_the_body_comes(http: Caller, kept: Kept) -> None:
    path = f"/v2/models/{kept[0]}/infer"
    http.send(request("POST", path, Content_Length=str(1 << 40), Inference_Header_Content_Length="100"))
    assert http.reply().status == 413


def test_a_little_that_becomes_much_is_refused(http: Caller, kept: Kept) -> None:
    bomb = gzip.compress(bytes(256 << 20))
    headers = {LENGTH: "100", "Content_Encoding": "gzip"}
    reply = http.ask("POST", f"/v2/models/{kept[0]}/infer", bomb, **headers)
    assert reply.status == 413


def test_a_full_queue_is_told_to_come_again(http: Caller, open_server: ServerProcess, raw: Raw, keep: Keep) -> None:
    policy = ms.QueuePolicy(max_queue_size=1)
    name, _ = keep(4, 3, batching=ms.BatchingConfig(max_queue_delay_us=5_000_000, default_queue_policy=policy))
    with Caller(listener(open_server, "http")) as first:
        first.send(request("POST", f"/v2/models/{name}/infer", json.dumps({"inputs": [row()]}).encode()))
        wait_until(lambda: raw.ask("GetMlpStatistics", name=name).statistics.waiting == 1, 10.0, "the request to wait")
        reply = infer(http, name, {"inputs": [row()]})
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")


def test_a_request_may_bound_its_time_in_the_queue(http: Caller, keep: Keep) -> None:
    policy = ms.QueuePolicy(allow_timeout_override=True)
    name, _ = keep(4, 3, batching=ms.BatchingConfig(max_queue_delay_us=30_000_000, default_queue_policy=policy))
    reply = infer(http, name, {"inputs": [row()], "parameters": {"timeout": 50_000}})
    assert (reply.status, "waited" in reply.error) == (504, True)


def test_failures_are_counted_by_their_reasons(http: Caller, raw: Raw, kept: Kept) -> None:
    for told in (changed(datatype="INT8"), changed(data=ROW[:2])):
        assert infer(http, kept[0], told).status == 400
    metrics = http.ask("GET", "/metrics").body.decode()
    label = f'model="{kept[0]}"'
    (line,) = [line for line in metrics.splitlines() if "request_failure{" in line and label in line]
    assert 'reason="INVALID_ARGUMENT"' in line
    assert line.endswith(" 2.0")


# --- the repository and shared memory ---


def test_a_model_is_unloaded_and_loaded_again(http: Caller, kept: Kept) -> None:
    path = f"/v2/repository/models/{kept[0]}"
    body = json.dumps({"parameters": {"unload_dependents": False}}).encode()
    assert http.ask("POST", f"{path}/unload", body).status == 200
    assert http.ask("GET", f"/v2/models/{kept[0]}/ready").status == 400
    index = {each["name"]: each for each in http.ask("POST", "/v2/repository/index").json}
    assert index[kept[0]] == {"name": kept[0], "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    ready = http.ask("POST", "/v2/repository/index", b'{"ready": true}').json
    assert kept[0] not in [each["name"] for each in ready]
    assert infer(http, kept[0], {"inputs": [row()]}).status == 503
    assert http.ask("POST", f"{path}/load").status == 200
    torch.testing.assert_close(numbers(infer(http, kept[0], {"inputs": [row()]})), expected(kept))


def test_there_is_one_repository_and_what_is_not_in_it_is_not_loaded(http: Caller, kept: Kept) -> None:
    assert http.ask("POST", "/v2/repository/models/nowhere/load").status == 404
    assert http.ask("POST", "/v2/repository/other/index").status == 400
    configured = json.dumps({"parameters": {"config": "{}"}}).encode()
    assert http.ask("POST", f"/v2/repository/models/{kept[0]}/load", configured).status == 501


@pytest.fixture
def region(http: Caller) -> Iterator[Path]:
    """A shared memory object of 64 bytes, registered as "h"."""
    path = Path(f"/dev/shm/tserver-http-{os.getpid()}")
    path.write_bytes(BYTES + bytes(48))
    told = json.dumps({"key": path.name, "offset": 0, "byte_size": 64}).encode()
    assert http.ask("POST", "/v2/systemsharedmemory/region/h/register", told).status == 200
    yield path
    http.ask("POST", "/v2/systemsharedmemory/region/h/unregister")
    path.unlink()


def test_tensors_go_through_shared_memory_that_both_wires_know(
    http: Caller, oip: Any, kept: Kept, region: Path
) -> None:
    source = {"shared_memory_region": "h", "shared_memory_byte_size": 16}
    target = {"shared_memory_region": "h", "shared_memory_byte_size": 12, "shared_memory_offset": 32}
    told = {"inputs": [row(data=None, parameters=source)], "outputs": [{"name": "output", "parameters": target}]}
    (output,) = infer(http, kept[0], told).json["outputs"]
    assert output == {"name": "output", "datatype": "FP32", "shape": [1, 3], "parameters": target}
    found = torch.tensor([struct.unpack("<3f", region.read_bytes()[32:44])])
    torch.testing.assert_close(found, expected(kept))
    status = [{"name": "h", "key": region.name, "offset": 0, "byte_size": 64}]
    assert http.ask("GET", "/v2/systemsharedmemory/status").json == status
    assert http.ask("GET", "/v2/systemsharedmemory/region/h/status").json == status
    assert list(ask(oip, "SystemSharedMemoryStatus").regions) == ["h"]
    taken = http.ask("POST", "/v2/systemsharedmemory/region/h/register", b'{"key": "/h", "byte_size": 1}')
    assert taken.status == 409
    assert infer(http, kept[0], {"inputs": [row(parameters=source)]}).status == 400
    assert http.ask("POST", "/v2/systemsharedmemory/unregister").status == 200
    assert http.ask("GET", "/v2/systemsharedmemory/status").json == []


WRONG_REGIONS = [
    b"{}",
    b'{"key": 5, "byte_size": 1}',
    b'{"key": "/r", "byte_size": -1}',
    b'{"key": "/r", "byte_size": 1.5}',
]


@pytest.mark.parametrize("told", WRONG_REGIONS)
def test_a_region_that_cannot_be_is_refused(http: Caller, told: bytes) -> None:
    assert http.ask("POST", "/v2/systemsharedmemory/region/x/register", told).status == 400


def test_what_was_not_allowed_is_refused() -> None:
    with (
        serving("--http-listen", "127.0.0.1:0", "--max-message-bytes", "2000") as running,
        Raw(running.address) as raw,
        Caller(listener(running, "http")) as http,
    ):
        create(raw, "steady", relu_mlp((4, 3)))
        for what in ("load", "unload"):
            reply = http.ask("POST", f"/v2/repository/models/steady/{what}")
            assert (reply.status, "--oip-model-control" in reply.error) == (403, True)
        reply = http.ask("GET", "/v2/systemsharedmemory/status")
        assert (reply.status, "--oip-shared-memory" in reply.error) == (403, True)
        assert infer(http, "steady", {"inputs": [row()]}).status == 200
        # The bound of a message is that of a body in JSON.
        assert infer(http, "steady", {"id": "a" * 3000, "inputs": [row()]}).status == 413
        assert infer(http, "steady", {"id": "a" * 3000, "inputs": [binary_row()]}, BYTES).status == 400


def test_http_alone_can_be_served_and_keeps_its_port_when_the_server_is_started_again() -> None:
    with serving("--http-listen", "127.0.0.1:0") as running:
        address = listener(running, "http")
        os.kill(running.engine_pid(), 9)

        def is_back() -> bool:
            try:
                with Caller(address) as http:
                    return http.ask("GET", "/v2/health/ready").status == 200
            except OSError:
                return False

        wait_until(is_back, 40.0, "the listener to come back", interval_s=0.2)
        assert listener(running, "http") == address
