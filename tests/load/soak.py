"""Many requests to one network: every answer right, and the server's memory where it was.

    make soak N=1000000            a soak; the exit code tells whether it passed
    make soak N=100000 LEAK=1      the control: the client asks the server to keep each result, and the soak must fail

It starts a server of its own, because it reads the memory of its processes from /proc. Requests go over a stream, as
from the threads of one program, and a tenth of them as RPCs of their own; a session with mixed tensor work comes and
goes beside them. Memory is what is resident, of the server and its child. It has settled when a fifth of the requests
is done; from there to the end its median may grow by less than 1 %. Written: out/load/soak.json and, with matplotlib,
out/load/soak.png.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import model_service_pb2_grpc as model_stubs
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tensorcompute.v1 import tensor_service_pb2_grpc as tensor_stubs
from tests.bench.processes import ROOT, server
from tests.bench.report import machine
from tests.load.arrivals import Send
from tests.load.openloop import stream, unary
from tests.load.workload import OPTIONS, TIMEOUT_S, Rows, TensorWork, WrongAnswer, create_network
from tests.support.serving import children_of

GROWTH_BOUND = 0.01
WARM_UP = 0.2  # of all requests
WINDOW = 0.1  # of all requests: the first and the last so many after the warm-up are compared
SAMPLES = 400
CALLERS = 64
ONE_IN = 10  # requests that are RPCs of their own


def resident_bytes(pid: int) -> int:
    """What a process and its descendants have resident. Raises FileNotFoundError if it has ended."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident_bytes(child) for child in children_of(pid))


