"""M1: the memory that an idle session takes on the server: KiB of resident memory for each.

Measured as the growth of the server process over several hundred sessions, each of which has made two tensors of 4
floats and then rests: without a client, and with a client attached that has a connection and a stream of its own.
There is no yardstick; gRPC's own connection and stream are part of the second figure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .bench import Bench
from .processes import side
from .sessions import MODULE as SESSIONS
from .sessions import max_sessions
from .stats import Bar, Figures, Row

BAR = Bar("at most", (50,), unit=" KiB")


def measure(bench: Bench) -> Iterator[Row]:
    """One row without clients, one with."""
    for attached, what in ((False, "idle session, no client"), (True, "idle session, client attached")):
        figures = Figures("server", "KiB")
        with bench.server() as server, side(SESSIONS, "sessions", address=server.address) as sessions:
            wanted = bench.choose(300, 150) if attached else bench.choose(800, 200)
            several = min(wanted, max_sessions(server.address) - 50) // 2
            # The first ones fill the pools that all share.
            sessions.run({"open": 50, "attached": attached})
            for _ in range(2):
                before = resident_kib(server.process.pid)
                sessions.run({"open": several, "attached": attached})
                figures.rounds.append([(resident_kib(server.process.pid) - before) / several])
        row = Row("M1", what, figures, note=f"over {2 * several} sessions")
        if not attached:
            row.bar, row.value = BAR, figures.median
        yield row


def resident_kib(pid: int) -> float:
    """The resident memory of a process and its children."""
    total = 0.0
    with contextlib.suppress(FileNotFoundError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += float(line.split()[1])
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError):
            total += sum(resident_kib(int(child)) for child in task.read_text().split())
    return total
