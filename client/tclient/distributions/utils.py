"""torch.distributions.utils: what those need who write distributions of their own."""

from typing import Any

import tclient
from tclient.distributions import _core
from tclient.distributions._core import (
    broadcast_all,
    clamp_probs,
    lazy_property,
    logits_to_probs,
    probs_to_logits,
    tril_matrix_to_vec,
    vec_to_tril_matrix,
)

__all__ = [
    "broadcast_all",
    "clamp_probs",
    "lazy_property",
    "logits_to_probs",
    "probs_to_logits",
    "tril_matrix_to_vec",
    "vec_to_tril_matrix",
]

euler_constant = _core.EULER
_sum_rightmost = _core.sum_rightmost


def _standard_normal(shape: Any, dtype: Any, device: Any) -> Any:
    return tclient.empty(shape, dtype=dtype, device=device).normal_()
