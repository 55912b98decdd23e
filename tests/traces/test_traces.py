"""Traces from a line of the program to the kernel: real exports to a real collector, on every road."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tclient as tc
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.models.networks import create, relu_mlp
from tests.support.collector import Collector, Taken
from tests.support.http import Caller as HttpCaller
from tests.support.listeners import listener
from tests.support.raw import Raw, RawSession, path_of
from tests.support.roads import ROADS, take
from tests.support.serving import ServerProcess, serving
from tserver.tracing.context import TraceContext, parse

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
TRACER = trace.get_tracer("the program")


def of_program(exported: InMemorySpanExporter, name: str) -> Any:
    """The only span of that name that ended in this process."""
    (span,) = [each for each in exported.get_finished_spans() if each.name == name]
    return span


def id_of(span: Any) -> str:
    return f"{span.context.span_id:016x}"


def is_within(inner: Taken, outer: Taken) -> bool:
    return outer.began_ns <= inner.began_ns <= inner.ended_ns <= outer.ended_ns


@pytest.mark.parametrize("road", ROADS)
def test_a_line_of_the_program_leads_to_its_calls_on_the_engine(
    traced: ServerProcess, collector: Collector, program: Any, road: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(road, monkeypatch)
    with tc.connect(traced.address):
        with TRACER.start_as_current_span("step"):
            line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
            tc.ones(3).add(2).sum().item()
        tc.ones(3).tolist()
    step = of_program(program, "step")
    wait = of_program(program, "wait for Tensor.item")
    assert wait.parent.span_id == step.context.span_id
    assert (wait.attributes["code.file.path"], wait.attributes["code.line.number"]) == (__file__, line)
    sent = [each for each in program.get_finished_spans() if each.name == "batch"]
    assert {each.parent.span_id for each in sent} == {step.context.span_id}
    assert {each.attributes["code.line.number"] for each in sent} == {line}
    # What is done outside of a span is in no trace.
    assert sum(each.attributes["tclient.calls"] for each in sent) == 4
    ran = collector.named("batch", len(sent))
    assert {each.parent for each in ran} == {id_of(each) for each in sent}
    assert {each.trace_id for each in ran} == {f"{step.context.trace_id:032x}"}
    assert {each.kind for each in ran} == {"SERVER"}
    calls = []
    for batch in ran:
        queue, *turns = collector.within(batch)
        assert (queue.name, {turn.name for turn in turns}) == ("queue", {"turn"})
        assert queue.ended_ns <= turns[0].began_ns
        assert all(is_within(each, batch) for each in (queue, *turns))
        calls += [call.name for turn in turns for call in collector.within(turn)]
        assert all(is_within(call, turn) for turn in turns for call in collector.within(turn))
    assert calls == ["ones", "Tensor.add", "Tensor.sum", "Tensor.item"]
    assert ran[0].resource["service.name"] == "tserver"


def test_a_span_for_each_thread_has_its_own_calls(traced: ServerProcess, collector: Collector, program: Any) -> None:
    with tc.connect(traced.address) as session:
        start = threading.Barrier(4)

        def work(number: int) -> None:
            with session.use(), TRACER.start_as_current_span(f"thread {number}"):
                start.wait()
                for _ in range(20):
                    tc.full((2,), number).add(number)
                tc.zeros(1).item()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    spans = program.get_finished_spans()
    for number in range(4):
        own = of_program(program, f"thread {number}")
        batches = [each for each in spans if each.name == "batch" and each.parent.span_id == own.context.span_id]
        assert sum(each.attributes["tclient.calls"] for each in batches) == 42
    assert len(collector.named("batch", sum(each.name == "batch" for each in spans))) >= 4


def test_a_call_that_fails_is_one_in_the_trace_too(traced: ServerProcess, collector: Collector, program: Any) -> None:
    with tc.connect(traced.address), TRACER.start_as_current_span("step"), pytest.raises(RuntimeError):
        (tc.ones(2, 3) @ tc.ones(2, 3)).tolist()
    (failed,) = [each for each in collector.named("batch") if each.status]
    assert (failed.status, failed.attributes["tserver.failed_calls"]) == ("OPERATION_FAILED", 2)
    assert not all(each.status.is_ok for each in program.get_finished_spans() if each.name == "batch")


def test_many_calls_are_counted_and_not_all_spans(traced: ServerProcess, collector: Collector) -> None:
    with RawSession(traced.address) as raw:
        x = raw.make("ones", 2)
        calls = [raw.call(0, "Tensor.add_", x, 1) for _ in range(1000)]
        raw.execute(raw.batch(*calls, traceparent=PARENT)).clean()
    (batch,) = collector.named("batch")
    assert batch.attributes["tserver.calls"] == 1000
    assert len([each for each in collector.spans if each.name == "Tensor.add_"]) <= 128
    assert (batch.trace_id, batch.parent) == (TRACE, SPAN)


@pytest.mark.parametrize("road", ROADS)
def test_requests_for_a_model_tell_their_queue_and_their_batch(
    traced: ServerProcess, collector: Collector, program: Any, road: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(road, monkeypatch)
    with tc.connect(traced.address):
        net = tc.models.create(f"net-{road}", tc.nn.MLP([4, 3]), max_queue_delay_us=100_000)
        start = threading.Barrier(2)

        def ask(number: int) -> None:
            with TRACER.start_as_current_span(f"request {number}"):
                start.wait()
                net(np.ones((2, 4), np.float32))

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(ask, range(2)))
        net.delete()
    asked = [each for each in program.get_finished_spans() if each.name == f"forward net-{road}"]
    ran = collector.named(f"forward net-{road}", 2)
    assert {each.parent for each in ran} == {id_of(each) for each in asked}
    for each, other in (ran, ran[::-1]):
        queue, batch = collector.within(each)
        assert (queue.name, batch.name) == ("queue", "batch")
        assert (batch.attributes["tserver.batch.rows"], batch.attributes["tserver.batch.requests"]) == (4, 2)
        assert batch.links == [other.id]
        parts = collector.within(batch)
        assert [part.name for part in parts] == ["compute_input", "compute_infer", "compute_output"]
        assert all(is_within(part, batch) for part in parts)


def ask(raw: Raw, method: str, request: Any, *traceparents: str) -> bytes:
    """An RPC with such headers."""
    metadata = [("traceparent", each) for each in traceparents]
    return raw.channel.unary_unary(path_of(method))(request.SerializeToString(), metadata=metadata, timeout=20)


def test_an_rpc_of_any_language_is_traced_by_its_header(traced: ServerProcess, collector: Collector) -> None:
    with RawSession(traced.address) as raw:
        request = ts.CreateTensorRequest(context=raw.context(), shape=[2], zeros={})
        ask(raw, "CreateTensor", request, PARENT)
        (rpc,) = collector.named("tensorcompute.v1.TensorService/CreateTensor")
        assert (rpc.trace_id, rpc.parent, rpc.kind) == (TRACE, SPAN, "SERVER")
        assert [each.name for each in collector.within(rpc)] == ["queue", "turn"]
        ask(raw, "ListTensors", ts.ListTensorsRequest(context=raw.context()), PARENT)
        collector.named("tensorcompute.v1.TensorService/ListTensors")
        missing = ts.GetTensorRequest(context=raw.context(), tensor={"id": 77})
        with pytest.raises(Exception, match="77"):
            ask(raw, "GetTensor", missing, PARENT)
        (failed,) = collector.named("tensorcompute.v1.TensorService/GetTensor")
        assert failed.status == "NOT_FOUND"


NOT_TRACED = {
    "not wanted": f"00-{TRACE}-{SPAN}-00",
    "no header at all": "",
    "not one": "hello",
    "without a trace": f"00-{'0' * 32}-{SPAN}-01",
    "without a span": f"00-{TRACE}-{'0' * 16}-01",
    "of a version that cannot be": f"ff-{TRACE}-{SPAN}-01",
    "with more than the version has": f"00-{TRACE}-{SPAN}-01-more",
    "in capitals": f"00-{TRACE.upper()}-{SPAN}-01",
    "far too long": PARENT + "x" * 4000,
}


@pytest.mark.parametrize("header", NOT_TRACED.values(), ids=NOT_TRACED)
def test_what_is_no_context_is_as_if_there_were_none(traced: ServerProcess, collector: Collector, header: str) -> None:
    with RawSession(traced.address) as raw:
        request = ts.CreateTensorRequest(context=raw.context(), shape=[2], zeros={})
        ask(raw, "CreateTensor", request, *([header] if header else []))
        raw.execute(raw.batch(raw.call(9, "ones", 2), traceparent=header)).clean()
        # Behind them.
        ask(raw, "ListTensors", ts.ListTensorsRequest(context=raw.context()), PARENT)
    collector.named("tensorcompute.v1.TensorService/ListTensors")
    assert {each.trace_id for each in collector.spans} == {TRACE}
    assert not {"batch", "tensorcompute.v1.TensorService/CreateTensor"} & set(collector.names)


def test_a_later_version_of_the_header_is_read_as_far_as_it_is_known() -> None:
    assert parse(f"01-{TRACE}-{SPAN}-03-more") == TraceContext(int(TRACE, 16), int(SPAN, 16), is_sampled=True)
    assert str(parse(PARENT)) == PARENT


def test_a_request_over_http_is_traced_by_its_header(traced: ServerProcess, collector: Collector) -> None:
    with Raw(traced.address) as raw:
        create(raw, "by-http", relu_mlp((4, 3)))
    body = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    caller = HttpCaller(listener(traced, "http"))
    reply = caller.ask("POST", "/v2/models/by-http/infer", json.dumps(body).encode(), traceparent=PARENT)
    assert reply.status == 200
    (http,) = collector.named("POST /v2/models/{model}[/versions/{version}]/infer")
    assert (http.trace_id, http.parent, http.attributes["http.response.status_code"]) == (TRACE, SPAN, 200)
    assert [each.name for each in collector.within(http)] == ["queue", "batch"]


def test_one_in_so_many_requests_is_traced_where_nobody_traces(collector: Collector) -> None:
    with (
        serving("--otlp-endpoint", collector.endpoint, "--trace-rate", "3") as server,
        RawSession(server.address) as raw,
    ):
        for _ in range(6):
            ask(raw, "ListTensors", ts.ListTensorsRequest(context=raw.context()))
    # With the end of the server all are here.
    chosen = [each for each in collector.spans if each.kind == "SERVER"]
    assert 2 <= len(chosen) <= 3
    assert {each.parent for each in chosen} == {""}
    assert len({each.trace_id for each in chosen}) == len(chosen)


def test_a_house_tells_of_the_front_and_of_the_engine(collector: Collector, program: Any) -> None:
    arguments = ("--engines", "2", "--oip-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--front-only")
    with serving("--otlp-endpoint", collector.endpoint, *arguments) as server, RawSession(server.address) as raw:
        ask(raw, "CreateTensor", ts.CreateTensorRequest(context=raw.context(), shape=[2], zeros={}), PARENT)
        front, engine = collector.named("tensorcompute.v1.TensorService/CreateTensor", 2)
        if engine.parent != front.id:
            front, engine = engine, front
        assert (front.parent, engine.parent, engine.trace_id) == (SPAN, front.id, TRACE)
        assert "tserver.engine" not in front.resource
        assert engine.resource["tserver.engine"]
        assert [each.name for each in collector.within(engine)] == ["queue", "turn"]
        with tc.connect(server.address), TRACER.start_as_current_span("step"):
            tc.ones(2).sum().item()
        assert collector.named("batch")[0].resource["tserver.engine"]
        create(raw, "of-house", relu_mlp((4, 3)))
        body = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
        caller = HttpCaller(listener(server, "http"))
        path = "/v2/models/of-house/infer"
        assert caller.ask("POST", path, json.dumps(body).encode(), traceparent=PARENT).status == 200
        (http,) = collector.named("POST /v2/models/{model}[/versions/{version}]/infer")
        (run,) = [each for each in collector.named("batch", 2) if "tserver.batch.rows" in each.attributes]
        parents = {each.id: each for each in collector.spans}
        assert parents[run.parent].parent == http.id


def test_a_server_goes_on_where_nobody_takes_its_spans() -> None:
    with serving("--otlp-endpoint", "http://127.0.0.1:9", "--trace-rate", "1") as server:
        with tc.connect(server.address):
            for _ in range(300):
                assert tc.ones(3).sum().item() == 3.0
        assert server.terminate() == 0


def test_settings_that_lead_nowhere_are_refused() -> None:
    for arguments, naming in (
        (("--otlp-endpoint", "localhost:4317"), "http://HOST:PORT"),
        (("--otlp-endpoint", "http://"), "http://HOST:PORT"),
        (("--otlp-endpoint", "http://collector"), "http://HOST:PORT"),
        (("--otlp-endpoint", "http://127.0.0.1:99999"), "99999"),
        (("--otlp-endpoint", "http://127.0.0.1:4318/v1/traces"), "http://HOST:PORT"),
        (("--trace-rate", "10"), "--otlp-endpoint"),
    ):
        found = subprocess.run(
            [sys.executable, "-m", "tserver", "serve", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert found.returncode == 2
        assert naming in found.stderr


THIN = """
import sys, tclient
with tclient.connect(sys.argv[1]):
    assert tclient.ones(3).sum().item() == 3.0
assert not any(name.startswith("opentelemetry") for name in sys.modules)
"""
MISSING = """
import sys, tclient
sys.modules["opentelemetry"] = None
try:
    tclient.connect(sys.argv[1], trace=True)
except ImportError as error:
    assert "pip install 'tclient[otel]'" in str(error), error
else:
    raise AssertionError("it was not refused")
"""


@pytest.mark.parametrize("program_text", [THIN, MISSING], ids=["not asked for", "not installed"])
def test_who_does_not_trace_needs_no_opentelemetry(traced: ServerProcess, program_text: str) -> None:
    subprocess.run([sys.executable, "-c", program_text, traced.address], check=True, timeout=60)


def test_a_session_may_leave_it(traced: ServerProcess, collector: Collector, program: Any) -> None:
    with tc.connect(traced.address, trace=False), TRACER.start_as_current_span("step"):
        tc.ones(3).sum().item()
    assert "batch" not in [each.name for each in program.get_finished_spans()]
