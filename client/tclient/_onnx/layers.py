"""Operators of layers: convolutions, pooling, normalizations, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tclient as tc
from tclient._onnx.operators import operator
from tclient._onnx.reading import Node
from tclient._onnx.shaping import pad_constant
from tclient.nn import functional as F

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_WINDOWS = "auto_pad dilations kernel_shape pads strides"


class _Windows:
    """How the windows of a convolution or a pooling lie on its input."""

    def __init__(self, node: Node, kernel: Sequence[int], x: Any) -> None:
        self.count = len(kernel)
        self.kernel = [int(size) for size in kernel]
        self.strides = list(node.get("strides", [1] * self.count))
        self.dilations = list(node.get("dilations", [1] * self.count))
        pads = list(node.get("pads", [0] * (2 * self.count)))
        self.before, self.after = pads[: self.count], pads[self.count :]
        auto = node.get("auto_pad", "NOTSET")
        if auto == "VALID":
            self.before, self.after = [0] * self.count, [0] * self.count
        elif auto in ("SAME_UPPER", "SAME_LOWER"):
            sizes = x.shape[2:]
            for at, (size, reach, stride) in enumerate(zip(sizes, self.reach, self.strides, strict=True)):
                total = max(0, (-(-size // stride) - 1) * stride + reach - size)
                small = total // 2
                self.before[at] = small if auto == "SAME_UPPER" else total - small
                self.after[at] = total - self.before[at]

    @property
    def reach(self) -> list[int]:
        """How far a window goes, with the gaps in it."""
        return [(size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True)]

    @property
    def is_even(self) -> bool:
        """Whether there is as much padding after each axis as before it."""
        return self.before == self.after

    def padding(self) -> dict[int, tuple[int, int]]:
        """The padding by the axis of the input."""
        return {at + 2: pair for at, pair in enumerate(zip(self.before, self.after, strict=True))}

    def counts(self, x: Any, node: Node) -> list[int]:
        """How many windows there are along each axis."""
        made = []
        for at, size in enumerate(x.shape[2:]):
            room = size + self.before[at] + self.after[at] - self.reach[at]
            count = room // self.strides[at] + 1
            if node.get("ceil_mode", 0) and room % self.strides[at]:
                # One more window that reaches over the end, if it begins before it.
                count += count * self.strides[at] < size + self.before[at]
            made.append(count)
        return made

    def fitted(self, x: Any, node: Node, value: float) -> Any:
        """The input with padding in it, as long as the windows reach."""
        ends = [
            (count - 1) * stride + reach - size - before
            for count, stride, reach, size, before in zip(
                self.counts(x, node), self.strides, self.reach, x.shape[2:], self.before, strict=True
            )
        ]
        return pad_constant(x, {at + 2: pair for at, pair in enumerate(zip(self.before, ends, strict=True))}, value)


def _too_many_axes(node: Node) -> str | None:
    axes = len(node.get("kernel_shape", [1]))
    return None if 1 <= axes <= 3 else f"its windows have {axes} axes, and 1 to 3 are supported"


@operator("Conv", attributes=f"{_WINDOWS} group", complaint=_too_many_axes)
def _conv(node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    windows = _Windows(node, node.get("kernel_shape") or weight.shape[2:], x)
    padding = windows.before
    if not windows.is_even:
        x, padding = pad_constant(x, windows.padding(), 0), [0] * windows.count
    run = _CONV[windows.count]
    return run(x, weight, bias, windows.strides, padding, windows.dilations, node.get("group", 1))


@operator("ConvInteger", attributes=f"{_WINDOWS} group", complaint=_too_many_axes)
def _conv_integer(node: Node, x: Any, weight: Any, x_zero: Any = None, w_zero: Any = None) -> Any:
    # In float64 the sums are exact.
    x, weight = x.to(tc.float64), weight.to(tc.float64)
    x = x if x_zero is None else x - x_zero.to(tc.float64)
    if w_zero is not None:
        weight = weight - w_zero.to(tc.float64).reshape([-1] + [1] * (weight.ndim - 1))
    return _conv(node, x, weight).to(tc.int32)


@operator("ConvTranspose", attributes=f"{_WINDOWS} group output_padding output_shape", complaint=_too_many_axes)
def _conv_transpose(node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    plain = Node(node.kind, "", node.name, node.version, (), (), {**node.attributes, "auto_pad": "NOTSET"})
    windows = _Windows(plain, node.get("kernel_shape") or weight.shape[2:], x)
    more = list(node.get("output_padding", [0] * windows.count))
    auto = node.get("auto_pad", "NOTSET")
    wanted = node.get("output_shape")
    if wanted is not None or auto.startswith("SAME"):
        sizes = x.shape[2:]
        wanted = wanted or [size * stride for size, stride in zip(sizes, windows.strides, strict=True)]
        for at, (size, reach, stride) in enumerate(zip(sizes, windows.reach, windows.strides, strict=True)):
            total = stride * (size - 1) + more[at] + reach - wanted[at]
            if total < 0:
                more[at], total = more[at] - total, 0
            small = total // 2
            windows.before[at] = small if auto == "SAME_UPPER" else total - small
            windows.after[at] = total - windows.before[at]
    run = _CONV_TRANSPOSE[windows.count]
    group, dilations = node.get("group", 1), windows.dilations
    fits = all(extra < max(stride, step) for extra, stride, step in zip(more, windows.strides, dilations, strict=True))
    if windows.is_even and fits:
        return run(x, weight, bias, windows.strides, windows.before, more, group, dilations)
    made = run(x, weight, bias, windows.strides, 0, 0, group, dilations)
    # What the paddings cut away, and what is to be there besides: nothing but the bias reaches that.
    cut = {
        at + 2: (-before, extra - after)
        for at, (before, after, extra) in enumerate(zip(windows.before, windows.after, more, strict=True))
    }
    if bias is None or all(after <= 0 for _, after in cut.values()):
        return pad_constant(made, cut, 0)
    bias = bias.reshape([-1] + [1] * windows.count)
    return pad_constant(made - bias, cut, 0) + bias


# ---- pooling -------------------------------------------------------------------------------------------------------


@operator("MaxPool", attributes=f"{_WINDOWS} ceil_mode storage_order", complaint=_too_many_axes)
def _max_pool(node: Node, x: Any) -> Any:
    windows = _Windows(node, node.get("kernel_shape"), x)
    halves = all(pad <= size // 2 for pad, size in zip(windows.before, windows.kernel, strict=True))
    run, element, indices = _MAX_POOL[windows.count], x.dtype, len(node.outputs) > 1
    if windows.is_even and halves and element.is_floating_point:
        padded, places = x, windows.before
        ceil = bool(node.get("ceil_mode", 0))
    else:
        # torch has no such padding, and pools no integers; small ones are exact in float32, others in float64.
        small = element in (tc.int8, tc.uint8, tc.int16)
        padded = x if element.is_floating_point else x.to(tc.float32 if small else tc.float64)
        padded, places, ceil = windows.fitted(padded, node, -math.inf), [0] * windows.count, False
    given = padded, windows.kernel, windows.strides, places, windows.dilations
    if not indices:
        return run(*given, ceil_mode=ceil).to(element)
    made, found = run(*given, ceil_mode=ceil, return_indices=True)
    # Each index is that of the padded plane: taken apart, moved, and put together for the plane itself.
    sizes, wide = x.shape[2:], padded.shape[2:]
    moved = [0] * windows.count if padded is x else windows.before
    by_columns = bool(node.get("storage_order", 0))
    index: Any = 0
    for at in reversed(range(windows.count)):
        step = math.prod(sizes[:at]) if by_columns else math.prod(sizes[at + 1 :])
        index = index + (found % wide[at] - moved[at]) * step
        found = found // wide[at]
    return made.to(element), index + _first_of_planes(x, windows.count)


def _first_of_planes(x: Any, axes: int) -> Any:
    """The index of the first element of each plane, among all elements."""
    count, channels, *sizes = x.shape
    return tc.arange(count * channels).reshape(count, channels, *[1] * axes) * math.prod(sizes)


def _window_sums(x: Any, windows: _Windows) -> Any:
    """The sum of each window; the padding is in x already."""
    count, channels, *sizes = x.shape
    ones = tc.ones(1, 1, *windows.kernel, dtype=x.dtype)
    planes = x.reshape(count * channels, 1, *sizes)
    made = _CONV[windows.count](planes, ones, None, windows.strides, 0, windows.dilations)
    return made.reshape(count, channels, *made.shape[2:])


@operator("AveragePool", attributes=f"{_WINDOWS} ceil_mode count_include_pad", complaint=_too_many_axes)
def _average_pool(node: Node, x: Any) -> Any:
    windows = _Windows(node, node.get("kernel_shape"), x)
    includes = bool(node.get("count_include_pad", 0))
    halves = all(pad <= size // 2 for pad, size in zip(windows.before, windows.kernel, strict=True))
    if windows.is_even and halves and set(windows.dilations) == {1}:
        run, ceil = _AVG_POOL[windows.count], bool(node.get("ceil_mode", 0))
        return run(x, windows.kernel, windows.strides, windows.before, ceil, includes)
    counted = tc.ones(1, 1, *x.shape[2:], dtype=x.dtype)
    if includes:
        counted = pad_constant(counted, windows.padding(), 1)
        inner = _Windows(node, windows.kernel, x)
        inner.before = [0] * windows.count
        ends = [
            (count - 1) * stride + reach - size
            for count, stride, reach, size in zip(
                windows.counts(x, node), windows.strides, windows.reach, counted.shape[2:], strict=True
            )
        ]
        counted = pad_constant(counted, {at + 2: (0, end) for at, end in enumerate(ends)}, 0)
    else:
        counted = windows.fitted(counted, node, 0)
    return _window_sums(windows.fitted(x, node, 0), windows) / _window_sums(counted, windows)


@operator("LpPool", attributes=f"{_WINDOWS} ceil_mode p", complaint=_too_many_axes)
def _lp_pool(node: Node, x: Any) -> Any:
    windows = _Windows(node, node.get("kernel_shape"), x)
    p = node.get("p", 2)
    return _window_sums(windows.fitted(x.abs() ** p, node, 0), windows) ** (1 / p)


@operator("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", attributes="p")
def _global_pool(node: Node, x: Any) -> Any:
    axes = tuple(range(2, x.ndim))
    if node.kind == "GlobalAveragePool":
        return x.mean(axes, keepdim=True)
    if node.kind == "GlobalMaxPool":
        return tc.amax(x, axes, keepdim=True)
    return tc.linalg.vector_norm(x, node.get("p", 2), axes, keepdim=True)


# ---- normalizations ------------------------------------------------------------------------------------------------


@operator("BatchNormalization", attributes="epsilon momentum spatial training_mode")
def _batch_norm(node: Node, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    epsilon = node.get("epsilon", 1e-5)
    if not node.get("training_mode", 0):
        return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)
    axes = [axis for axis in range(x.ndim) if axis != 1]
    momentum = node.get("momentum", 0.9)
    now = x.mean(axes), x.var(axes, correction=0)
    made = F.batch_norm(x, *now, scale, bias, False, 0.0, epsilon)
    return made, mean * momentum + now[0] * (1 - momentum), variance * momentum + now[1] * (1 - momentum)


@operator("InstanceNormalization", attributes="epsilon")
def _instance_norm(node: Node, x: Any, scale: Any, bias: Any) -> Any:
    return F.instance_norm(x, None, None, scale, bias, True, 0.0, node.get("epsilon", 1e-5))


@operator("GroupNormalization", attributes="epsilon num_groups stash_type")
def _group_norm(node: Node, x: Any, scale: Any, bias: Any) -> Any:
    groups = node.get("num_groups")
    if node.version < 21:  # a scale for each group, and not for each channel
        each = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return F.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


@operator("LayerNormalization", attributes="axis epsilon stash_type")
def _layer_norm(node: Node, x: Any, scale: Any, bias: Any = None) -> Any:
    axis, epsilon = node.get("axis", -1), node.get("epsilon", 1e-5)
    sizes = list(x.shape[axis:])
    if scale.ndim != len(sizes):
        scale = scale.expand(sizes)
    if bias is not None and bias.ndim != len(sizes):
        bias = bias.expand(sizes)
    made = F.layer_norm(x, sizes, scale, bias, epsilon)
    if len(node.outputs) == 1:
        return made
    axes = list(range(-len(sizes), 0))
    held = x.float() if node.get("stash_type", 1) == 1 else x
    mean = held.mean(axes, keepdim=True)
    return made, mean, (held.var(axes, correction=0, keepdim=True) + epsilon).rsqrt()


@operator("RMSNormalization", attributes="axis epsilon stash_type")
def _rms_norm(node: Node, x: Any, scale: Any) -> Any:
    held = x.float() if node.get("stash_type", 1) == 1 else x
    axes = list(range(-len(x.shape[node.get("axis", -1) :]), 0))
    return (held * (held.square().mean(axes, keepdim=True) + node.get("epsilon", 1e-5)).rsqrt()).to(x.dtype) * scale


@operator("LRN", attributes="alpha beta bias size")
def _lrn(node: Node, x: Any) -> Any:
    size, alpha = node.get("size"), node.get("alpha", 1e-4)
    return F.local_response_norm(x, size, alpha, node.get("beta", 0.75), node.get("bias", 1.0))
