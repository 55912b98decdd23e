"""torch.distributions: probability distributions and their sampling, on the server."""

from tclient.distributions import constraints as constraints
from tclient.distributions.categorical import (
    Categorical,
    Multinomial,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
)
from tclient.distributions.continuous import (
    Exponential,
    Gamma,
    Laplace,
    Normal,
    Uniform,
)
from tclient.distributions.discrete import (
    Bernoulli,
    Binomial,
    Geometric,
    Poisson,
)
from tclient.distributions.distribution import Distribution, ExponentialFamily
from tclient.distributions.kl import kl_divergence, register_kl
from tclient.distributions.multivariate import Beta, Dirichlet, Independent, MultivariateNormal

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Dirichlet",
    "Distribution",
    "Exponential",
    "ExponentialFamily",
    "Gamma",
    "Geometric",
    "Independent",
    "Laplace",
    "Multinomial",
    "MultivariateNormal",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Poisson",
    "Uniform",
    "kl_divergence",
    "register_kl",
]
