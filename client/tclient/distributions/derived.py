"""Distributions that have names of their own, and are made of others by transforms."""

from __future__ import annotations

import math
from typing import Any

import tclient
from tclient.distributions import constraints
from tclient.distributions._core import EULER, Number, Size, broadcast_all, one_wait
from tclient.distributions.continuous import Exponential, Gamma, Normal, Uniform
from tclient.distributions.heavy_tails import Cauchy
from tclient.distributions.transformed_distribution import TransformedDistribution
from tclient.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    ExpTransform,
    PowerTransform,
    StickBreakingTransform,
)


class LogNormal(TransformedDistribution):
    """What has a normal logarithm."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive
    has_rsample = True
    _parameters = {}

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        with one_wait():
            base = Normal(loc, scale, validate_args=validate_args)
            super().__init__(base, ExpTransform(), validate_args=validate_args)

    @property
    def loc(self) -> Any:
        """The mean of the logarithm."""
        return self.base_dist.loc

    @property
    def scale(self) -> Any:
        """The standard deviation of the logarithm."""
        return self.base_dist.scale

    @property
    def mean(self) -> Any:
        """exp(loc + scale² / 2)."""
        return (self.loc + self.scale.pow(2) / 2).exp()

    @property
    def mode(self) -> Any:
        """exp(loc - scale²)."""
        return (self.loc - self.scale.square()).exp()

    @property
    def variance(self) -> Any:
        """(exp(scale²) - 1) exp(2 loc + scale²)."""
        square = self.scale.pow(2)
        return square.expm1() * (2 * self.loc + square).exp()

    def entropy(self) -> Any:
        """That of the logarithm, and loc."""
        return self.base_dist.entropy() + self.loc


class Gumbel(TransformedDistribution):
    """The distribution of the largest of many."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    _parameters = {"loc": 0, "scale": 0}

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        limits = tclient.finfo(self.loc.dtype)
        with one_wait():
            if isinstance(loc, Number) and isinstance(scale, Number):
                base: Any = Uniform(limits.tiny, 1 - limits.eps, validate_args=validate_args)
            else:
                low = tclient.full_like(self.loc, limits.tiny)
                base = Uniform(low, tclient.full_like(self.loc, 1 - limits.eps), validate_args=validate_args)
            transforms = [
                ExpTransform().inv,
                AffineTransform(loc=0, scale=-tclient.ones_like(self.scale)),
                ExpTransform().inv,
                AffineTransform(loc=loc, scale=-self.scale),
            ]
            super().__init__(base, transforms, validate_args=validate_args)

    def log_prob(self, value: Any) -> Any:
        """y - exp(y) - log scale, for y = (loc - value) / scale."""
        if self._validate_args:
            self._validate_sample(value)
        y = (self.loc - value) / self.scale
        return (y - y.exp()) - self.scale.log()

    @property
    def mean(self) -> Any:
        """By Euler's constant."""
        return self.loc + self.scale * EULER

    @property
    def mode(self) -> Any:
        """loc."""
        return self.loc

    @property
    def stddev(self) -> Any:
        """π scale / √6."""
        return (math.pi / math.sqrt(6)) * self.scale

    @property
    def variance(self) -> Any:
        """π² scale² / 6."""
        return self.stddev.pow(2)

    def entropy(self) -> Any:
        """By Euler's constant."""
        return self.scale.log() + (1 + EULER)


