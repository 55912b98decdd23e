"""Dropout: some elements, or channels, become zero while training.

Knows the probability; the random numbers are the server's.
"""

from __future__ import annotations

from tclient.nn import _network
from tclient.nn import functional as F
from tclient.nn._core import Tensor
from tclient.nn.module import Module


class _DropoutNd(Module):
    """Shapes: (...) -> (...)."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if p < 0 or p > 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Input with some of it dropped while training, else input."""
        return self._drop(input)

    def _drop(self, input: Tensor) -> Tensor:
        raise NotImplementedError

    def _describe(self) -> list[_network.LayerCall] | None:
        return None if self.training else [_network.LayerCall("identity")]

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_DropoutNd):
    """Each element is zero with probability p while training; the others grow by 1 / (1 - p)."""

    def _drop(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout1d(_DropoutNd):
    """Each channel of (N, C, L) or (C, L) is zero with probability p while training."""

    def _drop(self, input: Tensor) -> Tensor:
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(_DropoutNd):
    """Each channel of (N, C, H, W) is zero with probability p while training."""

    def _drop(self, input: Tensor) -> Tensor:
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(_DropoutNd):
    """Each channel of (N, C, D, H, W) is zero with probability p while training."""

    def _drop(self, input: Tensor) -> Tensor:
        return F.dropout3d(input, self.p, self.training, self.inplace)


class AlphaDropout(_DropoutNd):
    """Dropout that keeps mean and variance of what SELU gives."""

    def _drop(self, input: Tensor) -> Tensor:
        # torch.nn does not pass inplace on here.
        return F.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(_DropoutNd):
    """AlphaDropout of whole channels."""

    def _drop(self, input: Tensor) -> Tensor:
        return F.feature_alpha_dropout(input, self.p, self.training)
