"""Parametrizations of torch's own: a norm and a direction, a largest singular value of one, orthogonal matrices.

Knows the formulas; the arithmetic is the server's, and nothing here waits for it but where a shape is asked for.
"""

from __future__ import annotations

from typing import Any

import tclient
from tclient.nn import functional as F
from tclient.nn._core import Tensor
from tclient.nn.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from tclient.nn.module import Module
from tclient.nn.utils import parametrize

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]

_MAPS = ("matrix_exp", "cayley", "householder")


def _tensor_of(module: Module, name: str) -> Tensor:
    tensor = getattr(module, name, None)
    if not isinstance(tensor, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    return tensor


def _is_orthogonal(matrix: Tensor) -> bool:
    rows, columns = matrix.size(-2), matrix.size(-1)
    identity = tclient.eye(columns, dtype=matrix.dtype, device=matrix.device)
    tolerance = 10.0 * rows * tclient.finfo(matrix.dtype).eps
    return bool(tclient.allclose(matrix.mH @ matrix, identity, atol=tolerance))


def _made_orthogonal(matrix: Tensor) -> Tensor:
    """The orthogonal factor of a QR decomposition whose other factor has a positive diagonal."""
    reflectors, tau = tclient.geqrf(matrix)
    factor: Tensor = tclient.linalg.householder_product(reflectors, tau)
    return factor * reflectors.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)


class _Orthogonal(Module):
    """A matrix with orthonormal columns, or rows if there are fewer of them."""

    base: Tensor | None

    def __init__(self, weight: Tensor, orthogonal_map: str, *, use_trivialization: bool = True) -> None:
        super().__init__()
        if orthogonal_map == "householder" and weight.is_complex():
            raise ValueError("The householder parametrization does not support complex tensors.")
        self.shape = weight.shape
        self.orthogonal_map = orthogonal_map
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, x: Tensor) -> Tensor:
        """The matrix."""
        rows, columns = x.size(-2), x.size(-1)
        wide = rows < columns
        if wide:
            x = x.mT
            rows, columns = columns, rows
        made = self._reflected(x) if self.orthogonal_map == "householder" else self._mapped(x, rows, columns)
        base = self._buffers.get("base")
        if base is not None:
            made = base @ made
        return made.mT if wide else made

    def _mapped(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Of a skew-symmetric matrix, by the exponential or Cayley's map."""
        x = x.tril()
        if rows != columns:
            filled = x.new_zeros(rows, rows - columns).expand(*x.shape[:-2], -1, -1)
            x = tclient.cat([x, filled], dim=-1)
        skew = x - x.mH
        if self.orthogonal_map == "matrix_exp":
            made: Tensor = tclient.matrix_exp(skew)
        else:
            identity = tclient.eye(rows, dtype=skew.dtype, device=skew.device)
            made = tclient.linalg.solve(tclient.add(identity, skew, alpha=-0.5), tclient.add(identity, skew, alpha=0.5))
        return made if rows == columns else made[..., :columns]

    def _reflected(self, x: Tensor) -> Tensor:
        """A product of reflections."""
        vectors = x.tril(diagonal=-1)
        tau = 2.0 / (1.0 + (vectors * vectors).sum(dim=-2))
        made: Tensor = tclient.linalg.householder_product(vectors, tau)
        return made * x.diagonal(dim1=-2, dim2=-1).int().unsqueeze(-2)

    @tclient.no_grad()
    def right_inverse(self, matrix: Tensor) -> Tensor:
        """What gives this matrix, or the orthogonal one of its QR decomposition."""
        if matrix.shape != self.shape:
            raise ValueError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. Got a tensor of shape {matrix.shape}."
            )
        wide = matrix.size(-2) < matrix.size(-1)
        tall = matrix.mT if wide else matrix
        rows, columns = tall.size(-2), tall.size(-1)
        if "base" not in self._buffers:
            if self.orthogonal_map != "householder":
                raise NotImplementedError(
                    "It is not possible to assign to the matrix exponential or the Cayley parametrizations when "
                    "use_trivialization=False."
                )
            reflectors, tau = tclient.geqrf(tall)
            diagonal = reflectors.diagonal(dim1=-2, dim2=-1)
            diagonal.sign_()
            diagonal[tau == 0.0] *= -1
            return reflectors.mT if wide else reflectors
        if rows == columns:
            self.base = tall.clone() if _is_orthogonal(tall) else _made_orthogonal(tall)
        else:
            more = tclient.randn(*tall.size()[:-2], rows, rows - columns, dtype=tall.dtype, device=tall.device)
            self.base = _made_orthogonal(tclient.cat([tall, more], dim=-1))
        negative = tclient.zeros_like(matrix)
        negative.diagonal(dim1=-2, dim2=-1).fill_(-1.0)
        return negative


