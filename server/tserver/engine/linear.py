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
# oneDNN compiles a kernel for each shape, and for as long as the process lives keeps that and memory for the weights.
# So it gets rows in blocks of these sizes, MKL the rest, and there is a bound on the weights it may keep memory for.
_BLOCKS = (1024, 512, 256)
_MAX_KEPT_BYTES = 128 << 20

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


class Blocks:
    """A product for blocks of rows. For one thread."""

    def __init__(self, product: Product | None, max_kept_bytes: int = _MAX_KEPT_BYTES) -> None:
        self.product = product
        self._room = max_kept_bytes
        # The shapes that have been multiplied: rows, and those of the weights.
        self._known: set[tuple[int, ...]] = set()

    def multiply(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """The outputs for rows (n, in), or None where that is left to torch."""
        product, count = self.product, rows.shape[0]
        if product is None or count < _BLOCKS[-1]:
            return None
        made: list[Tensor] = []
        done = 0
        for size in _BLOCKS:
            while count - done >= size and self._admits(size, weight):
                made.append(product(rows[done : done + size], weight, bias))
                done += size
        if done == 0:
            return None
        if done < count:
            made.append(F.linear(rows[done:], weight, bias))
        return made[0] if len(made) == 1 else torch.cat(made)

    def _admits(self, size: int, weight: Tensor) -> bool:
        shape = (size, *weight.shape)
        if shape not in self._known:
            if weight.nbytes > self._room:
                return False
            self._room -= weight.nbytes
            self._known.add(shape)
        return True


class Linear:
    """input @ weight.T + bias; shapes (..., in) -> (..., out). Raises: what torch raises."""

    __slots__ = ("_bias", "_weight")

    blocks = Blocks(find())

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, input: Tensor) -> Tensor:
        weight, bias = self._weight, self._bias
        if input.numel() * weight.shape[0] >= _HEAVY and self._fits(input):
            found = self.blocks.multiply(input.reshape(-1, input.shape[-1]), weight, bias)
            if found is not None:
                return found.reshape(*input.shape[:-1], -1)
        return F.linear(input, weight, bias)

    def _fits(self, input: Tensor) -> bool:
        """Whether it is what oneDNN's product takes, which knows neither gradients nor autocast."""
        weight, bias = self._weight, self._bias
        tensors = (input, weight) if bias is None else (input, weight, bias)
        if torch.is_autocast_enabled("cpu") or input.dim() < 2 or input.shape[-1] != weight.shape[1]:
            return False
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return False
        return all(tensor.dtype is torch.float32 and tensor.is_cpu and tensor.is_contiguous() for tensor in tensors)
