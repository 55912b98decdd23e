"""Divergences between different families of distributions, from closed forms. Imported for what it registers."""

from __future__ import annotations

import math
from typing import Any

import tclient
from tclient.distributions._core import EULER
from tclient.distributions.continuous import Exponential, Gamma, Laplace, Normal, Uniform
from tclient.distributions.continuous_bernoulli import ContinuousBernoulli
from tclient.distributions.derived import Gumbel, Pareto
from tclient.distributions.discrete import Bernoulli, Binomial, Poisson
from tclient.distributions.kl import register_kl
from tclient.distributions.multivariate import Beta

_WIDE = (Beta, ContinuousBernoulli, Exponential, Gamma, Pareto, Uniform)
# Where p has values that q has not, the divergence is infinite; of the shape of a parameter of p.
_INFINITE: dict[type[Any], tuple[str, tuple[type[Any], ...]]] = {
    Beta: ("concentration1", (Pareto,)),
    ContinuousBernoulli: ("probs", (Pareto,)),
    Exponential: ("rate", (Beta, ContinuousBernoulli, Pareto, Uniform)),
    Gamma: ("concentration", (Beta, ContinuousBernoulli, Pareto, Uniform)),
    Gumbel: ("loc", _WIDE),
    Laplace: ("loc", _WIDE),
    Normal: ("loc", _WIDE),
    Pareto: ("scale", (Beta, ContinuousBernoulli, Uniform)),
    Poisson: ("rate", (Bernoulli, Binomial)),
}


def _infinite(parameter: str) -> Any:
    return lambda p, q: tclient.full_like(getattr(p, parameter), tclient.inf)


for _p, (_parameter, _qs) in _INFINITE.items():
    for _q in _qs:
        register_kl(_p, _q)(_infinite(_parameter))


def _x_log_x(x: Any) -> Any:
    return tclient.special.xlogy(x, x)


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Any, q: Any) -> Any:
    return -p.entropy() - (p.probs * q.rate.log() - q.rate)


@register_kl(Beta, ContinuousBernoulli)
def _beta_continuous_bernoulli(p: Any, q: Any) -> Any:
    return -p.entropy() - p.mean * q.logits - tclient.log1p(-q.probs) - q._cont_bern_log_norm()


@register_kl(Beta, Exponential)
def _beta_exponential(p: Any, q: Any) -> Any:
    return -p.entropy() - q.rate.log() + q.rate * p.mean


@register_kl(Beta, Gamma)
def _beta_gamma(p: Any, q: Any) -> Any:
    normalizer = q.concentration.lgamma() - q.concentration * q.rate.log()
    digammas = p.concentration1.digamma() - (p.concentration1 + p.concentration0).digamma()
    return -p.entropy() + normalizer - (q.concentration - 1) * digammas + q.rate * p.mean


@register_kl(Beta, Normal)
def _beta_normal(p: Any, q: Any) -> Any:
    mean, variance = p.mean, q.scale.pow(2)
    square = mean * (1 - mean) / (p.concentration1 + p.concentration0 + 1) + mean.pow(2)
    distance = square * 0.5 - q.loc * mean + q.loc.pow(2) * 0.5
    return -p.entropy() + 0.5 * (variance * 2 * math.pi).log() + distance / variance


@register_kl(Beta, Uniform)
def _beta_uniform(p: Any, q: Any) -> Any:
    result = -p.entropy() + (q.high - q.low).log()
    return result.masked_fill((q.low > 0.0) | (q.high < 1.0), tclient.inf)


@register_kl(ContinuousBernoulli, Exponential)
def _continuous_bernoulli_exponential(p: Any, q: Any) -> Any:
    return -p.entropy() - tclient.log(q.rate) + q.rate * p.mean


@register_kl(ContinuousBernoulli, Normal)
def _continuous_bernoulli_normal(p: Any, q: Any) -> Any:
    normalizer = 0.5 * (math.log(2.0 * math.pi) + tclient.square(q.loc / q.scale)) + tclient.log(q.scale)
    mean = p.mean
    distance = p.variance + tclient.square(mean) - 2.0 * q.loc * mean
    return -p.entropy() + normalizer + distance / (2.0 * tclient.square(q.scale))


