"""W4: forward passes of many callers, one row each, in a closed loop: requests per second.

16 threads of one client, and the same 16 callers spread over 4 client processes (W4p). Data is sent with each request
and the result comes back. Yardsticks: the naive gRPC server with an asyncio client of 16 tasks, and 16 threads on
local torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from .bench import Bench
from .processes import Side, peer, side
from .side import Options, Order, Run, serve
from .stats import Bar, Figures, Row

MODULE = __name__
METHOD = "/bench.Naive/Forward"
CALLERS = 16
CLIENTS = 4
BAR = Bar("at least", (2,))
LANE_BAR = Bar("at least", (1, 2))


def measure(bench: Bench) -> Iterator[Row]:
    """Two rows for one client process, one for several."""
    rounds = bench.choose(5, 3)
    order = {"seconds": 2.0 if not bench.quick else 0.7}
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        server, naive = enter(bench.server()), enter(peer("naive"))
        remote = enter(side(MODULE, "tclient", address=server.address, threads=CALLERS))
        grpc_alone = enter(side(MODULE, "tclient over gRPC", address=server.address, threads=CALLERS))
        own = enter(side(MODULE, "tclient nn.MLP", address=server.address, threads=CALLERS))
        unary = enter(side(MODULE, "naive gRPC", address=naive.address, threads=CALLERS))
        local = enter(side(MODULE, "torch", threads=CALLERS))
        sides = [remote, grpc_alone, own, unary, local]
        ours, over_grpc, modules, theirs, torchs = bench.take_turns(sides, "requests/s", rounds, order)
        yield Row("W4", f"served MLP, {CALLERS} threads of one client, gRPC", over_grpc, theirs, BAR)
        yield Row("W4", f"served MLP, {CALLERS} threads of one client, lane", ours, torchs, LANE_BAR)
        yield Row("W4", f"a session's own nn.MLP, {CALLERS} threads", modules, theirs)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        server, naive = enter(bench.server()), enter(peer("naive"))
        each = CALLERS // CLIENTS
        remotes = [enter(side(MODULE, "tclient", address=server.address, threads=each)) for _ in range(CLIENTS)]
        unaries = [enter(side(MODULE, "naive gRPC", address=naive.address, threads=each)) for _ in range(CLIENTS)]
        ours, theirs = Figures("tclient", "requests/s"), Figures("naive gRPC", "requests/s")
        for index in range(rounds + 1):
            for sides, figures in ((remotes, ours), (unaries, theirs)):
                total = run_together(sides, order)
                if index:
                    figures.rounds.append([total])
        yield Row("W4p", f"MLP, {CLIENTS} client processes with {each} threads", ours, theirs)


def run_together(sides: list[Side], order: Order) -> float:
    """The sum of what several sides do at the same time."""
    sums = [0.0] * len(sides)

    def one(index: int) -> None:
        sums[index] = sum(sides[index].run(order))

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(sides))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(sums)


def closed_loop(request: Callable[[], object], threads: int, seconds: float) -> float:
    """Requests per second of threads that each send the next request when the last one is answered."""
    counts = [0] * threads
    failures: list[BaseException] = []
    barrier = threading.Barrier(threads + 1)
    stop = False

    def loop(index: int) -> None:
        try:
            request()
            barrier.wait()
            while not stop:
                request()
                counts[index] += 1
        except Exception as failure:
            failures.append(failure)
            barrier.abort()

    workers = [threading.Thread(target=loop, args=(index,), daemon=True) for index in range(threads)]
    for worker in workers:
        worker.start()
    began = time.perf_counter()
    with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait()
        began = time.perf_counter()
        time.sleep(seconds)
    stop = True
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return sum(counts) / (time.perf_counter() - began)


@contextlib.contextmanager
def with_served(options: Options, *, lane: bool = True) -> Iterator[Run]:
    """A model that the server keeps: rows of all callers are batched there."""
    import tclient

    from .shape import SIZES

    with tclient.connect(options.address, lane=lane):
        try:
            model = tclient.models.get("bench")
        except tclient.TensorError:
            # The clients of W4p start together: one of them makes it.
            with contextlib.suppress(ValueError):
                tclient.models.create("bench", tclient.nn.MLP(list(SIZES), activation="relu"))
            model = tclient.models.get("bench")
        row = np.random.default_rng(0).random((1, SIZES[0]), np.float32)

        def request() -> None:
            assert model(row).shape == (1, SIZES[-1])

        yield lambda order: [closed_loop(request, options.threads, order["seconds"])]


@contextlib.contextmanager
def with_module(options: Options) -> Iterator[Run]:
    """A module of the session: the row goes there, ten numbers come back."""
    import tclient

    from .shape import SIZES

    with tclient.connect(options.address):
        model = tclient.nn.MLP(list(SIZES), activation="relu")
        row = np.random.default_rng(0).random((1, SIZES[0]), np.float32)

        def request() -> None:
            with tclient.no_grad():
                assert model(tclient.from_numpy(row)).numpy().shape == (1, SIZES[-1])

        yield lambda order: [closed_loop(request, options.threads, order["seconds"])]


@contextlib.contextmanager
def with_torch(options: Options) -> Iterator[Run]:
    """Without any server."""
    import torch

    from .mlp import network
    from .shape import SIZES

    model = network()
    row = np.random.default_rng(0).random((1, SIZES[0]), np.float32)

    def request() -> None:
        with torch.no_grad():
            assert model(torch.from_numpy(row)).numpy().shape == (1, SIZES[-1])

    yield lambda order: [closed_loop(request, options.threads, order["seconds"])]


@contextlib.contextmanager
def with_naive(options: Options) -> Iterator[Run]:
    """The naive server, with gRPC's asyncio client."""
    import grpc.aio

    from tensorcompute.v1 import tensor_pb2 as pb

    from .shape import SIZES

    row = np.random.default_rng(0).random((1, SIZES[0]), np.float32)

    async def loops(seconds: float) -> float:
        async with grpc.aio.insecure_channel(options.address) as channel:
            forward = channel.unary_unary(METHOD, pb.TensorData.SerializeToString, pb.TensorData.FromString)

            async def request() -> None:
                message = pb.TensorData(dtype=pb.D_TYPE_FLOAT32, shape=row.shape, data=row.tobytes())
                answer = await forward(message)
                assert np.frombuffer(answer.data, np.float32).reshape(tuple(answer.shape)).shape == (1, SIZES[-1])

            async def loop(ends: float) -> int:
                count = 0
                while time.perf_counter() < ends:
                    await request()
                    count += 1
                return count

            await asyncio.gather(*(request() for _ in range(options.threads)))
            began = time.perf_counter()
            counts = await asyncio.gather(*(loop(began + seconds) for _ in range(options.threads)))
            return sum(counts) / (time.perf_counter() - began)

    yield lambda order: [asyncio.run(loops(order["seconds"]))]


if __name__ == "__main__":
    serve(
        {
            "tclient": with_served,
            "tclient over gRPC": functools.partial(with_served, lane=False),
            "tclient nn.MLP": with_module,
            "torch": with_torch,
            "naive gRPC": with_naive,
        }
    )
