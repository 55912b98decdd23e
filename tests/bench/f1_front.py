"""F1: what a front costs that forwards to the engine: a chain, a round trip, and bulk bytes, beside the engine alone.

Both sides speak gRPC alone: what takes a lane or the data endpoint does not pass through a front. The yardstick is the
same client at a lone server.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from . import w1_chain, w2_round_trip, w3_bulk
from .bench import Bench
from .processes import side
from .side import MakeSide, Order, serve
from .stats import Bar, Row

MODULE = __name__
FRONT, ALONE = "through a front", "the engine alone"
CHAIN_BAR = Bar("at most", (1.5, 1.2))
BULK_BAR = Bar("at least", (0.5, 0.7))


def measure(bench: Bench) -> Iterator[Row]:
    """A row for each kind of work."""
    size_bytes = bench.choose(256, 64) << 20
    chain = {"repetitions": bench.choose(8, 5), "length": w1_chain.LENGTH}
    trip = {"repetitions": bench.choose(250, 100)}
    with bench.server("--threads", "1") as server, bench.server("--engines", "2", "--front-only") as front:
        addresses = (front.address, server.address)
        rounds = bench.choose(12, 4)
        chained = f"chain of {w1_chain.LENGTH} `y = y + x`, then a read"
        yield _row(bench, addresses, "chain", "µs/op", rounds, chain, chained, CHAIN_BAR)
        yield _row(bench, addresses, "trip", "µs", rounds, trip, "one add and its read")
        for direction in ("upload", "download"):
            order = {"repetitions": 4, "bytes": size_bytes, "direction": direction}
            what = f"{direction} of {size_bytes >> 20} MiB"
            yield _row(bench, addresses, "bulk", "GB/s", bench.choose(5, 3), order, what, BULK_BAR)


def _row(
    bench: Bench,
    addresses: tuple[str, str],
    work: str,
    unit: str,
    rounds: int,
    order: Order,
    what: str,
    bar: Bar | None = None,
) -> Row:
    with (
        side(MODULE, f"{work}, {FRONT}", address=addresses[0]) as forwarded,
        side(MODULE, f"{work}, {ALONE}", address=addresses[1]) as direct,
    ):
        ours, theirs = bench.take_turns([forwarded, direct], unit, rounds, order)
    return Row("F1", f"{what}, gRPC", ours, theirs, bar)


if __name__ == "__main__":
    works: dict[str, MakeSide] = {
        "chain": partial(w1_chain.with_tclient, lane=False),
        "trip": partial(w2_round_trip.with_tclient, lane=False),
        "bulk": w3_bulk.with_grpc,
    }
    serve({f"{work}, {way}": make for work, make in works.items() for way in (FRONT, ALONE)})
