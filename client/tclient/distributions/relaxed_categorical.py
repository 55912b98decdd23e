"""Vectors that come close to vectors of one 1 as the temperature falls. Sources: Maddison, Jang and others (2017)."""

from __future__ import annotations

from typing import Any

import tclient
from tclient.distributions import constraints
from tclient.distributions._core import Size, broadcast_all, clamp_probs_of, one_wait, standard_uniform
from tclient.distributions.categorical import OfCategorical
from tclient.distributions.relaxed_bernoulli import Relaxed
from tclient.distributions.transforms import ExpTransform


class ExpRelaxedCategorical(OfCategorical):
    """The logarithms of a RelaxedOneHotCategorical."""

    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self.temperature = temperature
        self._begin(probs, logits, validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution, repeated to a batch shape."""
        new = self._get_checked_instance(ExpRelaxedCategorical, _instance)
        new.temperature = self.temperature
        return self._expand_into(new, batch_shape)

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn with a gradient."""
        drawn = standard_uniform(self.logits, self._extended_shape(sample_shape))
        uniform = clamp_probs_of(self._param.dtype, drawn)
        scores = (self.logits - (-uniform.log()).log()) / self.temperature
        return scores - scores.logsumexp(dim=-1, keepdim=True)

    def log_prob(self, value: Any) -> Any:
        """The log of the density."""
        if self._validate_args:
            self._validate_sample(value)
        count = self._categorical._num_events
        logits, value = broadcast_all(self.logits, value)
        scores = logits - value.mul(self.temperature)
        of_scores = (scores - scores.logsumexp(dim=-1, keepdim=True)).sum(-1)
        orders = tclient.full_like(self.temperature, float(count)).lgamma()
        return of_scores + (orders + self.temperature.log().mul(count - 1))


class RelaxedOneHotCategorical(Relaxed):
    """Over probabilities: close to a OneHotCategorical at a low temperature, and with a gradient."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.simplex
    _parameters = {}

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        with one_wait():
            base = ExpRelaxedCategorical(temperature, probs, logits, validate_args=validate_args)
            super().__init__(base, ExpTransform(), validate_args=validate_args)


__all__ = ["ExpRelaxedCategorical", "RelaxedOneHotCategorical"]
