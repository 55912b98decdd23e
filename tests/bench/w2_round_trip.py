"""W2: one small operation and the read of its result: what it costs to wait.

The yardstick is the least that Python gRPC can do: a unary echo of 60 bytes between a blocking client and a threaded
server, in processes of their own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from .bench import Bench
from .processes import peer, side
from .side import Options, Order, Run, serve
from .stats import Bar, Row

MODULE = __name__
MESSAGE_BYTES = 60
BAR = Bar("at most", (1.3, 1.0))


def measure(bench: Bench) -> Iterator[Row]:
    """One row with all processes on one core, which the bar judges, and one unpinned."""
    rounds, repetitions = bench.choose(16, 6), bench.choose(250, 100)
    for cpu, where in ((bench.one_core, "one core"), (None, "unpinned")):
        with (
            bench.server(cpu=cpu) as server,
            peer("echo", cpu=cpu) as echo,
            side(MODULE, "tclient", address=server.address, cpu=cpu) as remote,
            side(MODULE, "echo", address=echo.address, cpu=cpu) as bare,
        ):
            ours, theirs = bench.take_turns([remote, bare], "µs", rounds, {"repetitions": repetitions})
        yield Row("W2", f"one add and its read, {where}", ours, theirs, BAR if cpu is not None else None)


def timed(call: Callable[[], object], repetitions: int) -> list[float]:
    """The µs that each call takes."""
    figures = []
    for _ in range(repetitions):
        began = time.perf_counter()
        call()
        figures.append((time.perf_counter() - began) * 1e6)
    return figures


@contextlib.contextmanager
def with_tclient(options: Options) -> Iterator[Run]:
    """An add and its read through the server."""
    import tclient

    with tclient.connect(options.address):
        x, y = tclient.ones(4), tclient.zeros(4)

        def add_and_read() -> None:
            (y + x).tolist()

        def run(order: Order) -> list[float]:
            return timed(add_and_read, order["repetitions"])

        yield run


@contextlib.contextmanager
def with_echo(options: Options) -> Iterator[Run]:
    """A bare unary echo."""
    import grpc

    with grpc.insecure_channel(options.address) as channel:
        echo: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/bench.Echo/Echo")
        message = bytes(MESSAGE_BYTES)

        def run(order: Order) -> list[float]:
            return timed(lambda: echo(message), order["repetitions"])

        yield run


if __name__ == "__main__":
    serve({"tclient": with_tclient, "echo": with_echo})
