"""What each principal has and has had, for Prometheus: the first hundred by their names, all others together.

Counts are those that accounts keep anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from tserver.limits.account import Account

# As many as are told apart, lest who comes under many names fills the memory of who scrapes.
MOST = 100
OTHER = "other"
_LABELS = ("principal",)


def families(
    accounts: list[Account], sessions: Mapping[str, int], held: Mapping[str, tuple[int, int]]
) -> Iterator[Metric]:
    """All of them; of accounts in the order in which they were opened, so that who has a name keeps it."""
    names = {each.principal: each.principal if place < MOST else OTHER for place, each in enumerate(accounts)}
    gauges = (
        ("tensorcompute_principal_sessions", "Sessions of a principal", sessions),
        (
            "tensorcompute_principal_device_bytes",
            "Memory that its sessions hold",
            {name: size for name, (size, _) in held.items()},
        ),
        (
            "tensorcompute_principal_tensors",
            "Tensors that they hold",
            {name: tensors for name, (_, tensors) in held.items()},
        ),
    )
    for name, text, values in gauges:
        gauge = GaugeMetricFamily(name, text, labels=_LABELS)
        for principal, value in _summed(values, names).items():
            gauge.add_metric((principal,), value)
        yield gauge
    counters = (
        ("tensorcompute_principal_calls", "Calls of a principal's sessions that were run", _calls),
        ("tensorcompute_principal_bytes", "Bytes of its messages, uploads and downloads", _bytes),
        ("tensorcompute_principal_compute_seconds", "Time of the engine that its sessions took", _seconds),
    )
    for name, text, value_of in counters:
        counter = CounterMetricFamily(name, text, labels=_LABELS)
        for principal, value in _summed({each.principal: value_of(each) for each in accounts}, names).items():
            counter.add_metric((principal,), value)
        yield counter
    refused = CounterMetricFamily(
        "tensorcompute_principal_refusals", "What was refused as a limit was reached", labels=(*_LABELS, "limit")
    )
    total = Counter[tuple[str, str]]()
    for each in accounts:
        for limit, count in each.refused.copy().items():
            total[names[each.principal], limit] += count
    for labels, count in sorted(total.items()):
        refused.add_metric(labels, count)
    yield refused


def _summed(values: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    total: dict[str, float] = {}
    for principal, value in values.items():
        name = names.get(principal, OTHER)
        total[name] = total.get(name, 0) + value
    return total


def _calls(account: Account) -> float:
    return account.total_calls


def _bytes(account: Account) -> float:
    return account.total_bytes


def _seconds(account: Account) -> float:
    return account.total_s
