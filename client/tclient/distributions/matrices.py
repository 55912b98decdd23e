"""Distributions over matrices: covariances, and factors of correlation matrices."""

from __future__ import annotations

import math
import warnings
from typing import Any

import tclient
from tclient.distributions import constraints
from tclient.distributions._core import (
    Number,
    Size,
    broadcast_all,
    broadcast_shape,
    lazy_property,
    one_wait,
    standard_normal,
    verify,
)
from tclient.distributions.distribution import Distribution, ExponentialFamily
from tclient.distributions.heavy_tails import Chi2
from tclient.distributions.multivariate import Beta, precision_to_scale_tril

_LOG_2 = math.log(2)


class LKJCholesky(Distribution):
    """Over lower factors of correlation matrices; all are as probable at a concentration of 1.

    Drawn by the onion method. Source: Lewandowski, Kurowicka and Joe (2009).
    """

    arg_constraints = {"concentration": constraints.positive}
    support = constraints.corr_cholesky

    def __init__(self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None) -> None:
        if dim < 2:
            raise ValueError(f"Expected dim to be an integer greater than or equal to 2. Found dim={dim}.")
        self.dim = dim
        (self.concentration,) = broadcast_all(concentration)
        like = {"dtype": self.concentration.dtype, "device": self.concentration.device}
        offset = tclient.arange(-1, dim - 1, **like).clamp(min=0)
        of_margin = self.concentration + 0.5 * (dim - 2)
        with one_wait():
            self._beta = Beta(offset + 0.5, of_margin.unsqueeze(-1) - 0.5 * offset)
            super().__init__(self.concentration.size, Size((dim, dim)), validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution, repeated to a batch shape."""
        new = self._get_checked_instance(LKJCholesky, _instance)
        batch_shape = Size(batch_shape)
        new.dim = self.dim
        new.concentration = self.concentration.expand(batch_shape)
        new._beta = self._beta.expand(Size((*batch_shape, self.dim)))
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def sample(self, sample_shape: Any = Size()) -> Any:
        """Factors, drawn row by row: a length, and a direction."""
        lengths = self._beta.sample(sample_shape).unsqueeze(-1)
        drawn = standard_normal(lengths, self._extended_shape(sample_shape)).tril(-1)
        directions = drawn / drawn.norm(dim=-1, keepdim=True)
        # The first row has no direction.
        directions[..., 0, :] = 0.0
        rows = tclient.sqrt(lengths) * directions
        rest = tclient.clamp(1 - tclient.sum(rows**2, dim=-1), min=tclient.finfo(rows.dtype).tiny)
        return rows + tclient.diag_embed(rest.sqrt())

    def log_prob(self, value: Any) -> Any:
        """The log of the density, by the diagonal."""
        if self._validate_args:
            self._validate_sample(value)
        diagonal = value.diagonal(dim1=-1, dim2=-2)[..., 1:]
        order = tclient.arange(2, self.dim + 1, device=self.concentration.device)
        order = 2 * (self.concentration - 1).unsqueeze(-1) + self.dim - order
        count = self.dim - 1
        alpha = self.concentration + 0.5 * count
        normalizer = 0.5 * count * math.log(math.pi) + tclient.mvlgamma(alpha - 0.5, count)
        return tclient.sum(order * diagonal.log(), dim=-1) - (normalizer - tclient.lgamma(alpha) * count)


class Wishart(ExponentialFamily):
    """Over covariance matrices: of sums of df outer products of normal vectors.

    Raises: ValueError where df is not above the number of dimensions less 1. Drawn by Bartlett's decomposition.
    """

    support = constraints.positive_definite
    has_rsample = True
    _mean_carrier_measure = 0

    def __init__(
        self,
        df: Any,
        covariance_matrix: Any = None,
        precision_matrix: Any = None,
        scale_tril: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        matrices = {"covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix}
        matrices["scale_tril"] = scale_tril
        given = {name: matrix for name, matrix in matrices.items() if matrix is not None}
        if len(given) != 1:
            raise AssertionError("Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified.")
        ((name, matrix),) = given.items()
        if matrix.dim() < 2:
            raise ValueError("scale_tril must be at least two-dimensional, with optional leading batch dimensions")
        if isinstance(df, Number):
            batch_shape = Size(matrix.shape[:-2])
            self.df = tclient.tensor(df, dtype=matrix.dtype, device=matrix.device)
        else:
            batch_shape = broadcast_shape(matrix.shape[:-2], df.shape)
            self.df = df.expand(batch_shape)
        event_shape = Size(matrix.shape[-2:])
        least = event_shape[-1] - 1
        verify(
            [
                (
                    ~self.df.le(least),
                    lambda: ValueError(f"Value of df={df} expected to be greater than ndim - 1 = {least}."),
                )
            ]
        )
        setattr(self, name, matrix.expand((*batch_shape, -1, -1)))
        if self.df.lt(event_shape[-1]).any():
            warnings.warn(
                "Low df values detected. Singular samples are highly likely to occur for ndim - 1 < df < ndim.",
                stacklevel=2,
            )
        super().__init__(batch_shape, event_shape, validate_args=validate_args)
        if name == "scale_tril":
            self._unbroadcasted_scale_tril = matrix
        elif name == "covariance_matrix":
            self._unbroadcasted_scale_tril = tclient.linalg.cholesky(matrix)
        else:
            self._unbroadcasted_scale_tril = precision_to_scale_tril(matrix)
        self._take_chi2()

    @property
    def arg_constraints(self) -> dict[str, Any]:
        """df must be enough for the dimensions."""
        return {
            "covariance_matrix": constraints.positive_definite,
            "precision_matrix": constraints.positive_definite,
            "scale_tril": constraints.lower_cholesky,
            "df": constraints.greater_than(self.event_shape[-1] - 1),
        }

    def _take_chi2(self) -> None:
        """The distributions of the squares on the diagonal, each with one degree of freedom less."""
        factor = self._unbroadcasted_scale_tril
        numbers = tclient.arange(self._event_shape[-1], dtype=factor.dtype, device=factor.device)
        self._dist_chi2 = Chi2(df=self.df.unsqueeze(-1) - numbers.expand((*self._batch_shape, -1)))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution, repeated to a batch shape."""
        new = self._get_checked_instance(Wishart, _instance)
        batch_shape = Size(batch_shape)
        shape = (*batch_shape, *self.event_shape)
        new._unbroadcasted_scale_tril = self._unbroadcasted_scale_tril.expand(shape)
        new.df = self.df.expand(batch_shape)
        for name in ("covariance_matrix", "scale_tril", "precision_matrix"):
            if name in self.__dict__:
                setattr(new, name, self.__dict__[name].expand(shape))
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        new._take_chi2()
        return new

    def _whole(self, matrix: Any) -> Any:
        return matrix.expand((*self._batch_shape, *self._event_shape))

    @lazy_property
    def scale_tril(self) -> Any:
        """The lower factor of the covariance."""
        return self._whole(self._unbroadcasted_scale_tril)

    @lazy_property
    def covariance_matrix(self) -> Any:
        """The covariance of the normal vectors."""
        factor = self._unbroadcasted_scale_tril
        return self._whole(factor @ factor.transpose(-2, -1))

    @lazy_property
    def precision_matrix(self) -> Any:
        """The inverse of the covariance."""
        factor = self._unbroadcasted_scale_tril
        identity = tclient.eye(self._event_shape[-1], device=factor.device, dtype=factor.dtype)
        return self._whole(tclient.cholesky_solve(identity, factor))

    def _as_matrices(self, numbers: Any) -> Any:
        return numbers.view((*self._batch_shape, 1, 1))

    @property
    def mean(self) -> Any:
        """df times the covariance."""
        return self._as_matrices(self.df) * self.covariance_matrix

    @property
    def mode(self) -> Any:
        """Where df is above the number of dimensions by more than 1; else nan."""
        factor = self.df - self.covariance_matrix.shape[-1] - 1
        return self._as_matrices(factor.masked_fill(factor <= 0, tclient.nan)) * self.covariance_matrix

    @property
    def variance(self) -> Any:
        """Of each element by itself."""
        covariance = self.covariance_matrix
        diagonal = covariance.diagonal(dim1=-2, dim2=-1)
        products = tclient.einsum("...i,...j->...ij", diagonal, diagonal)
        return self._as_matrices(self.df) * (covariance.pow(2) + products)

    def _drawn(self, sample_shape: Any) -> Any:
        p = self._event_shape[-1]
        lengths = self._dist_chi2.rsample(sample_shape).sqrt()
        lengths = lengths.clamp(min=tclient.finfo(lengths.dtype).eps)
        noise = lengths.diag_embed(dim1=-2, dim2=-1)
        rows, columns = tclient.tril_indices(p, p, offset=-1)
        below = standard_normal(noise, (*sample_shape, *self._batch_shape, p * (p - 1) // 2))
        noise[..., rows, columns] = below
        factor = self._unbroadcasted_scale_tril @ noise
        return factor @ factor.transpose(-2, -1)

    def _of_any(self, flags: Any) -> Any:
        """Whether it holds for any of the batch."""
        dims = [-(number + 1) for number in range(len(self._batch_shape))]
        return flags.amax(dims) if dims else flags

    def rsample(self, sample_shape: Any = Size(), max_try_correction: int | None = None) -> Any:
        """Matrices, drawn with a gradient.

        As in torch, the first draw of what is not singular counts as singular: it is drawn anew, with a warning.
        """
        sample_shape = Size(sample_shape)
        sample = self._drawn(sample_shape)
        again = self._of_any(self.support.check(sample))
        if again.any():
            warnings.warn("Singular sample detected.", stacklevel=2)
            for _ in range(10 if max_try_correction is None else max_try_correction):
                drawn = self._drawn(again[again].shape)
                sample[again] = drawn
                again[again.clone()] = self._of_any(~self.support.check(drawn))
                if not again.any():
                    break
        return sample

    def _half_log_det(self) -> Any:
        return self._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Any) -> Any:
        """The log of the density."""
        if self._validate_args:
            self._validate_sample(value)
        p = self._event_shape[-1]
        solved = tclient.cholesky_solve(value, self._unbroadcasted_scale_tril)
        return (
            -self.df * (p * _LOG_2 / 2 + self._half_log_det())
            - tclient.mvlgamma(self.df / 2, p=p)
            + (self.df - p - 1) / 2 * tclient.linalg.slogdet(value).logabsdet
            - solved.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / 2
        )

    def entropy(self) -> Any:
        """By the digamma function."""
        p, half = self._event_shape[-1], self.df / 2
        steps = tclient.arange(p, dtype=half.dtype, device=half.device).div(2)
        digammas = tclient.digamma(half.unsqueeze(-1) - steps).sum(-1)
        return (
            (p + 1) * (p * _LOG_2 / 2 + self._half_log_det())
            + tclient.mvlgamma(half, p=p)
            - (self.df - p - 1) / 2 * digammas
            + self.df * p / 2
        )

    @property
    def _natural_params(self) -> tuple[Any, ...]:
        return -self.precision_matrix / 2, (self.df - self._event_shape[-1] - 1) / 2

    def _log_normalizer(self, x: Any, y: Any) -> Any:
        p = self._event_shape[-1]
        half = y + (p + 1) / 2
        return half * (-tclient.linalg.slogdet(-2 * x).logabsdet + _LOG_2 * p) + tclient.mvlgamma(half, p=p)


__all__ = ["LKJCholesky", "Wishart"]
