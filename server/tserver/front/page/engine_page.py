"""What there is to tell of one engine: counts, devices, sessions, tensors, models, errors. In JSON, for one caller."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tensorcompute.v1 import model_service_pb2 as ms
from tserver import __version__
from tserver.errors import NotFound
from tserver.front.page import paging
from tserver.front.page.tensors import TensorLists, looked_at
from tserver.front.routing import SERVICES
from tserver.host import resident_bytes
from tserver.identity import Identity, Role
from tserver.models.names import owner_in
from tserver.models.owners import Owners, told_name
from tserver.models.statistics import LATENCY_BOUNDS_S, Histogram
from tserver.session import listing

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tserver.engines.port import Engine, ServedModel, Session, Usage
    from tserver.front.rpc_counts import MethodCounts, RpcCounts

OWN_NAME = "Page"
"""How what the page itself asks for is counted: it is not shown."""

Asked = Mapping[str, str]
Answer = dict[str, Any]

# What was counted is told again for this long; and how long the engine is waited for, which may be in a long kernel.
_FRESH_S = 1.0
_PATIENCE_S = 0.5
_MOST_AT = 1 << 30
# How long these take says nothing: they go on until one side ends them.
_STREAMS = frozenset(
    (service.full_name, method.name)
    for service in SERVICES
    for method in service.methods
    if method.client_streaming or method.server_streaming
)


class EnginePage:
    """One engine, as it is shown to those who look."""

    def __init__(self, engine: Engine, rpcs: RpcCounts, name: str = "engine") -> None:
        self._engine, self._rpcs, self._name = engine, rpcs, name
        self._owners = Owners(engine.models.registry.has)
        self._lists = TensorLists()
        self._asking: Future[Usage] | None = None
        self._usage: Usage | None = None
        self._counted_at = 0.0
        self._questions: Mapping[str, Callable[[Asked, Identity], Awaitable[Answer]]] = {
            "overview": self._overview,
            "sessions": self._sessions,
            "session": self._session,
            "tensors": self._tensors,
            "tensor": self._tensor,
            "models": self._models,
            "model": self._model,
            "requests": self._requests,
            "errors": self._errors,
        }

    async def answer(self, what: str, asked: Asked, identity: Identity) -> Answer:
        """What a caller is shown. Raises: NotFound for what there is not, or is another's; InvalidArgument."""
        return await self._questions[what](asked, identity)

    # --- all together ---

    async def _overview(self, asked: Asked, identity: Identity) -> Answer:
        is_busy = not await self._count()
        engine, usage = self._engine, self._usage
        sees_all = identity.role >= Role.ADMIN
        sessions = [session.seen() for session in engine.sessions.visible(identity)]
        models = self._owners.visible(engine.models.registry.index(), identity)
        totals: dict[str, float] = {
            "sessions": len(sessions),
            "attached": sum(each.is_attached for each in sessions),
            "tensors": sum(each.tensors for each in sessions),
            "held_bytes": sum(each.held_bytes for each in sessions),
            "batches": sum(each.batches for each in sessions),
            **_model_totals(models),
        }
        told: Answer = {
            "version": __version__,
            "bounds_s": LATENCY_BOUNDS_S,
            "engines": [self._told(usage, is_busy=is_busy)],
            "latency": _added(each.statistics.latency for each in models),
            "queued": _added(each.statistics.waited for each in models),
        }
        if sees_all:
            methods = self._rpcs.by_method.copy()
            unary = [counts for key, counts in methods.items() if key not in _STREAMS and not _is_own(key)]
            counts = engine.counts
            totals |= {
                "batches": counts.batches,
                "calls": counts.calls,
                "call_failures": sum(counts.failures.values()),
                "rpcs": sum(sum(each.latency.counts) for each in unary),
                "bytes_in": sum(each.bytes_in for each in methods.values()),
                "bytes_out": sum(each.bytes_out for each in methods.values()),
            }
            if usage is not None:
                # Memory that sessions share is counted once.
                totals["held_bytes"] = sum(usage.tensor_bytes.values())
            told["rpc_latency"] = _added(each.latency for each in unary)
            told["failures"] = dict(counts.failures)
        return {**told, "totals": totals}

    def _told(self, usage: Usage | None, *, is_busy: bool) -> Answer:
        engine = self._engine
        devices = usage.devices if usage is not None else engine.devices()
        return {
            "name": self._name,
            "state": "busy" if is_busy else "serving",
            "device": engine.device,
            "torch": engine.torch_version,
            "sessions": len(engine.sessions),
            "resident_bytes": resident_bytes(),
            "max_memory_bytes": 0 if usage is None else usage.max_memory_bytes,
            "cpu_s": time.process_time(),
            "devices": [
                {
                    "name": each.name,
                    "description": each.description,
                    "total_bytes": each.total_bytes,
                    "free_bytes": each.free_bytes,
                    "allocated_bytes": each.allocated_bytes,
                }
                for each in devices
            ],
            "gpus": [{"utilization": each.utilization, "power_w": each.power_w} for each in engine.gpus()],
        }

    async def _count(self) -> bool:
        """Have it counted what sessions hold, once for all who look; whether that is of now."""
        if time.monotonic() < self._counted_at + _FRESH_S:
            return True
        asking = self._asking = self._asking or self._engine.usage()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                self._usage = await asyncio.shield(asyncio.wrap_future(asking))
            if self._asking is asking:
                self._asking, self._counted_at = None, time.monotonic()
            return True
        return False

    # --- sessions and tensors ---

    async def _sessions(self, asked: Asked, identity: Identity) -> Answer:
        await self._count()
        rows = [self._row(session) for session in self._engine.sessions.visible(identity)]
        return paging.page(rows, asked, "opened_unix_s")

    async def _session(self, asked: Asked, identity: Identity) -> Answer:
        await self._count()
        return self._row(self._find(asked, identity))

    def _find(self, asked: Asked, identity: Identity) -> Session:
        return listing.named(self._engine.sessions, identity, asked["session"])

    def _row(self, session: Session) -> Answer:
        return {**session.seen()._asdict(), "engine": self._name}

    async def _tensors(self, asked: Asked, identity: Identity) -> Answer:
        return await self._lists.page(self._find(asked, identity), asked)

    async def _tensor(self, asked: Asked, identity: Identity) -> Answer:
        session = self._find(asked, identity)
        return await looked_at(session, asked["tensor"], paging.number(asked, "at", 0, _MOST_AT))

    # --- models ---

    async def _models(self, asked: Asked, identity: Identity) -> Answer:
        found = self._owners.visible(self._engine.models.registry.index(), identity)
        rows = [
            {
                "name": told_name(each.name, identity),
                "version": each.version,
                "state": each.state,
                "owner": owner_in(each.name) or each.owner,
                "device": each.device,
                "parameters": each.parameters,
                "parameter_bytes": each.parameter_bytes,
                "waiting": each.waiting,
                "requests": each.statistics.success.count,
                "failures": sum(each.statistics.failures.copy().values()),
                "engine": self._name,
            }
            for each in found
        ]
        return paging.page(rows, asked, "name")

    async def _model(self, asked: Asked, identity: Identity) -> Answer:
        name, version = asked["model"], asked["version"]
        for each in self._owners.visible(self._engine.models.registry.index(), identity):
            if told_name(each.name, identity) == name and str(each.version) == version:
                return self._described(each, identity)
        raise NotFound(f"there is no version {version[:20]!r} of a model {name[:100]!r}")

    def _described(self, served: ServedModel, identity: Identity) -> Answer:
        summary, statistics = served.summary(), served.statistics
        registry = self._engine.models.registry
        executed = statistics.compute_infer
        return {
            "name": told_name(served.name, identity),
            "version": served.version,
            "versions": [{"version": each.version, "state": each.state} for each in registry.versions(served.name)],
            "state": served.state,
            "reason": served.reason,
            "owner": summary.owner,
            "is_public": summary.public,
            "is_persistent": served.is_persistent,
            "device": served.device,
            "engine": self._name,
            "parameters": served.parameters,
            "parameter_bytes": served.parameter_bytes,
            "non_finite_parameters": served.non_finite_parameters,
            "flops_per_row": served.flops_per_row,
            "is_batched": served.is_batched,
            "calls": served.calls,
            "text": served.text[:20_000],
            "inputs": [{"name": each.name, "text": each.text()} for each in served.inputs[:50]],
            "outputs": [{"name": each.name, "text": each.text()} for each in served.outputs[:50]],
            "layers": [
                {
                    "in_features": layer.in_features,
                    "out_features": layer.out_features,
                    "activation": _activation(layer.activation.kind),
                    "has_bias": layer.has_bias,
                }
                for layer in served.layers[:200]
            ],
            "max_batch_size": summary.batching.max_batch_size,
            "max_queue_delay_us": summary.batching.max_queue_delay_us,
            "waiting": served.waiting,
            "requests": statistics.success.count,
            "rows": statistics.inference_count,
            "passes": statistics.execution_count,
            "mean_compute_us": executed.ns / executed.count / 1e3 if executed.count else None,
            "failures": statistics.failures.copy(),
            "batch_sizes": sorted(
                (rows, each.compute_infer.count) for rows, each in statistics.batch_sizes.copy().items()
            ),
            "latency": list(statistics.latency.counts),
            "queued": list(statistics.waited.counts),
            "bounds_s": LATENCY_BOUNDS_S,
            "last_inference_unix_s": statistics.last_inference_ms / 1000,
        }

    # --- requests ---

    async def _requests(self, asked: Asked, identity: Identity) -> Answer:
        """RPCs by their method: of all callers, and so for administrators alone."""
        if identity.role < Role.ADMIN:
            return {"total": 0, "rows": []}
        rows = [_method(*key, counts) for key, counts in self._rpcs.by_method.copy().items() if not _is_own(key)]
        return {**paging.page([row for row in rows if row["started"]], asked, "method"), "bounds_s": LATENCY_BOUNDS_S}

    async def _errors(self, asked: Asked, identity: Identity) -> Answer:
        rows = [{**each._asdict(), "engine": self._name} for each in self._rpcs.recent.visible(identity)]
        return paging.page(rows, {"descending": "1", **asked}, "unix_s")


