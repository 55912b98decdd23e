"""Operators of quantized networks, and losses: numbers as small integers, with a scale and a zero point."""

from __future__ import annotations

import math
from typing import Any

import tclient as tc
from tclient._onnx.operators import operator
from tclient._onnx.reading import DTYPES, Node
from tclient.nn import functional as F


def _along(value: Any, node: Node, x: Any) -> Any:
    """A scale or zero point as it broadcasts: one, one for each element of an axis, or one for each block."""
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    block = node.get("block_size", 0)
    if value.ndim == 0 or value.numel() == 1:
        return value.reshape(())
    if block:
        return value.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    return value.reshape([-1 if at == axis else 1 for at in range(x.ndim)])


@operator("DequantizeLinear", attributes="axis block_size output_dtype")
def _dequantize(node: Node, x: Any, scale: Any, zero: Any = None) -> Any:
    element = DTYPES.get(node.get("output_dtype", 0), scale.dtype)
    scale = _along(scale, node, x).float()
    wide = x.float() if x.dtype.is_floating_point else x.to(tc.int32)
    if zero is not None:
        wide = wide - _along(zero, node, x).to(wide.dtype)
    return (wide * scale).to(element)


@operator("QuantizeLinear", attributes="axis block_size output_dtype precision saturate")
def _quantize(node: Node, x: Any, scale: Any, zero: Any = None) -> Any:
    element = zero.dtype if zero is not None else DTYPES.get(node.get("output_dtype", 0), tc.uint8)
    made = x.float() / _along(scale, node, x).float()
    shift = 0 if zero is None else _along(zero, node, x).float()
    if element.is_floating_point:
        largest = tc.finfo(element).max
        return tc.clamp(made + shift, -largest, largest).to(element)
    kind = tc.iinfo(element)
    made = tc.clamp(tc.round(made) + shift, kind.min, kind.max)
    # torch has no way from floats to such integers on every device but by way of others.
    return made.to(tc.int32).to(element)


@operator("DynamicQuantizeLinear")
def _dynamic(node: Node, x: Any) -> Any:
    low, high = tc.clamp(x.amin(), max=0), tc.clamp(x.amax(), min=0)
    scale = (high - low) / 255
    zero = tc.clamp(tc.round(-low / scale), 0, 255)
    made = tc.clamp(tc.round(x / scale) + zero, 0, 255)
    return made.to(tc.uint8), scale, zero.to(tc.uint8)


@operator("QLinearMatMul")
def _matmul(
    node: Node, a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, y_scale: Any, y_zero: Any
) -> Any:
    left, right = a.to(tc.int32) - a_zero.to(tc.int32), b.to(tc.int32) - b_zero.to(tc.int32)
    scale = a_scale.float() * b_scale.float() / y_scale.float()
    kind = tc.iinfo(y_zero.dtype)
    made = tc.round(tc.matmul(left, right).float() * scale) + y_zero.float()
    return tc.clamp(made, kind.min, kind.max).to(y_zero.dtype)


@operator("NegativeLogLikelihoodLoss", attributes="ignore_index reduction")
def _nll(node: Node, x: Any, target: Any, weight: Any = None) -> Any:
    ignored = node.get("ignore_index", -100)
    return F.nll_loss(x, target.long(), weight, ignore_index=ignored, reduction=node.get("reduction", "mean"))


@operator("SoftmaxCrossEntropyLoss", attributes="ignore_index reduction")
def _cross_entropy(node: Node, x: Any, target: Any, weight: Any = None) -> Any:
    logs = F.log_softmax(x, 1)
    return _nll(node, logs, target, weight), logs


@operator("HannWindow", "HammingWindow", "BlackmanWindow", attributes="output_datatype periodic", numbers=(0,))
def _window(node: Node, size: Any) -> Any:
    count = int(size.item())
    length = count if node.get("periodic", 1) else count - 1
    angle = tc.arange(count, dtype=tc.float32) * (2 * math.pi / length)
    element = DTYPES[node.get("output_datatype", 1)]
    if node.kind == "BlackmanWindow":
        return (0.42 - 0.5 * tc.cos(angle) + 0.08 * tc.cos(2 * angle)).to(element)
    first = 0.5 if node.kind == "HannWindow" else 25 / 46
    return (first - (1 - first) * tc.cos(angle)).to(element)
