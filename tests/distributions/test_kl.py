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
    "normal-beta": lambda d, t: (d.Normal(t([0.5, 2.0]), 1.0), d.Beta(1.0, 2.0)),
    "binomial": lambda d, t: (d.Binomial(t([3.0, 5.0]), 0.5), d.Binomial(3, t([0.2, 0.7]))),
    "binomial-fewer": lambda d, t: (d.Binomial(2, t([0.5, 0.1])), d.Binomial(3, 0.5)),
    "pareto-below": lambda d, t: (d.Pareto(t([0.5, 2.0]), 1.5), d.Pareto(1.0, t([2.0, 3.0]))),
    "pareto-without-mean": lambda d, t: (d.Pareto(0.5, t([0.5, 2.0])), d.Exponential(t([2.0, 3.0]))),
    "pareto-without-mean-gamma": lambda d, t: (d.Pareto(0.5, t([0.5, 2.0])), d.Gamma(t([2.0, 3.0]), 1.0)),
    "pareto-without-variance": lambda d, t: (d.Pareto(0.5, t([1.5, 2.5])), d.Normal(t([2.0, 3.0]), 1.0)),
    "uniform-beta-outside": lambda d, t: (d.Uniform(t([-0.5, 0.1]), t([0.5, 1.2])), d.Beta(1.0, t([2.0, 3.0]))),
    "uniform-gamma-outside": lambda d, t: (d.Uniform(t([-0.5, 0.1]), 3.0), d.Gamma(1.0, t([2.0, 3.0]))),
    "beta-uniform-outside": lambda d, t: (d.Beta(1.5, t([2.0, 3.0])), d.Uniform(t([0.2, -0.5]), 1.5)),
    "log-normal": lambda d, t: (d.LogNormal(t([0.5, 2.0]), 1.0), d.LogNormal(0.0, t([2.0, 3.0]))),
    "transforms-differ": lambda d, t: (d.LogNormal(t([0.5, 2.0]), 1.0), d.Weibull(1.0, t([2.0, 3.0]))),
    "gumbels": lambda d, t: (d.Gumbel(t([0.5, -0.3]), 1.5), d.Gumbel(0.2, t([1.0, 2.0]))),
    "chi2": lambda d, t: (d.Chi2(t([0.5, 2.0])), d.Chi2(t([1.5, 1.0]))),
    "wishart": lambda d, t: (
        d.Wishart(t(3.5), t([[2.0, 0.5], [0.5, 1.0]])),
        d.Wishart(t(4.5), t([[1.0, 0.1], [0.1, 3.0]])),
    ),
    "multinomial": lambda d, t: (d.Multinomial(3, t([0.5, 0.5])), d.Multinomial(3, t([0.2, 0.8]))),
    "cross-families": lambda d, t: (d.Dirichlet(t([0.5, 2.0])), d.Beta(t([1.5, 1.0]), 1.0)),
    "low-rank-events": lambda d, t: (
        d.LowRankMultivariateNormal(t([0.5, 2.0]), t([[1.0], [2.0]]), t([1.0, 0.5])),
        d.MultivariateNormal(t([0.5, 2.0, 1.0]), t([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])),
    ),
    "no-pair": lambda d, t: (d.Categorical(t([0.5, 2.0])), d.Gamma(1.5, 2.0)),
}

# One of each class that torch has a divergence for, as p and as q.
OF_CLASSES: dict[str, Callable[[Any, Any], Any]] = {
    "Bernoulli": lambda d, t: d.Bernoulli(t([0.5, 0.3])),
    "Beta": lambda d, t: d.Beta(t([0.5, 2.0]), t([1.5, 0.7])),
    "Binomial": lambda d, t: d.Binomial(3, t([0.5, 0.2])),
    "Categorical": lambda d, t: d.Categorical(t([0.5, 0.2])),
    "Cauchy": lambda d, t: d.Cauchy(t([0.5, -0.2]), t([1.0, 2.5])),
    "ContinuousBernoulli": lambda d, t: d.ContinuousBernoulli(t([0.5, 0.2])),
    "Dirichlet": lambda d, t: d.Dirichlet(t([0.5, 2.0])),
    "Exponential": lambda d, t: d.Exponential(t([0.5, 2.0])),
    "Gamma": lambda d, t: d.Gamma(t([0.5, 2.0]), t([1.5, 0.7])),
    "Geometric": lambda d, t: d.Geometric(t([0.5, 0.2])),
    "Gumbel": lambda d, t: d.Gumbel(t([0.5, -0.3]), t([1.5, 0.7])),
    "HalfNormal": lambda d, t: d.HalfNormal(t([0.5, 2.0])),
    "Independent": lambda d, t: d.Independent(d.Normal(t([0.5, 2.0]), 1.0), 1),
    "Laplace": lambda d, t: d.Laplace(t([0.5, -0.3]), t([1.5, 0.7])),
    "LowRankMultivariateNormal": lambda d, t: d.LowRankMultivariateNormal(
        t([0.5, 2.0]), t([[1.0], [2.0]]), t([1.0, 0.5])
    ),
    "MultivariateNormal": lambda d, t: d.MultivariateNormal(t([[0.5, 2.0]]), t([[2.0, 0.5], [0.5, 1.0]])),
    "Normal": lambda d, t: d.Normal(t([0.5, -0.3]), t([1.5, 0.7])),
    "OneHotCategorical": lambda d, t: d.OneHotCategorical(t([0.5, 0.2])),
    "Pareto": lambda d, t: d.Pareto(t([0.5, 0.3]), t([2.5, 4.0])),
    "Poisson": lambda d, t: d.Poisson(t([0.5, 2.0])),
    "TransformedDistribution": lambda d, t: d.LogNormal(t([0.5, -0.3]), t([1.5, 0.7])),
    "Uniform": lambda d, t: d.Uniform(t([0.1, 0.3]), t([0.5, 0.7])),
    "ExponentialFamily": lambda d, t: d.Wishart(t(3.5), t([[2.0, 0.5], [0.5, 1.0]])),
}
REGISTERED = sorted((p.__name__, q.__name__) for p, q in torch.distributions.kl._KL_REGISTRY)


@pytest.mark.parametrize("pair", REGISTERED, ids="-".join)
@pytest.mark.filterwarnings("ignore:Ambiguous kl_divergence")
def test_each_divergence_that_torch_has_is_torchs(tc: Any, pair: tuple[str, str]) -> None:
    results = []
    for module in (tc, torch):
        p, q = (OF_CLASSES[name](module.distributions, module.tensor) for name in pair)
        results.append(outcome(partial(module.distributions.kl_divergence, p, q)))
    assert isinstance(results[1], torch.Tensor)
    assert_same(*results)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_a_divergence_is_torchs(tc: Any, pair: Callable[[Any, Any], Any]) -> None:
    results = []
    for module in (tc, torch):
        p, q = pair(module.distributions, module.tensor)
        results.append(outcome(partial(module.distributions.kl_divergence, p, q)))
    assert_same(*results)
