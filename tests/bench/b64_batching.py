"""B64: what batching is worth: 64 callers with a row each, on one network that runs up to 64 rows at once or one alone.

A closed loop of 64 threads of one client, and of 64 unary RPCs of gRPC's asyncio client, tells requests per second and
rows per forward pass; yardsticks are the same network without batching and the naive gRPC server. A convolutional
network that is served as a program does the same. An open loop at a rate that both carry with ease tells what batching
costs there: the 99th percentile of latencies from the intended start.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from . import w4_forwards
from .bench import Bench
from .processes import Side, peer, side
from .side import MakeSide, Options, Order, Run, serve
from .stats import Bar, Figures, Row

MODULE = __name__
CALLERS = 64
# Of the open loop, in requests per second: about a third of what the unary RPCs of one process saturate at.
RATE = 500.0
WARM_UP_S = 0.5
BATCHED, ALONE = "b64-batched", "b64-alone"
CONV_BATCHED, CONV_ALONE = "b64-conv-batched", "b64-conv-alone"
LARGEST = {BATCHED: 64, ALONE: 1, CONV_BATCHED: 64, CONV_ALONE: 1}
THROUGHPUT = Bar("at least", (2,))
CONV_THROUGHPUT = Bar("at least", (1.5,))
MEAN_BATCH = Bar("at least", (8,), " rows")
# Below saturation batching must cost nothing; one round differs from the next by about this much.
LATENCY = Bar("at most", (1.15,))


def measure(bench: Bench) -> Iterator[Row]:
    """Throughput and mean batch in a closed loop, then latency in an open one."""
    rounds = bench.choose(5, 3)
    closed = {"seconds": 1.5 if not bench.quick else 0.7}
    opened = {"seconds": 3.0 if not bench.quick else 1.5}
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        server, naive = enter(bench.server()), enter(peer("naive"))

        def on(kind: str, network: str) -> Side:
            return enter(side(MODULE, kind, address=server.address, threads=CALLERS, more={"network": network}))

        client, client_alone = on("tclient", BATCHED), on("tclient", ALONE)
        unary, unary_alone = on("unary", BATCHED), on("unary", ALONE)
        simple = enter(side(MODULE, "naive gRPC", address=naive.address, threads=CALLERS))
        rates, batches = take_turns([client, client_alone, unary, unary_alone, simple], rounds, closed)
        for figures in (rates[1], rates[3]):
            figures.side += ", alone"
        what = f"served MLP, {CALLERS} threads of one client"
        yield Row("B64", f"{what}: against max_batch_size 1", rates[0], rates[1], THROUGHPUT)
        yield Row("B64", f"{what}: rows of a forward pass", batches[0], bar=MEAN_BATCH, value=batches[0].median)
        yield Row("B64", what, rates[0], rates[4])
        conv, conv_alone = on("convolutions", CONV_BATCHED), on("convolutions", CONV_ALONE)
        conv_rates, conv_batches = take_turns([conv, conv_alone], rounds, closed)
        conv_rates[1].side += ", alone"
        what = f"served conv net, {CALLERS} threads of one client"
        yield Row("B64", f"{what}: against max_batch_size 1", conv_rates[0], conv_rates[1], CONV_THROUGHPUT)
        yield Row(
            "B64", f"{what}: rows of a forward pass", conv_batches[0], bar=MEAN_BATCH, value=conv_batches[0].median
        )
        what = f"served MLP, {CALLERS} unary RPCs"
        yield Row("B64", f"{what}: against max_batch_size 1", rates[2], rates[3], note=_mean(batches[2]))
        yield Row("B64", what, rates[2], rates[4])
        paced = [on("open loop", BATCHED), on("open loop", ALONE)]
        batched, alone = bench.take_turns(paced, "ms", 5, opened)
        alone.side = "p99 alone"
        what = f"served MLP, unary RPCs at {RATE:g}/s: p99 against max_batch_size 1"
        extents = f"rounds {_extent(batched)} and {_extent(alone)}"
        yield Row("B64", what, batched, alone, LATENCY, note=extents)


def take_turns(sides: list[Side], rounds: int, order: Order) -> tuple[list[Figures], list[Figures]]:
    """The rates of all sides, and the rows of their forward passes, after a round that does not count."""
    rates = [Figures(each.name, "requests/s") for each in sides]
    batches = [Figures(each.name, "rows") for each in sides]
    for index in range(rounds + 1):
        for number in range(len(sides)) if index % 2 else reversed(range(len(sides))):
            rate, batch = sides[number].run(order)
            if index:
                rates[number].rounds.append([rate])
                batches[number].rounds.append([batch])
    return rates, batches


def _mean(figures: Figures) -> str:
    return f"{figures.median:.1f} rows a forward pass"


def _extent(figures: Figures) -> str:
    return f"{min(figures.round_medians):.2g}–{max(figures.round_medians):.2g} ms"


class Counts:
    """Rows and forward passes of one network, as the server counts them."""

    def __init__(self, options: Options) -> None:
        import grpc

        from tensorcompute.v1 import model_service_pb2 as ms
        from tensorcompute.v1 import model_service_pb2_grpc as stubs

        self.name = str(options.more["network"])
        self._stub: Any = stubs.ModelServiceStub(grpc.insecure_channel(options.address))
        self._request = ms.GetMlpStatisticsRequest(name=self.name)

    def make(self) -> None:
        """Make the row of layers where it is not there yet."""
        import grpc

        from tensorcompute.v1 import model_service_pb2 as ms

        from .shape import SIZES

        relu = ms.Activation(kind=ms.ACTIVATION_KIND_RELU)
        layers = [
            ms.LayerSpec(in_features=columns, out_features=rows, activation=relu if rows != SIZES[-1] else None)
            for columns, rows in pairwise(SIZES)
        ]
        batching = ms.BatchingConfig(max_batch_size=LARGEST[self.name])
        try:
            self._stub.CreateMlp(ms.CreateMlpRequest(name=self.name, layers=layers, batching=batching), timeout=30)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise

    def now(self) -> tuple[int, int]:
        """The rows and the forward passes until now."""
        told = self._stub.GetMlpStatistics(self._request, timeout=30).statistics
        return told.inference_count, told.execution_count

    def mean_since(self, before: tuple[int, int]) -> float:
        """The rows of a forward pass since then."""
        rows, passes = self.now()
        return (rows - before[0]) / max(1, passes - before[1])


def counting(make: MakeSide) -> MakeSide:
    """A side that tells its rate, as one that tells the rows of a forward pass as well."""

    @contextlib.contextmanager
    def counted(options: Options) -> Iterator[Run]:
        counts = Counts(options)
        if counts.name in (BATCHED, ALONE):
            counts.make()
        with make(options) as run:

            def both(order: Order) -> list[float]:
                before = counts.now()
                return [*run(order), counts.mean_since(before)]

            yield both

    return counted


@contextlib.contextmanager
def with_client(options: Options) -> Iterator[Run]:
    """Threads of one client."""
    import tclient

    from .shape import SIZES

    with tclient.connect(options.address):
        model = tclient.models.get(str(options.more["network"]))
        row = np.random.default_rng(0).random((1, SIZES[0]), np.float32)

        def request() -> None:
            assert model(row).shape == (1, SIZES[-1])

        yield lambda order: [w4_forwards.closed_loop(request, options.threads, order["seconds"])]


@contextlib.contextmanager
def with_convolutions(options: Options) -> Iterator[Run]:
    """Threads of one client, and a network for small pictures that is a program."""
    import tclient
    from tclient import nn

    with tclient.connect(options.address):
        network = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(16 * 7 * 7, 10)),
        )
        name = str(options.more["network"])
        inputs = tclient.models.Input(("batch", 1, 28, 28))
        model = tclient.models.create(name, network, inputs, max_batch_size=LARGEST[name])
        assert model.describe().is_batched
        picture = np.random.default_rng(0).random((1, 1, 28, 28), np.float32)

        def request() -> None:
            assert model(picture).shape == (1, 10)

        yield lambda order: [w4_forwards.closed_loop(request, options.threads, order["seconds"])]


@contextlib.contextmanager
def with_unary(options: Options) -> Iterator[Run]:
    """Tasks that each send an RPC when the last one is answered, on one channel."""

    async def loops(seconds: float) -> float:
        async with unary_sender(options) as send:

            async def loop(ends: float) -> int:
                count = 0
                while time.perf_counter() < ends:
                    await send()
                    count += 1
                return count

            await asyncio.gather(*(send() for _ in range(options.threads)))
            began = time.perf_counter()
            counts = await asyncio.gather(*(loop(began + seconds) for _ in range(options.threads)))
            return sum(counts) / (time.perf_counter() - began)

    yield lambda order: [asyncio.run(loops(order["seconds"]))]


@contextlib.contextmanager
def in_open_loop(options: Options) -> Iterator[Run]:
    """RPCs at even distances, whether earlier ones were answered or not: the 99th percentile of a round, in ms."""
    Counts(options).make()

    async def paced(seconds: float) -> float:
        latencies: list[float] = []
        began = time.perf_counter()
        async with unary_sender(options) as send:

            async def one(due: float) -> None:
                await send()
                if due >= WARM_UP_S:
                    latencies.append(time.perf_counter() - began - due)

            tasks = []
            for number in range(math.ceil(RATE * (seconds + WARM_UP_S))):
                due = number / RATE
                await asyncio.sleep(max(0.0, due - (time.perf_counter() - began)))
                tasks.append(asyncio.create_task(one(due)))
            await asyncio.gather(*tasks)
        return sorted(latencies)[math.ceil(0.99 * len(latencies)) - 1] * 1e3

    yield lambda order: [asyncio.run(paced(order["seconds"]))]


@contextlib.asynccontextmanager
async def unary_sender(options: Options) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """What sends one MlpForward and waits for its answer."""
    import grpc.aio

    from tensorcompute.v1 import model_service_pb2 as ms
    from tensorcompute.v1 import model_service_pb2_grpc as stubs
    from tensorcompute.v1 import tensor_pb2 as pb

    from .shape import SIZES

    row = np.random.default_rng(0).random((1, SIZES[0]), np.float32)
    data = pb.TensorData(dtype=pb.D_TYPE_FLOAT32, shape=row.shape, data=row.tobytes())
    request = ms.MlpForwardRequest(name=str(options.more["network"]), inputs=ms.Operand(data=data))
    async with grpc.aio.insecure_channel(options.address) as channel:
        forward: Any = stubs.ModelServiceStub(channel).MlpForward

        async def send() -> None:
            answer = await forward(request)
            assert list(answer.output.data.shape) == [1, SIZES[-1]]

        yield send


@contextlib.contextmanager
def with_naive(options: Options) -> Iterator[Run]:
    """The naive server, which runs a row at a time."""
    with w4_forwards.with_naive(options) as run:
        yield lambda order: [*run(order), 1.0]


if __name__ == "__main__":
    serve(
        {
            "tclient": counting(with_client),
            "convolutions": counting(with_convolutions),
            "unary": counting(with_unary),
            "open loop": in_open_loop,
            "naive gRPC": with_naive,
        }
    )
