"""Values from 0 to 1 that come close to bits as the temperature falls. Source: Maddison and others (2017)."""

from __future__ import annotations

from typing import Any

from tclient.distributions import constraints
from tclient.distributions._core import (
    Size,
    broadcast_all,
    clamp_probs_of,
    lazy_property,
    logits_to_probs,
    one_wait,
    probs_to_logits,
    standard_uniform,
)
from tclient.distributions.discrete import Binary
from tclient.distributions.transformed_distribution import TransformedDistribution
from tclient.distributions.transforms import SigmoidTransform


class LogitRelaxedBernoulli(Binary):
    """The log odds of a RelaxedBernoulli."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.real
    _parameters = {"probs": 0, "logits": 0}
    _kept = ("_given", "temperature")

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self.temperature = temperature
        super().__init__(self._take(probs, logits), validate_args=validate_args)

    @lazy_property
    def logits(self) -> Any:
        """The log odds of the bit."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Any:
        """The probability of the bit."""
        return logits_to_probs(self.logits, is_binary=True)

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn with a gradient."""
        shape = self._extended_shape(sample_shape)
        dtype = self._param.dtype
        probs = clamp_probs_of(dtype, self.probs.expand(shape))
        uniform = clamp_probs_of(dtype, standard_uniform(probs, shape))
        return (uniform.log() - (-uniform).log1p() + probs.log() - (-probs).log1p()) / self.temperature

    def log_prob(self, value: Any) -> Any:
        """The log of the density."""
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        difference = logits - value.mul(self.temperature)
        return self.temperature.log() + difference - 2 * difference.exp().log1p()


class Relaxed(TransformedDistribution):
    """What is close to a distribution of bits or classes, as a transform of one that has their parameters."""

    has_rsample = True

    @property
    def temperature(self) -> Any:
        """How far from bits, or from vectors of one 1, the values are."""
        return self.base_dist.temperature

    @property
    def logits(self) -> Any:
        """The log odds of the bit, or the log probabilities of the classes."""
        return self.base_dist.logits

    @property
    def probs(self) -> Any:
        """The probability of the bit, or those of the classes."""
        return self.base_dist.probs


class RelaxedBernoulli(Relaxed):
    """From 0 to 1: close to a Bernoulli distribution at a low temperature, and with a gradient."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    _parameters = {}

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        with one_wait():
            base = LogitRelaxedBernoulli(temperature, probs, logits)
            super().__init__(base, SigmoidTransform(), validate_args=validate_args)


__all__ = ["LogitRelaxedBernoulli", "RelaxedBernoulli"]
