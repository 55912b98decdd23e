"""Distributions over bits and counts."""

from __future__ import annotations

from typing import Any, ClassVar

import tclient
from tclient.distributions import constraints
from tclient.distributions._core import Size, broadcast_all, lazy_property, logits_to_probs, one_of, probs_to_logits
from tclient.distributions.continuous import Gamma, batch_shape_of
from tclient.distributions.distribution import Distribution, ExponentialFamily


class Binary(Distribution):
    """Of one probability, or its log odds."""

    _parameters = {"probs": 0, "logits": 0}
    _kept: ClassVar[tuple[str, ...]] = ("_given",)
    probs: Any
    logits: Any

    def _take(self, probs: Any, logits: Any) -> Any:
        self._given = one_of(probs, logits)
        given = logits if probs is None else probs
        (self.__dict__[self._given],) = broadcast_all(given)
        return batch_shape_of((given,), self._param)

    @property
    def _param(self) -> Any:
        return self.__dict__[self._given]

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter that was given."""
        return self._param.size()


def _logits(self: Any) -> Any:
    """The log odds."""
    return probs_to_logits(self.probs, is_binary=True)


def _probs(self: Any) -> Any:
    """The probability."""
    return logits_to_probs(self.logits, is_binary=True)


_logits.__name__, _probs.__name__ = "logits", "probs"


class Bernoulli(Binary, ExponentialFamily):
    """1 with a probability, else 0."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.boolean
    has_enumerate_support = True
    _parameters = {"probs": 0, "logits": 0}
    _mean_carrier_measure = 0
    logits = lazy_property(_logits)
    probs = lazy_property(_probs)

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        super().__init__(self._take(probs, logits), validate_args=validate_args)

    @property
    def mean(self) -> Any:
        """The probability."""
        return self.probs

    @property
    def mode(self) -> Any:
        """The more probable; nan where both are as probable."""
        mode = (self.probs >= 0.5).to(self.probs)
        return mode.masked_fill(self.probs == 0.5, tclient.nan)

    @property
    def variance(self) -> Any:
        """p (1 - p)."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn."""
        with tclient.no_grad():
            return tclient.bernoulli(self._spread(self.probs, sample_shape))

    def log_prob(self, value: Any) -> Any:
        """The log probability of a value."""
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return -tclient.nn.functional.binary_cross_entropy_with_logits(logits, value, reduction="none")

    def entropy(self) -> Any:
        """The mean of -log p."""
        return tclient.nn.functional.binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Any:
        """0 and 1, along the first dimension."""
        values = tclient.arange(2, dtype=self._param.dtype, device=self._param.device)
        values = values.view((-1, *[1] * len(self._batch_shape)))
        return values.expand((-1, *self._batch_shape)) if expand else values

    @property
    def _natural_params(self) -> tuple[Any, ...]:
        return (tclient.logit(self.probs),)

    def _log_normalizer(self, x: Any) -> Any:
        return tclient.log1p(tclient.exp(x))


def _clamp_by_zero(x: Any) -> Any:
    """Not below 0, with a gradient of ½ at 0."""
    return (x.clamp(min=0) + x - x.clamp(max=0)) / 2


class _Counted(Binary):
    """Of a count, and of one probability or its log odds."""

    _parameters = {"total_count": 0, "probs": 0, "logits": 0}

    def _take_both(self, total_count: Any, probs: Any, logits: Any) -> Any:
        self._given = one_of(probs, logits)
        self.total_count, given = broadcast_all(total_count, logits if probs is None else probs)
        self.total_count = self.total_count.type_as(given)
        self.__dict__[self._given] = given
        return given.size


