"""Mixtures of distributions of one family."""

from __future__ import annotations

from typing import Any

import tclient
from tclient.distributions import constraints
from tclient.distributions._core import Size
from tclient.distributions.categorical import Categorical
from tclient.distributions.distribution import Distribution


class MixtureSameFamily(Distribution):
    """One of the components, which stand side by side in the last dimension of a batch, is drawn and draws the value.

    Raises: ValueError for what is no Categorical or no distribution, and where there are not as many classes as
    components.
    """

    arg_constraints: Any = {}

    def __init__(
        self, mixture_distribution: Any, component_distribution: Any, validate_args: bool | None = None
    ) -> None:
        self._mixture_distribution = mixture_distribution
        self._component_distribution = component_distribution
        if not isinstance(mixture_distribution, Categorical):
            raise ValueError(" The Mixture distribution needs to be an  instance of torch.distributions.Categorical")
        if not isinstance(component_distribution, Distribution):
            raise ValueError("The Component distribution needs to be an instance of torch.distributions.Distribution")
        of_mixture, of_components = mixture_distribution.batch_shape, component_distribution.batch_shape[:-1]
        for one, other in zip(reversed(of_mixture), reversed(of_components), strict=False):
            if one != 1 and other not in (1, one):
                raise ValueError(
                    f"`mixture_distribution.batch_shape` ({of_mixture}) is not compatible with "
                    f"`component_distribution.batch_shape`({of_components})"
                )
        classes, components = mixture_distribution.logits.shape[-1], component_distribution.batch_shape[-1]
        if classes != components:
            raise ValueError(
                f"`mixture_distribution component` ({classes}) does not equal "
                f"`component_distribution.batch_shape[-1]` ({components})"
            )
        self._num_component = classes
        event_shape = component_distribution.event_shape
        self._event_ndims = len(event_shape)
        super().__init__(Size(of_components), event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution, repeated to a batch shape."""
        batch_shape = Size(batch_shape)
        new = self._get_checked_instance(MixtureSameFamily, _instance)
        new._component_distribution = self._component_distribution.expand(Size((*batch_shape, self._num_component)))
        new._mixture_distribution = self._mixture_distribution.expand(batch_shape)
        new._num_component, new._event_ndims = self._num_component, self._event_ndims
        Distribution.__init__(new, batch_shape, new._component_distribution.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property
    def support(self) -> Any:
        """That of the components."""
        return constraints.MixtureSameFamilyConstraint(self._component_distribution.support)

    @property
    def mixture_distribution(self) -> Any:
        """Which component is drawn."""
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Any:
        """The components, side by side."""
        return self._component_distribution

    def _pad(self, x: Any) -> Any:
        return x.unsqueeze(-1 - self._event_ndims)

    def _weights(self) -> Any:
        """The probabilities of the components, with dimensions for the batch and the event."""
        probs = self.mixture_distribution.probs
        of_mixture = len(self.mixture_distribution.batch_shape)
        missing = 0 if of_mixture == 1 else len(self.batch_shape) - of_mixture
        shape = tuple(probs.shape)
        return probs.reshape((*shape[:-1], *[1] * missing, shape[-1], *[1] * self._event_ndims))

    def _mean_of(self, values: Any) -> Any:
        return tclient.sum(self._weights() * values, dim=-1 - self._event_ndims)

    @property
    def mean(self) -> Any:
        """The mean of the means."""
        return self._mean_of(self.component_distribution.mean)

    @property
    def variance(self) -> Any:
        """The mean of the variances, and the variance of the means."""
        distances = self.component_distribution.mean - self._pad(self.mean)
        return self._mean_of(self.component_distribution.variance) + self._mean_of(distances.pow(2.0))

    def cdf(self, x: Any) -> Any:
        """The mean of the components'."""
        return tclient.sum(self.component_distribution.cdf(self._pad(x)) * self.mixture_distribution.probs, dim=-1)

    def log_prob(self, x: Any) -> Any:
        """The log of the mean of the densities."""
        if self._validate_args:
            self._validate_sample(x)
        log_prob = self.component_distribution.log_prob(self._pad(x))
        weights = tclient.log_softmax(self.mixture_distribution.logits, dim=-1)
        return tclient.logsumexp(log_prob + weights, dim=-1)

    def sample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn; all components draw, and one is taken."""
        dim = len(sample_shape) + len(self.batch_shape)
        with tclient.no_grad():
            chosen = self.mixture_distribution.sample(sample_shape)
            drawn = self.component_distribution.sample(sample_shape)
            ones = [1] * (len(self.event_shape) + 1)
            index = chosen.reshape((*chosen.shape, *ones))
            index = index.repeat((*[1] * chosen.dim(), 1, *self.event_shape))
            return tclient.gather(drawn, dim, index).squeeze(dim)

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self.mixture_distribution},\n  {self.component_distribution})"


__all__ = ["MixtureSameFamily"]
