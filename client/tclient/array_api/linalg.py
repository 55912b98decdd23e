"""The standard's extension for linear algebra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import tclient as tc
from tclient import Tensor
from tclient import dtype as DType
from tclient.array_api._arguments import Axes, as_shape, converted, normalized, normalized_all, of_one_dtype
from tclient.array_api._manipulation import broadcast_arrays, broadcast_shapes, matrix_transpose
from tclient.array_api._reductions import sum

__all__ = [
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "inv",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]


class EigResult(NamedTuple):
    """Eigenvalues and eigenvectors of matrices."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class EighResult(NamedTuple):
    """Eigenvalues and eigenvectors of symmetric matrices."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class QRResult(NamedTuple):
    """Orthogonal and upper triangular factors."""

    Q: Tensor
    R: Tensor


class SlogdetResult(NamedTuple):
    """The sign of determinants, and the logarithm of their size."""

    sign: Tensor
    logabsdet: Tensor


class SVDResult(NamedTuple):
    """Singular vectors of rows, singular values, and singular vectors of columns."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The product of matrices."""
    return tc.matmul(*of_one_dtype(x1, x2))


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Tensor:
    """The product of two arrays, summed over axes of each."""
    if isinstance(axes, int):
        pairs: tuple[Sequence[int], Sequence[int]] = tuple(range(-axes, 0)), tuple(range(axes))
    else:
        pairs = axes[0], axes[1]
    firsts = normalized_all(tuple(pairs[0]), x1.ndim)
    seconds = normalized_all(tuple(pairs[1]), x2.ndim)
    sizes = [x1.shape[each] for each in firsts], [x2.shape[each] for each in seconds]
    if sizes[0] != sizes[1]:
        raise ValueError(f"the axes to sum over are of the sizes {sizes[0]} and {sizes[1]}")
    one, other = of_one_dtype(x1, x2)
    return tc.tensordot(one, other, dims=(list(firsts), list(seconds)))


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The inner product of vectors along an axis, of the conjugate of the first.

    Raises: ValueError if they are not of one length; IndexError for an axis that one of them does not have.
    """
    if not -min(x1.ndim, x2.ndim) <= axis < 0:
        raise IndexError(f"axis {axis} is not one of the last that arrays of {x1.ndim} and {x2.ndim} axes both have")
    if x1.shape[axis] != x2.shape[axis]:
        raise ValueError(f"vectors of {x1.shape[axis]} and {x2.shape[axis]} elements have no inner product")
    one, other = of_one_dtype(x1, x2)
    broadcast_shapes(one.shape, other.shape)
    if one.dtype.is_complex:
        one = tc.conj_physical(one)
    return sum(one * other, axis=axis, dtype=one.dtype)


def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The products of each element of one vector with each of another."""
    return tc.outer(*of_one_dtype(x1, x2))


