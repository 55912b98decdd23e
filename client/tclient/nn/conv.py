"""Convolutions.

Knows shapes of weights and how they are drawn; the arithmetic is the server's.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import tclient
from tclient.nn import functional as F
from tclient.nn._core import Tensor
from tclient.nn._sizes import ntuple, reversed_twice
from tclient.nn.init import kaiming_uniform_bound
from tclient.nn.module import Module
from tclient.nn.parameter import Parameter, parameter_from

_PADDING_MODES = {"zeros", "reflect", "replicate", "circular"}


class _ConvNd(Module):
    """What convolutions of all dimensions, and their transposes, have in common."""

    _n: ClassVar[int]
    weight: Parameter
    bias: Parameter | Any  # None if it was not asked for

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        transposed: bool,
        output_padding: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        n = len(kernel_size) if isinstance(kernel_size, tuple) else self._n
        _check(in_channels, out_channels, groups, padding, padding_mode, ntuple(stride, n))
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = ntuple(kernel_size, n)
        self.stride = ntuple(stride, n)
        self.padding = padding if isinstance(padding, str) else ntuple(padding, n)
        self.dilation = ntuple(dilation, n)
        self.transposed = transposed
        self.output_padding = ntuple(output_padding, n)
        self.groups = groups
        self.padding_mode = padding_mode
        outer, inner = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        shape = (outer, inner // groups, *self.kernel_size)
        self.weight = parameter_from(tclient.empty, shape, device, dtype)
        if bias:
            self.bias = parameter_from(tclient.empty, out_channels, device, dtype)
        else:
            self.register_parameter("bias", None)
        self._reversed_padding_repeated_twice = self._both_sides()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weights and biases between ±1/sqrt(fan in), as torch does."""
        inner = self.out_channels if self.transposed else self.in_channels
        fan_in = inner // self.groups * math.prod(self.kernel_size)
        if fan_in == 0:
            return
        with tclient.no_grad():
            bound = kaiming_uniform_bound(fan_in, math.sqrt(5))
            self.weight.uniform_(-bound, bound)
            if self.bias is not None:
                bound = 1 / math.sqrt(fan_in)
                self.bias.uniform_(-bound, bound)

    def _both_sides(self) -> list[int]:
        if not isinstance(self.padding, str):
            return reversed_twice(self.padding)
        n = len(self.kernel_size)
        sides = [0] * (2 * n)
        if self.padding == "same":
            for index, (dilation, kernel) in enumerate(zip(self.dilation, self.kernel_size, strict=True)):
                total = dilation * (kernel - 1)
                left = total // 2
                at = 2 * (n - 1 - index)
                sides[at], sides[at + 1] = left, total - left
        return sides

    def extra_repr(self) -> str:
        n = len(self.kernel_size)
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * n:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * n:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * n:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


def _check(
    in_channels: int, out_channels: int, groups: int, padding: Any, padding_mode: str, stride: tuple[int, ...]
) -> None:
    if groups <= 0:
        raise ValueError("groups must be a positive integer")
    if in_channels % groups != 0:
        raise ValueError("in_channels must be divisible by groups")
    if out_channels % groups != 0:
        raise ValueError("out_channels must be divisible by groups")
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f"Invalid padding string {padding!r}, should be one of {{'same', 'valid'}}")
        if padding == "same" and any(step != 1 for step in stride):
            raise ValueError("padding='same' is not supported for strided convolutions")
    if padding_mode not in _PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {_PADDING_MODES}, but got padding_mode='{padding_mode}'")


class _Conv(_ConvNd):
    """Cross-correlation of channels with learned kernels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            False,
            0,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def forward(self, input: Tensor) -> Tensor:
        """The channels of the output."""
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with these kernels: what a subclass calls that makes them anew each time."""
        if self.padding_mode == "zeros":
            return self._conv(input, weight, bias, self.padding)
        padded = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        return self._conv(padded, weight, bias, (0,) * self._n)

    def _conv(self, input: Tensor, weight: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
        raise NotImplementedError


class Conv1d(_Conv):
    """Shapes: (N, C, L) or (C, L)."""

    _n = 1

    def _conv(self, input: Tensor, weight: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
        return F.conv1d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv2d(_Conv):
    """Shapes: (N, C, H, W) or (C, H, W)."""

    _n = 2

    def _conv(self, input: Tensor, weight: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
        return F.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv3d(_Conv):
    """Shapes: (N, C, D, H, W) or (C, D, H, W)."""

    _n = 3

    def _conv(self, input: Tensor, weight: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
        return F.conv3d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


class _ConvTransposeNd(_ConvNd):
    """The gradient of a convolution with respect to its input."""

    padding: Any  # never a name, as a convolution's may be

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            True,
            output_padding,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """The channels of the output; output_size chooses where several sizes are possible."""
        return self._conv(input, self._output_padding(input, output_size))

    def _conv(self, input: Tensor, output_padding: Any) -> Tensor:
        raise NotImplementedError

    def _output_padding(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        if output_size is None:
            return self.output_padding
        shape = tuple(input.shape)
        extra = len(shape) - self._n
        wanted = list(output_size)
        if len(wanted) == extra + self._n:
            wanted = wanted[extra:]
        if len(wanted) != self._n:
            raise ValueError(
                f"ConvTranspose{self._n}D: for {len(shape)}D input, output_size must have {self._n} or "
                f"{extra + self._n} elements (got {len(wanted)})"
            )
        lows = [
            (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
            for size, stride, padding, dilation, kernel in zip(
                shape[extra:], self.stride, self.padding, self.dilation, self.kernel_size, strict=True
            )
        ]
        highs = [low + stride - 1 for low, stride in zip(lows, self.stride, strict=True)]
        if any(not low <= size <= high for low, size, high in zip(lows, wanted, highs, strict=True)):
            raise ValueError(
                f"requested an output size of {output_size}, but valid sizes range from {lows} to {highs} "
                f"(for an input of {list(shape[2:])})"
            )
        return tuple(size - low for size, low in zip(wanted, lows, strict=True))


class ConvTranspose1d(_ConvTransposeNd):
    """Shapes: (N, C, L) or (C, L)."""

    _n = 1

    def _conv(self, input: Tensor, output_padding: Any) -> Tensor:
        return F.conv_transpose1d(
            input, self.weight, self.bias, self.stride, self.padding, output_padding, self.groups, self.dilation
        )


class ConvTranspose2d(_ConvTransposeNd):
    """Shapes: (N, C, H, W) or (C, H, W)."""

    _n = 2

    def _conv(self, input: Tensor, output_padding: Any) -> Tensor:
        return F.conv_transpose2d(
            input, self.weight, self.bias, self.stride, self.padding, output_padding, self.groups, self.dilation
        )


class ConvTranspose3d(_ConvTransposeNd):
    """Shapes: (N, C, D, H, W) or (C, D, H, W)."""

    _n = 3

    def _conv(self, input: Tensor, output_padding: Any) -> Tensor:
        return F.conv_transpose3d(
            input, self.weight, self.bias, self.stride, self.padding, output_padding, self.groups, self.dilation
        )
