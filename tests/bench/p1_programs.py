"""P1: a recorded function of 200 small operations, called over and over: µs per operation.

Calls are pipelined: each takes what the one before it gave, and one read at the end waits for all of them. The
yardstick is the same function on local torch.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from .bench import Bench
from .processes import side
from .side import Options, Order, Run, serve
from .stats import Bar, Row

MODULE = __name__
LENGTH = 200
CALLS = 20
BAR = Bar("at most", (2.0,))


def measure(bench: Bench) -> Iterator[Row]:
    """One row."""
    order = {"repetitions": bench.choose(10, 5)}
    with (
        bench.server() as server,
        side(MODULE, "tclient", address=server.address) as remote,
        side(MODULE, "torch") as local,
    ):
        ours, theirs = bench.take_turns([remote, local], "µs/op", bench.choose(12, 4), order)
    yield Row("P1", f"compiled function of {LENGTH} operations, pipelined", ours, theirs, BAR)


def chain(y: Any, x: Any) -> Any:
    """The function."""
    for _ in range(LENGTH):
        y = y + x
    return y


def timed(torch: Any, function: Any, order: Order) -> list[float]:
    """µs per operation."""
    figures = []
    for _ in range(order["repetitions"]):
        x, y = torch.ones(4), torch.zeros(4)
        function(y, x).tolist()
        began = time.perf_counter()
        for _ in range(CALLS):
            y = function(y, x)
        values = y.tolist()
        figures.append((time.perf_counter() - began) / (CALLS * LENGTH) * 1e6)
        if values != [float(CALLS * LENGTH)] * 4:
            raise AssertionError(f"{CALLS * LENGTH} additions of one give {values}")
    return figures


@contextlib.contextmanager
def with_tclient(options: Options) -> Iterator[Run]:
    """Recorded once, kept on the server."""
    import tclient

    with tclient.connect(options.address):
        compiled = tclient.compile(chain)
        yield lambda order: timed(tclient, compiled, order)


@contextlib.contextmanager
def with_torch(options: Options) -> Iterator[Run]:
    """Without any server."""
    import torch

    yield lambda order: timed(torch, chain, order)


if __name__ == "__main__":
    serve({"tclient": with_tclient, "torch": with_torch})
