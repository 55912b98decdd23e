"""The soak passes where memory is flat, and fails where it is not or where a request does."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import grpc
import pytest

from tests.load.arrivals import Send
from tests.load.soak import Soak, closed_loops, resident_bytes, run, write
from tests.load.workload import OPTIONS, create_network
from tests.support.serving import ServerProcess

MIB = 1 << 20
TOTAL = 1000


def soaked(send: Send, bytes_each: float, settling: float = 0.0) -> Soak:
    """A soak of a simulated server that grows by so much with each request, and at first until it has settled."""
    soak = Soak(TOTAL)
    done = 0

    def sample() -> int:
        return int(300 * MIB + bytes_each * done + settling * min(done, TOTAL // 5))

    async def counted(number: int) -> str:
        nonlocal done
        done += 1
        return await send(number)

    asyncio.run(closed_loops([counted] * 8, TOTAL, soak, sample))
    assert done == TOTAL
    return soak


async def well(number: int) -> str:
    """An answer."""
    return ""


def test_flat_memory_passes() -> None:
    assert soaked(well, 0).passed


def test_memory_that_grows_during_the_warm_up_passes() -> None:
    soak = soaked(well, 0, settling=MIB)
    assert soak.passed
    assert abs(soak.growth) < 0.002


def test_a_leak_fails() -> None:
    soak = soaked(well, 8192)
    assert soak.growth > 0.01
    assert not soak.passed


def test_one_failure_fails() -> None:
    async def once(number: int) -> str:
        return "INTERNAL" if number == 500 else ""

    soak = soaked(once, 0)
    assert soak.failures == {"INTERNAL": 1}
    assert not soak.passed


def test_a_run_without_samples_is_no_pass() -> None:
    with pytest.raises(ValueError, match="make it longer"):
        _ = Soak(TOTAL).passed


def test_memory_is_that_of_a_process_and_its_children(server: ServerProcess) -> None:
    assert resident_bytes(server.pid) > resident_bytes(server.engine_pid()) > 50 * MIB
    with pytest.raises(FileNotFoundError):
        resident_bytes(2**22 + os.getpid())


@pytest.mark.parametrize("leak", [False, True], ids=["soak", "control"])
def test_a_short_soak_of_a_real_server_has_no_failures(leak: bool, server: ServerProcess, tmp_path: Path) -> None:
    with grpc.insecure_channel(server.address, options=OPTIONS) as channel:
        create_network(channel)
    soak = asyncio.run(run(server.address, server.pid, 600, leak, print))
    assert not soak.failures
    write(soak, leak, tmp_path)
    name = "soak-leak" if leak else "soak"
    assert json.loads((tmp_path / f"{name}.json").read_text())["requests"] == 600