def orthogonal(
    module: Module, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> Module:
    """Has a parameter be orthogonal, or unitary, whatever the optimiser does."""
    weight = _tensor_of(module, name)
    if weight.ndim < 2:
        raise ValueError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions.")
    if orthogonal_map is None:
        square = weight.size(-2) == weight.size(-1)
        orthogonal_map = "matrix_exp" if square or weight.is_complex() else "householder"
    if orthogonal_map not in _MAPS:
        raise ValueError(
            f'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: {orthogonal_map}'
        )
    made = _Orthogonal(weight, orthogonal_map, use_trivialization=use_trivialization)
    return parametrize.register_parametrization(module, name, made, unsafe=True)


class _WeightNorm(Module):
    """A norm and a direction."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        """The weight of that norm and that direction."""
        weight: Tensor = weight_v * (weight_g / tclient.norm_except_dim(weight_v, 2, self.dim))
        return weight

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Its norm, and the weight for a direction."""
        return tclient.norm_except_dim(weight, 2, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Splits a parameter into its norm and its direction. Source: Salimans and Kingma (2016)."""
    parametrize.register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def take_old_names(state: dict[str, Any], prefix: str, *rest: Any) -> None:
        old = (f"{prefix}{name}_g", f"{prefix}{name}_v")
        if all(key in state for key in old):
            for index, key in enumerate(old):
                state[f"{prefix}parametrizations.{name}.original{index}"] = state.pop(key)

    module._register_load_state_dict_pre_hook(take_old_names)
    return module


class _SpectralNorm(Module):
    """A matrix divided by its largest singular value, which a power iteration follows while training."""

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        dims = weight.ndim
        if not -dims <= dim < dims:
            raise IndexError(f"Dimension out of range (expected to be in range of [-{dims}, {dims - 1}] but got {dim})")
        if n_power_iterations <= 0:
            raise ValueError(
                f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            )
        self.dim = dim % dims
        self.eps = eps
        if dims == 1:
            return
        self.n_power_iterations = n_power_iterations
        matrix = self._matrix(weight)
        height, width = matrix.size()
        u = matrix.new_empty(height).normal_(0, 1)
        v = matrix.new_empty(width).normal_(0, 1)
        self.register_buffer("_u", F.normalize(u, dim=0, eps=eps))
        self.register_buffer("_v", F.normalize(v, dim=0, eps=eps))
        self._iterate(matrix, 15)

    def _matrix(self, weight: Tensor) -> Tensor:
        if self.dim != 0:
            weight = weight.movedim(self.dim, 0)
        return weight.flatten(1)

    @tclient.no_grad()
    def _iterate(self, matrix: Tensor, times: int) -> None:
        matrix = matrix.detach()
        for _ in range(times):
            self._u.copy_(F.normalize(tclient.mv(matrix, self._v), dim=0, eps=self.eps))
            self._v.copy_(F.normalize(tclient.mv(matrix.mH, self._u), dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, divided."""
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = self._matrix(weight)
        if self.training:
            self._iterate(matrix, self.n_power_iterations)
        # The next iteration writes into them, and backward needs them as they are now.
        u, v = self._u.clone(), self._v.clone()
        divided: Tensor = weight / tclient.vdot(u, tclient.mv(matrix, v))
        return divided

    def right_inverse(self, value: Tensor) -> Tensor:
        """The value: it is divided later."""
        return value


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divides a parameter by its largest singular value. Source: Miyato and others (2018)."""
    weight = _tensor_of(module, name)
    if dim is None:
        dim = 1 if isinstance(module, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d) else 0
    return parametrize.register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))
