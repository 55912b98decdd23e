"""The normal distribution over vectors whose covariance is of low rank, beside its diagonal."""

from __future__ import annotations

import math
from typing import Any

import tclient
from tclient.distributions import constraints
from tclient.distributions._core import Size, broadcast_shape, lazy_property, standard_normal
from tclient.distributions.distribution import Distribution
from tclient.distributions.multivariate import mahalanobis


class LowRankMultivariateNormal(Distribution):
    """Normal vectors, of the covariance W Wᵀ + D: a factor W of few columns, and a diagonal D.

    Only matrices of as many rows as W has columns are factored; by the lemmas of Woodbury and of determinants.
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "cov_factor": constraints.independent(constraints.real, 2),
        "cov_diag": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True
    _parameters = {"loc": 1, "cov_factor": 2, "cov_diag": 1}
    _kept = ("_unbroadcasted_cov_factor", "_unbroadcasted_cov_diag", "_capacitance_tril")

    def __init__(self, loc: Any, cov_factor: Any, cov_diag: Any, validate_args: bool | None = None) -> None:
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        event_shape = loc.shape[-1:]
        if cov_factor.dim() < 2:
            raise ValueError("cov_factor must be at least two-dimensional, with optional leading batch dimensions")
        if cov_factor.shape[-2:-1] != event_shape:
            raise ValueError(f"cov_factor must be a batch of matrices with shape {event_shape[0]} x m")
        if cov_diag.shape[-1:] != event_shape:
            raise ValueError(f"cov_diag must be a batch of vectors with shape {event_shape}")
        try:
            batch_shape = broadcast_shape(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        except RuntimeError as error:
            raise ValueError(
                f"Incompatible batch shapes: loc {loc.shape}, cov_factor {cov_factor.shape}, cov_diag {cov_diag.shape}"
            ) from error
        self.loc = loc.expand((*batch_shape, -1))
        self.cov_factor = cov_factor.expand((*batch_shape, -1, -1))
        self.cov_diag = cov_diag.expand((*batch_shape, -1))
        self._unbroadcasted_cov_factor = cov_factor
        self._unbroadcasted_cov_diag = cov_diag
        rank = tclient.eye(cov_factor.shape[-1], dtype=cov_factor.dtype, device=cov_factor.device)
        self._capacitance_tril = tclient.linalg.cholesky(self._scaled_factor() @ cov_factor + rank)
        super().__init__(batch_shape, Size(event_shape), validate_args=validate_args)

    def _refusal(self, name: str, constraint: Any, value: Any) -> Any:
        refused = super()._refusal(name, constraint, value)

        def error() -> Exception:
            # torch factors before it looks at its arguments: where that fails, this is the error.
            self._capacitance_tril.size()
            return refused()

        return error

    def _scaled_factor(self) -> Any:
        """Wᵀ D⁻¹."""
        return self._unbroadcasted_cov_factor.mT / self._unbroadcasted_cov_diag.unsqueeze(-2)

    def _whole(self, matrix: Any) -> Any:
        return matrix.expand((*self._batch_shape, *self._event_shape, *self._event_shape))

    def _log_det(self) -> Any:
        of_rank = self._capacitance_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return 2 * of_rank + self._unbroadcasted_cov_diag.log().sum(-1)

    def _mahalanobis(self, distance: Any) -> Any:
        """The squared length of vectors, as the covariance measures it."""
        scaled = tclient.matmul(self._scaled_factor(), distance.unsqueeze(-1)).squeeze(-1)
        of_diagonal = (distance.pow(2) / self._unbroadcasted_cov_diag).sum(-1)
        return of_diagonal - mahalanobis(self._capacitance_tril, scaled)

    def _solved_factor(self) -> Any:
        return tclient.linalg.solve_triangular(self._capacitance_tril, self._scaled_factor(), upper=False)

    @property
    def mean(self) -> Any:
        """loc."""
        return self.loc

    @property
    def mode(self) -> Any:
        """loc."""
        return self.loc

    @lazy_property
    def variance(self) -> Any:
        """The diagonal of the covariance."""
        variance = self._unbroadcasted_cov_factor.pow(2).sum(-1) + self._unbroadcasted_cov_diag
        return variance.expand((*self._batch_shape, *self._event_shape))

    @lazy_property
    def scale_tril(self) -> Any:
        """The lower factor of the covariance."""
        root = self._unbroadcasted_cov_diag.sqrt().unsqueeze(-1)
        scaled = self._unbroadcasted_cov_factor / root
        identity = tclient.eye(self._event_shape[0], dtype=scaled.dtype, device=scaled.device)
        return self._whole(root * tclient.linalg.cholesky(tclient.matmul(scaled, scaled.mT) + identity))

    @lazy_property
    def covariance_matrix(self) -> Any:
        """W Wᵀ + D."""
        factor = self._unbroadcasted_cov_factor
        return self._whole(tclient.matmul(factor, factor.mT) + tclient.diag_embed(self._unbroadcasted_cov_diag))

    @lazy_property
    def precision_matrix(self) -> Any:
        """The inverse of the covariance."""
        solved = self._solved_factor()
        return self._whole(tclient.diag_embed(self._unbroadcasted_cov_diag.reciprocal()) - solved.mT @ solved)

    def rsample(self, sample_shape: Any = Size()) -> Any:
        """Values, drawn with a gradient."""
        shape = self._extended_shape(sample_shape)
        of_factor = standard_normal(self.loc, (*shape[:-1], self.cov_factor.shape[-1]))
        of_diagonal = standard_normal(self.loc, shape)
        by_factor = tclient.matmul(self._unbroadcasted_cov_factor, of_factor.unsqueeze(-1)).squeeze(-1)
        return self.loc + by_factor + self._unbroadcasted_cov_diag.sqrt() * of_diagonal

    def log_prob(self, value: Any) -> Any:
        """The log of the density."""
        if self._validate_args:
            self._validate_sample(value)
        distance = self._mahalanobis(value - self.loc)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + self._log_det() + distance)

    def entropy(self) -> Any:
        """By the determinant."""
        entropy = 0.5 * (self._event_shape[0] * (1.0 + math.log(2 * math.pi)) + self._log_det())
        return entropy.expand(self._batch_shape) if self._batch_shape else entropy


__all__ = ["LowRankMultivariateNormal"]
