"""An open loop: requests leave when the schedule says, whether earlier ones were answered or not.

Latency counts from the intended start. A generator that waits for answers, or counts from the moment when it got
round to sending, leaves out just those requests that a stall would have hurt. Knows asyncio; does not know gRPC.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

# Sends the request of that number; returns "" or the name of the failure.
Send = Callable[[int], Awaitable[str]]

# The event loop's clock is too coarse for pauses shorter than this: what is due goes together.
SHORTEST_PAUSE_S = 0.0005
UNANSWERED = "UNANSWERED"


@dataclass
class Offered:
    """What became of the requests that were due in the measured time."""

    seconds: float = 0.0  # from the first that was due to the last answer
    latencies_s: list[float] = field(default_factory=list)  # of those that were answered well
    failures: Counter[str] = field(default_factory=Counter)
    latest_start_s: float = 0.0  # how far the generator itself fell behind its schedule, at worst

    @property
    def answered_per_s(self) -> float:
        """The rate of answers: lower than that of requests where answers were still coming after the last request."""
        return len(self.latencies_s) / self.seconds if self.seconds else 0.0

    @property
    def count(self) -> int:
        """How many were due."""
        return len(self.latencies_s) + self.failures.total()

    def quantile_s(self, share: float) -> float:
        """The latency that `share` of all requests do not exceed. One that failed took for ever."""
        place = max(1, math.ceil(share * self.count)) - 1
        ordered = sorted(self.latencies_s)
        return ordered[place] if place < len(ordered) else math.inf

    def __add__(self, other: Offered) -> Offered:
        """What two generators saw at the same time."""
        return Offered(
            max(self.seconds, other.seconds),
            self.latencies_s + other.latencies_s,
            self.failures + other.failures,
            max(self.latest_start_s, other.latest_start_s),
        )


def schedule(rate: float, seconds: float, *, phase: float = 0.0, seed: int | None = None) -> Iterator[float]:
    """Times in seconds, `rate` in each: evenly spaced, or with a seed at random as independent callers come (Poisson).

    phase moves even times by a part of their distance: several generators then take turns.
    """
    if seed is None:
        for number in range(math.ceil(rate * seconds - phase)):
            yield (number + phase) / rate
        return
    draw = random.Random(seed)
    due = draw.expovariate(rate)
    while due < seconds:
        yield due
        due += draw.expovariate(rate)


async def offer(
    send: Send, times: Iterator[float], seconds: float, *, warm_up_s: float = 0.0, patience_s: float = 15.0
) -> Offered:
    """Send a request at each of the times, wait for the answers, and count those due after the warm-up.

    Requests that have no answer patience_s after the last one was sent have failed. Raises what send raises.
    """
    offered = Offered(seconds=seconds - warm_up_s)
    clock = time.perf_counter
    under_way: set[asyncio.Task[None]] = set()
    began = clock()

    async def one(number: int, due: float) -> None:
        try:
            failure = await send(number)
        except asyncio.CancelledError:
            failure = UNANSWERED
        latency = clock() - began - due
        if due < warm_up_s:
            return
        if failure:
            offered.failures[failure] += 1
        else:
            offered.latencies_s.append(latency)
            offered.seconds = max(offered.seconds, due + latency - warm_up_s)

    for number, due in enumerate(times):
        if (early := due - (clock() - began)) > 0:
            await asyncio.sleep(max(early, SHORTEST_PAUSE_S))
        if due >= warm_up_s:
            offered.latest_start_s = max(offered.latest_start_s, clock() - began - due)
        started = asyncio.create_task(one(number, due))
        under_way.add(started)
        started.add_done_callback(under_way.discard)
        if number % 64 == 63:
            await asyncio.sleep(0)  # answers are read while the schedule is far behind, too
    if under_way:
        answered, unanswered = await asyncio.wait(under_way, timeout=patience_s)
        for task in unanswered:
            task.cancel()
        for task in answered | unanswered:
            await task
    return offered
