"""The metrics of a house, over HTTP: those of each engine, by its name, and those of the front."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import grpc
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tserver.front.house_service import SERVICE
from tserver.front.http.messages import HttpRequest, HttpResponse, Route
from tserver.front.metrics import DiskCollector, RpcCollector
from tserver.identity import Role

if TYPE_CHECKING:
    from tserver.engines.directory import Directory, Entry
    from tserver.front.engine_channels import EngineChannels
    from tserver.front.rpc_counts import RpcCounts

# How long an engine is waited for. One that does not answer is left out, and tensorcompute_engine_up says so.
_TIMEOUT_S = 2.0
# The label that tells engines apart; the front itself is one of them by this name.
_LABEL = "engine"
_FRONT = "front"


class HouseMetrics:
    """The metrics of all processes of a house."""

    def __init__(self, directory: Directory, channels: EngineChannels, rpcs: RpcCounts, data_dir: str) -> None:
        self._directory = directory
        self._channels = channels
        self._own = CollectorRegistry()
        self._own.register(RpcCollector(rpcs))
        self._own.register(DiskCollector(data_dir))
        ProcessCollector(registry=self._own)
        self._scraping = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Where they are."""
        return [Route("GET", "/metrics", "Metrics", self._scrape, needs=Role.ADMIN)]

    async def _scrape(self, request: HttpRequest) -> HttpResponse:
        async with self._scraping:
            entries = list(self._directory.engines.values())
            texts = await asyncio.gather(*map(self._ask, entries))
            told = {entry.info.engine: text for entry, text in zip(entries, texts, strict=True)}
            waiting = list(self._directory.waiting)
            text = await asyncio.to_thread(self._merged, told, waiting)
        return HttpResponse(body=(text,), content_type=CONTENT_TYPE_LATEST)

    async def _ask(self, entry: Entry) -> str | None:
        try:
            text = await self._channels.ask(entry, f"/{SERVICE}/Metrics", b"", timeout_s=_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return None
        return text.decode()

    def _merged(self, told: dict[str, str | None], waiting: Iterable[str]) -> bytes:
        up = GaugeMetricFamily("tensorcompute_engine_up", "Whether an engine answers", labels=(_LABEL,))
        found: dict[str, Metric] = {}
        _add(found, generate_latest(self._own).decode(), _FRONT)
        for engine, text in told.items():
            up.add_metric((engine,), text is not None)
            if text is not None:
                _add(found, text, engine)
        for engine in waiting:
            up.add_metric((engine,), 0)
        registry = CollectorRegistry()
        registry.register(_Families([up, *found.values()]))
        return generate_latest(registry)


def _add(found: dict[str, Metric], text: str, engine: str) -> None:
    """Take the families of a process, each of their samples with its name."""
    for family in text_string_to_metric_families(text):
        known = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        for sample in family.samples:
            known.add_sample(sample.name, {**sample.labels, _LABEL: engine}, sample.value)


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families
