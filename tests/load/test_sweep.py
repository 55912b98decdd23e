"""The sweep finds the rate where a server breaks the bound, and writes what it saw."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.load.sweep import SHARES, Point, draw, find, highest, write_json


def answer(rate: float, capacity: float) -> Point:
    """A queue whose wait grows towards its capacity, and beyond it without end."""
    wait_ms = 1 / (1 - rate / capacity) if rate < capacity else math.inf
    return Point(rate, min(rate, capacity), dict.fromkeys(SHARES, wait_ms), int(rate > 2 * capacity), 0.0)


@pytest.mark.parametrize("capacity", [150.0, 1000.0, 20_000.0], ids=["below the start", "some", "many"])
def test_the_highest_rate_is_close_to_what_the_server_bears(capacity: float) -> None:
    points = find(lambda rate: answer(rate, capacity), 200, 50)
    best = highest(points, 50)
    assert best is not None
    assert 0.25 * capacity < best.rate <= capacity
    assert points == sorted(points, key=lambda point: point.rate)
    if capacity > 200:
        assert best.rate > 0.9 * capacity


def test_a_server_that_bears_nothing_ends_the_search() -> None:
    points = find(lambda rate: Point(rate, 0, dict.fromkeys(SHARES, math.inf), 1, 0), 200, 50)
    assert highest(points, 50) is None
    assert len(points) < 10


def test_a_failure_breaks_the_bound_however_quick_the_others_were() -> None:
    assert Point(100, 100, dict.fromkeys(SHARES, 1.0), 0, 0).keeps(50)
    assert not Point(100, 99, dict.fromkeys(SHARES, 1.0), 1, 0).keeps(50)


def test_a_rate_above_one_that_broke_the_bound_is_not_the_highest() -> None:
    kept, broken = dict.fromkeys(SHARES, 1.0), dict.fromkeys(SHARES, 99.0)
    points = [Point(1, 1, kept, 0, 0), Point(2, 2, broken, 0, 0), Point(3, 3, kept, 0, 0)]
    assert highest(points, 50) == points[0]


def test_what_was_measured_is_written_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = find(lambda rate: answer(rate, 1000), 200, 50)
    write_json(points, 50, ["python"], tmp_path / "sweep.json")
    written = json.loads((tmp_path / "sweep.json").read_text(), parse_constant=pytest.fail)
    assert len(written["points"]) == len(points)
    assert written["points"][-1]["p99_ms"] is None
    assert draw(points, 50, "simulated", tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