@register_kl(ContinuousBernoulli, Uniform)
def _continuous_bernoulli_uniform(p: Any, q: Any) -> Any:
    result = -p.entropy() + (q.high - q.low).log()
    # As in torch, the bounds 0 and 1 themselves count as outside.
    return tclient.where((q.low >= 0.0) | (q.high <= 1.0), tclient.inf, result)


@register_kl(Exponential, Gamma)
def _exponential_gamma(p: Any, q: Any) -> Any:
    ratio = q.rate / p.rate
    return -q.concentration * ratio.log() + ratio + q.concentration.lgamma() + q.concentration * EULER - (1 + EULER)


@register_kl(Exponential, Gumbel)
def _exponential_gumbel(p: Any, q: Any) -> Any:
    product, place = p.rate * q.scale, q.loc / q.scale
    of_tails = tclient.exp(place) * product / (product + 1)
    return product.log() - 1 - place + of_tails + product.reciprocal()


@register_kl(Exponential, Normal)
def _exponential_normal(p: Any, q: Any) -> Any:
    variance, square = q.scale.pow(2), p.rate.pow(2)
    distance = square.reciprocal() - q.loc / p.rate + q.loc.pow(2) * 0.5
    return 0.5 * tclient.log(square * variance * 2 * math.pi) - 1 + distance / variance


@register_kl(Gamma, Exponential)
def _gamma_exponential(p: Any, q: Any) -> Any:
    return -p.entropy() - q.rate.log() + q.rate * p.concentration / p.rate


@register_kl(Gamma, Gumbel)
def _gamma_gumbel(p: Any, q: Any) -> Any:
    product, place = p.rate * q.scale, q.loc / q.scale
    of_p = (p.concentration - 1) * p.concentration.digamma() - p.concentration.lgamma() - p.concentration
    of_tails = tclient.exp(place) * (1 + product.reciprocal()).pow(-p.concentration) - place
    return of_p + (product.log() + p.concentration / product) + of_tails


@register_kl(Gamma, Normal)
def _gamma_normal(p: Any, q: Any) -> Any:
    variance, square = q.scale.pow(2), p.rate.pow(2)
    normalizer = 0.5 * tclient.log(square * variance * 2 * math.pi) - p.concentration - p.concentration.lgamma()
    distance = (
        0.5 * (p.concentration.pow(2) + p.concentration) / square
        - q.loc * p.concentration / p.rate
        + 0.5 * q.loc.pow(2)
    )
    return normalizer + (p.concentration - 1) * p.concentration.digamma() + distance / variance


@register_kl(Gumbel, Normal)
def _gumbel_normal(p: Any, q: Any) -> Any:
    ratio = p.scale / q.scale
    of_scales = (math.pi * ratio * 0.5).pow(2) / 3
    of_places = ((p.loc + p.scale * EULER - q.loc) / q.scale).pow(2) * 0.5
    return -(ratio / math.sqrt(2 * math.pi)).log() + of_scales + of_places - (EULER + 1)


@register_kl(Laplace, Normal)
def _laplace_normal(p: Any, q: Any) -> Any:
    variance = q.scale.pow(2)
    ratio = p.scale.pow(2) / variance
    distance = 0.5 * p.loc.pow(2) - p.loc * q.loc + 0.5 * q.loc.pow(2)
    return -0.5 * tclient.log(2 * ratio / math.pi) + ratio + distance / variance - 1


@register_kl(Normal, Gumbel)
def _normal_gumbel(p: Any, q: Any) -> Any:
    mean, place, ratio = p.loc / q.scale, q.loc / q.scale, (p.scale / q.scale).pow(2)
    of_tails = tclient.exp(-mean + 0.5 * ratio + place)
    return -ratio.log() * 0.5 + (mean - place) + of_tails - 0.5 * (1 + math.log(2 * math.pi))


@register_kl(Normal, Laplace)
def _normal_laplace(p: Any, q: Any) -> Any:
    distance = p.loc - q.loc
    ratio = distance / p.scale
    near = math.sqrt(2 / math.pi) * p.scale * tclient.exp(-0.5 * ratio.pow(2))
    far = distance * tclient.erf(math.sqrt(0.5) * ratio)
    return -tclient.log(p.scale / q.scale) + (near + far) / q.scale - 0.5 * (1 + math.log(0.5 * math.pi))


