"""What the server tells Prometheus, over HTTP.

Everything is read when somebody scrapes, from counts that are kept anyway, on a thread, one scrape at a time. Where a
number means what one of Triton's means, it has Triton's name (nv_*), so that dashboards made for Triton work; all
others begin with tensorcompute_.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from tserver import __version__
from tserver.front import principal_metrics
from tserver.front.http.messages import HttpRequest, HttpResponse, Route
from tserver.front.rpc_counts import RpcCounts
from tserver.identity import Role
from tserver.models.names import owner_in
from tserver.models.statistics import LATENCY_BOUNDS_S, Histogram, ModelStatistics

if TYPE_CHECKING:
    from tserver.engines.port import Engine, GpuStatus, ServedModel, Usage

# How long a scrape waits for the engine, which may be in a long kernel; after that it tells what it knew before.
_USAGE_TIMEOUT_S = 1.0
# Versions of models of one owner.
_MAX_OF_OWNER = 100
_BATCH_BOUNDS = tuple(1 << power for power in range(13))

_TRITON_COUNTERS: tuple[tuple[str, str, Callable[[ModelStatistics], int]], ...] = (
    ("nv_inference_request_success", "Requests that were answered", lambda s: s.success.count),
    ("nv_inference_count", "Rows that were run", lambda s: s.inference_count),
    ("nv_inference_exec_count", "Forward passes", lambda s: s.execution_count),
    ("nv_inference_request_duration_us", "Time of requests to their outputs", lambda s: s.success.ns // 1000),
    ("nv_inference_queue_duration_us", "Time of requests in the queue", lambda s: s.queue.ns // 1000),
    ("nv_inference_compute_input_duration_us", "Time of gathering inputs", lambda s: s.compute_input.ns // 1000),
    ("nv_inference_compute_infer_duration_us", "Time of the forward passes", lambda s: s.compute_infer.ns // 1000),
    ("nv_inference_compute_output_duration_us", "Time of handing out outputs", lambda s: s.compute_output.ns // 1000),
)


class Metrics:
    """The metrics of one process."""

    def __init__(self, engine: Engine, rpcs: RpcCounts, data_dir: str = "") -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_ServerCollector(engine))
        self._registry.register(_ModelCollector(engine))
        self._registry.register(RpcCollector(rpcs))
        self._registry.register(GpuCollector(engine.gpus))
        self._registry.register(DiskCollector(data_dir))
        ProcessCollector(registry=self._registry)
        self._scraping = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Where they are."""
        return [Route("GET", "/metrics", "Metrics", self._scrape, needs=Role.ADMIN)]

    async def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        async with self._scraping:
            return await asyncio.to_thread(generate_latest, self._registry)

    async def _scrape(self, request: HttpRequest) -> HttpResponse:
        write, content_type = choose_encoder(request.headers.get("Accept", ""))
        names = parse_qs(request.query).get("name[]")
        registry = self._registry.restricted_registry(names) if names else self._registry
        async with self._scraping:
            # The engine may let it wait.
            text = await asyncio.to_thread(write, registry)
        return HttpResponse(body=(text,), content_type=content_type)


