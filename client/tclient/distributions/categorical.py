"""Distributions over classes: one draw, as a number or a vector, and the counts of many."""

from __future__ import annotations

from typing import Any

import tclient
from tclient.distributions import constraints
from tclient.distributions._core import (
    Size,
    broadcast_all,
    lazy_property,
    logits_to_probs,
    one_of,
    one_wait,
    probs_to_logits,
)
from tclient.distributions.discrete import Binomial
from tclient.distributions.distribution import Distribution


class Categorical(Distribution):
    """The distribution over classes 0 to K - 1, by their probabilities or unnormalized log probabilities."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True
    _parameters = {"probs": 1, "logits": 1}
    _kept = ("_given",)

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._given = one_of(probs, logits)
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


class OfCategorical(Distribution):
    """Made of draws of a class: the parameters are those of a Categorical, and an event has a place for each class."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}

    _categorical: Categorical

    def _begin(self, probs: Any, logits: Any, validate_args: bool | None) -> None:
        with one_wait():
            self._categorical = Categorical(probs, logits)
            shape = (logits if probs is None else probs).shape
            super().__init__(self._categorical.batch_shape, Size(shape[-1:]), validate_args=validate_args)

    def _expand_into(self, new: Any, batch_shape: Any) -> Any:
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
    def param_shape(self) -> Any:
        """The shape of the parameter that was given."""
        return self._categorical.param_shape


class OneHotCategorical(OfCategorical):
    """The distribution over classes, as vectors of one 1."""

    support = constraints.one_hot
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._begin(probs, logits, validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution, repeated to a batch shape."""
        return self._expand_into(self._get_checked_instance(OneHotCategorical, _instance), batch_shape)

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


class Multinomial(OfCategorical):
    """How often each class is drawn in total_count draws."""

    total_count: int

    def __init__(
        self, total_count: int = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        if not isinstance(total_count, int):
            raise NotImplementedError("inhomogeneous total_count is not supported")
        self.total_count = total_count
        self._begin(probs, logits, validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution, repeated to a batch shape."""
        new = self._get_checked_instance(Multinomial, _instance)
        new.total_count = self.total_count
        return self._expand_into(new, batch_shape)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        """Counts of that sum."""
        return constraints.multinomial(self.total_count)

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


__all__ = ["Categorical", "Multinomial", "OneHotCategorical", "OneHotCategoricalStraightThrough"]
