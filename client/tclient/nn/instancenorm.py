"""Normalisation over an instance, with running statistics if they are asked for.

Knows which statistics are kept; the arithmetic is the server's.
"""

from __future__ import annotations

from typing import Any

from tclient.nn import functional as F
from tclient.nn._core import Tensor
from tclient.nn.batchnorm import _NormBase


class _InstanceNorm(_NormBase):
    """Each feature of each instance to mean 0 and variance 1."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        """Input, normalised."""
        self._check_dims(input)
        single = input.dim() == self._dims[0]
        batch = input.unsqueeze(0) if single else input
        output = F.instance_norm(
            batch,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return output.squeeze(0) if single else output


class InstanceNorm1d(_InstanceNorm):
    """Shapes: (N, C, L) or (C, L)."""

    _dims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Shapes: (N, C, H, W) or (C, H, W)."""

    _dims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Shapes: (N, C, D, H, W) or (C, D, H, W)."""

    _dims = (4, 5)