def cross(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The cross product of vectors of three elements along an axis.

    Raises: ValueError for others; IndexError for an axis that one of them does not have.
    """
    for each in (x1, x2):
        if each.shape[normalized(axis, each.ndim)] != 3:
            raise ValueError(f"a cross product is of vectors of 3 elements, not {each.shape[axis]}")
    one, other = broadcast_arrays(*of_one_dtype(x1, x2))
    return tc.linalg.cross(one, other, dim=axis)


def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """The diagonals of matrices."""
    return tc.diagonal(x, offset=offset, dim1=-2, dim2=-1)


def trace(x: Tensor, /, *, offset: int = 0, dtype: DType | None = None) -> Tensor:
    """The sums of the diagonals of matrices."""
    return sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def cholesky(x: Tensor, /, *, upper: bool = False) -> Tensor:
    """The Cholesky factors of matrices."""
    return tc.linalg.cholesky(x, upper=upper).resolve_conj()


def det(x: Tensor, /) -> Tensor:
    """The determinants of matrices."""
    return tc.linalg.det(x)


def inv(x: Tensor, /) -> Tensor:
    """The inverses of matrices."""
    return tc.linalg.inv(x)


def eig(x: Tensor, /) -> EigResult:
    """The eigenvalues and eigenvectors of matrices."""
    return EigResult(*tc.linalg.eig(x))


def eigvals(x: Tensor, /) -> Tensor:
    """The eigenvalues of matrices."""
    return tc.linalg.eigvals(x)


def eigh(x: Tensor, /) -> EighResult:
    """The eigenvalues and eigenvectors of symmetric matrices."""
    return EighResult(*tc.linalg.eigh(x))


def eigvalsh(x: Tensor, /) -> Tensor:
    """The eigenvalues of symmetric matrices."""
    return tc.linalg.eigvalsh(x)


def qr(x: Tensor, /, *, mode: Literal["reduced", "complete"] = "reduced") -> QRResult:
    """The QR decomposition of matrices."""
    return QRResult(*tc.linalg.qr(x, mode=mode))


def slogdet(x: Tensor, /) -> SlogdetResult:
    """The signs of determinants, and the logarithms of their sizes."""
    return SlogdetResult(*tc.linalg.slogdet(x))


def svd(x: Tensor, /, *, full_matrices: bool = True) -> SVDResult:
    """The singular value decomposition of matrices."""
    return SVDResult(*(each.resolve_conj() for each in tc.linalg.svd(x, full_matrices=full_matrices)))


def svdvals(x: Tensor, /) -> Tensor:
    """The singular values of matrices."""
    return tc.linalg.svdvals(x)


def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The solutions of linear equations: x2 is one vector, or matrices. torch also takes a stack of vectors for one."""
    one, other = of_one_dtype(x1, x2)
    if x2.ndim == 1:
        return tc.linalg.solve(one, other[:, None])[..., 0]
    # So many matrices on either side that torch cannot take the right one for vectors.
    stacked = broadcast_shapes(one.shape[:-2], other.shape[:-2])
    other = tc.broadcast_to(other, (*stacked, *other.shape[-2:]))
    one = tc.broadcast_to(one, (*stacked, *one.shape[-2:]))
    return tc.linalg.solve(one, other)


def matrix_power(x: Tensor, n: int, /) -> Tensor:
    """Matrices multiplied with themselves."""
    return tc.linalg.matrix_power(x, n)


def _tolerance(x: Tensor, rtol: float | Tensor | None) -> Any:
    if rtol is None:
        return max(x.shape[-2:]) * tc.finfo(x.dtype).eps
    return rtol


def matrix_rank(x: Tensor, /, *, rtol: float | Tensor | None = None) -> Tensor:
    """The ranks of matrices: how many singular values are not within the tolerance of the largest."""
    values = tc.linalg.svdvals(x)
    if not values.shape[-1]:
        return tc.zeros(values.shape[:-1], dtype=tc.int64, device=x.device)
    tolerance = _tolerance(x, rtol)
    if isinstance(tolerance, Tensor):
        tolerance = tolerance[..., None]
    return sum(values > tolerance * tc.amax(values, -1, keepdim=True), axis=-1)


def pinv(x: Tensor, /, *, rtol: float | Tensor | None = None) -> Tensor:
    """The pseudoinverses of matrices."""
    return tc.linalg.pinv(x, rtol=_tolerance(x, rtol)).resolve_conj()


def matrix_norm(x: Tensor, /, *, keepdims: bool = False, ord: float | Literal["fro", "nuc"] | None = "fro") -> Tensor:
    """The norms of matrices."""
    return tc.linalg.matrix_norm(x, ord="fro" if ord is None else ord, keepdim=keepdims)


def vector_norm(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False, ord: float = 2) -> Tensor:
    """The norms of vectors along axes; of no axes, the sizes of the elements."""
    dims = tuple(range(x.ndim)) if axis is None else normalized_all(axis, x.ndim)
    if not dims:
        return tc.abs(x) if ord else converted(x != 0, x.dtype.to_real())
    return tc.linalg.vector_norm(x, ord=ord, dim=as_shape(dims), keepdim=keepdims)
