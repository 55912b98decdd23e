"""Keeping gradients within bounds.

Knows tensors and their gradients; does not know modules.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import tclient
from tclient.nn._core import Tensor, gradients


def _list(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [parameters] if isinstance(parameters, Tensor) else list(parameters)


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Those that there are. Waits once."""
    return [grad for grad in gradients(_list(parameters)) if grad is not None]


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all tensors as if they were one vector.

    Raises: RuntimeError if it is not finite and error_if_nonfinite is set.
    """
    norm_type = float(norm_type)
    norms = [tclient.linalg.vector_norm(tensor, norm_type) for tensor in _list(tensors)]
    if not norms:
        return tclient.tensor(0.0)
    total = tclient.linalg.vector_norm(tclient.stack(norms), norm_type)
    if error_if_nonfinite and bool(tclient.logical_or(total.isnan(), total.isinf())):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it cannot be "
            "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return total


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Shrinks all gradients by one factor so that their norm is at most max_norm; returns the norm before."""
    grads = _gradients(parameters)
    with tclient.no_grad():
        total = get_total_norm(grads, norm_type, error_if_nonfinite)
    _shrink(grads, max_norm, total)
    return total


def clip_grad_norm(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The old name of `clip_grad_norm_`."""
    warnings.warn(
        "`torch.nn.utils.clip_grad_norm` is now deprecated in favor of `torch.nn.utils.clip_grad_norm_`.",
        FutureWarning,
        stacklevel=2,
    )
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Shrinks all gradients by the factor that takes total_norm to max_norm, if it is larger."""
    _shrink(_gradients(parameters), max_norm, total_norm)


def _shrink(grads: list[Tensor], max_norm: float, total: Tensor) -> None:
    with tclient.no_grad():
        factor = (float(max_norm) / (total + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(factor)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Keeps each element of each gradient between -clip_value and clip_value."""
    bound = float(clip_value)
    with tclient.no_grad():
        for grad in _gradients(parameters):
            grad.clamp_(min=-bound, max=bound)
