"""What the distributions share: parameters of one shape, values made when they are asked for, and looks that wait once.

The seam to the client's core: the only file here that knows how calls are made.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Number
from typing import Any

import numpy as np

import tclient
from tclient._codec.operations import Operation
from tclient._codec.size import Size
from tclient._issue import call_builtin, dispatch
from tclient._session.modes import MODES
from tclient._tensor import Tensor

EULER = 0.57721566490153286060

__all__ = [
    "EULER",
    "Number",
    "Size",
    "Tensor",
    "broadcast_all",
    "broadcast_shape",
    "call_builtin",
    "clamp_probs",
    "clamp_probs_of",
    "lazy_property",
    "logits_to_probs",
    "one_of",
    "one_wait",
    "probs_to_logits",
    "standard_normal",
    "standard_uniform",
    "sum_rightmost",
    "tril_matrix_to_vec",
    "vec_to_tril_matrix",
    "verify",
]


@functools.cache
def _broadcast(count: int) -> Operation:
    # The table cannot say how many tensors come back. Here it is known, so that nothing waits for them.
    return Operation({"name": "broadcast_tensors", "kind": "function", "returns": {"count": count}})


def broadcast_all(*values: Any) -> tuple[Any, ...]:
    """The values as tensors of one shape; numbers get the dtype and the place of the first tensor among them.

    Raises: ValueError for what is neither a number nor a tensor.
    """
    if not all(isinstance(value, Tensor | Number) for value in values):
        raise ValueError(
            "Input arguments must all be instances of Number, torch.Tensor or objects implementing __torch_function__."
        )
    first = next((value for value in values if isinstance(value, Tensor)), None)
    if first is None:
        dtype = tclient.get_default_dtype()
        return tuple(tclient.tensor(value, dtype=dtype) for value in values)
    tensors = [value if isinstance(value, Tensor) else first.new_full((), value) for value in values]
    if len(tensors) == 1:
        return tuple(tensors)
    return tuple(dispatch(_broadcast(len(tensors)), tuple(tensors), None))


def broadcast_shape(*shapes: Any) -> Size:
    """The shape that these have together. Raises: RuntimeError, in torch's words."""
    try:
        return Size(np.broadcast_shapes(*(tuple(shape) for shape in shapes)))
    except ValueError:
        return Size(tclient.broadcast_shapes(*shapes))


class lazy_property:
    """An attribute that is made when it is first asked for, and kept."""

    def __init__(self, wrapped: Callable[[Any], Any]) -> None:
        self.wrapped = wrapped
        functools.update_wrapper(self, wrapped)  # type: ignore[arg-type]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        with tclient.enable_grad():
            value = self.wrapped(instance)
        setattr(instance, self.wrapped.__name__, value)
        return value


def logits_to_probs(logits: Any, is_binary: bool = False) -> Any:
    """Probabilities of log odds, or of unnormalized log probabilities."""
    return tclient.sigmoid(logits) if is_binary else tclient.softmax(logits, dim=-1)


def clamp_probs(probs: Any) -> Any:
    """Probabilities that are neither 0 nor 1."""
    return clamp_probs_of(probs.dtype, probs)


def clamp_probs_of(dtype: Any, probs: Any) -> Any:
    """The same, for probabilities whose dtype is known: that of a new result would be waited for."""
    eps = tclient.finfo(dtype).eps
    return probs.clamp(min=eps, max=1 - eps)


def probs_to_logits(probs: Any, is_binary: bool = False) -> Any:
    """Log odds, or log probabilities, of probabilities."""
    clamped = clamp_probs(probs)
    return tclient.log(clamped) - tclient.log1p(-clamped) if is_binary else tclient.log(clamped)


def standard_normal(like: Any, shape: Any) -> Any:
    """Normal numbers of the dtype and the place of a tensor."""
    return like.new_empty(shape).normal_()


def standard_uniform(like: Any, shape: Any) -> Any:
    """Numbers from 0 up to 1 of the dtype and the place of a tensor."""
    return like.new_empty(shape).uniform_()


def sum_rightmost(value: Any, dim: int) -> Any:
    """The sum over that many dimensions on the right."""
    if dim == 0:
        return value
    if dim == 1:
        return value.sum(-1)
    return value.flatten(-dim).sum(-1)


def tril_matrix_to_vec(mat: Any, diag: int = 0) -> Any:
    """The elements of lower triangular matrices, row by row."""
    n = mat.shape[-1]
    if diag < -n or diag >= n:
        raise ValueError(f"diag ({diag}) provided is outside [{-n}, {n - 1}].")
    rows, columns = tclient.tril_indices(n, n, diag, device=mat.device)
    return mat[..., rows, columns]


def vec_to_tril_matrix(vec: Any, diag: int = 0) -> Any:
    """Lower triangular matrices of their elements, row by row."""
    length = vec.shape[-1]
    n = (-(1 + 2 * diag) + ((1 + 2 * diag) ** 2 + 8 * length + 4 * abs(diag) * (diag + 1)) ** 0.5) / 2
    if not round(n) - n <= tclient.finfo(vec.dtype).eps:
        raise ValueError(
            f"The size of last dimension is {length} which cannot be expressed as the lower triangular part of a "
            "square D x D matrix."
        )
    size = round(n)
    rows, columns = tclient.tril_indices(size, size, diag, device=vec.device)
    matrix = vec.new_zeros((*vec.shape[:-1], size, size))
    matrix[..., rows, columns] = vec
    return matrix


# A look at an argument: the tensor of bools, and the error that is raised where one of them is False.
Check = tuple[Any, Callable[[], Exception]]
_waiting = threading.local()


def verify(checks: list[Check]) -> None:
    """Raises the error of the first check that failed; waits once for all of them."""
    if MODES.recorder is not None or not checks:
        # Nothing can be read while calls are recorded; torch does not look either when it traces.
        return
    gathered = getattr(_waiting, "checks", None)
    if gathered is not None:
        gathered.extend(checks)
        return
    flags = [valid.all() for valid, _ in checks]
    if not functools.reduce(lambda one, other: one & other, flags):
        for flag, (_, error) in zip(flags, checks, strict=True):
            if not flag:
                raise error()


@contextmanager
def one_wait() -> Iterator[None]:
    """All that is verified within is verified at the end of the outermost such block, at once."""
    if getattr(_waiting, "checks", None) is not None:
        yield
        return
    checks: list[Check] = []
    _waiting.checks = checks
    try:
        yield
    except BaseException:
        # What was to be verified before it went wrong explains it, and comes first.
        _waiting.checks = None
        verify(checks)
        raise
    finally:
        _waiting.checks = None
    verify(checks)


def one_of(probs: Any, logits: Any) -> str:
    """Which of the two was given. Raises: ValueError unless it is exactly one."""
    if (probs is None) == (logits is None):
        raise ValueError("Either `probs` or `logits` must be specified, but not both.")
    return "logits" if probs is None else "probs"
