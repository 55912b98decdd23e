"""Functions that call one of the caller's: it runs in the caller's process, and all numbers are torch's."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.semantics.harness import Program, Rows, Watch, assert_same

rows = Rows()


@rows.row("callers")
def a_triplet_loss_takes_a_distance(torch: Any, t: Watch) -> None:
    loss = torch.nn.functional.triplet_margin_with_distance_loss
    anchor = torch.linspace(-1, 1, 12).reshape(4, 3).requires_grad_()
    near, far = torch.linspace(0, 1, 12).reshape(4, 3), torch.linspace(1, -2, 12).reshape(4, 3)

    def squared(one: Any, other: Any) -> Any:
        return (one - other).square().sum(-1)

    t.tries(
        lambda: loss(anchor, near, far),
        lambda: loss(anchor, near, far, distance_function=squared),
        lambda: loss(anchor, near, far, distance_function=squared, swap=True, margin=2.5, reduction="none"),
        lambda: loss(anchor, near, far, distance_function=torch.nn.PairwiseDistance(), reduction="sum"),
        lambda: loss(anchor, near, far, distance_function=squared, reduction="median"),
        lambda: loss(anchor, near, far, distance_function=squared, margin=-1.0),
        lambda: loss(anchor, near[0], far, distance_function=squared),
    )
    loss(anchor, near, far, distance_function=squared, swap=True, margin=3.0).backward()
    t.show(anchor.grad)


@rows.parametrize()
def test_what_calls_the_caller_gives_what_torch_does(program: Program, synchronous: bool, tc: ModuleType) -> None:
    assert_same(program, tc, synchronous=synchronous)


def test_a_function_that_fails_is_the_callers(tc: ModuleType) -> None:
    def fails(one: Any, other: Any) -> Any:
        raise ZeroDivisionError("mine")

    x = tc.ones(2, 2)
    with pytest.raises(ZeroDivisionError, match="mine"):
        tc.nn.functional.triplet_margin_with_distance_loss(x, x, x, distance_function=fails)
