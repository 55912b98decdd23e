"""Drawn conversions give what torch gives: value, dtype, shape, strides, text, and class and text of what is raised.

The cases that are known to differ, and why, are in the harness. A case is shown by its seed: `case(seed)`.
"""

from __future__ import annotations

import random
from types import ModuleType

import pytest
import torch

from tests.conversions.harness import case, outcome
from tests.support.serving import ServerProcess

_BLOCK = 100


def _differences(tc: ModuleType, seeds: range) -> list[str]:
    """The cases of these seeds that do not give what torch gives; every other one waits for each call."""
    found = []
    for seed in seeds:
        drawn = case(seed)
        expected = outcome(torch, drawn)
        with tc.synchronous(seed % 2 == 0):
            got = outcome(tc, drawn)
        try:
            tc.synchronize()
        except tc.TensorError as error:
            got += f" and then {error!r}"
        if got != expected:
            found.append(f"case({seed}): {drawn.text}\n  torch   {expected}\n  tclient {got}")
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", range(0, 2000, _BLOCK))
def test_a_drawn_conversion_gives_what_torch_gives(tc: ModuleType, start: int) -> None:
    differences = _differences(tc, range(start, start + _BLOCK))
    assert not differences, "\n".join(differences)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(600)
def test_twenty_thousand_fresh_conversions_give_what_torch_gives(server: ServerProcess) -> None:
    import tclient

    start = random.SystemRandom().randrange(1 << 40)
    differences = []
    for block in range(start, start + 20_000, _BLOCK):
        # A fresh session now and then, so that a fault of one is not a fault of all that follow.
        with tclient.connect(server.address):
            differences += _differences(tclient, range(block, block + _BLOCK))
    assert not differences, f"{len(differences)} differ\n" + "\n".join(differences)
