"""W1: a chain of dependent small operations and one read: what an operation costs when nobody waits in between.

Both sides run the very same loop; the yardstick is torch in the same process, without any server.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from .bench import Bench
from .processes import side
from .side import Options, Order, Run, serve
from .stats import Bar, Row

MODULE = __name__
LENGTH = 2000
LANE_BAR = Bar("at most", (3.2, 2))
GRPC_BAR = Bar("at most", (15, 8, 6))


def measure(bench: Bench) -> Iterator[Row]:
    """For either road a row unpinned, which the bar judges, and one with all processes on one core."""
    rounds, repetitions = bench.choose(12, 4), bench.choose(8, 5)
    for cpu, where in ((None, "unpinned"), (bench.one_core, "one core")):
        with (
            bench.server(cpu=cpu) as server,
            side(MODULE, "tclient", address=server.address, cpu=cpu) as lane,
            side(MODULE, "tclient over gRPC", address=server.address, cpu=cpu) as grpc_alone,
            side(MODULE, "torch", cpu=cpu) as local,
        ):
            order = {"repetitions": repetitions, "length": LENGTH}
            ours, over_grpc, theirs = bench.take_turns([lane, grpc_alone, local], "µs/op", rounds, order)
        what = f"chain of {LENGTH} `y = y + x`, then a read, {where}"
        bars = (LANE_BAR, GRPC_BAR) if cpu is None else (None, None)
        yield Row("W1", f"{what}, lane", ours, theirs, bars[0], note=bench.compiled)
        yield Row("W1", f"{what}, gRPC", over_grpc, theirs, bars[1], note=bench.compiled)


def chains(torch: Any, order: Order) -> list[float]:
    """Run chains; µs per operation of each."""
    length = order["length"]
    figures = []
    for _ in range(order["repetitions"]):
        x, y = torch.ones(4), torch.zeros(4)
        y.tolist()
        began = time.perf_counter()
        for _ in range(length):
            y = y + x
        values = y.tolist()
        figures.append((time.perf_counter() - began) / length * 1e6)
        if values != [float(length)] * 4:
            raise AssertionError(f"the sum of {length} ones is {values}")
    return figures


@contextlib.contextmanager
def with_tclient(options: Options, *, lane: bool = True) -> Iterator[Run]:
    """The loop through a server."""
    import tclient

    with tclient.connect(options.address, lane=lane):
        yield partial(chains, tclient)


@contextlib.contextmanager
def with_torch(options: Options) -> Iterator[Run]:
    """The loop on local torch."""
    import torch

    yield partial(chains, torch)


if __name__ == "__main__":
    serve(
        {
            "tclient": with_tclient,
            "tclient over gRPC": partial(with_tclient, lane=False),
            "torch": with_torch,
        }
    )
