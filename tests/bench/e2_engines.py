"""E2: two engines on two cores: what two sessions get done together, and what one waits beside another's long kernels.

The yardstick of the first is the same on one engine, of the second the same session while the other one rests.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .bench import Bench
from .processes import side
from .side import Options, Order, Run, serve
from .stats import Bar, Row

if TYPE_CHECKING:
    from tclient import Session

MODULE = __name__
# Large enough that its elements stay in the caches of a core and the client's part is nothing: smaller products of two
# cores contend for memory, as those of two processes with torch alone do. Each engine has one thread.
SIDE = 1000
PRODUCTS_A_READ = 4
# A product that takes some seconds on a core.
LONG_SIDE = 4500
TOGETHER_BAR = Bar("at least", (1.7,))
BESIDE_BAR = Bar("at most", (3,))


def measure(bench: Bench) -> Iterator[Row]:
    """Throughput of both sessions, and the time of an operation and its read."""
    rounds = bench.choose(8, 4)
    with (
        bench.server("--engines", "2") as two,
        bench.server("--threads", "1") as one,
        side(MODULE, "two sessions", address=two.address) as apart,
        side(MODULE, "two sessions", address=one.address) as together,
    ):
        on_two, on_one = bench.take_turns([apart, together], "products/s", rounds, {"seconds": bench.choose(4, 2)})
    yield Row("E2", f"two sessions' products of {SIDE} x {SIDE}, two engines", on_two, on_one, TOGETHER_BAR)
    with (
        bench.server("--engines", "2") as two,
        side(MODULE, "beside long kernels", address=two.address) as beside,
        side(MODULE, "beside nobody", address=two.address) as alone,
    ):
        busy, idle = bench.take_turns([beside, alone], "µs", rounds, {"repetitions": bench.choose(400, 200)})
    yield Row("E2", "an add and its read beside another session's long kernels, two engines", busy, idle, BESIDE_BAR)


@contextlib.contextmanager
def with_two_sessions(options: Options) -> Iterator[Run]:
    """Two threads with a session each that multiply for a while: products a second."""
    import tclient

    sessions = [tclient.Session.open(options.address) for _ in range(2)]

    def multiply(session: Session, until: float, counts: list[int]) -> None:
        with session.use(), tclient.no_grad():
            x = tclient.randn(SIDE, SIDE)
            while time.monotonic() < until:
                y = x
                for _ in range(PRODUCTS_A_READ):
                    y = x @ x
                y[0, 0].item()
                counts.append(PRODUCTS_A_READ)

    def run(order: Order) -> list[float]:
        counts: list[int] = []
        began = time.monotonic()
        threads = [
            threading.Thread(target=multiply, args=(session, began + order["seconds"], counts)) for session in sessions
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [sum(counts) / (time.monotonic() - began)]

    yield run
    for session in sessions:
        session.close()


@contextlib.contextmanager
def with_long_kernels(options: Options) -> Iterator[Run]:
    """An add and its read, while a session on the other engine runs kernels of seconds one after the other."""
    with _polite(options) as (run, other):
        import tclient

        over = threading.Event()

        def trouble() -> None:
            with other.use(), tclient.no_grad():
                x = tclient.randn(LONG_SIDE, LONG_SIDE)
                while not over.is_set():
                    (x @ x)[0, 0].item()

        def beside(order: Order) -> list[float]:
            over.clear()
            thread = threading.Thread(target=trouble)
            thread.start()
            try:
                # Its first kernel runs.
                time.sleep(1.0)
                return run(order)
            finally:
                over.set()
                thread.join()

        yield beside


@contextlib.contextmanager
def with_nobody(options: Options) -> Iterator[Run]:
    """An add and its read."""
    with _polite(options) as (run, _):
        yield run


@contextlib.contextmanager
def _polite(options: Options) -> Iterator[tuple[Run, Session]]:
    import tclient

    from .w2_round_trip import timed

    with tclient.Session.open(options.address) as session, tclient.Session.open(options.address) as other:
        assert session.opened.endpoint != other.opened.endpoint
        with session.use():
            x, y = tclient.ones(4), tclient.zeros(4)

            def add_and_read() -> None:
                (y + x).tolist()

            def run(order: Order) -> list[float]:
                return timed(add_and_read, order["repetitions"])

            yield run, other


if __name__ == "__main__":
    serve(
        {
            "two sessions": with_two_sessions,
            "beside long kernels": with_long_kernels,
            "beside nobody": with_nobody,
        }
    )
