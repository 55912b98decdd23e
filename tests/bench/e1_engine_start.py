"""E1: what an engine of one's own costs to get: from connecting to the first result, where each session has one.

None is kept ready, so each session waits for its engine to be forked. The yardstick is a session on a server that is
there already.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from .bench import Bench
from .processes import side
from .side import Options, Order, Run, serve
from .stats import Bar, Row

MODULE = __name__
BAR = Bar("at most", (1.5,), unit=" s")


def measure(bench: Bench) -> Iterator[Row]:
    """One row; its bar judges the slowest start, for somebody waits for each."""
    with (
        bench.server("--isolation", "session", "--spare-engines", "0") as isolated,
        bench.server() as alone,
        side(MODULE, "tclient", address=isolated.address) as ours,
        side(MODULE, "tclient", address=alone.address) as there,
    ):
        new, old = bench.take_turns([ours, there], "s", bench.choose(20, 6), {"repetitions": 1})
    slowest = max(new.all)
    yield Row("E1", "session with a new engine, first result", new, old, BAR, value=slowest, note="slowest")


@contextlib.contextmanager
def first_results(options: Options) -> Iterator[Run]:
    """Sessions, one after the other, until their first result is here."""
    import tclient

    def run(order: Order) -> list[float]:
        figures = []
        for _ in range(order["repetitions"]):
            began = time.perf_counter()
            with tclient.connect(options.address):
                (tclient.ones(4) + 1).tolist()
                figures.append(time.perf_counter() - began)
        return figures

    yield run


if __name__ == "__main__":
    serve({"tclient": first_results})
