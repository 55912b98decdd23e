"""What a workload is given: how long to measure, where to run, and the turns that sides take."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .processes import Server, Side, environment, server
from .side import Order
from .stats import Figures, Outcome

_COMPILED = """
from tclient import _native
from tserver.engine import packed
print(*["client"] * _native.COMPILED, *["server"] * (packed.run_plain is not None))
"""


@dataclass(frozen=True)
class Bench:
    """The settings of one run."""

    quick: bool = False
    device: str = "cpu"

    @property
    def one_core(self) -> int:
        """The core that pinned processes share: the last one, the first serves more interrupts."""
        return max(os.sched_getaffinity(0))

    def choose(self, full: int, quick: int) -> int:
        """A count that depends on how long the run may take."""
        return quick if self.quick else full

    @contextlib.contextmanager
    def server(self, *options: str, cpu: int | None = None) -> Iterator[Server]:
        """A fresh server under test."""
        with server(self.device, *options, cpu=cpu) as started:
            yield started

    def take_turns(self, sides: Sequence[Side], unit: str, rounds: int, order: Order) -> list[Figures]:
        """Let the sides run one after the other, `rounds` times, after one round that does not count."""
        figures = [Figures(side.name, unit) for side in sides]
        for side in sides:
            side.run(order)
        for index in range(rounds):
            # The order turns round, so that a drift of the machine favours no one.
            for number in range(len(sides)) if index % 2 == 0 else reversed(range(len(sides))):
                figures[number].rounds.append(sides[number].run(order))
        return figures

    @functools.cached_property
    def compiled(self) -> str:
        """Which sides have their core compiled (hatch_build.py)."""
        asked = subprocess.run(
            [sys.executable, "-c", _COMPILED], env=environment(), capture_output=True, text=True, check=True
        )
        return f"compiled: {asked.stdout.strip() or 'nothing'}"

    def say(self, text: str) -> None:
        """Progress for the person who waits."""
        print(text, file=sys.stderr, flush=True)


Measure = Callable[[Bench], Iterator[Outcome]]