class _ServerCollector(Collector):
    """Sessions, what they hold, and what they have run."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: Usage | None = None

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "tensorcompute_build_info", "Always 1; the labels say what runs", labels=("version", "torch")
        )
        info.add_metric((__version__, self._engine.torch_version), 1)
        yield info
        yield GaugeMetricFamily("tensorcompute_sessions", "Sessions that are open", value=len(self._engine.sessions))
        counts = self._engine.counts
        yield CounterMetricFamily("tensorcompute_batches", "Batches of calls that were run", value=counts.batches)
        yield CounterMetricFamily("tensorcompute_calls", "Calls of sessions that were run", value=counts.calls)
        failures = CounterMetricFamily(
            "tensorcompute_call_failures", "Calls of sessions that failed or were skipped", labels=("reason",)
        )
        _add_all(failures, counts.failures)
        yield failures
        usage = self._usage()
        if usage is not None:
            yield from _usage_families(usage)
        held = {} if usage is None else usage.by_principal
        yield from principal_metrics.families(self._engine.accounts.all(), self._engine.sessions.by_principal(), held)

    def _usage(self) -> Usage | None:
        with contextlib.suppress(TimeoutError):
            self._known = self._engine.usage().result(_USAGE_TIMEOUT_S)
        return self._known


def _usage_families(usage: Usage) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "tensorcompute_tensors", "Tensors that sessions hold; views of one are counted once", value=usage.tensors
    )
    held = GaugeMetricFamily("tensorcompute_tensor_bytes", "Memory of those tensors", labels=("device",))
    _add_all(held, usage.tensor_bytes)
    yield held
    total = GaugeMetricFamily("tensorcompute_device_memory_total_bytes", "Memory of a device", labels=("device",))
    free = GaugeMetricFamily("tensorcompute_device_memory_free_bytes", "Memory that is free", labels=("device",))
    allocated = GaugeMetricFamily(
        "tensorcompute_device_memory_allocated_bytes", "Memory that tensors of this process take", labels=("device",)
    )
    for device in usage.devices:
        total.add_metric((device.name,), device.total_bytes)
        free.add_metric((device.name,), device.free_bytes)
        allocated.add_metric((device.name,), device.allocated_bytes)
    yield from (total, free, allocated)


class _ModelCollector(Collector):
    """Forward passes of the models."""

    _LABELS = ("model", "version")

    def __init__(self, engine: Engine) -> None:
        self._registry = engine.models.registry

    def collect(self) -> Iterator[Metric]:
        served = list(_bounded(self._registry.index()))
        yield from self._triton_counters(served)
        waiting = _triton("nv_inference_pending_request_count", "Requests that wait", "gauge")
        memory = GaugeMetricFamily(
            "tensorcompute_model_memory_bytes", "Memory of the weights", labels=(*self._LABELS, "device")
        )
        ready = GaugeMetricFamily("tensorcompute_model_ready", "Whether the model serves", labels=self._LABELS)
        latency = HistogramMetricFamily(
            "tensorcompute_model_request_duration_seconds",
            "Time of a request from its arrival to its outputs",
            labels=self._LABELS,
        )
        queue = HistogramMetricFamily(
            "tensorcompute_model_queue_duration_seconds", "Time of a request in the queue", labels=self._LABELS
        )
        batches = HistogramMetricFamily("tensorcompute_model_batch_size", "Rows of a forward pass", labels=self._LABELS)
        received = CounterMetricFamily(
            "tensorcompute_model_input_bytes", "Bytes of inputs that were run", labels=self._LABELS
        )
        sent = CounterMetricFamily("tensorcompute_model_output_bytes", "Bytes of outputs", labels=self._LABELS)
        cancelled = CounterMetricFamily(
            "tensorcompute_model_cancelled", "Requests that their callers took back in the queue", labels=self._LABELS
        )
        for each in served:
            labels = _labels(each)
            statistics = each.statistics
            waiting.add_sample(waiting.name, dict(zip(self._LABELS, labels, strict=True)), each.waiting)
            is_ready = each.state == "READY"
            ready.add_metric(labels, is_ready)
            memory.add_metric((*labels, each.device), each.parameter_bytes if is_ready else 0)
            _add_histogram(latency, labels, statistics.latency, statistics.success.ns / 1e9)
            _add_histogram(queue, labels, statistics.waited, statistics.queue.ns / 1e9)
            sizes = {rows: batch.compute_infer.count for rows, batch in statistics.batch_sizes.copy().items()}
            batches.add_metric(labels, _cumulated_sizes(sizes), sum(rows * count for rows, count in sizes.items()))
            received.add_metric(labels, statistics.bytes_in)
            sent.add_metric(labels, statistics.bytes_out)
            cancelled.add_metric(labels, statistics.cancelled)
        yield from (waiting, memory, ready, latency, queue, batches, received, sent, cancelled)

    def _triton_counters(self, served: list[ServedModel]) -> Iterator[Metric]:
        failure = _triton("nv_inference_request_failure", "Requests that failed")
        families = [(_triton(name, text), value) for name, text, value in _TRITON_COUNTERS]
        for each in served:
            labels = dict(zip(self._LABELS, _labels(each), strict=True))
            for family, value in families:
                family.add_sample(family.name, labels, value(each.statistics))
            for reason, count in each.statistics.failures.copy().items():
                failure.add_sample(failure.name, {**labels, "reason": reason}, count)
        yield from (*(family for family, _ in families), failure)


class RpcCollector(Collector):
    """RPCs of all listeners."""

    def __init__(self, rpcs: RpcCounts) -> None:
        self._rpcs = rpcs

    def collect(self) -> Iterator[Metric]:
        labels = ("service", "method")
        finished = CounterMetricFamily("tensorcompute_rpcs", "RPCs that ended", labels=(*labels, "code"))
        active = GaugeMetricFamily("tensorcompute_rpcs_active", "RPCs under way", labels=labels)
        failures = CounterMetricFamily("tensorcompute_rpc_failures", "RPCs that failed", labels=(*labels, "reason"))
        latency = HistogramMetricFamily("tensorcompute_rpc_duration_seconds", "Time of an RPC", labels=labels)
        received = CounterMetricFamily("tensorcompute_rpc_received_bytes", "Bytes of requests", labels=labels)
        sent = CounterMetricFamily("tensorcompute_rpc_sent_bytes", "Bytes of responses", labels=labels)
        for key, counts in sorted(self._rpcs.by_method.copy().items()):
            _add_all(finished, counts.by_code, key)
            _add_all(failures, counts.by_reason, key)
            active.add_metric(key, counts.started - sum(counts.latency.counts))
            _add_histogram(latency, key, counts.latency, counts.seconds)
            received.add_metric(key, counts.bytes_in)
            sent.add_metric(key, counts.bytes_out)
        yield from (finished, active, failures, latency, received, sent)


class DiskCollector(Collector):
    """The disk of the data directory; nothing where there is none."""

    def __init__(self, data_dir: str) -> None:
        self._data_dir = data_dir

    def collect(self) -> Iterator[Metric]:
        try:
            disk = shutil.disk_usage(self._data_dir)
        except OSError:
            return
        yield GaugeMetricFamily("tensorcompute_disk_total_bytes", "Disk of the data directory", value=disk.total)
        yield GaugeMetricFamily("tensorcompute_disk_free_bytes", "What of it is free", value=disk.free)


class GpuCollector(Collector):
    """GPUs, under Triton's names; nothing where there are none."""

    def __init__(self, gpus: Callable[[], list[GpuStatus]]) -> None:
        self._gpus = gpus

    def collect(self) -> Iterator[Metric]:
        found = self._gpus()
        if not found:
            return
        families = (
            (_triton("nv_gpu_utilization", "Part of the time that kernels ran, 0 to 1", "gauge"), "utilization"),
            (_triton("nv_gpu_memory_total_bytes", "Memory of the GPU", "gauge"), "total_bytes"),
            (_triton("nv_gpu_memory_used_bytes", "Memory that is in use, by any process", "gauge"), "used_bytes"),
            (_triton("nv_gpu_power_usage", "Power in watts", "gauge"), "power_w"),
        )
        for gpu in found:
            told = {
                "utilization": gpu.utilization,
                "total_bytes": gpu.total_bytes,
                "used_bytes": gpu.used_bytes,
                "power_w": gpu.power_w,
            }
            for family, key in families:
                value = told[key]
                if value is not None:
                    family.add_sample(family.name, {"gpu_uuid": gpu.uuid}, value)
        yield from (family for family, _ in families)


