"""Divergences within one family of distributions, from closed forms. Imported for what it registers."""

from __future__ import annotations

from typing import Any

import tclient
from tclient.distributions._core import EULER, sum_rightmost
from tclient.distributions.categorical import Categorical, OneHotCategorical
from tclient.distributions.continuous import Exponential, Gamma, Laplace, Normal, Uniform
from tclient.distributions.continuous_bernoulli import ContinuousBernoulli
from tclient.distributions.derived import Gumbel, HalfNormal, Pareto
from tclient.distributions.discrete import Bernoulli, Binomial, Geometric, Poisson
from tclient.distributions.distribution import ExponentialFamily
from tclient.distributions.heavy_tails import Cauchy
from tclient.distributions.kl import kl_divergence, register_kl
from tclient.distributions.lowrank_multivariate_normal import LowRankMultivariateNormal
from tclient.distributions.multivariate import Beta, Dirichlet, Independent, MultivariateNormal, mahalanobis
from tclient.distributions.transformed_distribution import TransformedDistribution


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


@register_kl(Binomial, Binomial)
def _binomial(p: Any, q: Any) -> Any:
    if (p.total_count < q.total_count).any():
        raise NotImplementedError("KL between Binomials where q.total_count > p.total_count is not implemented")
    of_one = p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p()
    return (p.total_count * of_one).masked_fill(p.total_count > q.total_count, tclient.inf)


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _continuous_bernoulli(p: Any, q: Any) -> Any:
    of_p = p._cont_bern_log_norm() + tclient.log1p(-p.probs)
    return p.mean * (p.logits - q.logits) + of_p - q._cont_bern_log_norm() - tclient.log1p(-q.probs)


@register_kl(ExponentialFamily, ExponentialFamily)
def _exponential_family(p: Any, q: Any) -> Any:
    """By the Bregman divergence of the log normalizers, for a family that has no form of its own here."""
    if type(p) is not type(q):
        raise NotImplementedError(
            "The cross KL-divergence between different exponential families cannot                             "
            "be computed using Bregman divergences"
        )
    of_p = [each.detach().requires_grad_() for each in p._natural_params]
    of_q = q._natural_params
    normalizer = p._log_normalizer(*of_p)
    gradients = tclient.autograd.grad(normalizer.sum(), of_p, create_graph=True)
    result = q._log_normalizer(*of_q) - normalizer
    for one, other, gradient in zip(of_p, of_q, gradients, strict=True):
        term = (other - one) * gradient
        # A parameter may have fewer dimensions than an event.
        result = result - sum_rightmost(term, min(len(q.event_shape), term.dim()))
    return result


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Any, q: Any) -> Any:
    ratio, of_q, of_p = p.scale / q.scale, q.loc / q.scale, p.loc / q.scale
    of_tails = tclient.exp(of_q + (1 + ratio).lgamma() - of_p)
    return -ratio.log() - of_q + of_p + ratio * EULER + of_tails - (1 + EULER)


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: Any, q: Any) -> Any:
    return _normal(p.base_dist, q.base_dist)


@register_kl(Pareto, Pareto)
def _pareto(p: Any, q: Any) -> Any:
    ratio = q.alpha / p.alpha
    result = q.alpha * (p.scale / q.scale).log() - ratio.log() + ratio - 1
    return result.masked_fill(p.scale < q.scale, tclient.inf)


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Any, q: Any) -> Any:
    squares = (p.scale + q.scale).pow(2) + (p.loc - q.loc).pow(2)
    return squares.log() - (4 * p.scale * q.scale).log()


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: Any, q: Any) -> Any:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError
    return kl_divergence(p.base_dist, q.base_dist)


def _sum_of_squares(matrix: Any) -> Any:
    return matrix.pow(2).sum((-2, -1))


def _verify_events(p: Any, q: Any) -> None:
    if p.event_shape != q.event_shape:
        kind = "Low Rank" if type(p) is type(q) else "(Low Rank)"
        raise ValueError(
            f"KL-divergence between two {kind} Multivariate Normals with                          "
            "different event shapes cannot be computed"
        )


def _log_det(p: Any) -> Any:
    if isinstance(p, LowRankMultivariateNormal):
        return p._log_det()
    return 2 * p._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


@register_kl(LowRankMultivariateNormal, LowRankMultivariateNormal)
def _low_ranks(p: Any, q: Any) -> Any:
    _verify_events(p, q)
    solved, diagonal = q._solved_factor(), q._unbroadcasted_cov_diag
    trace = (
        (p._unbroadcasted_cov_diag / diagonal).sum(-1)
        + _sum_of_squares(p._unbroadcasted_cov_factor * diagonal.rsqrt().unsqueeze(-1))
        - _sum_of_squares(solved * p._unbroadcasted_cov_diag.sqrt().unsqueeze(-2))
        - _sum_of_squares(solved.matmul(p._unbroadcasted_cov_factor))
    )
    return 0.5 * (_log_det(q) - _log_det(p) + trace + q._mahalanobis(q.loc - p.loc) - p.event_shape[0])


@register_kl(MultivariateNormal, LowRankMultivariateNormal)
def _normal_low_rank(p: Any, q: Any) -> Any:
    _verify_events(p, q)
    factor = p._unbroadcasted_scale_tril
    scaled = factor * q._unbroadcasted_cov_diag.rsqrt().unsqueeze(-1)
    trace = _sum_of_squares(scaled) - _sum_of_squares(q._solved_factor().matmul(factor))
    return 0.5 * (_log_det(q) - _log_det(p) + trace + q._mahalanobis(q.loc - p.loc) - p.event_shape[0])


@register_kl(LowRankMultivariateNormal, MultivariateNormal)
def _low_rank_normal(p: Any, q: Any) -> Any:
    _verify_events(p, q)
    factor = q._unbroadcasted_scale_tril
    parts = p._unbroadcasted_cov_factor, tclient.diag_embed(p._unbroadcasted_cov_diag.sqrt())
    one, other = (_sum_of_squares(tclient.linalg.solve_triangular(factor, part, upper=False)) for part in parts)
    distance = mahalanobis(factor, q.loc - p.loc)
    return 0.5 * (_log_det(q) - _log_det(p) + (one + other) + distance - p.event_shape[0])
