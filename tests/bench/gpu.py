"""G1–G3: the server on a GPU beside local torch on the same GPU, in one command that fits ten minutes.

Beside the rows that have a bar: a small operation and its read, a recorded function, large arrays to the device and
back, and the served model by the size of its batch. What depends on the road that calls take is measured over a lane,
which the bars judge, and over gRPC.

    python -m tests.bench.gpu                        on the first CUDA device
    python -m tests.bench.gpu --device cpu --tiny    the same code, small and without a GPU: a check, not a measurement

It first checks that tensors are on the device and that its memory is accounted for. Nothing needs to be installed:
with PYTHONPATH=client:server:proto it runs from the tree. The two sides share the GPU and take turns; while one
works the other is idle. Both use the defaults of their torch, so TF32 is off on both.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import shlex
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import p1_programs, w1_chain, w2_round_trip, w3_bulk
from .bench import Bench
from .processes import ROOT, ProcessFailed, Side, side
from .report import machine, table, write_json, write_picture
from .shape import SIZES
from .side import MakeSide, Options, Order, Run, serve
from .stats import Bar, Curve, Figures, Outcome, Row

MODULE = "tests.bench.gpu"
NO_GPU = (
    "there is no CUDA device here: torch {version} sees none. On a GPU host install a torch that is built for CUDA; "
    "to run the same code without a GPU: python -m tests.bench.gpu --device cpu --tiny"
)
CHECK_BYTES = 64 << 20


# ---- what the sides do ----------------------------------------------------------------------------------------------


def matmul_chain(torch: Any, order: Order) -> list[float]:
    """TFLOP/s of a chain of products of square matrices, with one read at its end."""
    size, length = order["size"], order["length"]
    torch.manual_seed(0)
    # Scaled so that the numbers neither grow nor vanish along the chain.
    x = torch.randn(size, size) / math.sqrt(size)
    figures = []
    for _ in range(order["repetitions"]):
        y = x
        x[0, 0].item()
        began = time.perf_counter()
        for _ in range(length):
            y = y @ x
        corner = y[0, 0].item()
        took = time.perf_counter() - began
        if not math.isfinite(corner):
            raise AssertionError(f"a chain of {length} products ends in {corner}")
        figures.append(2 * size**3 * length / took / 1e12)
    return figures


def add_chain(torch: Any, order: Order) -> list[float]:
    """The chain of W1 on the device: operations per second."""
    return [1e6 / cost_us for cost_us in w1_chain.chains(torch, order)]


def read(torch: Any, order: Order) -> list[float]:
    """The µs that an add and the read of its result take."""
    x, y = torch.ones(4), torch.zeros(4)

    def add_and_read() -> None:
        (y + x).tolist()

    return w2_round_trip.timed(add_and_read, order["repetitions"])


def mixed_chain(torch: Any, order: Order) -> list[float]:
    """Operations per second of a chain of different small operations."""
    length = order["length"] // 4
    figures = []
    for _ in range(order["repetitions"]):
        x = torch.full((64, 64), 0.5)
        y = torch.zeros(64, 64)
        y.sum().item()
        began = time.perf_counter()
        for _ in range(length):
            y = torch.relu(y * 0.5 + x).t()
        last = y[0, 0].item()
        figures.append(4 * length / (time.perf_counter() - began))
        if abs(last - 1.0) > 1e-3:
            raise AssertionError(f"the chain tends to 1, not to {last}")
    return figures


def forwards(model: Any, torch: Any, order: Order) -> list[float]:
    """Forward passes per second on rows that are on the device, one after the other, and one read at the end."""
    rows = torch.rand(order["rows"], SIZES[0])
    figures = []
    with torch.no_grad():
        for _ in range(order["repetitions"]):
            y = model(rows)
            y[0, 0].item()
            began = time.perf_counter()
            for _ in range(order["length"]):
                y = model(rows)
            last = y[0, 0].item()
            figures.append(order["length"] / (time.perf_counter() - began))
            if not math.isfinite(last):
                raise AssertionError(f"the forward pass gives {last}")
    return figures


def program(function: Any, torch: Any, order: Order) -> list[float]:
    """Operations per second of the function of P1, called over and over."""
    return [1e6 / cost_us for cost_us in p1_programs.timed(torch, function, order)]


def bulk(fetch: Any, torch: Any, order: Order) -> list[float]:
    """GB/s of an array to the device, until it can be read there, or back into an array that is there already."""
    data = w3_bulk.array(order["bytes"])
    held = torch.tensor(data)

    def up(size_bytes: int) -> None:
        assert torch.tensor(data)[-1].item() == 7

    def down(size_bytes: int) -> None:
        fetch(held, data)
        assert data[-1] == 7

    return w3_bulk.rates(up, down, order)


def checks(torch: Any, device: str) -> list[str]:
    """What is wrong with devices and memory; nothing, if all is well."""
    wrong = []

    def expect(what: str, found: object, expected: object) -> None:
        if found != expected:
            wrong.append(f"{what} is {found}, not {expected}")

    where = "cuda:0" if device.startswith("cuda") else "cpu"
    x = torch.tensor([0.9806])
    expect("the device of a new tensor", str(x.device), where)
    y = torch.ones_like(x.to(where), device=where)
    expect("the device of a sum", str((x.to(where) + y).device), where)
    expect("the sum", round((x.to(where) + y).item(), 4), 1.9806)
    expect("the device of its copy on the CPU", str((x + y).to("cpu", torch.double).device), "cpu")
    if where == "cuda:0":
        expect("cuda.is_available()", torch.cuda.is_available(), True)
        before = torch.cuda.memory_allocated()
        held = torch.zeros(CHECK_BYTES // 4)
        held.sum().item()
        expect("the growth of memory by a tensor", torch.cuda.memory_allocated() - before, CHECK_BYTES)
        del held
        x.sum().item()  # frees travel with the calls
        expect("what is left of it once the tensor is gone", torch.cuda.memory_allocated() - before, 0)
    return wrong


# ---- the sides ------------------------------------------------------------------------------------------------------


def _runs(torch: Any, model: Any, served: Any, function: Any, fetch: Any) -> dict[str, Any]:
    return {
        "program": partial(program, function, torch),
        "bulk": partial(bulk, fetch, torch),
        "matmul": partial(matmul_chain, torch),
        "add": partial(add_chain, torch),
        "read": partial(read, torch),
        "mixed": partial(mixed_chain, torch),
        "module": partial(forwards, model, torch),
        "served": partial(forwards, served, torch),
    }


@contextlib.contextmanager
def with_tclient(options: Options, *, lane: bool = True) -> Iterator[Run]:
    """Through the server, whose default device is the one under test."""
    import tclient

    with tclient.connect(options.address, lane=lane) as session:
        model = tclient.nn.MLP(list(SIZES), activation="relu")
        served = tclient.models.create("bench-gpu" if lane else "bench-gpu-over-grpc", model)
        function = tclient.compile(p1_programs.chain)
        runs = _runs(tclient, model, served, function, lambda held, out: held.numpy(out=out))
        device = options.more["device"]

        def run(order: Order) -> list[float]:
            with session.use():
                if order["what"] == "checks":
                    if wrong := checks(tclient, device):
                        raise AssertionError("; ".join(wrong))
                    return []
                return [float(figure) for figure in runs[order["what"]](order)]

        try:
            yield run
        finally:
            with session.use():
                served.delete()


@contextlib.contextmanager
def with_torch(options: Options) -> Iterator[Run]:
    """Local torch, eager, on the same device."""
    import torch

    from .mlp import network

    with torch.device(options.more["device"]):

        def fetch(held: torch.Tensor, out: np.ndarray) -> None:
            torch.from_numpy(out).copy_(held)

        runs = _runs(torch, model := network(), model, p1_programs.chain, fetch)
        yield lambda order: [float(figure) for figure in runs[order["what"]](order)]


SIDES: dict[str, MakeSide] = {
    "tclient": with_tclient,
    "tclient over gRPC": partial(with_tclient, lane=False),
    "torch": with_torch,
}


# ---- the workloads --------------------------------------------------------------------------------------------------


def measure(bench: Bench, remote: Side, grpc_alone: Side, local: Side, tiny: bool) -> Iterator[Outcome]:
    """The checks, then all rows and curves. `remote` takes a lane."""
    remote.run({"what": "checks"})
    bench.say("devices and memory: as they should be")
    row = partial(_row, bench, (remote, local))
    both = partial(_by_road, bench, (remote, grpc_alone, local))
    size, length = (64, 4) if tiny else (4096, 20)
    order: Order = {"what": "matmul", "size": size, "length": length, "repetitions": 1 if tiny else 5}
    what = f"chain of {length} products of {size}×{size} float32"
    yield row("G1", what, "TFLOP/s", Bar("at least", (0.97,)), order)
    length = 200 if tiny else 2000
    order = {"length": length, "repetitions": 2 if tiny else 10}
    bar = Bar("at least", (0.5,))
    yield from both("G2", f"chain of {length} `y = y + x`, then a read", "ops/s", bar, {**order, "what": "add"})
    what = f"chain of {length} `mul add relu t` on 64×64, then a read"
    yield from both("G2", what, "ops/s", bar, {**order, "what": "mixed"})
    yield from both("G-W2", "one add and its read", "µs", None, {"what": "read", "repetitions": 10 if tiny else 250})
    rows, length = (16, 20) if tiny else (1024, 1000)
    order = {"rows": rows, "length": length, "repetitions": 2 if tiny else 5}
    what = f"MLP, batch {rows} resident, pipelined"
    bar = Bar("at least", (1.0,))
    yield from both("G3", f"{what}: a served model", "forwards/s", bar, {**order, "what": "served"})
    yield from both("G3", f"{what}: a module of tclient.nn", "forwards/s", None, {**order, "what": "module"})
    order = {"what": "program", "repetitions": 2 if tiny else 5}
    yield row("G-P1", f"compiled function of {p1_programs.LENGTH} operations, pipelined", "ops/s", None, order)
    mib = 4 if tiny else 256
    order = {"what": "bulk", "bytes": mib << 20, "repetitions": 2 if tiny else 4}
    for direction in ("upload", "download"):
        yield row(
            "G-bulk",
            f"{direction} of {mib} MiB; yardstick: to and from pageable memory of its own process",
            "GB/s",
            None,
            {**order, "direction": direction},
        )
    yield from by_batch(bench, remote, local, tiny)


def _row(bench: Bench, sides: tuple[Side, Side], id: str, what: str, unit: str, bar: Bar | None, order: Order) -> Row:
    ours, theirs = bench.take_turns(sides, unit, bench.choose(5, 2), order)
    return Row(id, what, ours, theirs, bar)


def _by_road(
    bench: Bench, sides: tuple[Side, Side, Side], id: str, what: str, unit: str, bar: Bar | None, order: Order
) -> Iterator[Row]:
    ours, over_grpc, theirs = bench.take_turns(sides, unit, bench.choose(5, 2), order)
    yield Row(id, f"{what}, lane", ours, theirs, bar)
    yield Row(id, f"{what}, gRPC", over_grpc, theirs)


def by_batch(bench: Bench, remote: Side, local: Side, tiny: bool) -> Iterator[Curve]:
    """Rows per second of the served model by the size of the batch."""
    sizes = (1, 4, 16) if tiny else (1, 4, 16, 64, 256, 1024, 4096)
    ours = Curve("G-batch", "rows of a served model, resident", "rows in a batch", "rows/s")
    theirs = Curve("G-batch-torch", "the same on local torch", "rows in a batch", "rows/s")
    for size in sizes:
        order = {"what": "served", "rows": size, "length": 20 if tiny else 500, "repetitions": 2}
        measured: list[Figures] = bench.take_turns([remote, local], "forwards/s", 2, order)
        for curve, figures in zip((ours, theirs), measured, strict=True):
            curve.points.append((size, figures.median * size))
    yield ours
    yield theirs


def gpu_name(device: str) -> str:
    """What the maker calls the device; empty for the CPU. Raises RuntimeError if there is no GPU."""
    if not device.startswith("cuda"):
        return ""
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError(NO_GPU.format(version=torch.__version__))
    return torch.cuda.get_device_name(device)


def main() -> int:
    """Measure, print, write. The exit code tells whether everything ran, not whether it was quick."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description="The server on a GPU: G1, G2, G3.")
    parser.add_argument("--device", default="cuda:0", help="device of both sides (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, rougher figures")
    parser.add_argument("--tiny", action="store_true", help="small sizes: a check that it runs")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench", help="folder of the results")
    arguments = parser.parse_args()
    bench = Bench(quick=arguments.quick or arguments.tiny, device=arguments.device)
    outcomes: list[Outcome] = []
    about = machine()
    began = time.monotonic()
    try:
        about["gpu"] = gpu_name(arguments.device)
        more = {"device": bench.device}
        with (
            bench.server() as server,
            side(MODULE, "tclient", address=server.address, more=more) as remote,
            side(MODULE, "tclient over gRPC", address=server.address, more=more) as grpc_alone,
            side(MODULE, "torch", more=more) as local,
        ):
            for outcome in measure(bench, remote, grpc_alone, local, arguments.tiny):
                outcomes.append(outcome)
                bench.say(f"{outcome.id} done after {time.monotonic() - began:.0f} s")
    except (ProcessFailed, RuntimeError) as failure:
        print(f"bench-gpu: {failure}", file=sys.stderr)
        if not outcomes:
            return 1
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    print(f"{about['gpu'] or 'no GPU'}; {about['processor']}, {about['cores']} cores, {about['date']}, {versions}")
    print(table(outcomes))
    arguments.out.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "tests.bench.gpu", *sys.argv[1:]])
    write_json(outcomes, about, command, arguments.out / "gpu.json")
    drawn = write_picture(outcomes, arguments.out / "gpu.png")
    print(f"written: {arguments.out / 'gpu.json'}" + (f", {arguments.out / 'gpu.png'}" if drawn else ""))
    return 0 if any(outcome.id == "G-batch-torch" for outcome in outcomes) else 1


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in SIDES:
        serve(SIDES)
    else:
        sys.exit(main())
