"""W2: one small operation and the read of its result: what it costs to wait.

The yardstick of the lane is a ping: 16 bytes over TCP and back. That of gRPC is the least that Python gRPC can do: a
unary echo of 60 bytes between a blocking client and a threaded server. All are in processes of their own.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator

from .bench import Bench
from .processes import peer, side
from .side import Options, Order, Run, serve
from .stats import Bar, Row

MODULE = __name__
MESSAGE_BYTES = 60
LANE_BAR = Bar("at most", (4,))
GRPC_BAR = Bar("at most", (1.3, 1.0))


def measure(bench: Bench) -> Iterator[Row]:
    """For either road a row with all processes on one core, and one unpinned; the bar of each judges one of them."""
    rounds, repetitions = bench.choose(16, 6), bench.choose(250, 100)
    for cpu, where in ((bench.one_core, "one core"), (None, "unpinned")):
        with (
            bench.server(cpu=cpu) as server,
            peer("ping", cpu=cpu) as ping,
            peer("echo", cpu=cpu) as echo,
            side(MODULE, "tclient", address=server.address, cpu=cpu) as lane,
            side(MODULE, "ping", address=ping.address, cpu=cpu) as least,
            side(MODULE, "tclient over gRPC", address=server.address, cpu=cpu) as grpc_alone,
            side(MODULE, "echo", address=echo.address, cpu=cpu) as bare,
        ):
            sides = [lane, least, grpc_alone, bare]
            ours, pings, over_grpc, echoes = bench.take_turns(sides, "µs", rounds, {"repetitions": repetitions})
        what = f"one add and its read, {where}"
        yield Row("W2", f"{what}, lane", ours, pings, LANE_BAR if cpu is None else None)
        yield Row("W2", f"{what}, gRPC", over_grpc, echoes, GRPC_BAR if cpu is not None else None)


def timed(call: Callable[[], object], repetitions: int) -> list[float]:
    """The µs that each call takes."""
    figures = []
    for _ in range(repetitions):
        began = time.perf_counter()
        call()
        figures.append((time.perf_counter() - began) * 1e6)
    return figures


@contextlib.contextmanager
def with_tclient(options: Options, *, lane: bool = True) -> Iterator[Run]:
    """An add and its read through the server."""
    import tclient

    with tclient.connect(options.address, lane=lane):
        x, y = tclient.ones(4), tclient.zeros(4)

        def add_and_read() -> None:
            (y + x).tolist()

        def run(order: Order) -> list[float]:
            return timed(add_and_read, order["repetitions"])

        yield run


@contextlib.contextmanager
def with_ping(options: Options) -> Iterator[Run]:
    """16 bytes there and back."""
    import socket

    from .peers.ping import SIZE_BYTES

    host, _, port = options.address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        message = bytes(SIZE_BYTES)

        def ping() -> None:
            connection.sendall(message)
            connection.recv(SIZE_BYTES)

        def run(order: Order) -> list[float]:
            return timed(ping, order["repetitions"])

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
    serve(
        {
            "tclient": with_tclient,
            "tclient over gRPC": functools.partial(with_tclient, lane=False),
            "ping": with_ping,
            "echo": with_echo,
        }
    )
