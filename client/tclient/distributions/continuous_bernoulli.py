"""The continuous Bernoulli distribution. Source: Loaiza-Ganem and Cunningham (2019)."""

from __future__ import annotations

import math
from typing import Any

import tclient
from tclient.distributions import constraints
from tclient.distributions._core import (
    Size,
    broadcast_all,
    clamp_probs,
    clamp_probs_of,
    lazy_property,
    logits_to_probs,
    one_wait,
    probs_to_logits,
    standard_uniform,
    verify,
)
from tclient.distributions.discrete import Binary
from tclient.distributions.distribution import ExponentialFamily


class ContinuousBernoulli(Binary, ExponentialFamily):
    """From 0 to 1, with a density that is exponential: p to the power of x, times 1 - p to that of 1 - x.

    Around p = ½ its terms are differences of large numbers; between the limits, `lims`, series stand for them.
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    _parameters = {"probs": 0, "logits": 0}
    _kept = ("_given", "_lims")
    _mean_carrier_measure = 0

    def __init__(
        self,
        probs: Any = None,
        logits: Any = None,
        lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ) -> None:
        with one_wait():
            shape = self._take(probs, logits)
            if probs is not None:
                if validate_args is not None:
                    valid = constraints.unit_interval.check(self.probs)
                    verify([(valid, lambda: ValueError("The parameter probs has invalid values"))])
                self.probs = clamp_probs(self.probs)
            self._lims = lims
            super().__init__(shape, validate_args=validate_args)

    @lazy_property
    def logits(self) -> Any:
        """The log odds."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Any:
        """The probability, which is no mean here."""
        return clamp_probs_of(self.logits.dtype, logits_to_probs(self.logits, is_binary=True))

    def _is_stable(self) -> Any:
        return (self.probs <= self._lims[0]) | (self.probs > self._lims[1])

    def _stable_probs(self) -> Any:
        """The probabilities, and another one where the series is taken."""
        return tclient.where(self._is_stable(), self.probs, self._lims[0] * tclient.ones_like(self.probs))

    def _cont_bern_log_norm(self) -> Any:
        p = self._stable_probs()
        is_below = p <= 0.5
        below = tclient.where(is_below, p, tclient.zeros_like(p))
        above = tclient.where(p >= 0.5, p, tclient.ones_like(p))
        of_width = tclient.where(is_below, tclient.log1p(-2.0 * below), tclient.log(2.0 * above - 1.0))
        norm = tclient.log(tclient.abs(tclient.log1p(-p) - tclient.log(p))) - of_width
        x = tclient.pow(self.probs - 0.5, 2)
        series = math.log(2.0) + (4.0 / 3.0 + 104.0 / 45.0 * x) * x
        return tclient.where(self._is_stable(), norm, series)

    @property
    def mean(self) -> Any:
        """The mean."""
        p = self._stable_probs()
        mean = p / (2.0 * p - 1.0) + 1.0 / (tclient.log1p(-p) - tclient.log(p))
        x = self.probs - 0.5
        series = 0.5 + (1.0 / 3.0 + 16.0 / 45.0 * tclient.pow(x, 2)) * x
        return tclient.where(self._is_stable(), mean, series)

    @property
    def variance(self) -> Any:
        """The variance."""
        p = self._stable_probs()
        of_odds = 1.0 / tclient.pow(tclient.log1p(-p) - tclient.log(p), 2)
        variance = p * (p - 1.0) / tclient.pow(1.0 - 2.0 * p, 2) + of_odds
        x = tclient.pow(self.probs - 0.5, 2)
        series = 1.0 / 12.0 - (1.0 / 15.0 - 128.0 / 945.0 * x) * x
        return tclient.where(self._is_stable(), variance, series)

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn with a gradient."""
        return self.icdf(standard_uniform(self.probs, self._extended_shape(sample_shape)))

    def log_prob(self, value: Any) -> Any:
        """The log of the density."""
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        entropy = tclient.nn.functional.binary_cross_entropy_with_logits(logits, value, reduction="none")
        return -entropy + self._cont_bern_log_norm()

    def cdf(self, value: Any) -> Any:
        """How probable a value up to this one is."""
        if self._validate_args:
            self._validate_sample(value)
        p = self._stable_probs()
        powers = tclient.pow(p, value) * tclient.pow(1.0 - p, 1.0 - value)
        cdf = tclient.where(self._is_stable(), (powers + p - 1.0) / (2.0 * p - 1.0), value)
        above = tclient.where(value >= 1.0, tclient.ones_like(value), cdf)
        return tclient.where(value <= 0.0, tclient.zeros_like(value), above)

    def icdf(self, value: Any) -> Any:
        """The value up to which there is that probability."""
        p = self._stable_probs()
        of_zero = tclient.log1p(-p)
        found = (tclient.log1p(-p + value * (2.0 * p - 1.0)) - of_zero) / (tclient.log(p) - of_zero)
        return tclient.where(self._is_stable(), found, value)

    def entropy(self) -> Any:
        """By the mean."""
        of_zero, of_one = tclient.log1p(-self.probs), tclient.log(self.probs)
        return self.mean * (of_zero - of_one) - self._cont_bern_log_norm() - of_zero

    @property
    def _natural_params(self) -> tuple[Any, ...]:
        return (self.logits,)

    def _log_normalizer(self, x: Any) -> Any:
        is_stable = (x <= self._lims[0] - 0.5) | (x > self._lims[1] - 0.5)
        cut = tclient.where(is_stable, x, (self._lims[0] - 0.5) * tclient.ones_like(x))
        norm = tclient.log(tclient.abs(tclient.special.expm1(cut))) - tclient.log(tclient.abs(cut))
        series = 0.5 * x + tclient.pow(x, 2) / 24.0 - tclient.pow(x, 4) / 2880.0
        return tclient.where(is_stable, norm, series)


__all__ = ["ContinuousBernoulli"]
