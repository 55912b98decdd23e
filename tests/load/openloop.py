"""Forward passes at a given rate, from one process or several: how long do callers wait who do not wait for each other?

    python -m tests.load.openloop HOST:PORT --rate 1000 [--seconds 10] [--rpc stream] [--poisson] [--processes 2]

`unary` is one RPC a request, as independent callers send them; `stream` puts all that is due into one message of
MlpForwardStream, as `tclient` does for the threads of one program, and reaches higher rates.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import grpc
import grpc.aio

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import model_service_pb2_grpc as model_stubs
from tests.bench.processes import Side, server, side
from tests.bench.side import Options, Order, Run, serve
from tests.load.arrivals import UNANSWERED, Offered, Send, offer, schedule
from tests.load.workload import OPTIONS, TIMEOUT_S, Rows, WrongAnswer, create_network

MODULE = "tests.load.openloop"
# Sides answer with numbers: a failure is its place here.
FAILURES = (*(code.name for code in grpc.StatusCode), "WRONG ANSWER", UNANSWERED)
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@contextlib.asynccontextmanager
async def unary(channel: grpc.aio.Channel, rows: Rows) -> AsyncIterator[Send]:
    """A sender that makes each request an RPC."""
    stub: Any = model_stubs.ModelServiceStub(channel)

    async def send(number: int) -> str:
        try:
            response = await stub.MlpForward(rows.request(number), timeout=TIMEOUT_S)
            rows.check(number, response.output.data)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        except WrongAnswer:
            return "WRONG ANSWER"
        return ""

    yield send


@contextlib.asynccontextmanager
async def stream(channel: grpc.aio.Channel, rows: Rows) -> AsyncIterator[Send]:
    """A sender that puts requests which leave together into one message of a stream."""
    stub: Any = model_stubs.ModelServiceStub(channel)
    waiting: dict[int, asyncio.Future[str]] = {}
    pending: list[ms.MlpForwardCall] = []
    wake = asyncio.Event()
    over = ""

    async def requests() -> AsyncIterator[ms.MlpForwardStreamRequest]:
        while True:
            await wake.wait()
            wake.clear()
            while pending:
                calls = pending[:256]
                del pending[:256]
                yield ms.MlpForwardStreamRequest(calls=calls)

    async def read() -> None:
        nonlocal over
        over = "CANCELLED"
        try:
            async for response in stub.MlpForwardStream(requests()):
                for answer in response.answers:
                    future = waiting.pop(answer.id, None)
                    if future is not None and not future.done():
                        future.set_result(outcome(answer))
        except grpc.aio.AioRpcError as error:
            over = error.code().name
        finally:
            for future in waiting.values():
                if not future.done():
                    future.set_result(over)
            waiting.clear()

    def outcome(answer: ms.MlpForwardAnswer) -> str:
        if answer.WhichOneof("outcome") == "failure":
            return _CODES.get(answer.failure.code, "UNKNOWN")
        try:
            rows.check(answer.id, answer.output)
        except WrongAnswer:
            return "WRONG ANSWER"
        return ""

    reader = asyncio.create_task(read())

    async def send(number: int) -> str:
        if reader.done():
            return over
        future = waiting[number] = asyncio.get_running_loop().create_future()
        pending.append(rows.call(number))
        wake.set()
        return await future

    try:
        yield send
    finally:
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader


SENDERS: dict[str, Callable[[grpc.aio.Channel, Rows], contextlib.AbstractAsyncContextManager[Send]]] = {
    "unary": unary,
    "stream": stream,
}


@contextlib.contextmanager
def generator(options: Options, rpc: str) -> Iterator[Run]:
    """One generating process: an order names rate, seconds, warm_up_s, phase and seed."""
    rows = Rows()

    async def run(order: Order) -> Offered:
        async with (
            grpc.aio.insecure_channel(options.address, options=OPTIONS) as channel,
            SENDERS[rpc](channel, rows) as send,
        ):
            times = schedule(order["rate"], order["seconds"], phase=order["phase"], seed=order["seed"])
            return await offer(send, times, order["seconds"], warm_up_s=order["warm_up_s"])

    def answer(order: Order) -> list[float]:
        offered = asyncio.run(run(order))
        counts = [float(offered.failures[name]) for name in FAILURES]
        return [offered.seconds, offered.latest_start_s, *counts, *offered.latencies_s]

    yield answer


class Generators:
    """Processes that share a rate."""

    def __init__(self, sides: list[Side]) -> None:
        self._sides = sides

    def offer(self, rate: float, seconds: float, *, warm_up_s: float = 1.0, poisson: bool = False) -> Offered:
        """Offer `rate` requests a second for so long after the warm-up. Raises ProcessFailed."""
        parts: list[Offered] = []
        failures: list[BaseException] = []

        def one(index: int, each: Side) -> None:
            order: Order = {
                "rate": rate / len(self._sides),
                "seconds": seconds + warm_up_s,
                "warm_up_s": warm_up_s,
                "phase": index / len(self._sides),
                "seed": index if poisson else None,
            }
            try:
                took, late, *figures = each.run(order)
            except BaseException as failure:
                failures.append(failure)
                return
            counts, latencies = figures[: len(FAILURES)], figures[len(FAILURES) :]
            named = Counter({name: int(count) for name, count in zip(FAILURES, counts, strict=True) if count})
            parts.append(Offered(took, latencies, named, late))

        threads = [threading.Thread(target=one, args=numbered) for numbered in enumerate(self._sides)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return sum(parts, Offered())


@contextlib.contextmanager
def generators(address: str, rpc: str, processes: int = 1) -> Iterator[Generators]:
    """Generating processes, and the network that they ask for. Raises grpc.RpcError if no server answers."""
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        create_network(channel)
    with contextlib.ExitStack() as stack:
        yield Generators([stack.enter_context(side(MODULE, rpc, address=address)) for _ in range(processes)])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What all open-loop commands take."""
    parser.add_argument("address", nargs="?", default="", metavar="HOST:PORT", help="a server; none starts one here")
    parser.add_argument("--device", default="cpu", help="device of a server that is started here (default: cpu)")
    parser.add_argument("--rpc", choices=SENDERS, default="unary", help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=1, help="generating processes (default: %(default)s)")
    parser.add_argument("--poisson", action="store_true", help="random arrivals instead of evenly spaced ones")