class Pareto(TransformedDistribution):
    """The Pareto distribution of type 1."""

    arg_constraints = {"alpha": constraints.positive, "scale": constraints.positive}
    _parameters = {"scale": 0, "alpha": 0}

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None) -> None:
        self.scale, self.alpha = broadcast_all(scale, alpha)
        with one_wait():
            base = Exponential(self.alpha, validate_args=validate_args)
            transforms = [ExpTransform(), AffineTransform(loc=0, scale=self.scale)]
            super().__init__(base, transforms, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        """Infinite for an alpha up to 1."""
        a = self.alpha.clamp(min=1)
        return a * self.scale / (a - 1)

    @property
    def mode(self) -> Any:
        """scale."""
        return self.scale

    @property
    def variance(self) -> Any:
        """Infinite for an alpha up to 2."""
        a = self.alpha.clamp(min=2)
        return self.scale.pow(2) * a / ((a - 1).pow(2) * (a - 2))

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """From scale on."""
        return constraints.greater_than_eq(self.scale)

    def entropy(self) -> Any:
        """log(scale / alpha) + 1 + 1 / alpha."""
        return (self.scale / self.alpha).log() + (1 + self.alpha.reciprocal())


class _Half(TransformedDistribution):
    """The absolute values of a distribution around 0."""

    arg_constraints = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    @property
    def scale(self) -> Any:
        """The scale of the values with their signs."""
        return self.base_dist.scale

    @property
    def mode(self) -> Any:
        """0."""
        return tclient.zeros_like(self.scale)

    def log_prob(self, value: Any) -> Any:
        """Twice the density of the base, and none below 0."""
        if self._validate_args:
            self._validate_sample(value)
        return tclient.where(value >= 0, self.base_dist.log_prob(value) + math.log(2), -tclient.inf)

    def cdf(self, value: Any) -> Any:
        """By that of the base."""
        if self._validate_args:
            self._validate_sample(value)
        return 2 * self.base_dist.cdf(value) - 1

    def icdf(self, prob: Any) -> Any:
        """By that of the base."""
        return self.base_dist.icdf((prob + 1) / 2)

    def entropy(self) -> Any:
        """That of the base, without the sign."""
        return self.base_dist.entropy() - math.log(2)


class HalfNormal(_Half):
    """The absolute values of a normal distribution around 0."""

    _parameters = {}

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Normal(0, scale, validate_args=False), AbsTransform(), validate_args=validate_args)

    @property
    def mean(self) -> Any:
        """scale √(2 / π)."""
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Any:
        """scale² (1 - 2 / π)."""
        return self.scale.pow(2) * (1 - 2 / math.pi)


class HalfCauchy(_Half):
    """The absolute values of a Cauchy distribution around 0."""

    _parameters = {}

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Cauchy(0, scale, validate_args=False), AbsTransform(), validate_args=validate_args)

    @property
    def mean(self) -> Any:
        """Infinite."""
        return tclient.full_like(self.scale, tclient.inf)

    @property
    def variance(self) -> Any:
        """Infinite."""
        return self.base_dist.variance

    def log_prob(self, value: Any) -> Any:
        """Twice the density of the base, and none below 0; the value may be a number where nothing is validated."""
        if self._validate_args:
            self._validate_sample(value)
        value = tclient.as_tensor(value, dtype=self.scale.dtype, device=self.scale.device)
        return tclient.where(value >= 0, self.base_dist.log_prob(value) + math.log(2), -tclient.inf)


