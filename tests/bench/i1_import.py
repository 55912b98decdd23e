"""I1: what it costs to begin: the import of the client above numpy and grpcio, and all of it up to the first result.

Each figure is taken in a fresh interpreter with a warm file cache. The client must have loaded neither torch nor the
server.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from .bench import Bench
from .processes import ROOT, environment
from .stats import Bar, Figures, Row

BAR = Bar("at most", (0.3,), unit=" s")
BARE = "import numpy, grpc"
CLIENT = "import tclient"
FIRST = "import tclient; tclient.connect({address!r}); (tclient.ones(4) + 1).tolist()"
SCRIPT = """
import sys, time
began = time.perf_counter()
{what}
took = time.perf_counter() - began
heavy = sorted({{"torch", "tserver"}} & set(sys.modules))
assert not heavy, f"the client imports {{heavy}}"
print(took, flush=True)
"""


def measure(bench: Bench) -> Iterator[Row]:
    """The import, judged by what it adds; then import, connect and first operation."""
    rounds = bench.choose(12, 5)
    bare, client, first = (Figures(name, "s") for name in ("numpy + grpcio", "tclient", "tclient"))
    with bench.server() as server:
        steps = ((BARE, bare), (CLIENT, client), (FIRST.format(address=server.address), first))
        for index in range(rounds + 1):
            for what, figures in steps:
                took = seconds(what)
                if index:
                    figures.rounds.append([took])
    added = client.median - bare.median
    yield Row("I1", "import of the client", client, bare, BAR, value=added, note=f"adds {added:.3f} s")
    yield Row("I1", "import, connect, first result", first, bare)


def seconds(what: str) -> float:
    """How long the statements take in a fresh interpreter."""
    script = SCRIPT.format(what=what)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{what}: {done.stderr}")
    return float(done.stdout.split()[-1])
