"""What is said of figures: verdicts, ratios, tails."""

from __future__ import annotations

import pytest

from .stats import Bar, Figures, Row

AT_MOST = Bar("at most", (15, 8, 5))
AT_LEAST = Bar("at least", (1.1, 2))


@pytest.mark.parametrize(
    ("bar", "value", "verdict"),
    [
        pytest.param(AT_MOST, 20, "MISS ≤15×", id="missed"),
        pytest.param(AT_MOST, 15, "ok ≤15× (next ≤8×)", id="just-met"),
        pytest.param(AT_MOST, 6, "ok ≤8× (next ≤5×)", id="a-further-step"),
        pytest.param(AT_MOST, 4, "ok ≤5×", id="the-goal"),
        pytest.param(AT_LEAST, 1.0, "MISS ≥1.1×", id="a-rate-missed"),
        pytest.param(AT_LEAST, 3.0, "ok ≥2×", id="a-rate-met"),
    ],
)
def test_a_verdict_names_the_best_step_reached_and_the_next_one(bar: Bar, value: float, verdict: str) -> None:
    assert bar.verdict(value) == verdict


def test_a_ratio_is_that_of_the_medians_and_its_range_that_of_neighbouring_rounds() -> None:
    ours = Figures("tclient", "µs", [[2.0, 2.0, 90.0], [4.0, 4.0, 4.0]])
    theirs = Figures("echo", "µs", [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    row = Row("W2", "an add", ours, theirs)
    assert row.ratio == 4.0
    assert row.ratio_range == (2.0, 4.0)


def test_the_worst_percent_of_a_time_is_high_and_of_a_rate_is_low() -> None:
    figures = [float(number) for number in range(1, 201)]
    assert Figures("a", "ms", [figures]).p99 == 198.0
    assert Figures("a", "GB/s", [figures]).p99 == 2.0
