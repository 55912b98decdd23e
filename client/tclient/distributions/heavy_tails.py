"""Distributions with heavy tails, and those of squares of normal values and of their ratios."""

from __future__ import annotations

import math
from typing import Any

import tclient
from tclient.distributions import constraints
from tclient.distributions._core import Size, broadcast_all, one_wait, standard_normal, standard_uniform
from tclient.distributions.continuous import Gamma, LocationScale, batch_shape_of
from tclient.distributions.distribution import Distribution


class Cauchy(LocationScale):
    """The Cauchy distribution: the ratio of two normal values of mean 0; it has no mean."""

    _parameters = {"loc": 0, "scale": 0}

    @property
    def mean(self) -> Any:
        """There is none: nan."""
        return tclient.full_like(self.loc, tclient.nan)

    @property
    def variance(self) -> Any:
        """Infinite."""
        return tclient.full_like(self.loc, tclient.inf)

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn with a gradient."""
        return self.loc + self.loc.new_empty(self._extended_shape(sample_shape)).cauchy_() * self.scale

    def log_prob(self, value: Any) -> Any:
        """-log π - log scale - log(1 + ((value - loc) / scale)²)."""
        if self._validate_args:
            self._validate_sample(value)
        return -math.log(math.pi) - self.scale.log() - (((value - self.loc) / self.scale) ** 2).log1p()

    def cdf(self, value: Any) -> Any:
        """By the arc tangent."""
        if self._validate_args:
            self._validate_sample(value)
        return tclient.atan((value - self.loc) / self.scale) / math.pi + 0.5

    def icdf(self, value: Any) -> Any:
        """By the tangent."""
        return tclient.tan(math.pi * (value - 0.5)) * self.scale + self.loc

    def entropy(self) -> Any:
        """log 4π scale."""
        return math.log(4 * math.pi) + self.scale.log()


class Chi2(Gamma):
    """The distribution of the sum of df squares of normal values."""

    arg_constraints = {"df": constraints.positive}
    _parameters = {"concentration": 0, "rate": 0}

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        super().__init__(0.5 * df, 0.5, validate_args=validate_args)

    @property
    def df(self) -> Any:
        """How many squares are summed."""
        return self.concentration * 2


class StudentT(Distribution):
    """Student's distribution, of df degrees of freedom, around a place and by a scale."""

    arg_constraints = {"df": constraints.positive, "loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True
    _parameters = {"df": 0, "loc": 0, "scale": 0}

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        with one_wait():
            self._chi2 = Chi2(self.df)
            super().__init__(self.df.size, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution, repeated to a batch shape."""
        new = super().expand(batch_shape, _instance)
        new._chi2 = self._chi2.expand(batch_shape)
        return new

    @property
    def mean(self) -> Any:
        """loc, where df is above 1; else nan."""
        return self.loc.masked_fill(self.df <= 1, tclient.nan)

    @property
    def mode(self) -> Any:
        """loc."""
        return self.loc

    @property
    def variance(self) -> Any:
        """scale² df / (df - 2), where df is above 2; infinite above 1; else nan."""
        df = self.df.masked_fill(self.df <= 2, tclient.inf)
        finite = self.scale.pow(2) * self.df / (df - 2)
        return finite.masked_fill(self.df <= 2, tclient.inf).masked_fill(self.df <= 1, tclient.nan)

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn with a gradient."""
        normal = standard_normal(self.df, self._extended_shape(sample_shape))
        return self.loc + self.scale * (normal * tclient.rsqrt(self._chi2.rsample(sample_shape) / self.df))

    def log_prob(self, value: Any) -> Any:
        """The log of the density."""
        if self._validate_args:
            self._validate_sample(value)
        y = (value - self.loc) / self.scale
        normalizer = (
            self.scale.log()
            + 0.5 * self.df.log()
            + 0.5 * math.log(math.pi)
            + tclient.lgamma(0.5 * self.df)
            - tclient.lgamma(0.5 * (self.df + 1.0))
        )
        return -0.5 * (self.df + 1.0) * tclient.log1p(y**2.0 / self.df) - normalizer

    def entropy(self) -> Any:
        """By the digamma function."""
        half, next_half = 0.5 * self.df, 0.5 * (self.df + 1)
        log_beta = tclient.lgamma(half) + math.lgamma(0.5) - tclient.lgamma(next_half)
        digammas = tclient.digamma(next_half) - tclient.digamma(half)
        return self.scale.log() + next_half * digammas + 0.5 * self.df.log() + log_beta


class FisherSnedecor(Distribution):
    """The F distribution: of the ratio of two means of squares, of df1 and df2 degrees of freedom."""

    arg_constraints = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive
    has_rsample = True
    _parameters = {"df1": 0, "df2": 0}

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None) -> None:
        self.df1, self.df2 = broadcast_all(df1, df2)
        with one_wait():
            self._gamma1 = Gamma(self.df1 * 0.5, self.df1)
            self._gamma2 = Gamma(self.df2 * 0.5, self.df2)
            super().__init__(batch_shape_of((df1, df2), self.df1), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution, repeated to a batch shape."""
        new = super().expand(batch_shape, _instance)
        new._gamma1, new._gamma2 = self._gamma1.expand(batch_shape), self._gamma2.expand(batch_shape)
        return new

    @property
    def mean(self) -> Any:
        """df2 / (df2 - 2), where df2 is above 2; else nan."""
        df2 = self.df2.masked_fill(self.df2 <= 2, tclient.nan)
        return df2 / (df2 - 2)

    @property
    def mode(self) -> Any:
        """Where df1 is above 2; else nan."""
        mode = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return mode.masked_fill(self.df1 <= 2, tclient.nan)

    @property
    def variance(self) -> Any:
        """Where df2 is above 4; else nan."""
        df2 = self.df2.masked_fill(self.df2 <= 4, tclient.nan)
        return 2 * df2.pow(2) * (self.df1 + df2 - 2) / (self.df1 * (df2 - 2).pow(2) * (df2 - 4))

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn with a gradient."""
        above, below = self._gamma1.rsample(sample_shape), self._gamma2.rsample(sample_shape)
        tiny = tclient.finfo(self.df2.dtype).tiny
        return (above / below.clamp(min=tiny)).clamp(min=tiny)

    def log_prob(self, value: Any) -> Any:
        """The log of the density."""
        if self._validate_args:
            self._validate_sample(value)
        half1, half2, ratio = self.df1 * 0.5, self.df2 * 0.5, self.df1 / self.df2
        normalizer = (half1 + half2).lgamma() - half1.lgamma() - half2.lgamma()
        powers = half1 * ratio.log() + (half1 - 1) * tclient.log(value)
        return normalizer + powers - (half1 + half2) * tclient.log1p(ratio * value)


class GeneralizedPareto(Distribution):
    """The generalized Pareto distribution: of what exceeds a high threshold; exponential for a concentration of 0."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive, "concentration": constraints.real}
    has_rsample = True
    _parameters = {"loc": 0, "scale": 0, "concentration": 0}

    def __init__(self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        super().__init__(batch_shape_of((loc, scale, concentration), self.loc), validate_args=validate_args)

    def _shape(self, zero: Any) -> tuple[Any, Any]:
        """Where the concentration is 0, and the concentration with a 1 in these places."""
        is_zero = tclient.isclose(self.concentration, zero)
        return is_zero, tclient.where(is_zero, tclient.ones_like(self.concentration), self.concentration)

    def _z(self, x: Any) -> Any:
        return (x - self.loc) / self.scale

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn with a gradient."""
        return self.icdf(standard_uniform(self.loc, self._extended_shape(sample_shape)))

    def log_prob(self, value: Any) -> Any:
        """The log of the density."""
        if self._validate_args:
            self._validate_sample(value)
        z = self._z(value)
        is_zero, shape = self._shape(tclient.tensor(0.0))
        exponent = 1 / shape + tclient.ones_like(z)
        of_others = tclient.where(exponent == 0, exponent, exponent * tclient.log1p(shape * z))
        return -self.scale.log() - tclient.where(is_zero, z, of_others)

    def log_survival_function(self, value: Any) -> Any:
        """The log of how probable a value above this one is."""
        if self._validate_args:
            self._validate_sample(value)
        z = self._z(value)
        is_zero, shape = self._shape(tclient.tensor(0.0))
        return tclient.where(is_zero, -z, -tclient.log1p(shape * z) / shape)

    def log_cdf(self, value: Any) -> Any:
        """The log of how probable a value up to this one is."""
        return tclient.log1p(-tclient.exp(self.log_survival_function(value)))

    def cdf(self, value: Any) -> Any:
        """How probable a value up to this one is."""
        return tclient.exp(self.log_cdf(value))

    def icdf(self, value: Any) -> Any:
        """The value up to which there is that probability."""
        is_zero, shape = self._shape(tclient.zeros_like(self.concentration))
        log_rest = tclient.log1p(-value)
        of_others = self.loc + self.scale / shape * tclient.expm1(-shape * log_rest)
        return tclient.where(is_zero, self.loc - self.scale * log_rest, of_others)

    @property
    def mean(self) -> Any:
        """loc + scale / (1 - concentration), where that is below 1; else nan."""
        has_one = self.concentration < 1
        shape = tclient.where(has_one, self.concentration, 0.5)
        return tclient.where(has_one, self.loc + self.scale / (1 - shape), tclient.nan)

    @property
    def variance(self) -> Any:
        """Where the concentration is below ½; else nan."""
        has_one = self.concentration < 0.5
        shape = tclient.where(has_one, self.concentration, 0.25)
        return tclient.where(has_one, self.scale**2 / ((1 - shape) ** 2 * (1 - 2 * shape)), tclient.nan)

    def entropy(self) -> Any:
        """log scale + concentration + 1."""
        return tclient.broadcast_to(tclient.log(self.scale) + self.concentration + 1, self._batch_shape)

    @property
    def mode(self) -> Any:
        """loc."""
        return self.loc

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """From loc on; up to a bound where the concentration is negative."""
        bound = self.loc - self.scale / self.concentration
        return constraints.interval(self.loc, tclient.where(self.concentration < 0, bound, tclient.inf))


__all__ = ["Cauchy", "Chi2", "FisherSnedecor", "GeneralizedPareto", "StudentT"]
