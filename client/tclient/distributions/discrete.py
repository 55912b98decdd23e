"""Distributions over classes, bits and counts."""

from __future__ import annotations

from typing import Any

import tclient
from tclient.distributions import constraints
from tclient.distributions._core import (
    Size,
    broadcast_all,
    lazy_property,
    logits_to_probs,
    one_wait,
    probs_to_logits,
)
from tclient.distributions.continuous import batch_shape_of
from tclient.distributions.distribution import Distribution, ExponentialFamily


def _one_of(probs: Any, logits: Any) -> str:
    if (probs is None) == (logits is None):
        raise ValueError("Either `probs` or `logits` must be specified, but not both.")
    return "logits" if probs is None else "probs"


class Categorical(Distribution):
    """The distribution over classes 0 to K - 1, by their probabilities or unnormalized log probabilities."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True
    _parameters = {"probs": 1, "logits": 1}
    _kept = ("_given",)

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._given = _one_of(probs, logits)
        given = logits if probs is None else probs
        if given.dim() < 1:
            raise ValueError(f"`{self._given}` parameter must be at least one-dimensional.")
        if probs is not None:
            self.probs = probs / probs.sum(-1, keepdim=True)
        else:
            self.logits = logits - logits.logsumexp(dim=-1, keepdim=True)
        super().__init__(Size(given.shape[:-1]), validate_args=validate_args)

    @property
    def _param(self) -> Any:
        return self.__dict__[self._given]

    @property
    def _num_events(self) -> int:
        return int(self._param.shape[-1])

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The numbers of the classes."""
        return constraints.integer_interval(0, self._num_events - 1)

    @lazy_property
    def logits(self) -> Any:
        """The log probabilities."""
        return probs_to_logits(self.probs)

    @lazy_property
    def probs(self) -> Any:
        """The probabilities."""
        return logits_to_probs(self.logits)

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter that was given."""
        return self._param.size()

    def _nan(self) -> Any:
        return tclient.full(self._extended_shape(), tclient.nan, dtype=self.probs.dtype, device=self.probs.device)

    @property
    def mean(self) -> Any:
        """Classes have none: nan."""
        return self._nan()

    @property
    def mode(self) -> Any:
        """The most probable class."""
        return self.probs.argmax(dim=-1)

    @property
    def variance(self) -> Any:
        """Classes have none: nan."""
        return self._nan()

    def sample(self, sample_shape: Any = Size()) -> Any:
        """Classes, drawn."""
        sample_shape = Size(sample_shape)
        rows = self.probs.reshape(-1, self._num_events)
        with tclient.no_grad():
            drawn = tclient.multinomial(rows, sample_shape.numel(), True).T
        return drawn.reshape(self._extended_shape(sample_shape))

    def log_prob(self, value: Any) -> Any:
        """The log probability of a class."""
        if self._validate_args:
            self._validate_sample(value)
        index, log_pmf = broadcast_all(value.long().unsqueeze(-1), self.logits)
        return log_pmf.gather(-1, index[..., :1]).squeeze(-1)

    def entropy(self) -> Any:
        """The mean of -log p."""
        least = tclient.finfo(self.logits.dtype).min
        return -(tclient.clamp(self.logits, min=least) * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Any:
        """All classes, along the first dimension."""
        values = tclient.arange(self._num_events, dtype=tclient.long, device=self._param.device)
        values = values.view((-1, *[1] * len(self._batch_shape)))
        return values.expand((-1, *self._batch_shape)) if expand else values


class OneHotCategorical(Distribution):
    """The distribution over classes, as vectors of one 1."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.one_hot
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        with one_wait():
            self._categorical = Categorical(probs, logits)
            shape = (logits if probs is None else probs).shape
            super().__init__(self._categorical.batch_shape, Size(shape[-1:]), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution, repeated to a batch shape."""
        new = self._get_checked_instance(OneHotCategorical, _instance)
        batch_shape = Size(batch_shape)
        new._categorical = self._categorical.expand(batch_shape)
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def _param(self) -> Any:
        return self._categorical._param

    @property
    def probs(self) -> Any:
        """The probabilities."""
        return self._categorical.probs

    @property
    def logits(self) -> Any:
        """The log probabilities."""
        return self._categorical.logits

    @property
    def mean(self) -> Any:
        """The probabilities."""
        return self._categorical.probs

    @property
    def mode(self) -> Any:
        """The most probable class."""
        probs = self._categorical.probs
        return tclient.nn.functional.one_hot(probs.argmax(dim=-1), probs.shape[-1]).to(probs)

    @property
    def variance(self) -> Any:
        """p (1 - p)."""
        return self._categorical.probs * (1 - self._categorical.probs)

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter that was given."""
        return self._categorical.param_shape

    def sample(self, sample_shape: Any = Size()) -> Any:
        """Classes, drawn."""
        probs = self._categorical.probs
        drawn = self._categorical.sample(Size(sample_shape))
        return tclient.nn.functional.one_hot(drawn, self._categorical._num_events).to(probs)

    def log_prob(self, value: Any) -> Any:
        """The log probability of a class."""
        if self._validate_args:
            self._validate_sample(value)
        return self._categorical.log_prob(value.max(-1)[1])

    def entropy(self) -> Any:
        """The mean of -log p."""
        return self._categorical.entropy()

    def enumerate_support(self, expand: bool = True) -> Any:
        """All classes, along the first dimension."""
        n = self.event_shape[0]
        values = tclient.eye(n, dtype=self._param.dtype, device=self._param.device)
        values = values.view((n, *[1] * len(self.batch_shape), n))
        return values.expand((n, *self.batch_shape, n)) if expand else values


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """The same, with the gradient of the probabilities. Source: Bengio and others (2013)."""

    has_rsample = True

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Classes, drawn with a gradient."""
        drawn = self.sample(sample_shape)
        probs = self._categorical.probs
        return drawn + (probs - probs.detach())


class _Binary(Distribution):
    """Of one probability, or its log odds."""

    _parameters = {"probs": 0, "logits": 0}
    _kept = ("_given",)
    probs: Any
    logits: Any

    def _take(self, probs: Any, logits: Any) -> Any:
        self._given = _one_of(probs, logits)
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


class Bernoulli(_Binary, ExponentialFamily):
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


class Binomial(Distribution):
    """How many of total_count tries succeed."""

    arg_constraints = {
        "total_count": constraints.nonnegative_integer,
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }
    has_enumerate_support = True
    _parameters = {"total_count": 0, "probs": 0, "logits": 0}
    _kept = ("_given",)
    logits = lazy_property(_logits)
    probs = lazy_property(_probs)

    def __init__(
        self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._given = _one_of(probs, logits)
        self.total_count, given = broadcast_all(total_count, logits if probs is None else probs)
        self.total_count = self.total_count.type_as(given)
        self.__dict__[self._given] = given
        super().__init__(given.size, validate_args=validate_args)

    @property
    def _param(self) -> Any:
        return self.__dict__[self._given]

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

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter that was given."""
        return self._param.size()

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


class Multinomial(Distribution):
    """How often each class is drawn in total_count draws."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}

    total_count: int

    def __init__(
        self, total_count: int = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        if not isinstance(total_count, int):
            raise NotImplementedError("inhomogeneous total_count is not supported")
        self.total_count = total_count
        with one_wait():
            self._categorical = Categorical(probs=probs, logits=logits)
            shape = (logits if probs is None else probs).shape
            super().__init__(self._categorical.batch_shape, Size(shape[-1:]), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution, repeated to a batch shape."""
        new = self._get_checked_instance(Multinomial, _instance)
        batch_shape = Size(batch_shape)
        new.total_count = self.total_count
        new._categorical = self._categorical.expand(batch_shape)
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        """Counts of that sum."""
        return constraints.multinomial(self.total_count)

    @property
    def probs(self) -> Any:
        """The probabilities."""
        return self._categorical.probs

    @property
    def logits(self) -> Any:
        """The log probabilities."""
        return self._categorical.logits

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter that was given."""
        return self._categorical.param_shape

    @property
    def mean(self) -> Any:
        """n p."""
        return self.probs * self.total_count

    @property
    def variance(self) -> Any:
        """n p (1 - p)."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = Size()) -> Any:
        """Counts, drawn."""
        sample_shape = Size(sample_shape)
        drawn = self._categorical.sample(Size((self.total_count, *sample_shape))).movedim(0, -1)
        counts = drawn.new_zeros(self._extended_shape(sample_shape))
        counts.scatter_add_(-1, drawn, tclient.ones_like(drawn))
        return counts.type_as(self.probs)

    def log_prob(self, value: Any) -> Any:
        """The log probability of counts."""
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        logits = logits.masked_fill((value == 0) & (logits == -tclient.inf), 0)
        orders = tclient.lgamma(value.sum(-1) + 1) - tclient.lgamma(value + 1).sum(-1)
        return orders + (logits * value).sum(-1)

    def entropy(self) -> Any:
        """By the entropy of one draw and the counts of each class."""
        count = tclient.tensor(self.total_count, device=self.probs.device)
        of_draws = count * self._categorical.entropy() - tclient.lgamma(count + 1)
        binomial = Binomial(self.total_count, self.probs, validate_args=False)
        values = tclient.arange(1, self.total_count + 1, dtype=self.probs.dtype, device=self.probs.device)
        values = values.view((-1, *[1] * self.probs.dim()))
        weights = tclient.exp(binomial.log_prob(values)) * tclient.lgamma(values + 1)
        return of_draws + weights.sum([0, -1])


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


class Geometric(_Binary):
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
    "Categorical",
    "Geometric",
    "Multinomial",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Poisson",
]
