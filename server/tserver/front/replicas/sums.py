"""Statistics of the replicas of a model, added up. Knows the contract's messages alone."""

from __future__ import annotations

from collections.abc import Iterable

from tensorcompute.v1 import model_service_pb2 as ms

_COUNTS = ("inference_count", "execution_count", "rejected", "timed_out", "cancelled", "waiting")
_PARTS = ("compute_input", "compute_infer", "compute_output")
_DURATIONS = ("success", "fail", "queue", *_PARTS)


def summed(name: str, version: int, each: Iterable[ms.MlpStatistics]) -> ms.MlpStatistics:
    """How often and how fast a model was run on all engines together."""
    total = ms.MlpStatistics(name=name, version=version)
    batches: dict[int, ms.BatchStatistics] = {}
    for one in each:
        total.last_inference_ms = max(total.last_inference_ms, one.last_inference_ms)
        for count in _COUNTS:
            setattr(total, count, getattr(total, count) + getattr(one, count))
        for duration in _DURATIONS:
            _add(getattr(total, duration), getattr(one, duration))
        for batch in one.batches:
            into = batches.setdefault(batch.batch_size, ms.BatchStatistics(batch_size=batch.batch_size))
            for part in _PARTS:
                _add(getattr(into, part), getattr(batch, part))
    total.batches.extend(batches[size] for size in sorted(batches))
    return total


def _add(total: ms.DurationTotal, one: ms.DurationTotal) -> None:
    total.count += one.count
    total.ns += one.ns
