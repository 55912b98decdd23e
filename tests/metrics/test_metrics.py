"""What Prometheus is told: read over HTTP from a real server, as Prometheus does."""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from tensorcompute.oip import inference_pb2 as oip_pb
from tests.models.networks import by_value, create, forward, relu_mlp
from tests.support.http import Caller
from tests.support.listeners import listener
from tests.support.raw import Raw, RawSession
from tests.support.refusals import refused, status_of
from tests.support.serving import ROOT, ServerProcess, server_environment, serving, wait_until

Code = grpc.StatusCode
MODELS = "tensorcompute.v1.ModelService"
TENSORS = "tensorcompute.v1.TensorService"


class Scrape:
    """All samples of one moment."""

    def __init__(self, address: str) -> None:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            self.families = list(text_string_to_metric_families(answer.read().decode()))
        self.samples = [sample for family in self.families for sample in family.samples]
        self.names = {sample.name for sample in self.samples}

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with those labels; 0 where there is none."""
        return sum(
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that tells Prometheus."""
    options = ("--metrics-listen", "127.0.0.1:0", "--oip-listen", "127.0.0.1:0")
    with serving(*options, "--data-dir", str(tmp_path_factory.mktemp("data"))) as running:
        yield running


@pytest.fixture
def raw(measured: ServerProcess) -> Iterator[Raw]:
    with Raw(measured.address) as raw:
        yield raw


def scrape(server: ServerProcess) -> Scrape:
    return Scrape(listener(server, "metrics"))


def scrape_with(server: ServerProcess, name: str, **labels: str) -> Scrape:
    """A scrape that has this: an RPC that fails is counted once its status has been sent."""
    wait_until(lambda: scrape(server).value(name, **labels) > 0, 10.0, f"{name} {labels}")
    return scrape(server)


@pytest.fixture(scope="module")
def ran(measured: ServerProcess) -> Scrape:
    """A scrape after a model ran requests of 1, 2 and 4 rows and another by the OIP, and refused one of each."""
    network = relu_mlp((4, 3))
    with Raw(measured.address) as raw:
        create(raw, "counted", network)
        for rows in (1, 2, 4):
            forward(raw, "counted", torch.ones(rows, 4))
        with refused(Code.INVALID_ARGUMENT):
            forward(raw, "counted", torch.ones(1, 5))
    request = oip_pb.ModelInferRequest(model_name="counted", raw_input_contents=[bytes(16)])
    request.inputs.add(name="input", datatype="FP32", shape=(1, 4))
    path = "/inference.GRPCInferenceService/ModelInfer"
    with grpc.insecure_channel(listener(measured, "oip")) as channel:
        infer: Any = channel.unary_unary(path, None, oip_pb.ModelInferResponse.FromString)
        infer(request.SerializeToString(), timeout=20)
        request.inputs[0].datatype = "INT8"
        assert status_of(lambda: infer(request.SerializeToString(), timeout=20)) is Code.INVALID_ARGUMENT
    return scrape(measured)


LABELS = {"model": "counted", "version": "1"}


def test_tritons_counters_have_tritons_names(ran: Scrape) -> None:
    assert ran.value("nv_inference_request_success", **LABELS) == 4
    assert ran.value("nv_inference_count", **LABELS) == 8
    assert ran.value("nv_inference_exec_count", **LABELS) == 4
    assert ran.value("nv_inference_request_failure", reason="INVALID_ARGUMENT", **LABELS) == 2
    assert ran.value("nv_inference_pending_request_count", **LABELS) == 0
    for name in (
        "nv_inference_request_duration_us",
        "nv_inference_queue_duration_us",
        "nv_inference_compute_input_duration_us",
        "nv_inference_compute_infer_duration_us",
        "nv_inference_compute_output_duration_us",
    ):
        assert name in ran.names
        assert 0 <= ran.value(name, **LABELS) < 20e6
    total = ran.value("nv_inference_request_duration_us", **LABELS)
    assert total >= ran.value("nv_inference_compute_infer_duration_us", **LABELS) > 0