class InverseGamma(TransformedDistribution):
    """The distribution of 1 / x, for x of a gamma distribution."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.positive
    has_rsample = True
    _parameters = {}

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        with one_wait():
            base = Gamma(concentration, rate, validate_args=validate_args)
            super().__init__(base, PowerTransform(-base.rate.new_ones(())), validate_args=validate_args)

    @property
    def concentration(self) -> Any:
        """As of the gamma distribution."""
        return self.base_dist.concentration

    @property
    def rate(self) -> Any:
        """As of the gamma distribution."""
        return self.base_dist.rate

    @property
    def mean(self) -> Any:
        """rate / (concentration - 1); infinite for a concentration up to 1."""
        return tclient.where(self.concentration > 1, self.rate / (self.concentration - 1), tclient.inf)

    @property
    def mode(self) -> Any:
        """rate / (concentration + 1)."""
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Any:
        """Infinite for a concentration up to 2."""
        finite = self.rate.square() / ((self.concentration - 1).square() * (self.concentration - 2))
        return tclient.where(self.concentration > 2, finite, tclient.inf)

    def entropy(self) -> Any:
        """By the digamma function."""
        concentration = self.concentration
        digammas = (1 + concentration) * concentration.digamma()
        return concentration + self.rate.log() + concentration.lgamma() - digammas


class Weibull(TransformedDistribution):
    """The Weibull distribution, of times until something fails."""

    arg_constraints = {"scale": constraints.positive, "concentration": constraints.positive}
    support = constraints.positive
    _parameters = {"scale": 0, "concentration": 0, "concentration_reciprocal": 0}

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.scale, self.concentration = broadcast_all(scale, concentration)
        self.concentration_reciprocal = self.concentration.reciprocal()
        with one_wait():
            base = Exponential(tclient.ones_like(self.scale), validate_args=validate_args)
            power = PowerTransform(exponent=self.concentration_reciprocal)
            super().__init__(base, [power, AffineTransform(loc=0, scale=self.scale)], validate_args=validate_args)

    @property
    def mean(self) -> Any:
        """scale Γ(1 + 1 / concentration)."""
        return self.scale * tclient.exp(tclient.lgamma(1 + self.concentration_reciprocal))

    @property
    def mode(self) -> Any:
        """nan for a concentration below 1."""
        share = (self.concentration - 1) / self.concentration
        return self.scale * share ** self.concentration.reciprocal()

    @property
    def variance(self) -> Any:
        """By the gamma function."""
        of_squares = tclient.exp(tclient.lgamma(1 + 2 * self.concentration_reciprocal))
        of_mean = tclient.exp(2 * tclient.lgamma(1 + self.concentration_reciprocal))
        return self.scale.pow(2) * (of_squares - of_mean)

    def entropy(self) -> Any:
        """By Euler's constant."""
        reciprocal = self.concentration_reciprocal
        return EULER * (1 - reciprocal) + tclient.log(self.scale * reciprocal) + 1


class Kumaraswamy(TransformedDistribution):
    """The Kumaraswamy distribution: much like a beta distribution, and drawn without it."""

    arg_constraints = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True
    _parameters = {"concentration1": 0, "concentration0": 0}

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        low, high = tclient.zeros_like(self.concentration0), tclient.ones_like(self.concentration0)
        transforms = [
            PowerTransform(exponent=self.concentration0.reciprocal()),
            AffineTransform(loc=1.0, scale=-1.0),
            PowerTransform(exponent=self.concentration1.reciprocal()),
        ]
        with one_wait():
            base = Uniform(low, high, validate_args=validate_args)
            super().__init__(base, transforms, validate_args=validate_args)

    def _moment(self, n: int) -> Any:
        """The mean of the values to the power of n."""
        b, shifted = self.concentration0, 1 + n / self.concentration1
        return b * tclient.exp(tclient.lgamma(shifted) + tclient.lgamma(b) - tclient.lgamma(shifted + b))

    @property
    def mean(self) -> Any:
        """By the gamma function."""
        return self._moment(1)

    @property
    def mode(self) -> Any:
        """nan where one of the concentrations is below 1."""
        a, b = self.concentration1, self.concentration0
        log_mode = b.reciprocal() * (-b).log1p() - (-b * a).log1p()
        return log_mode.masked_fill((b < 1) | (a < 1), tclient.nan).exp()

    @property
    def variance(self) -> Any:
        """By the gamma function."""
        return self._moment(2) - tclient.pow(self.mean, 2)

    def entropy(self) -> Any:
        """By the digamma function and Euler's constant."""
        a, b = self.concentration1, self.concentration0
        harmonic = tclient.digamma(b + 1) + EULER
        return (1 - b.reciprocal()) + (1 - a.reciprocal()) * harmonic - tclient.log(a) - tclient.log(b)


class LogisticNormal(TransformedDistribution):
    """Over probabilities: normal values, each of which says which share of what is left is taken."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.simplex
    has_rsample = True
    _parameters = {}

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        with one_wait():
            base = Normal(loc, scale, validate_args=validate_args)
            if not base.batch_shape:
                base = base.expand(Size([1]))
            super().__init__(base, StickBreakingTransform(), validate_args=validate_args)

    @property
    def loc(self) -> Any:
        """The mean of the normal values."""
        return self.base_dist.base_dist.loc

    @property
    def scale(self) -> Any:
        """The standard deviation of the normal values."""
        return self.base_dist.base_dist.scale