class Binomial(_Counted):
    """How many of total_count tries succeed."""

    arg_constraints = {
        "total_count": constraints.nonnegative_integer,
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }
    has_enumerate_support = True
    _parameters = {"total_count": 0, "probs": 0, "logits": 0}
    logits = lazy_property(_logits)
    probs = lazy_property(_probs)

    def __init__(
        self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        super().__init__(self._take_both(total_count, probs, logits), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """From 0 to total_count."""
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Any:
        """n p."""
        return self.total_count * self.probs

    @property
    def mode(self) -> Any:
        """The most probable count."""
        return ((self.total_count + 1) * self.probs).floor().clamp(max=self.total_count)

    @property
    def variance(self) -> Any:
        """n p (1 - p)."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = Size()) -> Any:
        """Counts, drawn."""
        with tclient.no_grad():
            return tclient.binomial(
                self._spread(self.total_count, sample_shape), self._spread(self.probs, sample_shape)
            )

    def log_prob(self, value: Any) -> Any:
        """The log probability of a count."""
        if self._validate_args:
            self._validate_sample(value)
        of_all = tclient.lgamma(self.total_count + 1)
        of_successes = tclient.lgamma(value + 1)
        of_others = tclient.lgamma(self.total_count - value + 1)
        # log(1 + exp(logits)), which does not overflow.
        normalizer = (
            self.total_count * _clamp_by_zero(self.logits)
            + self.total_count * tclient.log1p(tclient.exp(-tclient.abs(self.logits)))
            - of_all
        )
        return value * self.logits - of_successes - of_others - normalizer

    def entropy(self) -> Any:
        """The sum over all counts; total_count must be the same everywhere."""
        total = int(self.total_count.max())
        if not self.total_count.min() == total:
            raise NotImplementedError("Inhomogeneous total count not supported by `entropy`.")
        log_prob = self.log_prob(self.enumerate_support(False))
        return -(tclient.exp(log_prob) * log_prob).sum(0)

    def enumerate_support(self, expand: bool = True) -> Any:
        """All counts, along the first dimension; total_count must be the same everywhere."""
        total = int(self.total_count.max())
        if not self.total_count.min() == total:
            raise NotImplementedError("Inhomogeneous total count not supported by `enumerate_support`.")
        values = tclient.arange(1 + total, dtype=self._param.dtype, device=self._param.device)
        values = values.view((-1, *[1] * len(self._batch_shape)))
        return values.expand((-1, *self._batch_shape)) if expand else values


class NegativeBinomial(_Counted):
    """How many tries succeed before total_count of them fail."""

    arg_constraints = {
        "total_count": constraints.greater_than_eq(0),
        "probs": constraints.half_open_interval(0.0, 1.0),
        "logits": constraints.real,
    }
    support = constraints.nonnegative_integer
    _parameters = {"total_count": 0, "probs": 0, "logits": 0}
    logits = lazy_property(_logits)
    probs = lazy_property(_probs)

    def __init__(
        self, total_count: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        super().__init__(self._take_both(total_count, probs, logits), validate_args=validate_args)

    @property
    def mean(self) -> Any:
        """n p / (1 - p)."""
        return self.total_count * tclient.exp(self.logits)

    @property
    def mode(self) -> Any:
        """The most probable count."""
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self) -> Any:
        """n p / (1 - p)²."""
        return self.mean / tclient.sigmoid(-self.logits)

    @lazy_property
    def _gamma(self) -> Gamma:
        # A count of 0 is no concentration of a gamma distribution, but draws zeros.
        return Gamma(concentration=self.total_count, rate=tclient.exp(-self.logits), validate_args=False)

    def sample(self, sample_shape: Any = Size()) -> Any:
        """Counts, drawn at rates that are drawn."""
        with tclient.no_grad():
            return tclient.poisson(self._gamma.sample(sample_shape))

    def log_prob(self, value: Any) -> Any:
        """The log probability of a count."""
        if self._validate_args:
            self._validate_sample(value)
        log_sigmoid = tclient.nn.functional.logsigmoid
        of_tries = self.total_count * log_sigmoid(-self.logits) + value * log_sigmoid(self.logits)
        all_tries = self.total_count + value
        orders = tclient.lgamma(1.0 + value) - tclient.lgamma(all_tries) + tclient.lgamma(self.total_count)
        # Of no tries, none succeeds for sure, though lgamma(0) is infinite.
        return of_tries - orders.masked_fill(all_tries == 0.0, 0.0)


class Poisson(ExponentialFamily):
    """Counts of what happens at a rate."""

    arg_constraints = {"rate": constraints.nonnegative}
    support = constraints.nonnegative_integer
    _parameters = {"rate": 0}

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(batch_shape_of((rate,), self.rate), validate_args=validate_args)

    @property
    def mean(self) -> Any:
        """rate."""
        return self.rate

    @property
    def mode(self) -> Any:
        """rate, rounded down."""
        return self.rate.floor()

    @property
    def variance(self) -> Any:
        """rate."""
        return self.rate

    def sample(self, sample_shape: Any = Size()) -> Any:
        """Counts, drawn."""
        with tclient.no_grad():
            return tclient.poisson(self._spread(self.rate, sample_shape))

    def log_prob(self, value: Any) -> Any:
        """value · log rate - rate - log value!."""
        if self._validate_args:
            self._validate_sample(value)
        rate, value = broadcast_all(self.rate, value)
        return value.xlogy(rate) - rate - (value + 1).lgamma()

    @property
    def _natural_params(self) -> tuple[Any, ...]:
        return (tclient.log(self.rate),)

    def _log_normalizer(self, x: Any) -> Any:
        return tclient.exp(x)


class Geometric(Binary):
    """How many tries fail before the first success."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.nonnegative_integer
    _parameters = {"probs": 0, "logits": 0}
    logits = lazy_property(_logits)
    probs = lazy_property(_probs)

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        super().__init__(self._take(probs, logits), validate_args=validate_args)

    def _checks(self) -> Any:
        checks = super()._checks()
        if self._given == "probs":
            value = self.probs
            checks.append((value > 0, self._not_positive))
        return checks

    def _not_positive(self) -> Exception:
        value = self.probs
        return ValueError(
            f"Expected parameter probs ({type(value).__name__} of shape {tuple(value.shape)}) of distribution "
            f"{self!r} to be positive but found invalid values:\n{value[value <= 0]}"
        )

    @property
    def mean(self) -> Any:
        """1 / p - 1."""
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Any:
        """0."""
        return tclient.zeros_like(self.probs)

    @property
    def variance(self) -> Any:
        """(1 / p - 1) / p."""
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Any = Size()) -> Any:
        """Counts, drawn."""
        shape = self._extended_shape(sample_shape)
        with tclient.no_grad():
            u = self.probs.new_empty(shape).uniform_(tclient.finfo(self.probs.dtype).tiny, 1)
            return (u.log() / (-self.probs).log1p()).floor()

    def log_prob(self, value: Any) -> Any:
        """The log probability of a count."""
        if self._validate_args:
            self._validate_sample(value)
        value, probs = broadcast_all(value, self.probs)
        probs = probs.masked_fill((probs == 1) & (value == 0), 0)
        return value * (-probs).log1p() + self.probs.log()

    def entropy(self) -> Any:
        """That of one try, by its probability."""
        of_try = tclient.nn.functional.binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")
        return of_try / self.probs


__all__ = [
    "Bernoulli",
    "Binomial",
    "Geometric",
    "NegativeBinomial",
    "Poisson",
]
