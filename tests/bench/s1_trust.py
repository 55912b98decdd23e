"""S1: what TLS and a token cost: the chains of W1 and the forward passes of W4 with both, and without.

The yardstick is the same client on the same road without either: a lane within the machine, which is a Unix socket; a
lane over TCP, as from another machine; gRPC.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from . import w1_chain, w4_forwards
from .bench import Bench
from .processes import ROOT, Server, environment, side
from .side import Options, Run, serve
from .stats import Bar, Row

MODULE = __name__
ROADS = ("lane", "lane over TCP", "gRPC")
MOST = 1.1
CALLERS = 16


def measure(bench: Bench) -> Iterator[Row]:
    """For each workload a row for each road."""
    rounds = bench.choose(12, 6)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        servers = stack.enter_context(_servers(bench, Path(folder)))
        for name, unit, bar, threads, order in (
            ("chain", "µs/op", Bar("at most", (MOST,)), 1, {"repetitions": 5, "length": w1_chain.LENGTH}),
            ("forwards", "requests/s", Bar("at least", (1 / MOST,)), CALLERS, {"seconds": bench.choose(2, 1) * 0.5}),
        ):
            for road in ROADS:
                with (
                    side(MODULE, name, address=servers[0][0].address, threads=threads, more={"road": road}) as plain,
                    side(
                        MODULE,
                        name,
                        address=servers[1][0].address,
                        threads=threads,
                        more={"road": road, **servers[1][1]},
                    ) as trusted,
                ):
                    ours, theirs = bench.take_turns([trusted, plain], unit, rounds, order)
                ours.side, theirs.side = "TLS and a token", "neither"
                yield Row("S1", f"{name}, {road}: TLS and a token", ours, theirs, bar)


@contextlib.contextmanager
def _servers(bench: Bench, folder: Path) -> Iterator[list[tuple[Server, dict[str, str]]]]:
    """A server without anything, and one with both, with what its clients need."""
    _tserver("certs", "--out", str(folder), "--name", "127.0.0.1")
    tokens = str(folder / "tokens.json")
    token = _tserver("token", "create", "--tokens", tokens, "--principal", "bench", "--role", "publisher")
    options = ("--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key"), "--tokens", tokens)
    with bench.server() as plain, bench.server(*options) as trusted:
        yield [(plain, {}), (trusted, {"TCLIENT_TLS": str(folder / "ca.pem"), "TCLIENT_TOKEN": token.split()[-1]})]


def _tserver(*arguments: str) -> str:
    command = [sys.executable, "-m", "tserver", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, check=True).stdout


@contextlib.contextmanager
def _on_road(made: Callable[..., contextlib.AbstractContextManager[Run]], options: Options) -> Iterator[Run]:
    """A side of another workload, on the road that is wanted."""
    from tclient._transfer import data_endpoint

    road = options.more["road"]
    os.environ.update({name: value for name, value in options.more.items() if name.startswith("TCLIENT_")})
    if road == "lane over TCP":
        vars(data_endpoint)["_CAN_SHARE"] = False
    with made(options, lane=road != "gRPC") as run:
        yield run


if __name__ == "__main__":
    serve(
        {
            "chain": partial(_on_road, w1_chain.with_tclient),
            "forwards": partial(_on_road, w4_forwards.with_served),
        }
    )
