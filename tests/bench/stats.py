"""Figures and what is said of them: median, p99, spread, ratio, bar. Knows nothing of processes."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class Figures:
    """What one side did, in one unit: a list of figures for each round."""

    side: str
    unit: str
    rounds: list[list[float]] = field(default_factory=list)

    @property
    def all(self) -> list[float]:
        """The figures of all rounds."""
        return [figure for figures in self.rounds for figure in figures]

    @property
    def median(self) -> float:
        """The median over all rounds."""
        return statistics.median(self.all)

    @property
    def round_medians(self) -> list[float]:
        """The median of each round."""
        return [statistics.median(figures) for figures in self.rounds]

    def quantile(self, share: float) -> float:
        """The smallest figure that at least `share` of all figures do not exceed."""
        ordered = sorted(self.all)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]

    @property
    def p99(self) -> float:
        """The figure that only one in a hundred is worse than; of a rate the worse ones are the lower ones."""
        return self.quantile(0.01) if self.unit.endswith("/s") else self.quantile(0.99)

    @property
    def spread(self) -> float:
        """The distance between the quartiles, as a part of the median."""
        return (self.quantile(0.75) - self.quantile(0.25)) / self.median if self.median else 0.0

    def as_json(self) -> dict[str, Any]:
        """What the JSON file keeps."""
        return {
            "side": self.side,
            "unit": self.unit,
            "median": self.median,
            "p99": self.p99,
            "spread": self.spread,
            "count": len(self.all),
            "round_medians": self.round_medians,
        }


@dataclass(frozen=True)
class Bar:
    """What must be reached: a first step, and further ones up to the goal."""

    direction: Literal["at most", "at least"]
    steps: tuple[float, ...]
    unit: str = "×"

    def verdict(self, value: float) -> str:
        """`ok` with the highest step reached, or MISS with the first one."""
        reached = [step for step in self.steps if (value <= step if self.direction == "at most" else value >= step)]
        sign = "≤" if self.direction == "at most" else "≥"
        if not reached:
            return f"MISS {sign}{self.steps[0]:g}{self.unit}"
        best = min(reached) if self.direction == "at most" else max(reached)
        missing = [step for step in self.steps if step not in reached]
        towards = f" (next {sign}{missing[0]:g}{self.unit})" if missing else ""
        return f"ok {sign}{best:g}{self.unit}{towards}"


@dataclass
class Row:
    """One line of the table: a side, and if it has one its yardstick and its bar."""

    id: str
    what: str
    figures: Figures
    yardstick: Figures | None = None
    bar: Bar | None = None
    value: float | None = None  # what the bar judges where it is not the ratio
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The median of the side divided by that of its yardstick."""
        return self.figures.median / self.yardstick.median if self.yardstick else None

    @property
    def ratio_range(self) -> tuple[float, float] | None:
        """The lowest and highest ratio of two neighbouring rounds."""
        if not self.yardstick:
            return None
        pairs = zip(self.figures.round_medians, self.yardstick.round_medians, strict=False)
        ratios = [ours / theirs for ours, theirs in pairs]
        return min(ratios), max(ratios)

    @property
    def verdict(self) -> str:
        """Whether the bar is met."""
        judged = self.value if self.value is not None else self.ratio
        return self.bar.verdict(judged) if self.bar and judged is not None else ""

    def as_json(self) -> dict[str, Any]:
        """What the JSON file keeps."""
        return {
            "id": self.id,
            "what": self.what,
            "figures": self.figures.as_json(),
            "yardstick": self.yardstick.as_json() if self.yardstick else None,
            "ratio": self.ratio,
            "ratio_range": self.ratio_range,
            "judged": self.value if self.value is not None else self.ratio,
            "bar": {"direction": self.bar.direction, "steps": self.bar.steps} if self.bar else None,
            "verdict": self.verdict,
            "note": self.note,
        }


@dataclass
class Curve:
    """How a cost grows: one point for each size."""

    id: str
    what: str
    size: str
    unit: str
    points: list[tuple[float, float]] = field(default_factory=list)
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """What the JSON file keeps."""
        return {
            "id": self.id,
            "what": self.what,
            "size": self.size,
            "unit": self.unit,
            "points": self.points,
            "note": self.note,
        }


Outcome = Row | Curve