def _triton(name: str, text: str, kind: Literal["unknown", "gauge"] = "unknown") -> Metric:
    """A family with a name of Triton's. Its counters do not end in _total, which the type counter would add."""
    return Metric(name, text, kind)


def _bounded(served: Iterable[ServedModel]) -> Iterator[ServedModel]:
    """Those that are told of: of each owner only so many, lest one fills the memory of who scrapes."""
    told = Counter[str]()
    for each in served:
        owner = owner_in(each.name) or each.owner
        told[owner] += 1
        # Those without an owner are everybody's, and of a server that trusts all who come.
        if not owner or told[owner] <= _MAX_OF_OWNER:
            yield each


def _labels(served: ServedModel) -> tuple[str, str]:
    return served.name, str(served.version)


def _add_all(
    family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float], labels: Iterable[str] = ()
) -> None:
    for key, value in sorted(values.copy().items() if isinstance(values, dict) else values.items()):
        family.add_metric((*labels, key), value)


def _add_histogram(
    family: HistogramMetricFamily, labels: tuple[str, str], histogram: Histogram, seconds: float
) -> None:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, LATENCY_BOUNDS_S), "+Inf"), histogram.counts.copy(), strict=True):
        total += count
        buckets.append((bound, total))
    family.add_metric(labels, buckets, seconds)


def _cumulated_sizes(sizes: Mapping[int, int]) -> list[tuple[str, float]]:
    """Forward passes of at most that many rows."""
    bounds = [(str(bound), sum(n for rows, n in sizes.items() if rows <= bound)) for bound in _BATCH_BOUNDS]
    return [*bounds, ("+Inf", sum(sizes.values()))]
