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
from tclient.distributions.derived import Gumbel, LogNormal, Pareto
from tclient.distributions.discrete import (
    Bernoulli,
    Binomial,
    Geometric,
    Poisson,
)
from tclient.distributions.distribution import Distribution, ExponentialFamily
from tclient.distributions.kl import kl_divergence, register_kl
from tclient.distributions.multivariate import Beta, Dirichlet, Independent, MultivariateNormal
from tclient.distributions.transformed_distribution import TransformedDistribution
from tclient.distributions.transforms import *  # noqa: F403
from tclient.distributions.transforms import __all__ as _transforms

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
    "Gumbel",
    "Independent",
    "Laplace",
    "LogNormal",
    "Multinomial",
    "MultivariateNormal",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Pareto",
    "Poisson",
    "TransformedDistribution",
    "Uniform",
    "kl_divergence",
    "register_kl",
]

__all__ += _transforms  # noqa: PLE0605
