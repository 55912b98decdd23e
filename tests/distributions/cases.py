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
    "cauchy": lambda m, d, p: d.Cauchy(p([0.5, -1.0]), p([1.0, 2.5])),
    "half-normal": lambda m, d, p: d.HalfNormal(p([0.5, 1.0])),
    "half-cauchy": lambda m, d, p: d.HalfCauchy(p([0.5, 1.0])),
    "chi2": lambda m, d, p: d.Chi2(p([0.5, 3.0])),
    "student-t": lambda m, d, p: d.StudentT(p([0.5, 1.5, 2.0, 7.0]), p([0.5]), p([[2.0], [1.5]])),
    "fisher-snedecor": lambda m, d, p: d.FisherSnedecor(p([0.5, 3.0, 2.5]), p([[1.0], [2.5], [7.0]])),
    "generalized-pareto": lambda m, d, p: d.GeneralizedPareto(p([0.5, -1.0, 0.0]), p(1.5), p([-0.5, 0.0, 0.3])),
    "inverse-gamma": lambda m, d, p: d.InverseGamma(p([0.5, 1.5, 3.0]), p([[1.0], [2.5]])),
    "weibull": lambda m, d, p: d.Weibull(p([0.5, 2.0]), p([[1.5], [0.7]])),
    "kumaraswamy": lambda m, d, p: d.Kumaraswamy(p([0.5, 2.0]), p([1.5, 3.0])),
    "logistic-normal": lambda m, d, p: d.LogisticNormal(p([[0.5, -1.0], [0.0, 0.2]]), p([1.0, 2.5])),
    "negative-binomial": lambda m, d, p: d.NegativeBinomial(5, p([0.5, 0.1])),
    "negative-binomial-logits": lambda m, d, p: d.NegativeBinomial(p([5.0, 2.5]), logits=p([0.5, -2.0])),
    "continuous-bernoulli": lambda m, d, p: d.ContinuousBernoulli(p([0.3, 0.5, 0.9])),
    "continuous-bernoulli-logits": lambda m, d, p: d.ContinuousBernoulli(logits=p([0.5, 0.001, -2.0])),
    "relaxed-bernoulli": lambda m, d, p: d.RelaxedBernoulli(p(0.5), p([0.3, 0.9])),
    "relaxed-bernoulli-logits": lambda m, d, p: d.RelaxedBernoulli(p([0.5, 2.0]), logits=p([0.3, -0.9])),
    "relaxed-one-hot": lambda m, d, p: d.RelaxedOneHotCategorical(p(1.5), p([[0.5, 3.0, 1.0], [2.0, 2.0, 0.5]])),
    "relaxed-one-hot-logits": lambda m, d, p: d.RelaxedOneHotCategorical(p(0.8), logits=p([0.5, 0.2, -1.0])),
    "von-mises": lambda m, d, p: d.VonMises(p([0.5, -1.0, 3.0]), p([1.0, 8.0, 0.000001])),
    "lkj-cholesky": lambda m, d, p: d.LKJCholesky(3, p([0.5, 2.0])),
    "low-rank": lambda m, d, p: d.LowRankMultivariateNormal(
        p([0.5, -1.0, 2.0]), p([[1.0], [0.5], [-0.3]]), p([2.0, 1.0, 0.5])
    ),
    "low-rank-batch": lambda m, d, p: d.LowRankMultivariateNormal(
        p([[0.5, -1.0], [0.0, 1.0]]), p([[1.0, 0.2], [0.5, -0.3]]), p([2.0, 1.0])
    ),
    "mixture": lambda m, d, p: d.MixtureSameFamily(
        d.Categorical(p([0.3, 0.7, 1.0])), d.Normal(p([0.5, -1.0, 3.0]), p([1.0, 2.0, 0.5]))
    ),
    "mixture-of-vectors": lambda m, d, p: d.MixtureSameFamily(
        d.Categorical(p([[0.3, 0.7], [1.0, 0.5]])),
        d.Independent(d.Normal(p([[[0.5, 1.0], [0.0, 2.0]], [[3.0, 1.0], [0.2, 0.1]]]), p(1.5)), 1),
    ),
    "wishart": lambda m, d, p: d.Wishart(p(3.5), p([[2.0, 0.5], [0.5, 1.0]])),
    "wishart-tril": lambda m, d, p: d.Wishart(p([3.0, 4.5]), scale_tril=p([[2.0, 0.0], [0.5, 1.0]])),
    "wishart-precision": lambda m, d, p: d.Wishart(4, precision_matrix=p([[2.0, 0.5], [0.5, 1.0]])),
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
    "cauchy": lambda d: d.Cauchy(0.0, 2.0),
    "half-normal": lambda d: d.HalfNormal(2.0),
    "half-cauchy": lambda d: d.HalfCauchy(2.0),
    "chi2": lambda d: d.Chi2(3),
    "student-t": lambda d: d.StudentT(3),
    "fisher-snedecor": lambda d: d.FisherSnedecor(3, 5.0),
    "generalized-pareto": lambda d: d.GeneralizedPareto(0.0, 1.0, 0.5),
    "inverse-gamma": lambda d: d.InverseGamma(2.5, 1),
    "weibull": lambda d: d.Weibull(1.0, 2),
    "kumaraswamy": lambda d: d.Kumaraswamy(1.0, 2.5),
    "negative-binomial": lambda d: d.NegativeBinomial(3, 0.25),
    "continuous-bernoulli": lambda d: d.ContinuousBernoulli(0.25),
    "von-mises": lambda d: d.VonMises(0.5, 2.0),
    "lkj-cholesky": lambda d: d.LKJCholesky(2),
    "logistic-normal": lambda d: d.LogisticNormal(0.5, 2.0),
}