@contextlib.contextmanager
def address_of(arguments: argparse.Namespace) -> Iterator[str]:
    """The server that was named, or one that is started for this run."""
    if arguments.address:
        yield arguments.address
    else:
        with server(arguments.device) as started:
            yield started.address


def describe(rate: float, offered: Offered) -> str:
    """One line for people."""
    parts = [
        f"{rate:8,.0f}/s offered",
        f"{offered.answered_per_s:8,.0f}/s answered",
        *(f"p{share * 100:g} {offered.quantile_s(share) * 1e3:7.1f} ms" for share in (0.5, 0.9, 0.99, 0.999)),
    ]
    parts += [f"{count} × {name}" for name, count in sorted(offered.failures.items())]
    if offered.latest_start_s > 0.01:
        parts.append(f"the generator was up to {offered.latest_start_s * 1e3:.0f} ms late itself")
    return ", ".join(parts)


def main() -> int:
    """Offer one rate and print what became of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.openloop", description="Forward passes at a rate.")
    add_arguments(parser)
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long (default: %(default)s)")
    arguments = parser.parse_args()
    with address_of(arguments) as address, generators(address, arguments.rpc, arguments.processes) as generating:
        offered = generating.offer(arguments.rate, arguments.seconds, poisson=arguments.poisson)
    print(describe(arguments.rate, offered))
    return 1 if offered.failures else 0


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in SENDERS:
        serve({name: partial(generator, rpc=name) for name in SENDERS})
    else:
        sys.exit(main())
