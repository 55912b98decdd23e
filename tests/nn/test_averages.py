"""Averages of models against torch.optim.swa_utils."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.optim.swa_utils

ROWS = np.random.default_rng(2).standard_normal((8, 3)).astype(np.float32)

AVERAGES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "equal": lambda swa: {},
    "equal, in place": lambda swa: {"multi_avg_fn": swa.get_swa_multi_avg_fn()},
    "exponential": lambda swa: {"avg_fn": swa.get_ema_avg_fn(0.7)},
    "exponential, in place": lambda swa: {"multi_avg_fn": swa.get_ema_multi_avg_fn(0.7)},
    "with buffers": lambda swa: {"use_buffers": True},
}


def averaged(namespace: Any, options: Callable[[Any], dict[str, Any]]) -> Any:
    """The average of a small network over its training."""
    namespace.manual_seed(6)
    nn, swa = namespace.nn, namespace.optim.swa_utils
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    average = swa.AveragedModel(network, **options(swa))
    optimizer = namespace.optim.SGD(network.parameters(), lr=0.1)
    x = namespace.tensor(ROWS)
    for _ in range(4):
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()
        average.update_parameters(network)
    return average


@pytest.mark.parametrize("options", AVERAGES.values(), ids=AVERAGES.keys())
def test_a_model_is_averaged_as_in_torch(tc: Any, options: Callable[[Any], dict[str, Any]]) -> None:
    ours, theirs = averaged(tc, options), averaged(torch, options)
    assert repr(ours) == repr(theirs)
    for namespace, average in ((tc, ours), (torch, theirs)):
        namespace.optim.swa_utils.update_bn([namespace.tensor(ROWS), [namespace.tensor(ROWS * 2)]], average)
    got, expected = ours.state_dict(), theirs.state_dict()
    assert list(got) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name].numpy(), value.numpy(), rtol=1e-4, atol=1e-5)
    assert ours.module[1].momentum == theirs.module[1].momentum == 0.1


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("epochs", [0, 3])
def test_rates_go_to_that_of_averaging_as_in_torch(tc: Any, strategy: str, epochs: int) -> None:
    rates: list[list[float]] = []
    for namespace in (tc, torch):
        optimizer = namespace.optim.SGD(namespace.nn.Linear(2, 1).parameters(), lr=1.0)
        schedule = namespace.optim.swa_utils.SWALR(optimizer, 0.05, epochs, strategy)
        rates.append([])
        for _ in range(5):
            optimizer.step()
            schedule.step()
            rates[-1] += schedule.get_last_lr()
    assert rates[0] == pytest.approx(rates[1], rel=1e-12)


MISUSES: dict[str, Callable[[Any], Any]] = {
    "decay": lambda m: m.optim.swa_utils.get_ema_avg_fn(1.5),
    "two functions": lambda m: m.optim.swa_utils.AveragedModel(m.nn.Identity(), avg_fn=max, multi_avg_fn=max),
    "strategy": lambda m: m.optim.swa_utils.SWALR(m.optim.SGD([m.ones(1)]), 0.1, anneal_strategy="square"),
    "other groups": lambda m: m.optim.swa_utils.SWALR(m.optim.SGD([m.ones(1)]), [0.1, 0.2]),
    "epochs": lambda m: m.optim.swa_utils.SWALR(m.optim.SGD([m.ones(1)]), 0.1, anneal_epochs=-1),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES.keys())
def test_misuse_of_averages_is_refused_in_the_words_of_torch(tc: Any, misuse: Callable[[Any], Any]) -> None:
    with pytest.raises((ValueError, AssertionError)) as expected:
        misuse(torch)
    with pytest.raises(type(expected.value)) as got:
        misuse(tc)
    assert str(got.value) == str(expected.value)
