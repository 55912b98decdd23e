"""torch.distributions: probability distributions and their sampling, on the server."""

from tclient.distributions import _kl_pairs as _kl_pairs
from tclient.distributions import _kl_same as _kl_same
from tclient.distributions import constraint_registry as constraint_registry
from tclient.distributions import constraints as constraints
from tclient.distributions import transforms as transforms
from tclient.distributions import utils as utils
from tclient.distributions.categorical import (
    Categorical,
    Multinomial,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
)
from tclient.distributions.constraint_registry import (
    biject_to,
    transform_to,
)
from tclient.distributions.continuous import (
    Exponential,
    Gamma,
    Laplace,
    Normal,
    Uniform,
)
from tclient.distributions.continuous_bernoulli import (
    ContinuousBernoulli,
)
from tclient.distributions.derived import (
    Gumbel,
    HalfCauchy,
    HalfNormal,
    InverseGamma,
    Kumaraswamy,
    LogisticNormal,
    LogNormal,
    Pareto,
    Weibull,
)
from tclient.distributions.discrete import (
    Bernoulli,
    Binomial,
    Geometric,
    NegativeBinomial,
    Poisson,
)
from tclient.distributions.distribution import (
    Distribution,
    ExponentialFamily,
)
from tclient.distributions.heavy_tails import (
    Cauchy,
    Chi2,
    FisherSnedecor,
    GeneralizedPareto,
    StudentT,
)
from tclient.distributions.kl import (
    kl_divergence,
    register_kl,
)
from tclient.distributions.lowrank_multivariate_normal import (
    LowRankMultivariateNormal,
)
from tclient.distributions.matrices import (
    LKJCholesky,
    Wishart,
)
from tclient.distributions.mixture_same_family import (
    MixtureSameFamily,
)
from tclient.distributions.multivariate import (
    Beta,
    Dirichlet,
    Independent,
    MultivariateNormal,
)
from tclient.distributions.relaxed_bernoulli import (
    RelaxedBernoulli,
)
from tclient.distributions.relaxed_categorical import (
    RelaxedOneHotCategorical,
)
from tclient.distributions.transformed_distribution import (
    TransformedDistribution,
)
from tclient.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    CatTransform,
    ComposeTransform,
    CorrCholeskyTransform,
    CumulativeDistributionTransform,
    ExpTransform,
    IndependentTransform,
    LowerCholeskyTransform,
    PositiveDefiniteTransform,
    PowerTransform,
    ReshapeTransform,
    SigmoidTransform,
    SoftmaxTransform,
    SoftplusTransform,
    StackTransform,
    StickBreakingTransform,
    TanhTransform,
    Transform,
    identity_transform,
)
from tclient.distributions.von_mises import (
    VonMises,
)

__all__ = [
    "AbsTransform",
    "AffineTransform",
    "Bernoulli",
    "Beta",
    "Binomial",
    "CatTransform",
    "Categorical",
    "Cauchy",
    "Chi2",
    "ComposeTransform",
    "ContinuousBernoulli",
    "CorrCholeskyTransform",
    "CumulativeDistributionTransform",
    "Dirichlet",
    "Distribution",
    "ExpTransform",
    "Exponential",
    "ExponentialFamily",
    "FisherSnedecor",
    "Gamma",
    "GeneralizedPareto",
    "Geometric",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "Independent",
    "IndependentTransform",
    "InverseGamma",
    "Kumaraswamy",
    "LKJCholesky",
    "Laplace",
    "LogNormal",
    "LogisticNormal",
    "LowRankMultivariateNormal",
    "LowerCholeskyTransform",
    "MixtureSameFamily",
    "Multinomial",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Pareto",
    "Poisson",
    "PositiveDefiniteTransform",
    "PowerTransform",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "ReshapeTransform",
    "SigmoidTransform",
    "SoftmaxTransform",
    "SoftplusTransform",
    "StackTransform",
    "StickBreakingTransform",
    "StudentT",
    "TanhTransform",
    "Transform",
    "TransformedDistribution",
    "Uniform",
    "VonMises",
    "Weibull",
    "Wishart",
    "biject_to",
    "identity_transform",
    "kl_divergence",
    "register_kl",
    "transform_to",
]