@register_kl(Pareto, Exponential)
def _pareto_exponential(p: Any, q: Any) -> Any:
    product = p.scale * q.rate
    result = (p.alpha / product).log() - p.alpha.reciprocal() + p.alpha * product / (p.alpha - 1) - 1
    return result.masked_fill(p.alpha <= 1, tclient.inf)


@register_kl(Pareto, Gamma)
def _pareto_gamma(p: Any, q: Any) -> Any:
    common = p.scale.log() + p.alpha.reciprocal()
    normalizer = q.concentration.lgamma() - q.concentration * q.rate.log()
    of_mean = q.rate * p.alpha * p.scale / (p.alpha - 1)
    result = (p.alpha.log() - common) + normalizer + (1 - q.concentration) * common + of_mean - 1
    return result.masked_fill(p.alpha <= 1, tclient.inf)


@register_kl(Pareto, Normal)
def _pareto_normal(p: Any, q: Any) -> Any:
    variance, common = 2 * q.scale.pow(2), p.scale / (p.alpha - 1)
    distance = p.alpha * common.pow(2) / (p.alpha - 2) + (p.alpha * common - q.loc).pow(2)
    normalizer = (math.sqrt(2 * math.pi) * q.scale * p.alpha / p.scale).log()
    result = normalizer - p.alpha.reciprocal() + distance / variance - 1
    return result.masked_fill(p.alpha <= 2, tclient.inf)


@register_kl(Uniform, Beta)
def _uniform_beta(p: Any, q: Any) -> Any:
    width = p.high - p.low
    of_one = (q.concentration1 - 1) * (_x_log_x(p.high) - _x_log_x(p.low) - width) / width
    of_zero = (q.concentration0 - 1) * (_x_log_x(1 - p.high) - _x_log_x(1 - p.low) + width) / width
    normalizer = q.concentration1.lgamma() + q.concentration0.lgamma() - (q.concentration1 + q.concentration0).lgamma()
    result = of_zero + normalizer - tclient.log(width) - of_one
    return result.masked_fill((p.high > 1.0) | (p.low < 0.0), tclient.inf)


@register_kl(Uniform, ContinuousBernoulli)
def _uniform_continuous_bernoulli(p: Any, q: Any) -> Any:
    result = -p.entropy() - p.mean * q.logits - tclient.log1p(-q.probs) - q._cont_bern_log_norm()
    # As in torch, the bounds 0 and 1 themselves count as outside.
    return tclient.where((p.high >= 1.0) | (p.low <= 0.0), tclient.inf, result)


@register_kl(Uniform, Exponential)
def _uniform_exponential(p: Any, q: Any) -> Any:
    result = q.rate * (p.high + p.low) / 2 - ((p.high - p.low) * q.rate).log()
    return result.masked_fill(p.low < 0.0, tclient.inf)


@register_kl(Uniform, Gamma)
def _uniform_gamma(p: Any, q: Any) -> Any:
    width = p.high - p.low
    normalizer = q.concentration.lgamma() - q.concentration * q.rate.log()
    of_log = (1 - q.concentration) * (_x_log_x(p.high) - _x_log_x(p.low) - width) / width
    result = -width.log() + normalizer + of_log + q.rate * (p.high + p.low) / 2
    return result.masked_fill(p.low < 0.0, tclient.inf)


@register_kl(Uniform, Gumbel)
def _uniform_gumbel(p: Any, q: Any) -> Any:
    ratio = q.scale / (p.high - p.low)
    high, low = (p.high - q.loc) / q.scale, (p.low - q.loc) / q.scale
    return ratio.log() + 0.5 * (high + low) - ratio * (tclient.exp(-high) - tclient.exp(-low))


@register_kl(Uniform, Normal)
def _uniform_normal(p: Any, q: Any) -> Any:
    width = p.high - p.low
    spread = width.pow(2) / 12 + ((p.high + p.low - 2 * q.loc) / 2).pow(2)
    return (math.sqrt(math.pi * 2) * q.scale / width).log() + 0.5 * spread / q.scale.pow(2)


@register_kl(Uniform, Pareto)
def _uniform_pareto(p: Any, q: Any) -> Any:
    width = p.high - p.low
    of_q = (q.alpha * q.scale.pow(q.alpha) * width).log()
    of_log = (_x_log_x(p.high) - _x_log_x(p.low) - width) / width
    result = of_log * (q.alpha + 1) - of_q
    return result.masked_fill(p.low < q.scale, tclient.inf)