@dataclass
class Soak:
    """What was seen: samples of (requests done, resident bytes), and failures by name."""

    total: int
    samples: list[tuple[int, int]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def window(self, begin: float, end: float) -> float:
        """The median of the samples between two parts of the run."""
        values = [size for done, size in self.samples if begin * self.total <= done <= end * self.total]
        if not values:
            raise ValueError(f"no sample of memory between {begin:.0%} and {end:.0%} of the run; make it longer")
        return statistics.median(values)

    @property
    def growth(self) -> float:
        """By which part memory grew after the warm-up."""
        return self.window(1 - WINDOW, 1) / self.window(WARM_UP, WARM_UP + WINDOW) - 1

    @property
    def passed(self) -> bool:
        """No failure, and memory is flat."""
        return not self.failures and self.growth < GROWTH_BOUND


async def closed_loops(callers: list[Send], total: int, soak: Soak, sample: Callable[[], int]) -> None:
    """Send `total` requests; each caller sends its next one when the last is answered."""
    every = max(1, total // SAMPLES)
    done = sent = 0

    async def loop(send: Send) -> None:
        nonlocal done, sent
        while sent < total:
            sent += 1
            if failure := await send(sent):
                soak.failures[failure] += 1
            done += 1
            if done % every == 0:
                soak.samples.append((done, sample()))

    await asyncio.gather(*(loop(send) for send in callers))


@contextlib.asynccontextmanager
async def keeping(channel: grpc.aio.Channel, rows: Rows) -> Any:
    """A sender whose results stay on the server: the leak of the control."""
    models: Any = model_stubs.ModelServiceStub(channel)
    sessions: Any = tensor_stubs.TensorServiceStub(channel)
    opened = await sessions.OpenSession(
        service_pb.OpenSessionRequest(min_protocol=1, max_protocol=1, client="soak"), timeout=TIMEOUT_S
    )
    context = service_pb.SessionContext(session=opened.session)

    async def send(number: int) -> str:
        request = rows.request(number)
        request.context.CopyFrom(context)
        request.options.CopyFrom(ms.ForwardOptions(keep=True, return_data=True))
        try:
            response = await models.MlpForward(request, timeout=TIMEOUT_S)
            rows.check(number, response.output.data)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        except WrongAnswer:
            return "WRONG ANSWER"
        return ""

    yield send


def mixed_work(address: str, soak: Soak) -> None:
    """A session from its beginning to its end, with every step of the mixed work."""
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        try:
            work = TensorWork(channel)
            for _, step in work.steps():
                step()
            work.close()
        except (grpc.RpcError, WrongAnswer) as error:
            soak.failures[f"tensor work: {type(error).__name__}"] += 1


async def run(address: str, pid: int, total: int, leak: bool, say: Callable[[str], None]) -> Soak:
    """The whole soak."""
    soak, rows = Soak(total), Rows()
    began = told = time.monotonic()

    def sample() -> int:
        nonlocal told
        size = resident_bytes(pid)
        if time.monotonic() - told > 10:
            told = time.monotonic()
            done = soak.samples[-1][0] if soak.samples else 0
            say(f"{done:,} of {total:,} requests, {size / 2**20:,.1f} MiB resident")
        return size

    async def sessions_come_and_go() -> None:
        while True:
            await asyncio.to_thread(mixed_work, address, soak)
            await asyncio.sleep(0.5)

    async with (
        grpc.aio.insecure_channel(address, options=OPTIONS) as channel,
        stream(channel, rows) as over_stream,
        (keeping if leak else unary)(channel, rows) as alone,
    ):

        async def mostly_over_stream(number: int) -> str:
            return await (alone if number % ONE_IN == 0 else over_stream)(number)

        beside = asyncio.create_task(sessions_come_and_go())
        await closed_loops([mostly_over_stream] * CALLERS, total, soak, sample)
        beside.cancel()
    soak.seconds = time.monotonic() - began
    return soak


def write(soak: Soak, leak: bool, folder: Path) -> None:
    """A JSON file and a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "soak-leak" if leak else "soak"
    content = {
        "machine": machine(),
        "requests": soak.total,
        "seconds": soak.seconds,
        "failures": soak.failures,
        "growth": soak.growth,
        "passed": soak.passed,
        "resident_bytes": soak.samples,
    }
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    if importlib.util.find_spec("matplotlib") is None:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    axis.plot([done for done, _ in soak.samples], [size / 2**20 for _, size in soak.samples])
    axis.axvspan(0, WARM_UP * soak.total, color="tab:grey", alpha=0.2, label="warm-up")
    axis.set_ylim(0, 1.2 * max(size for _, size in soak.samples) / 2**20)
    axis.set_xlabel("requests")
    axis.set_ylabel("resident memory of the server, MiB")
    axis.set_title(f"growth after the warm-up {soak.growth:+.2%}", fontsize="medium")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(folder / f"{name}.png", dpi=120)
    plt.close(figure)


def main() -> int:
    """Run, print, write; 0 if it passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.soak", description="Many requests, and flat memory.")
    parser.add_argument("--requests", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="device of the server (default: %(default)s)")
    parser.add_argument("--leak", action="store_true", help="the control: results are kept, and the soak must fail")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "load", help="folder of the results")
    arguments = parser.parse_args()
    if arguments.requests < SAMPLES:
        parser.error(f"--requests {arguments.requests} are too few; at least {SAMPLES}")

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with server(arguments.device) as started:
        with grpc.insecure_channel(started.address, options=OPTIONS) as channel:
            create_network(channel)
        soak = asyncio.run(run(started.address, started.process.pid, arguments.requests, arguments.leak, say))
    write(soak, arguments.leak, arguments.out)
    early, late = soak.window(WARM_UP, WARM_UP + WINDOW), soak.window(1 - WINDOW, 1)
    print(
        f"{soak.total:,} requests in {soak.seconds:.0f} s ({soak.total / soak.seconds:,.0f}/s), "
        f"{soak.failures.total()} failures{f' {dict(soak.failures)}' if soak.failures else ''}; resident "
        f"{early / 2**20:,.1f} MiB after the warm-up, {late / 2**20:,.1f} MiB at the end: {soak.growth:+.2%} "
        f"(bound {GROWTH_BOUND:.0%})"
    )
    print("passed" if soak.passed else "FAILED")
    return 0 if soak.passed else 1


if __name__ == "__main__":
    sys.exit(main())
