"""Divergences are torch's, and are found as torch finds them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributions

from tests.distributions.test_distributions import assert_same, outcome

PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "normal": lambda d, t: (d.Normal(t([0.5, 1.0]), 2.0), d.Normal(1.0, t([3.0, 0.5]))),
    "bernoulli": lambda d, t: (d.Bernoulli(t([0.5, 0.0, 1.0, 0.3])), d.Bernoulli(t([0.25, 0.5, 0.5, 1.0]))),
    "categorical": lambda d, t: (
        d.Categorical(t([0.5, 0.5, 0.0])),
        d.Categorical(t([[1.0, 2.0, 3.0], [0.0, 1.0, 1.0]])),
    ),
    "one-hot": lambda d, t: (d.OneHotCategorical(t([0.5, 0.5])), d.OneHotCategorical(t([0.1, 0.9]))),
    "beta": lambda d, t: (d.Beta(t([0.5, 2.0]), 1.0), d.Beta(1.5, t([2.0, 3.0]))),
    "dirichlet": lambda d, t: (d.Dirichlet(t([0.5, 2.0])), d.Dirichlet(t([1.5, 1.0]))),
    "gamma": lambda d, t: (d.Gamma(t([0.5, 2.0]), 1.0), d.Gamma(1.5, t([2.0, 3.0]))),
    "exponential": lambda d, t: (d.Exponential(t([0.5, 2.0])), d.Exponential(1.5)),
    "laplace": lambda d, t: (d.Laplace(t([0.5, 2.0]), 1.0), d.Laplace(1.5, t([2.0, 3.0]))),
    "uniform": lambda d, t: (d.Uniform(t([0.5, -2.0]), 1.0), d.Uniform(0.0, t([2.0, 3.0]))),
    "poisson": lambda d, t: (d.Poisson(t([0.5, 2.0])), d.Poisson(1.5)),
    "geometric": lambda d, t: (d.Geometric(t([0.5, 0.2])), d.Geometric(0.7)),
    "multivariate-normal": lambda d, t: (
        d.MultivariateNormal(t([0.5, 2.0]), t([[2.0, 0.5], [0.5, 1.0]])),
        d.MultivariateNormal(t([[0.0, 1.0], [1.0, 1.0]]), t([[1.0, 0.1], [0.1, 3.0]])),
    ),
    "independent": lambda d, t: (
        d.Independent(d.Normal(t([0.5, 2.0]), 1.0), 1),
        d.Independent(d.Normal(t([0.0, 1.0]), 2.0), 1),
    ),
    "uniform-normal": lambda d, t: (d.Uniform(t([0.5, -2.0]), 1.0), d.Normal(0.0, t([2.0, 3.0]))),
    "exponential-gamma": lambda d, t: (d.Exponential(t([0.5, 2.0])), d.Gamma(1.5, 2.0)),
    "no-pair": lambda d, t: (d.Categorical(t([0.5, 2.0])), d.Gamma(1.5, 2.0)),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_a_divergence_is_torchs(tc: Any, pair: Callable[[Any, Any], Any]) -> None:
    results = []
    for module in (tc, torch):
        p, q = pair(module.distributions, module.tensor)
        results.append(outcome(partial(module.distributions.kl_divergence, p, q)))
    assert_same(*results)
