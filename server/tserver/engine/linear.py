"""A linear layer of a network, by the library that is fastest for it here.

torch multiplies float32 matrices with MKL, whose AVX-512 kernels are for Intel's processors. On others that have
AVX-512, oneDNN, which torch brings along, takes less than half the time. The results of the two differ as those of two
processors do: by the order of the additions. torch's own functions are run as they are; this is for networks only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Multiplications from which on it is worth it; below, a layer is the same whatever library it could be.
_HEAVY = 1 << 24

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def find() -> Product | None:
    """oneDNN's product, where it is the faster one."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return None
    try:
        made_by_intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    return None if made_by_intel else onednn()


def onednn() -> Product | None:
    """oneDNN's product as torch.compile calls it, if this torch has that."""
    try:
        operation: Any = torch.ops.mkldnn._linear_pointwise
    except AttributeError:
        return None

    def product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        result: Tensor = operation(input, weight, bias, "none", [], "")
        return result

    return product


class Linear:
    """input @ weight.T + bias; shapes (..., in) -> (..., out). Raises: what torch raises."""

    __slots__ = ("_bias", "_weight")

    product: Product | None = find()

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, input: Tensor) -> Tensor:
        product = Linear.product
        if product is not None and input.numel() * self._weight.shape[0] >= _HEAVY and self._fits(input):
            return product(input, self._weight, self._bias)
        return F.linear(input, self._weight, self._bias)

    def _fits(self, input: Tensor) -> bool:
        """Whether it is what oneDNN's product takes, which knows neither gradients nor autocast."""
        weight, bias = self._weight, self._bias
        tensors = (input, weight) if bias is None else (input, weight, bias)
        if torch.is_autocast_enabled("cpu") or input.dim() < 2 or input.shape[-1] != weight.shape[1]:
            return False
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return False
        return all(tensor.dtype is torch.float32 and tensor.is_cpu and tensor.is_contiguous() for tensor in tensors)
