"""Distributions over real numbers that have a scale or a rate: the most used of them."""

from __future__ import annotations

import math
from typing import Any

import tclient
from tclient.distributions import constraints
from tclient.distributions._core import Number, Size, broadcast_all, call_builtin, standard_normal
from tclient.distributions.distribution import Distribution, ExponentialFamily


def batch_shape_of(given: tuple[Any, ...], parameter: Any) -> Any:
    """The shape of a batch: none for numbers; else that of the parameter, when it is asked for."""
    return Size() if all(isinstance(each, Number) for each in given) else parameter.size


class LocationScale(Distribution):
    """Over all real numbers, around a place and by a scale."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True
    _parameters = {"loc": 0, "scale": 0}

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(batch_shape_of((loc, scale), self.loc), validate_args=validate_args)

    @property
    def mean(self) -> Any:
        """loc."""
        return self.loc

    @property
    def mode(self) -> Any:
        """loc."""
        return self.loc


class Normal(LocationScale, ExponentialFamily):
    """The normal distribution with a mean and a standard deviation."""

    _mean_carrier_measure = 0

    @property
    def stddev(self) -> Any:
        """scale."""
        return self.scale

    @property
    def variance(self) -> Any:
        """scale²."""
        return self.stddev.pow(2)

    def sample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn."""
        with tclient.no_grad():
            return tclient.normal(self._spread(self.loc, sample_shape), self._spread(self.scale, sample_shape))

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn with a gradient."""
        return self.loc + standard_normal(self.loc, self._extended_shape(sample_shape)) * self.scale

    def log_prob(self, value: Any) -> Any:
        """-(value - loc)² / 2 scale² - log scale - log √2π."""
        if self._validate_args:
            self._validate_sample(value)
        variance = self.scale**2
        return -((value - self.loc) ** 2) / (2 * variance) - self.scale.log() - math.log(math.sqrt(2 * math.pi))

    def cdf(self, value: Any) -> Any:
        """By the error function."""
        if self._validate_args:
            self._validate_sample(value)
        return 0.5 * (1 + tclient.erf((value - self.loc) * self.scale.reciprocal() / math.sqrt(2)))

    def icdf(self, value: Any) -> Any:
        """By the inverse error function."""
        return self.loc + self.scale * tclient.erfinv(2 * value - 1) * math.sqrt(2)

    def entropy(self) -> Any:
        """½ + ½ log 2π + log scale."""
        return 0.5 + 0.5 * math.log(2 * math.pi) + tclient.log(self.scale)

    @property
    def _natural_params(self) -> tuple[Any, ...]:
        return self.loc / self.scale.pow(2), -0.5 * self.scale.pow(2).reciprocal()

    def _log_normalizer(self, x: Any, y: Any) -> Any:
        return -0.25 * x.pow(2) / y + 0.5 * tclient.log(-math.pi / y)


class Laplace(LocationScale):
    """The Laplace distribution: exponential on both sides of loc."""

    @property
    def variance(self) -> Any:
        """2 scale²."""
        return 2 * self.scale.pow(2)

    @property
    def stddev(self) -> Any:
        """√2 scale."""
        return (2**0.5) * self.scale

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn with a gradient."""
        shape = self._extended_shape(sample_shape)
        u = self.loc.new_empty(shape).uniform_(tclient.finfo(self.loc.dtype).eps - 1, 1)
        return self.loc - self.scale * u.sign() * tclient.log1p(-u.abs())

    def log_prob(self, value: Any) -> Any:
        """-|value - loc| / scale - log 2 scale."""
        if self._validate_args:
            self._validate_sample(value)
        return -tclient.log(2 * self.scale) - tclient.abs(value - self.loc) / self.scale

    def cdf(self, value: Any) -> Any:
        """How probable a value up to this one is."""
        if self._validate_args:
            self._validate_sample(value)
        distance = value - self.loc
        return 0.5 - 0.5 * distance.sign() * tclient.expm1(-distance.abs() / self.scale)

    def icdf(self, value: Any) -> Any:
        """The value up to which there is that probability."""
        term = value - 0.5
        return self.loc - self.scale * term.sign() * tclient.log1p(-2 * term.abs())

    def entropy(self) -> Any:
        """1 + log 2 scale."""
        return 1 + tclient.log(2 * self.scale)


