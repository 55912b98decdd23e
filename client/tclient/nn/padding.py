"""Padding at the edges.

Knows how much on which side; the arithmetic is the server's.
"""

from __future__ import annotations

from typing import Any, ClassVar

from tclient.nn import functional as F
from tclient.nn._core import Tensor
from tclient.nn._sizes import ntuple
from tclient.nn.module import Module


class _Pad(Module):
    """padding is one number, or two a dimension, the last dimension first."""

    _n: ClassVar[int]
    _mode: ClassVar[str]

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = ntuple(padding, 2 * self._n)

    def forward(self, input: Tensor) -> Tensor:
        """Input with edges."""
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPadNd(_Pad):
    """Edges of one value."""

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        """Input with edges."""
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPadNd):
    """Shapes: (..., W)."""

    _n = 1


class ConstantPad2d(_ConstantPadNd):
    """Shapes: (..., H, W)."""

    _n = 2


class ConstantPad3d(_ConstantPadNd):
    """Shapes: (..., D, H, W)."""

    _n = 3


class _ZeroPad(_ConstantPadNd):
    """Edges of zeros."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad):
    """Shapes: (..., W)."""

    _n = 1


class ZeroPad2d(_ZeroPad):
    """Shapes: (..., H, W)."""

    _n = 2


class ZeroPad3d(_ZeroPad):
    """Shapes: (..., D, H, W)."""

    _n = 3


class _ReflectionPadNd(_Pad):
    """Edges that mirror the inside."""

    _mode = "reflect"


class ReflectionPad1d(_ReflectionPadNd):
    """Edges that mirror the inside. Shapes: (..., W)."""

    _n = 1


class ReflectionPad2d(_ReflectionPadNd):
    """Edges that mirror the inside. Shapes: (..., H, W)."""

    _n = 2


class ReflectionPad3d(_ReflectionPadNd):
    """Edges that mirror the inside. Shapes: (..., D, H, W)."""

    _n = 3


class _ReplicationPadNd(_Pad):
    """Edges that repeat the outermost elements."""

    _mode = "replicate"


class ReplicationPad1d(_ReplicationPadNd):
    """Edges that repeat the outermost elements. Shapes: (..., W)."""

    _n = 1


class ReplicationPad2d(_ReplicationPadNd):
    """Edges that repeat the outermost elements. Shapes: (..., H, W)."""

    _n = 2


class ReplicationPad3d(_ReplicationPadNd):
    """Edges that repeat the outermost elements. Shapes: (..., D, H, W)."""

    _n = 3


class _CircularPadNd(_Pad):
    """Edges that come from the other side."""

    _mode = "circular"


class CircularPad1d(_CircularPadNd):
    """Edges from the other side. Shapes: (..., W)."""

    _n = 1


class CircularPad2d(_CircularPadNd):
    """Edges from the other side. Shapes: (..., H, W)."""

    _n = 2


class CircularPad3d(_CircularPadNd):
    """Edges from the other side. Shapes: (..., D, H, W)."""

    _n = 3