def test_latencies_and_times_in_the_queue_are_histograms(ran: Scrape) -> None:
    for name in ("tensorcompute_model_request_duration_seconds", "tensorcompute_model_queue_duration_seconds"):
        assert ran.value(f"{name}_count", **LABELS) == 4
        assert ran.value(f"{name}_bucket", le="+Inf", **LABELS) == 4
        assert 0 < ran.value(f"{name}_sum", **LABELS) < 20
    took = ran.value("tensorcompute_model_request_duration_seconds_sum", **LABELS)
    assert math.isclose(took * 1e6, ran.value("nv_inference_request_duration_us", **LABELS), abs_tol=1)


def test_a_forward_pass_in_its_place_among_the_calls_is_counted_as_the_others(measured: ServerProcess) -> None:
    with RawSession(measured.address) as session:
        create(session, "placed", relu_mlp((4, 3)))
        session.ask("MlpForward", name="placed", inputs=by_value(torch.ones(1, 4)), seq=1)
    told = scrape(measured)
    for name in ("tensorcompute_model_request_duration_seconds", "tensorcompute_model_queue_duration_seconds"):
        assert told.value(f"{name}_count", model="placed") == 1
    assert told.value("nv_inference_request_success", model="placed") == 1


def test_batch_sizes_are_a_histogram(ran: Scrape) -> None:
    name = "tensorcompute_model_batch_size"
    cumulated = {le: ran.value(f"{name}_bucket", le=le, **LABELS) for le in ("1", "2", "4", "8", "+Inf")}
    assert cumulated == {"1": 2, "2": 3, "4": 4, "8": 4, "+Inf": 4}
    assert ran.value(f"{name}_sum", **LABELS) == 8


def test_memory_and_bytes_of_a_model_are_told(ran: Scrape) -> None:
    assert ran.value("tensorcompute_model_memory_bytes", device="cpu", **LABELS) == 4 * 15
    assert ran.value("tensorcompute_model_ready", **LABELS) == 1
    assert ran.value("tensorcompute_model_input_bytes_total", **LABELS) == 8 * 16
    assert ran.value("tensorcompute_model_output_bytes_total", **LABELS) == 8 * 12


def test_rpcs_of_all_listeners_are_counted_by_method_and_end(ran: Scrape) -> None:
    for service, method, done in ((MODELS, "MlpForward", 3), ("inference.GRPCInferenceService", "ModelInfer", 1)):
        labels = {"service": service, "method": method}
        assert ran.value("tensorcompute_rpcs_total", code="OK", **labels) == done
        assert ran.value("tensorcompute_rpcs_total", code="INVALID_ARGUMENT", **labels) == 1
        assert ran.value("tensorcompute_rpc_failures_total", reason="INVALID_ARGUMENT", **labels) == 1
        assert ran.value("tensorcompute_rpc_duration_seconds_count", **labels) == done + 1
        assert ran.value("tensorcompute_rpcs_active", **labels) == 0
        assert ran.value("tensorcompute_rpc_received_bytes_total", **labels) > 16 * done
        assert ran.value("tensorcompute_rpc_sent_bytes_total", **labels) > 12 * done


def test_every_name_is_told_once_and_every_counter_says_so(ran: Scrape) -> None:
    names = [family.name for family in ran.families]
    assert len(names) == len(set(names))
    for family in ran.families:
        assert family.documentation, family.name
        assert family.name.startswith(("tensorcompute_", "nv_", "process_")), family.name
        assert (family.type == "unknown") == (family.name.startswith("nv_") and "pending" not in family.name)


