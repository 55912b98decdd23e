"""How cost grows: with the length of a chain, the tensors alive, the sessions that work, and the sessions that rest.

Each curve is a cost per operation, so linear growth of the whole is a flat line. There are no bars: the curves are
looked at.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from . import w1_chain, w2_round_trip
from .bench import Bench
from .processes import side
from .sessions import MODULE as SESSIONS
from .sessions import max_sessions
from .side import Options, Order, Run, serve
from .stats import Curve

MODULE = __name__
# The memory of a tensor of four numbers.
ALIVE_BYTES = 16


def measure(bench: Bench) -> Iterator[Curve]:
    """All curves."""
    yield from by_length(bench)
    yield from by_tensors_alive(bench)
    yield near_the_quota(bench)
    yield from asking_the_server(bench)
    yield recording(bench)
    yield by_working_sessions(bench)
    yield from by_idle_sessions(bench)


def by_length(bench: Bench) -> Iterator[Curve]:
    """Chains of all lengths, and the same on local torch."""
    lengths = [10, 100, 1_000, 10_000] + ([] if bench.quick else [100_000])
    with (
        bench.server() as server,
        side(w1_chain.MODULE, "tclient", address=server.address) as remote,
        side(w1_chain.MODULE, "torch") as local,
    ):
        ours = Curve("G-ops", "operations in a chain, with its read", "operations", "µs/op")
        theirs = Curve("G-ops-torch", "the same on local torch", "operations", "µs/op")
        for length in lengths:
            order = {"repetitions": max(1, min(50, 20_000 // length)), "length": length}
            for figures, curve in zip(
                bench.take_turns([remote, local], "µs/op", 3, order), (ours, theirs), strict=True
            ):
                curve.points.append((length, figures.median))
    yield ours
    yield theirs


def by_tensors_alive(bench: Bench) -> Iterator[Curve]:
    """A chain while other tensors are held; and making and dropping those."""
    counts = [10, 100, 1_000, 10_000] + ([] if bench.quick else [100_000])
    names = ("a chain beside tensors alive", "making a tensor", "dropping a tensor")
    curves = [Curve(f"G-alive-{index}", what, "tensors alive", "µs/op") for index, what in enumerate(names)]
    with bench.server() as server, side(MODULE, "tclient", address=server.address) as remote:
        remote.run({"alive": 100})
        for count in counts:
            rounds = [remote.run({"alive": count}) for _ in range(3 if count < 100_000 else 1)]
            for curve, figures in zip(curves, zip(*rounds, strict=True), strict=True):
                curve.points.append((count, statistics.median(figures)))
    yield from curves


def near_the_quota(bench: Bench) -> Curve:
    """A chain in a session that holds almost all that it may, in so many tensors."""
    curve = Curve("G-quota", "a chain near --max-session-bytes", "tensors alive", "µs/op")
    for count in [1_000, 10_000] + ([] if bench.quick else [50_000]):
        # What is left is less than the chain makes: an estimate would run out every few calls.
        quota = str(count * ALIVE_BYTES + 1024)
        with (
            bench.server("--max-session-bytes", quota) as server,
            side(MODULE, "tclient", address=server.address) as remote,
        ):
            curve.points.append((count, statistics.median(remote.run({"alive": count})[0] for _ in range(3))))
    return curve


def asking_the_server(bench: Bench) -> Iterator[Curve]:
    """GetServerInfo beside many tensors, right after one was made; and how long it keeps another session waiting."""
    asked = Curve("G-info", "GetServerInfo, after a change", "tensors alive", "ms")
    again = Curve("G-info-again", "GetServerInfo, once more", "tensors alive", "ms")
    other = Curve("G-info-other", "the longest round trip of another session meanwhile", "tensors alive", "ms")
    with bench.server() as server, side(MODULE, "info", address=server.address) as remote:
        for count in [10_000, 100_000] + ([] if bench.quick else [1_000_000]):
            for curve, figure in zip((asked, again, other), remote.run({"alive": count}), strict=True):
                curve.points.append((count, figure))
    yield from (asked, again, other)


def recording(bench: Bench) -> Curve:
    """The first call of a compiled function, which records its operations."""
    curve = Curve("G-record", "recording a function (compile)", "operations", "µs/op")
    with bench.server() as server, side(MODULE, "tclient", address=server.address) as remote:
        for count in (1_000, 4_000, 16_000):
            curve.points.append((count, statistics.median(remote.run({"record": count})[0] for _ in range(3))))
    return curve


def by_working_sessions(bench: Bench) -> Curve:
    """Sessions that run chains at the same time: µs per operation over all of them."""
    note = "prepared batches from one process: the server's cost, not the client's"
    curve = Curve("G-sessions", "sessions at work, all operations", "sessions", "µs/op", note=note)
    with bench.server() as server, side(SESSIONS, "sessions", address=server.address) as sessions:
        for count in (1, 4, 16, 64):
            order = {"work": count, "batches": max(4, bench.choose(256, 64) // count)}
            sessions.run(order)
            curve.points.append((count, statistics.median(sessions.run(order)[0] for _ in range(3))))
    return curve


def by_idle_sessions(bench: Bench) -> Iterator[Curve]:
    """A chain and a round trip while other sessions rest without a client."""
    chain = Curve("G-idle", "a chain beside idle sessions", "idle sessions", "µs/op")
    trip = Curve("G-idle-rtt", "a round trip beside idle sessions", "idle sessions", "µs")
    with (
        bench.server() as server,
        side(SESSIONS, "sessions", address=server.address) as sessions,
        side(w1_chain.MODULE, "tclient", address=server.address) as chains,
        side(w2_round_trip.MODULE, "tclient", address=server.address) as trips,
    ):
        bound = max_sessions(server.address)
        counts = sorted({min(count, bound) for count in (0, 10, 100, bench.choose(1_000, 300))})
        for held, count in zip([0, *counts], counts, strict=False):
            sessions.run({"open": count - held})
            (figures,) = bench.take_turns([chains], "µs/op", 3, {"repetitions": 5, "length": w1_chain.LENGTH})
            chain.points.append((count, figures.median))
            (figures,) = bench.take_turns([trips], "µs", 3, {"repetitions": 200})
            trip.points.append((count, figures.median))
        if bound < 1_000:
            chain.note = trip.note = f"the server allows {bound} idle sessions beside the benchmark's own"
    yield chain
    yield trip


def with_alive(torch: Any, count: int) -> Sequence[float]:
    """µs per operation of a chain, of making and of dropping, with `count` tensors alive."""
    last = torch.zeros(4)
    last.tolist()
    began = time.perf_counter()
    held = [torch.ones(4) for _ in range(count)]
    last.tolist()
    made = (time.perf_counter() - began) / count
    chain_us = statistics.median(w1_chain.chains(torch, {"repetitions": 5, "length": w1_chain.LENGTH}))
    began = time.perf_counter()
    held.clear()
    last.add_(1)
    last.tolist()
    return [chain_us, made * 1e6, (time.perf_counter() - began) / count * 1e6]


def recorded(torch: Any, count: int) -> float:
    """µs per operation of the first call of a compiled function, and of all that it sends."""
    x, y = torch.ones(4), torch.zeros(4)
    y.tolist()

    @torch.compile  # type: ignore[untyped-decorator]
    def chain(y: Any, x: Any) -> Any:
        for _ in range(count):
            y = y + x
        return y

    began = time.perf_counter()
    chain(y, x)
    torch.synchronize()
    return (time.perf_counter() - began) / count * 1e6


@contextlib.contextmanager
def with_info(options: Options) -> Iterator[Run]:
    """Questions to the server, from a session that holds much, beside one that holds nothing."""
    import tclient

    with tclient.connect(options.address) as many, tclient.connect(options.address) as few:
        held: list[Any] = []

        def run(order: Order) -> list[float]:
            with many.use():
                held.extend(tclient.ones(4) for _ in range(order["alive"] - len(held)))
                tclient.synchronize()
            longest = 0.0
            asking = threading.Event()
            with few.use():
                x = tclient.ones(4)
                (x + 1).tolist()

            def work() -> None:
                nonlocal longest
                with few.use():
                    while not asking.is_set():
                        began = time.perf_counter()
                        (x + 1).tolist()
                        longest = max(longest, time.perf_counter() - began)

            def ask() -> float:
                with many.use():
                    began = time.perf_counter()
                    tclient.server_info()
                    return time.perf_counter() - began

            worker = threading.Thread(target=work)
            worker.start()
            try:
                first, second = ask(), ask()
            finally:
                asking.set()
                worker.join()
            return [first * 1e3, second * 1e3, longest * 1e3]

        yield run


@contextlib.contextmanager
def with_tclient(options: Options) -> Iterator[Run]:
    """Through the server."""
    import tclient

    with tclient.connect(options.address):

        def run(order: Order) -> list[float]:
            if "record" in order:
                return [recorded(tclient, order["record"])]
            return list(with_alive(tclient, order["alive"]))

        yield run


if __name__ == "__main__":
    serve({"tclient": with_tclient, "info": with_info})
