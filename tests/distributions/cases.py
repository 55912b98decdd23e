"""Distributions of torch and of tclient, made the same way; what they give is compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[[Any, Any, Any], Any]
"""A distribution of a module `m` with its distributions `d`, of parameters that `p` makes of nested lists."""

CASES: dict[str, Make] = {
    "normal": lambda m, d, p: d.Normal(p([0.5, -1.0]), p([1.0, 2.5])),
    "normal-broadcast": lambda m, d, p: d.Normal(p([[0.5], [-1.0]]), p([1.0, 2.5, 0.1])),
    "normal-mixed": lambda m, d, p: d.Normal(p([0.5, -1.0]), 2),
    "uniform": lambda m, d, p: d.Uniform(p([0.5, -1.0]), p([[1.0], [3.0]])),
    "exponential": lambda m, d, p: d.Exponential(p([0.5, 1.0])),
    "laplace": lambda m, d, p: d.Laplace(p([0.5, -1.0]), p([1.0, 2.5])),
    "gamma": lambda m, d, p: d.Gamma(p([0.5, 3.0]), p([[1.0], [2.5]])),
    "beta": lambda m, d, p: d.Beta(p([0.5, 3.0]), p([1.5, 2.5])),
    "dirichlet": lambda m, d, p: d.Dirichlet(p([[0.5, 3.0, 1.0], [2.0, 2.0, 2.0], [0.5, 0.6, 0.7]])),
    "categorical": lambda m, d, p: d.Categorical(p([[0.5, 3.0, 1.0], [2.0, 2.0, 0.0]])),
    "categorical-of-one": lambda m, d, p: d.Categorical(p([0.5, 3.0, 1.0])),
    "categorical-logits": lambda m, d, p: d.Categorical(logits=p([[0.5, 3.0, -1.0], [2.0, 2.0, 0.0]])),
    "one-hot": lambda m, d, p: d.OneHotCategorical(p([[0.5, 3.0, 1.0], [2.0, 2.0, 0.5]])),
    "one-hot-logits": lambda m, d, p: d.OneHotCategorical(logits=p([0.5, 3.0, 1.0])),
    "one-hot-straight-through": lambda m, d, p: d.OneHotCategoricalStraightThrough(p([[0.5, 3.0], [2.0, 2.5]])),
    "bernoulli": lambda m, d, p: d.Bernoulli(p([0.5, 0.1, 0.9])),
    "bernoulli-logits": lambda m, d, p: d.Bernoulli(logits=p([0.5, -2.0])),
    "binomial": lambda m, d, p: d.Binomial(5, p([0.5, 0.1])),
    "binomial-logits": lambda m, d, p: d.Binomial(5, logits=p([0.5, -2.0])),
    "multinomial": lambda m, d, p: d.Multinomial(5, p([[0.5, 3.0, 1.0], [2.0, 2.0, 0.5]])),
    "multinomial-logits": lambda m, d, p: d.Multinomial(5, logits=p([0.5, 3.0, 1.0])),
    "poisson": lambda m, d, p: d.Poisson(p([0.5, 4.0])),
    "geometric": lambda m, d, p: d.Geometric(p([0.5, 0.25])),
    "geometric-logits": lambda m, d, p: d.Geometric(logits=p([0.5, -0.25])),
    "multivariate-normal": lambda m, d, p: d.MultivariateNormal(p([0.5, -1.0]), p([[2.0, 0.5], [0.5, 1.0]])),
    "multivariate-normal-tril": lambda m, d, p: d.MultivariateNormal(
        p([[0.5, -1.0], [1.0, 2.0]]), scale_tril=p([[2.0, 0.0], [0.5, 1.0]])
    ),
    "multivariate-normal-precision": lambda m, d, p: d.MultivariateNormal(
        p([0.5, -1.0]), precision_matrix=p([[2.0, 0.5], [0.5, 1.0]])
    ),
    "independent": lambda m, d, p: d.Independent(d.Normal(p([[0.5, -1.0]]), p([[1.0], [2.5]])), 1),
    "log-normal": lambda m, d, p: d.LogNormal(p([0.5, -1.0]), p([1.0, 0.5])),
    "gumbel": lambda m, d, p: d.Gumbel(p([0.5, -1.0]), p([1.0, 0.5])),
    "pareto": lambda m, d, p: d.Pareto(p([0.5, 1.0]), p([1.5, 2.5])),
    "transformed": lambda m, d, p: d.TransformedDistribution(
        d.Normal(p([0.5, -1.0]), 1.0), [d.AffineTransform(p([1.0, 2.0]), p([2.0, -0.5])), d.TanhTransform()]
    ),
    "stick-breaking": lambda m, d, p: d.TransformedDistribution(
        d.Normal(p([0.5, -1.0]), 1.0), d.StickBreakingTransform()
    ),
    "independent-of-nothing": lambda m, d, p: d.Independent(d.Bernoulli(p([0.5, 0.25])), 0),
}

NUMBERS: dict[str, Callable[[Any], Any]] = {
    "normal": lambda d: d.Normal(0.5, 2),
    "uniform": lambda d: d.Uniform(0.0, 2.0),
    "exponential": lambda d: d.Exponential(2.0),
    "laplace": lambda d: d.Laplace(0.0, 2.0),
    "gamma": lambda d: d.Gamma(1.5, 2.0),
    "beta": lambda d: d.Beta(1.5, 2.0),
    "bernoulli": lambda d: d.Bernoulli(0.25),
    "bernoulli-logits": lambda d: d.Bernoulli(logits=0.25),
    "poisson": lambda d: d.Poisson(2.5),
    "geometric": lambda d: d.Geometric(0.25),
    "binomial": lambda d: d.Binomial(3, 0.25),
}