class Uniform(Distribution):
    """Between low and high, evenly."""

    has_rsample = True
    _parameters = {"low": 0, "high": 0}

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = broadcast_all(low, high)
        super().__init__(batch_shape_of((low, high), self.low), validate_args=validate_args)

    @property
    def arg_constraints(self) -> dict[str, Any]:
        """Each bound is the other's limit."""
        return {"low": constraints.less_than(self.high), "high": constraints.greater_than(self.low)}

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """From low to high."""
        return constraints.interval(self.low, self.high)

    @property
    def mean(self) -> Any:
        """The middle."""
        return (self.high + self.low) / 2

    @property
    def mode(self) -> Any:
        """None is more probable: nan."""
        return tclient.nan * self.high

    @property
    def stddev(self) -> Any:
        """The width by √12."""
        return (self.high - self.low) / 12**0.5

    @property
    def variance(self) -> Any:
        """The square of the width by 12."""
        return (self.high - self.low).pow(2) / 12

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn with a gradient."""
        share = self.low.new_empty(self._extended_shape(sample_shape)).uniform_()
        return self.low + share * (self.high - self.low)

    def log_prob(self, value: Any) -> Any:
        """-log(high - low) inside, and -inf outside."""
        if self._validate_args:
            self._validate_sample(value)
        inside = self.low.le(value).type_as(self.low) * self.high.gt(value).type_as(self.low)
        return tclient.log(inside) - tclient.log(self.high - self.low)

    def cdf(self, value: Any) -> Any:
        """The share of the width that is below."""
        if self._validate_args:
            self._validate_sample(value)
        return ((value - self.low) / (self.high - self.low)).clamp(min=0, max=1)

    def icdf(self, value: Any) -> Any:
        """The value up to which there is that share."""
        return value * (self.high - self.low) + self.low

    def entropy(self) -> Any:
        """The log of the width."""
        return tclient.log(self.high - self.low)


class Exponential(ExponentialFamily):
    """The exponential distribution with a rate."""

    arg_constraints = {"rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _parameters = {"rate": 0}
    _mean_carrier_measure = 0

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(batch_shape_of((rate,), self.rate), validate_args=validate_args)

    @property
    def mean(self) -> Any:
        """1 / rate."""
        return self.rate.reciprocal()

    @property
    def mode(self) -> Any:
        """0."""
        return tclient.zeros_like(self.rate)

    @property
    def stddev(self) -> Any:
        """1 / rate."""
        return self.rate.reciprocal()

    @property
    def variance(self) -> Any:
        """1 / rate²."""
        return self.rate.pow(-2)

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn with a gradient."""
        return self.rate.new_empty(self._extended_shape(sample_shape)).exponential_() / self.rate

    def log_prob(self, value: Any) -> Any:
        """log rate - rate · value."""
        if self._validate_args:
            self._validate_sample(value)
        return self.rate.log() - self.rate * value

    def cdf(self, value: Any) -> Any:
        """1 - exp(-rate · value)."""
        if self._validate_args:
            self._validate_sample(value)
        return 1 - tclient.exp(-self.rate * value)

    def icdf(self, value: Any) -> Any:
        """-log(1 - value) / rate."""
        return -tclient.log1p(-value) / self.rate

    def entropy(self) -> Any:
        """1 - log rate."""
        return 1.0 - tclient.log(self.rate)

    @property
    def _natural_params(self) -> tuple[Any, ...]:
        return (-self.rate,)

    def _log_normalizer(self, x: Any) -> Any:
        return -tclient.log(-x)


class Gamma(ExponentialFamily):
    """The gamma distribution with a concentration and a rate."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _parameters = {"concentration": 0, "rate": 0}
    _mean_carrier_measure = 0

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(batch_shape_of((concentration, rate), self.concentration), validate_args=validate_args)

    @property
    def mean(self) -> Any:
        """concentration / rate."""
        return self.concentration / self.rate

    @property
    def mode(self) -> Any:
        """(concentration - 1) / rate, but not below 0."""
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Any:
        """concentration / rate²."""
        return self.concentration / self.rate.pow(2)

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn with a gradient."""
        drawn = call_builtin("tc.standard_gamma", self._spread(self.concentration, sample_shape))
        value = drawn / self._spread(self.rate, sample_shape)
        # No gradient is to see that zeros are none.
        value.detach().clamp_(min=tclient.finfo(self.rate.dtype).tiny)
        return value

    def log_prob(self, value: Any) -> Any:
        """The log of the density."""
        value = tclient.as_tensor(value, dtype=self.rate.dtype, device=self.rate.device)
        if self._validate_args:
            self._validate_sample(value)
        return (
            tclient.xlogy(self.concentration, self.rate)
            + tclient.xlogy(self.concentration - 1, value)
            - self.rate * value
            - tclient.lgamma(self.concentration)
        )

    def entropy(self) -> Any:
        """By the digamma function."""
        return (
            self.concentration
            - tclient.log(self.rate)
            + tclient.lgamma(self.concentration)
            + (1.0 - self.concentration) * tclient.digamma(self.concentration)
        )

    @property
    def _natural_params(self) -> tuple[Any, ...]:
        return self.concentration - 1, -self.rate

    def _log_normalizer(self, x: Any, y: Any) -> Any:
        return tclient.lgamma(x + 1) + (x + 1) * tclient.log(-y.reciprocal())

    def cdf(self, value: Any) -> Any:
        """The regularized incomplete gamma function."""
        if self._validate_args:
            self._validate_sample(value)
        return tclient.special.gammainc(self.concentration, self.rate * value)
