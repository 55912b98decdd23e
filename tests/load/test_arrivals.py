"""The open loop tells the truth: requests leave on time, and a stall is paid by all who come meanwhile."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter

import pytest

from tests.load.arrivals import UNANSWERED, Offered, offer, schedule

RATE = 200.0
STALL_S = 0.2


def test_even_times_have_the_rate() -> None:
    assert list(schedule(4, 1)) == [0, 0.25, 0.5, 0.75]


def test_two_generators_take_turns() -> None:
    halves = [list(schedule(2, 1, phase=phase)) for phase in (0, 0.5)]
    assert halves == [[0, 0.5], [0.25, 0.75]]


def test_random_times_have_the_rate_and_a_seed_repeats_them() -> None:
    times = list(schedule(1000, 10, seed=1))
    assert times == sorted(times)
    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert times == list(schedule(1000, 10, seed=1))
    assert times != list(schedule(1000, 10, seed=2))


def test_a_stall_of_the_server_is_paid_by_all_who_come_meanwhile() -> None:
    async def run() -> tuple[Offered, list[float]]:
        stalled = asyncio.Event()
        stalled.set()

        async def send(number: int) -> str:
            await stalled.wait()
            return ""

        async def stall() -> None:
            await asyncio.sleep(0.1)
            stalled.clear()
            await asyncio.sleep(STALL_S)
            stalled.set()

        async def closed_loop(seconds: float) -> list[float]:
            latencies, began = [], time.perf_counter()
            while time.perf_counter() - began < seconds:
                left = time.perf_counter()
                await send(0)
                latencies.append(time.perf_counter() - left)
                await asyncio.sleep(1 / RATE)
            return latencies

        stalling = asyncio.create_task(stall())
        offered, closed = await asyncio.gather(offer(send, schedule(RATE, 0.4), 0.4), closed_loop(0.4))
        await stalling
        return offered, closed

    offered, closed = asyncio.run(run())
    assert offered.count == RATE * 0.4
    slow = [latency for latency in offered.latencies_s if latency > STALL_S / 3]
    assert len(slow) >= RATE * STALL_S / 3
    assert offered.quantile_s(0.9) > STALL_S / 4
    # The loop that waits for its answer met the stall once and asked no more.
    assert sum(latency > STALL_S / 3 for latency in closed) <= 2


def test_a_generator_that_is_late_itself_counts_from_the_intended_start_and_says_so() -> None:
    async def send(number: int) -> str:
        if number == 10:
            time.sleep(STALL_S)  # noqa: ASYNC251 - the stall of the generator
        return ""

    offered = asyncio.run(offer(send, schedule(RATE, 0.4), 0.4))
    assert offered.count == RATE * 0.4
    assert offered.latest_start_s > STALL_S / 2
    assert sum(latency > STALL_S / 3 for latency in offered.latencies_s) >= RATE * STALL_S / 3


def test_the_warm_up_is_not_counted() -> None:
    async def send(number: int) -> str:
        return "" if number >= 20 else "COLD"

    offered = asyncio.run(offer(send, schedule(RATE, 0.2), 0.2, warm_up_s=0.1))
    assert offered.count == 20
    assert not offered.failures


def test_a_failure_took_for_ever() -> None:
    offered = Offered(1.0, [0.001] * 98, Counter({"UNAVAILABLE": 2}))
    assert offered.quantile_s(0.5) == 0.001
    assert offered.quantile_s(0.98) == 0.001
    assert offered.quantile_s(0.99) == math.inf


def test_a_request_without_an_answer_is_a_failure_and_the_run_ends() -> None:
    async def send(number: int) -> str:
        if number == 3:
            await asyncio.Event().wait()
        return ""

    offered = asyncio.run(offer(send, schedule(RATE, 0.1), 0.1, patience_s=0.1))
    assert offered.failures == {UNANSWERED: 1}
    assert len(offered.latencies_s) == 19


def test_the_rate_of_answers_counts_those_that_came_late() -> None:
    async def send(number: int) -> str:
        await asyncio.sleep(0.3)
        return ""

    offered = asyncio.run(offer(send, schedule(RATE, 0.1), 0.1))
    assert offered.seconds >= 0.3
    assert offered.answered_per_s < RATE / 2