def test_the_page_on_metrics_names_each_and_no_other(ran: Scrape) -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    told: set[str] = set()
    for name in re.findall(r"`((?:nv|tensorcompute)_[\w{},]+)`", text):
        before, _, rest = name.partition("{")
        choices, _, after = rest.partition("}")
        told |= {re.sub("_total$", "", before + choice + after) for choice in choices.split(",")}
    served = {family.name for family in ran.families if not family.name.startswith("process_")}
    assert served <= told
    # Where there are GPUs, and engines.
    assert {name for name in told - served if not name.startswith("nv_gpu_")} == {"tensorcompute_engine_up"}


def test_no_gpu_is_told_where_there_is_none(ran: Scrape) -> None:
    has_gpu = torch.cuda.is_available()
    assert any(name.startswith("nv_gpu_") for name in ran.names) == has_gpu


def test_the_memory_of_the_device_and_of_the_process_are_told(ran: Scrape) -> None:
    total = ran.value("tensorcompute_device_memory_total_bytes", device="cpu")
    assert 0 < ran.value("tensorcompute_device_memory_free_bytes", device="cpu") < total
    assert ran.value("process_resident_memory_bytes") > 50e6


def test_it_is_told_what_a_principal_has_done_and_holds(measured: ServerProcess, raw: Raw) -> None:
    before = scrape(measured)
    with RawSession(measured.address) as session:
        session.run(session.call(1, "ones", 1000), session.call(2, "ones", 1000)).clean()
        during = scrape(measured)

        def grown(name: str) -> float:
            return during.value(name, principal="local") - before.value(name, principal="local")

        assert grown("tensorcompute_principal_calls_total") == 2
        assert 0 < grown("tensorcompute_principal_bytes_total") < 1000
        assert 0 < grown("tensorcompute_principal_compute_seconds_total") < 10
        assert during.value("tensorcompute_principal_device_bytes", principal="local") >= 8000
        assert during.value("tensorcompute_principal_tensors", principal="local") >= 2
        assert during.value("tensorcompute_principal_sessions", principal="local") >= 1


def test_sessions_and_what_they_hold_come_and_go(measured: ServerProcess, raw: Raw) -> None:
    before = scrape(measured)
    with RawSession(measured.address) as session:
        tensor = session.create(zeros={}, shape=[1000])
        session.ask("Reshape", input=tensor.id, shape=[10, 100])
        held = scrape(measured)
        assert held.value("tensorcompute_sessions") == before.value("tensorcompute_sessions") + 1
        # A view is no tensor of its own.
        assert held.value("tensorcompute_tensors") == before.value("tensorcompute_tensors") + 1
        name = "tensorcompute_tensor_bytes"
        assert held.value(name, device="cpu") == before.value(name, device="cpu") + 4000
        assert held.value("tensorcompute_calls_total") >= before.value("tensorcompute_calls_total") + 2
    after = scrape(measured)
    assert after.value("tensorcompute_sessions") == before.value("tensorcompute_sessions")
    assert after.value("tensorcompute_tensors") == before.value("tensorcompute_tensors")


def test_a_failed_call_is_counted_by_its_reason(measured: ServerProcess, raw: Raw) -> None:
    name = "tensorcompute_call_failures_total"
    before = scrape(measured)
    with raw.open_session() as session, refused(Code.INVALID_ARGUMENT):
        tensor = session.create(zeros={}, shape=[4])
        session.ask("Reshape", input=tensor.id, shape=[3])
    labels = {"service": TENSORS, "method": "Reshape", "reason": "OPERATION_FAILED"}
    after = scrape_with(measured, "tensorcompute_rpc_failures_total", **labels)
    assert after.value(name) == before.value(name) + 1
    assert after.value("tensorcompute_rpc_failures_total", **labels) == 1


def test_bytes_of_streams_are_counted_both_ways(measured: ServerProcess, raw: Raw) -> None:
    with raw.open_session() as session:
        tensor = session.create(ones={}, shape=[50_000])
        session.download(tensor.id)
    after = scrape(measured)
    labels = {"service": TENSORS, "method": "Download"}
    assert 200_000 <= after.value("tensorcompute_rpc_sent_bytes_total", **labels) < 201_000
    assert after.value("tensorcompute_rpcs_total", code="OK", **labels) == 1


