"""The command line of the benchmark: which workloads, how thorough, and where the results go."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from . import (
    b64_batching,
    e1_engine_start,
    e2_engines,
    f1_front,
    growth,
    i1_import,
    m1_memory,
    n1_neighbours,
    p1_programs,
    s1_trust,
    w1_chain,
    w2_round_trip,
    w3_bulk,
    w4_forwards,
    w5_batch,
)
from .bench import Bench, Measure
from .processes import ROOT, ProcessFailed
from .report import machine, table, write_json, write_picture
from .stats import Outcome

WORKLOADS: dict[str, Measure] = {
    "W1": w1_chain.measure,
    "W2": w2_round_trip.measure,
    "W3": w3_bulk.measure,
    "W4": w4_forwards.measure,
    "W5": w5_batch.measure,
    "B64": b64_batching.measure,
    "E2": e2_engines.measure,
    "P1": p1_programs.measure,
    "F1": f1_front.measure,
    "I1": i1_import.measure,
    "E1": e1_engine_start.measure,
    "M1": m1_memory.measure,
    "N1": n1_neighbours.measure,
    "S1": s1_trust.measure,
    "growth": growth.measure,
}


def main() -> int:
    """Measure, print, write. The exit code tells whether everything ran, not whether it was quick."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=f"Workloads: {', '.join(WORKLOADS)}.")
    parser.add_argument("--only", default=",".join(WORKLOADS), help="workloads, separated by commas")
    parser.add_argument("--quick", action="store_true", help="shorter rounds, rougher figures")
    parser.add_argument("--device", default="cpu", help="device of the server under test (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench", help="folder of the results")
    arguments = parser.parse_args()
    chosen = [name.strip() for name in arguments.only.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in WORKLOADS]:
        parser.error(f"unknown workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    bench = Bench(quick=arguments.quick, device=arguments.device)
    about = {**machine(), "compiled": bench.compiled}
    outcomes: list[Outcome] = []
    failed = []
    for name in chosen:
        began = time.monotonic()
        try:
            outcomes.extend(WORKLOADS[name](bench))
        except (ProcessFailed, RuntimeError) as failure:
            failed.append(name)
            bench.say(f"{name} did not run: {failure}")
        else:
            bench.say(f"{name} took {time.monotonic() - began:.0f} s")
    print(f"{about['processor']}, {about['cores']} cores, {about['system']}, Python {about['python']}, {about['date']}")
    print(about["compiled"])
    if (load := about["load_before"]) > about["cores"] / 4:
        print(f"The machine was not idle before the run (load {load:.1f}): figures are worse than they would be.")
    print(table(outcomes))
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(
        outcomes, about, shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]]), arguments.out / "bench.json"
    )
    drawn = write_picture(outcomes, arguments.out / "bench.png")
    print(f"written: {arguments.out / 'bench.json'}" + (f", {arguments.out / 'bench.png'}" if drawn else ""))
    if failed:
        print(f"did not run: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
