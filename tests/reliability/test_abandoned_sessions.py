"""Clients that open sessions and are never heard of again: what they held is given back with their leases."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tensorcompute.v1 import tensor_pb2 as pb
from tests.support.raw import Raw
from tests.support.serving import ServerProcess

# A long run has 10,000.
SESSIONS = int(os.environ.get("TSERVER_TEST_ABANDONED", "400"))
LEASE_S = 4.0
TENSOR_BYTES = 64 << 10
# What may be left for each, and altogether.
LEFT_BYTES, LEFT_AT_ALL = 1 << 10, 16 << 20


def memory_of(pid: int) -> int:
    """The resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_memory_is_back_soon_after_the_leases() -> None:
    options = ("--lease-s", f"{LEASE_S:g}", "--max-sessions", "100000")
    with ServerProcess(*options) as server, Raw(server.address) as raw:
        pid = server.engine_pid()

        def abandon() -> None:
            opened = raw.ask("OpenSession", min_protocol=2, max_protocol=2)
            raw.ask(
                "CreateTensor",
                context={"session": opened.session},
                dtype=pb.D_TYPE_FLOAT32,
                shape=[TENSOR_BYTES // 4],
                ones={},
            )

        # What the first ones take for all that come.
        for _ in range(min(SESSIONS, 2000)):
            abandon()
        time.sleep(LEASE_S + 2.0)
        before = memory_of(pid)
        for _ in range(SESSIONS):
            abandon()
        most = memory_of(pid)
        last = time.monotonic()
        allowed = before + LEFT_AT_ALL + SESSIONS * LEFT_BYTES

        def is_over() -> bool:
            return memory_of(pid) <= allowed and raw.ask("GetServerInfo").sessions == 0

        while not is_over() and time.monotonic() < last + LEASE_S + 5.0:
            time.sleep(0.1)
        took_s, after = time.monotonic() - last, memory_of(pid)
        print(f"{SESSIONS} sessions: {most - before >> 20} MiB, and {after - before >> 20} after {took_s:.1f} s")
        assert is_over()
