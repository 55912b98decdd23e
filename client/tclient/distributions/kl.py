"""Kullback–Leibler divergences: a table of pairs of classes, and functions from closed forms.

Knows the distributions; draws nothing.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import tclient
from tclient.distributions._core import sum_rightmost
from tclient.distributions.categorical import Categorical, OneHotCategorical
from tclient.distributions.continuous import Exponential, Gamma, Laplace, Normal, Uniform
from tclient.distributions.discrete import Bernoulli, Geometric, Poisson
from tclient.distributions.distribution import Distribution
from tclient.distributions.multivariate import Beta, Dirichlet, Independent, MultivariateNormal, mahalanobis

Divergence = Callable[[Any, Any], Any]
_REGISTRY: dict[tuple[type[Any], type[Any]], Divergence] = {}
_FOUND: dict[tuple[type[Any], type[Any]], Divergence] = {}

__all__ = ["kl_divergence", "register_kl"]


def register_kl(type_p: type[Any], type_q: type[Any]) -> Callable[[Divergence], Divergence]:
    """Decorates the function that gives the divergence of two classes, and of what is derived from them.

    Raises: TypeError for what is no class of distributions.
    """
    if not issubclass(type_p, Distribution):
        raise TypeError(f"Expected type_p to be a Distribution subclass but got {type_p}")
    if not issubclass(type_q, Distribution):
        raise TypeError(f"Expected type_q to be a Distribution subclass but got {type_q}")

    def register(function: Divergence) -> Divergence:
        _REGISTRY[type_p, type_q] = function
        _FOUND.clear()
        return function

    return register


def _nearest(type_p: type[Any], type_q: type[Any]) -> Divergence:
    """The function of the pair that is nearest to these classes. Raises: NotImplementedError where there is none."""
    fitting = [pair for pair in _REGISTRY if issubclass(type_p, pair[0]) and issubclass(type_q, pair[1])]
    if not fitting:
        raise NotImplementedError
    p_first = min(fitting, key=lambda pair: (type_p.__mro__.index(pair[0]), type_q.__mro__.index(pair[1])))
    q_first = min(fitting, key=lambda pair: (type_q.__mro__.index(pair[1]), type_p.__mro__.index(pair[0])))
    found = _REGISTRY[p_first]
    if found is not _REGISTRY[q_first]:
        warnings.warn(
            f"Ambiguous kl_divergence({type_p.__name__}, {type_q.__name__}). "
            f"Please register_kl({p_first[0].__name__}, {q_first[1].__name__})",
            RuntimeWarning,
            stacklevel=3,
        )
    return found


def kl_divergence(p: Distribution, q: Distribution) -> Any:
    """KL(p ‖ q), of each distribution of the batch.

    Raises: NotImplementedError where no function is registered for the two classes.
    """
    pair = type(p), type(q)
    found = _FOUND.get(pair)
    if found is None:
        try:
            found = _FOUND[pair] = _nearest(*pair)
        except NotImplementedError:
            raise NotImplementedError(
                f"No KL(p || q) is implemented for p type {p.__class__.__name__} and q type {q.__class__.__name__}"
            ) from None
    return found(p, q)


@register_kl(Normal, Normal)
def _normal(p: Any, q: Any) -> Any:
    ratio = (p.scale / q.scale).pow(2)
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).pow(2) - 1 - ratio.log())


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Any, q: Any) -> Any:
    softplus = tclient.nn.functional.softplus
    of_one = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    of_zero = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    infinite = ((q.probs == 0) & (p.probs > 0)) | ((q.probs == 1) & (p.probs < 1))
    one = of_one.masked_fill(p.probs == 0, 0)
    zero = of_zero.masked_fill(p.probs == 1, 0)
    return (one + zero).masked_fill(infinite, tclient.inf)


@register_kl(Categorical, Categorical)
def _categorical(p: Any, q: Any) -> Any:
    terms = p.probs * (p.logits - q.logits)
    terms = terms.masked_fill((q.probs == 0).expand_as(terms), tclient.inf)
    return terms.masked_fill((p.probs == 0).expand_as(terms), 0).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: Any, q: Any) -> Any:
    return _categorical(p._categorical, q._categorical)


@register_kl(Beta, Beta)
def _beta(p: Any, q: Any) -> Any:
    of_p, of_q = p.concentration1 + p.concentration0, q.concentration1 + q.concentration0
    normalizers = (q.concentration1.lgamma() + q.concentration0.lgamma() + of_p.lgamma()) - (
        p.concentration1.lgamma() + p.concentration0.lgamma() + of_q.lgamma()
    )
    of_one = (p.concentration1 - q.concentration1) * tclient.digamma(p.concentration1)
    of_zero = (p.concentration0 - q.concentration0) * tclient.digamma(p.concentration0)
    return normalizers + of_one + of_zero + (of_q - of_p) * tclient.digamma(of_p)


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Any, q: Any) -> Any:
    total = p.concentration.sum(-1)
    of_totals = total.lgamma() - q.concentration.sum(-1).lgamma()
    of_each = (p.concentration.lgamma() - q.concentration.lgamma()).sum(-1)
    digammas = p.concentration.digamma() - total.digamma().unsqueeze(-1)
    return of_totals - of_each + ((p.concentration - q.concentration) * digammas).sum(-1)


@register_kl(Gamma, Gamma)
def _gamma(p: Any, q: Any) -> Any:
    return (
        q.concentration * (p.rate / q.rate).log()
        + tclient.lgamma(q.concentration)
        - tclient.lgamma(p.concentration)
        + (p.concentration - q.concentration) * tclient.digamma(p.concentration)
        + (q.rate - p.rate) * (p.concentration / p.rate)
    )


@register_kl(Exponential, Exponential)
def _exponential(p: Any, q: Any) -> Any:
    ratio = q.rate / p.rate
    return -ratio.log() + ratio - 1


@register_kl(Laplace, Laplace)
def _laplace(p: Any, q: Any) -> Any:
    ratio, distance = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + distance / q.scale + ratio * tclient.exp(-distance / p.scale) - 1


@register_kl(Uniform, Uniform)
def _uniform(p: Any, q: Any) -> Any:
    result = ((q.high - q.low) / (p.high - p.low)).log()
    return result.masked_fill((q.low > p.low) | (q.high < p.high), tclient.inf)


@register_kl(Poisson, Poisson)
def _poisson(p: Any, q: Any) -> Any:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(Geometric, Geometric)
def _geometric(p: Any, q: Any) -> Any:
    return -p.entropy() - tclient.log1p(-q.probs) / p.probs - q.logits


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_normal(p: Any, q: Any) -> Any:
    if p.event_shape != q.event_shape:
        raise ValueError(
            "KL-divergence between two Multivariate Normals with                          "
            "different event shapes cannot be computed"
        )
    factor_p, factor_q = p._unbroadcasted_scale_tril, q._unbroadcasted_scale_tril
    half_dets = factor_q.diagonal(dim1=-2, dim2=-1).log().sum(-1) - factor_p.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    trace = tclient.linalg.solve_triangular(factor_q, factor_p, upper=False).pow(2).sum((-2, -1))
    return half_dets + 0.5 * (trace + mahalanobis(factor_q, q.loc - p.loc) - p.event_shape[0])


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Any:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(Uniform, Normal)
def _uniform_normal(p: Any, q: Any) -> Any:
    width = p.high - p.low
    spread = width.pow(2) / 12 + ((p.high + p.low - 2 * q.loc) / 2).pow(2)
    return (math.sqrt(math.pi * 2) * q.scale / width).log() + 0.5 * spread / q.scale.pow(2)


@register_kl(Exponential, Gamma)
def _exponential_gamma(p: Any, q: Any) -> Any:
    ratio = q.rate / p.rate
    euler = 0.57721566490153286060
    return -q.concentration * ratio.log() + ratio + q.concentration.lgamma() + q.concentration * euler - (1 + euler)