@pytest.mark.parametrize("how", ["closed", "left", "killed"])
def test_a_stream_whose_client_has_gone_is_counted_as_one_that_ended_well(how: str) -> None:
    with serving("--metrics-listen", "127.0.0.1:0") as server:
        end = {"closed": "session.close()", "left": "", "killed": "os._exit(9)"}[how]
        program = (
            "import os, tclient\n"
            f"session = tclient.connect({server.address!r}, lane=False)\n"
            "assert tclient.ones(3).sum().item() == 3\n"
            f"{end}\n"
        )
        ran = subprocess.run([sys.executable, "-c", program], env=server_environment(), timeout=60, check=False)
        assert ran.returncode == (9 if how == "killed" else 0)
        labels = {"service": TENSORS, "method": "ExecuteStream"}
        told = scrape_with(server, "tensorcompute_rpcs_total", code="OK", **labels)
        assert told.value("tensorcompute_rpcs_total", code="OK", **labels) == 1
        assert {s.labels["code"] for s in told.samples if s.name == "tensorcompute_rpcs_total"} == {"OK"}


def test_health_checks_are_counted_as_other_rpcs_are(measured: ServerProcess, raw: Raw) -> None:
    stub: Any = health_pb2_grpc.HealthStub(raw.channel)
    stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert status_of(lambda: stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=20)) is Code.NOT_FOUND
    labels = {"service": "grpc.health.v1.Health", "method": "Check"}
    told = scrape_with(measured, "tensorcompute_rpcs_total", code="NOT_FOUND", **labels)
    assert told.value("tensorcompute_rpcs_total", code="OK", **labels) == 1
    assert told.value("tensorcompute_rpcs_total", code="NOT_FOUND", **labels) == 1


def test_methods_that_are_not_there_fill_no_table(measured: ServerProcess, raw: Raw) -> None:
    for number in range(3):
        call = raw.channel.unary_unary(f"/{TENSORS}/Nothing{number}", None, None)
        assert status_of(lambda call=call: call(b"", timeout=20)) is Code.UNIMPLEMENTED  # type: ignore[misc]
    labels = {sample.labels.get("method", "") for sample in scrape(measured).samples}
    assert not any(method.startswith("Nothing") for method in labels)


def test_connections_that_ask_for_nothing_cost_no_threads(measured: ServerProcess) -> None:
    def threads() -> int:
        return len(os.listdir(f"/proc/{measured.engine_pid()}/task"))

    before = threads()
    host, _, port = listener(measured, "metrics").rpartition(":")
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection((host, int(port)), 20))
        assert "tensorcompute_sessions" in scrape(measured).names
        # A scrape may begin a thread.
        assert threads() < before + 30


def test_scrapes_are_counted_and_compressed_where_that_is_wanted(measured: ServerProcess) -> None:
    with Caller(listener(measured, "metrics")) as caller:
        assert caller.ask("HEAD", "/metrics").status == 200
        whole = caller.ask("GET", "/metrics", Accept_Encoding="gzip", Accept="application/openmetrics-text")
        assert whole.headers["content-type"].startswith("application/openmetrics-text")
        assert gzip.decompress(whole.body).endswith(b"# EOF\n")
        assert caller.ask("GET", "/v2").status == 404
    labels = {"service": "http", "method": "Metrics"}
    assert scrape(measured).value("tensorcompute_rpcs_total", code="OK", **labels) >= 2


def test_nothing_is_told_unless_it_is_wanted(server: ServerProcess) -> None:
    assert not [line for line in server.stdout if "metrics" in line]


def test_an_address_that_is_taken_is_told_and_nothing_starts(measured: ServerProcess) -> None:
    other = ServerProcess("--metrics-listen", listener(measured, "metrics"))
    assert other.wait(40.0) != 0
    assert "--metrics-listen" in other.log()
