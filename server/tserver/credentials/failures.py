"""How often a host may fail to say who calls: a bucket for each, from which a failure takes, and which fills again."""

from __future__ import annotations

import ipaddress
import time

# So many at once, and so many a second from then on.
BURST = 60.0
PER_S = 2.0
# Hosts that are remembered; the one that has not failed for longest is forgotten first.
_MAX_HOSTS = 4096


class Failures:
    """Those of the callers of one process."""

    def __init__(self) -> None:
        # What is in the bucket of a host, and since when.
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_s(self, host: str) -> float:
        """How long a host has to wait before it may fail again; 0 is not at all."""
        return max(0.0, (1.0 - self._left(_network(host), time.monotonic())) / PER_S)

    def count(self, host: str) -> None:
        """It has failed."""
        now, network = time.monotonic(), _network(host)
        left = self._left(network, now)
        self._buckets.pop(network, None)
        self._buckets[network] = max(0.0, left - 1.0), now
        if len(self._buckets) > _MAX_HOSTS:
            del self._buckets[next(iter(self._buckets))]

    def _left(self, network: str, now: float) -> float:
        left, since = self._buckets.get(network, (BURST, now))
        return min(BURST, left + (now - since) * PER_S)


def _network(host: str) -> str:
    """Whose bucket it is: who has one address of IPv6 has as many as there are in its network."""
    kind, _, address = host.partition(":")
    if kind != "ipv6":
        return host
    try:
        found = ipaddress.IPv6Address(address.strip("[]").partition("%")[0])
    except ValueError:
        return host
    return str(found.ipv4_mapped or ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
