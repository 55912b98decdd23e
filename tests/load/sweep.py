"""How much can it bear? Raises the rate of an open loop until the 99th percentile breaks a bound, and draws it.

    python -m tests.load.sweep HOST:PORT --p99-ms 50 [--start 200] [--seconds 3] [--rpc stream] [--processes 2]

Rates grow by half until one breaks the bound, then the gap is halved. The highest rate that keeps it is the answer:
all requests were answered, and well, p99 counted from the intended start is within the bound, and so it was at every
lower rate that was tried. Written: out/load/sweep.json and, with matplotlib, out/load/sweep.png.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import ROOT
from tests.bench.report import machine
from tests.load.arrivals import Offered
from tests.load.openloop import add_arguments, address_of, describe, generators

GROWTH = 1.5
SHARES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class Point:
    """One rate and what became of it."""

    rate: float
    answered: float  # a second
    latencies_ms: dict[float, float]  # by share; infinite where that many were not answered
    failed: int
    late_ms: float  # of the generator itself

    @classmethod
    def of(cls, rate: float, offered: Offered) -> Point:
        """A point from what was measured."""
        return cls(
            rate,
            offered.answered_per_s,
            {share: offered.quantile_s(share) * 1e3 for share in SHARES},
            offered.failures.total(),
            offered.latest_start_s * 1e3,
        )

    def keeps(self, p99_ms: float) -> bool:
        """Whether everyone was served, and 99 of 100 within the bound."""
        return not self.failed and self.latencies_ms[0.99] <= p99_ms


def find(measure: Callable[[float], Point], start: float, p99_ms: float, *, halvings: int = 3) -> list[Point]:
    """All points of a search, in the order of their rates."""
    points = [measure(start)]
    while points[-1].keeps(p99_ms):
        points.append(measure(points[-1].rate * GROWTH))
    good, bad = points[-2].rate if len(points) > 1 else 0.0, points[-1].rate
    while not good and bad > 1:
        points.append(measure(bad / 4))
        good, bad = (points[-1].rate, bad) if points[-1].keeps(p99_ms) else (0.0, points[-1].rate)
    for _ in range(halvings if good else 0):
        middle = (good + bad) / 2
        points.append(measure(middle))
        good, bad = (middle, bad) if points[-1].keeps(p99_ms) else (good, middle)
    return sorted(points, key=lambda point: point.rate)


def highest(points: list[Point], p99_ms: float) -> Point | None:
    """The last point before the first that breaks the bound; None if the first one does."""
    found = None
    for point in points:
        if not point.keeps(p99_ms):
            break
        found = point
    return found


def write_json(points: list[Point], p99_ms: float, command: list[str], path: Path) -> None:
    """Everything that was measured."""
    best = highest(points, p99_ms)
    content = {
        "machine": machine(),
        "command": command,
        "p99_bound_ms": p99_ms,
        "highest_rate": best.rate if best else None,
        "points": [
            {
                "rate": point.rate,
                "answered": point.answered,
                # JSON has no infinity.
                **{
                    f"p{share * 100:g}_ms": value if math.isfinite(value) else None
                    for share, value in point.latencies_ms.items()
                },
                "failed": point.failed,
                "generator_late_ms": point.late_ms,
            }
            for point in points
        ],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def draw(points: list[Point], p99_ms: float, title: str, path: Path) -> bool:
    """Latency over throughput; False without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    for share, colour in zip(SHARES, ("tab:green", "tab:olive", "tab:orange", "tab:red"), strict=True):
        # Past saturation the answered rate turns back: the line in the order of offered rates shows the knee.
        pairs = [(point.answered, point.latencies_ms[share]) for point in points]
        axis.plot(*zip(*pairs, strict=True), marker="o", markersize=4, color=colour, label=f"p{share * 100:g}")
    axis.axhline(p99_ms, color="black", linestyle="--", linewidth=1, label=f"bound of p99, {p99_ms:g} ms")
    if best := highest(points, p99_ms):
        axis.axvline(best.answered, color="tab:blue", linestyle=":", label=f"highest rate, {best.rate:,.0f}/s")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlim(left=0)
    axis.set_xlabel("requests answered per second")
    axis.set_ylabel("latency from the intended start, ms")
    axis.set_title(title, fontsize="medium")
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def main() -> int:
    """Search, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.sweep", description="The highest rate within a bound.")
    add_arguments(parser)
    parser.add_argument("--p99-ms", type=float, default=50.0, help="the bound (default: %(default)s)")
    parser.add_argument("--start", type=float, default=200.0, help="the first rate (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="at each rate (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "load", help="folder of the results")
    arguments = parser.parse_args()
    with address_of(arguments) as address, generators(address, arguments.rpc, arguments.processes) as generating:

        def measure(rate: float) -> Point:
            offered = generating.offer(rate, arguments.seconds, poisson=arguments.poisson)
            print(describe(rate, offered), flush=True)
            return Point.of(rate, offered)

        points = find(measure, arguments.start, arguments.p99_ms)
    best = highest(points, arguments.p99_ms)
    if best is None:
        print(f"no rate kept p99 within {arguments.p99_ms:g} ms")
    else:
        print(f"highest rate with p99 within {arguments.p99_ms:g} ms: {best.rate:,.0f}/s")
        if best.late_ms > arguments.p99_ms / 2:
            print("the generator itself was late: try --processes 2, --rpc stream, or another machine for it")
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(
        points, arguments.p99_ms, ["python", "-m", "tests.load.sweep", *sys.argv[1:]], arguments.out / "sweep.json"
    )
    title = f"784-256-128-10, one row a request, {arguments.rpc}"
    drawn = draw(points, arguments.p99_ms, title, arguments.out / "sweep.png")
    print(f"written: {arguments.out / 'sweep.json'}" + (f", {arguments.out / 'sweep.png'}" if drawn else ""))
    return 0 if best else 1


if __name__ == "__main__":
    sys.exit(main())