def _is_own(key: tuple[str, str]) -> bool:
    """Whether that is what people look at a server by, or how its processes look at each other."""
    return key[1] in (OWN_NAME, "Metrics") or key[0] == "tensorcompute.house" or key[0].startswith("grpc.")


def _activation(kind: ms.ActivationKind) -> str:
    named = kind or ms.ACTIVATION_KIND_IDENTITY
    return ms.ActivationKind.Name(named).removeprefix("ACTIVATION_KIND_").lower()


def _method(service: str, method: str, counts: MethodCounts) -> Answer:
    is_stream = (service, method) in _STREAMS
    return {
        "service": service,
        "method": method,
        "is_stream": is_stream,
        "started": counts.started,
        "active": counts.started - sum(counts.latency.counts),
        "failed": sum(counts.by_reason.copy().values()),
        "reasons": counts.by_reason.copy(),
        "bytes_in": counts.bytes_in,
        "bytes_out": counts.bytes_out,
        "latency": [] if is_stream else list(counts.latency.counts),
    }


def _model_totals(models: Sequence[ServedModel]) -> dict[str, float]:
    return {
        "models": len(models),
        "models_ready": sum(each.state == "READY" for each in models),
        "waiting": sum(each.waiting for each in models),
        "requests": sum(each.statistics.success.count for each in models),
        "rows": sum(each.statistics.inference_count for each in models),
        "passes": sum(each.statistics.execution_count for each in models),
        "request_failures": sum(sum(each.statistics.failures.copy().values()) for each in models),
    }


def _added(histograms: Iterable[Histogram]) -> list[int]:
    """How many took how long, of all together."""
    total = [0] * (len(LATENCY_BOUNDS_S) + 1)
    for each in histograms:
        total = [a + b for a, b in zip(total, each.counts, strict=True)]
    return total
