"""Operators that make few elements of many along axes, and those that run along an axis; products of matrices."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import tclient as tc
from tclient._onnx.folding import axes_of
from tclient._onnx.operators import operator
from tclient._onnx.reading import Node
from tclient._onnx.shaping import flat
from tclient.nn import functional as F


def _total(x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _product(x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _log_sum_exp(x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    return tc.logsumexp(x, axes, keepdim=keep)


def _extreme(x: Any, axes: tuple[int, ...], keep: bool, *, largest: bool) -> Any:
    if x.numel() == 0:
        # Of none the largest is the least that there is.
        if x.dtype.is_floating_point:
            least = -math.inf if largest else math.inf
        elif x.dtype == tc.bool:
            least = not largest
        else:
            least = tc.iinfo(x.dtype).min if largest else tc.iinfo(x.dtype).max
        return tc.full_like(x.sum(axes, keepdim=keep, dtype=x.dtype), least)
    return (tc.amax if largest else tc.amin)(x, axes, keepdim=keep)


_REDUCTIONS: dict[str, Callable[[Any, tuple[int, ...], bool], Any]] = {
    "ReduceL1": lambda x, axes, keep: _total(x.abs(), axes, keep),
    "ReduceL2": lambda x, axes, keep: _total(x * x, axes, keep).sqrt().to(x.dtype),
    "ReduceLogSum": lambda x, axes, keep: _total(x, axes, keep).log(),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": functools.partial(_extreme, largest=True),
    "ReduceMean": lambda x, axes, keep: tc.mean(x, axes, keepdim=keep),
    "ReduceMin": functools.partial(_extreme, largest=False),
    "ReduceProd": _product,
    "ReduceSum": _total,
    "ReduceSumSquare": lambda x, axes, keep: _total(x * x, axes, keep),
}


@operator(*_REDUCTIONS, attributes="axes keepdims noop_with_empty_axes", numbers=(1,))
def _reduce(node: Node, x: Any, axes: Any = None) -> Any:
    found = axes_of(node, axes)
    if not found:
        # Without axes only the reduction itself is left out: what is done to each element is not.
        found = [] if node.get("noop_with_empty_axes", 0) else list(range(x.ndim))
        if not found:
            x = x.unsqueeze(0)
            return _REDUCTIONS[node.kind](x, (0,), False)
    return _REDUCTIONS[node.kind](x, tuple(found), bool(node.get("keepdims", 1)))


@operator("ArgMax", "ArgMin", attributes="axis keepdims select_last_index")
def _arg(node: Node, x: Any) -> Any:
    axis, keep = node.get("axis", 0), bool(node.get("keepdims", 1))
    find = tc.argmax if node.kind == "ArgMax" else tc.argmin
    if node.get("select_last_index", 0):
        return x.shape[axis] - 1 - find(x.flip(axis), axis, keep)
    return find(x, axis, keep)


@operator("CumSum", "CumProd", attributes="exclusive reverse", numbers=(1,))
def _cumulated(node: Node, x: Any, axis: Any) -> Any:
    dim = int(axis.item())
    run, neutral = (tc.cumsum, tc.zeros_like) if node.kind == "CumSum" else (tc.cumprod, tc.ones_like)
    x = x.flip(dim) if node.get("reverse", 0) else x
    made = run(x, dim, dtype=x.dtype)
    if node.get("exclusive", 0):
        size = x.shape[dim]
        made = tc.cat([neutral(made.narrow(dim, 0, 1)), made.narrow(dim, 0, size - 1)], dim)
    return made.flip(dim) if node.get("reverse", 0) else made


@operator("Softmax", "LogSoftmax", "Hardmax", attributes="axis")
def _softmax(node: Node, x: Any) -> Any:
    kinds: dict[str, Callable[[Any, int], Any]]
    kinds = {"Softmax": F.softmax, "LogSoftmax": F.log_softmax, "Hardmax": _hardmax}
    run = kinds[node.kind]
    if node.version >= 13:
        return run(x, node.get("axis", -1))
    # Of old, all axes from this one on were taken as one.
    return run(flat(x, node.get("axis", 1)), 1).reshape(x.shape)


def _hardmax(x: Any, axis: int) -> Any:
    return tc.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


@operator("MatMul")
def _matmul(node: Node, x: Any, y: Any) -> Any:
    return tc.matmul(x, y)


@operator("Gemm", attributes="alpha beta transA transB")
def _gemm(node: Node, x: Any, y: Any, bias: Any = None) -> Any:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    x = x.t() if node.get("transA", 0) else x
    if node.get("transB", 0):
        if alpha == 1 and (bias is None or (beta == 1 and bias.ndim == 1)):
            return F.linear(x, y, bias)
        y = y.t()
    made = x @ y
    made = made if alpha == 1 else made * alpha
    if bias is None:
        return made
    return made + (bias if beta == 1 else bias * beta)


@operator("Einsum", attributes="equation")
def _einsum(node: Node, *xs: Any) -> Any:
    return tc.einsum(node.get("equation").replace(" ", ""), *xs)


@operator("MatMulInteger")
def _matmul_integer(node: Node, x: Any, y: Any, x_zero: Any = None, y_zero: Any = None) -> Any:
    x, y = x.to(tc.int32), y.to(tc.int32)
    if x_zero is not None:
        x = x - (x_zero.to(tc.int32).unsqueeze(-1) if x_zero.ndim else x_zero.to(tc.int32))
    if y_zero is not None:
        y = y - y_zero.to(tc.int32)
    return tc.matmul(x, y)


@operator("LpNormalization", attributes="axis p")
def _lp_normalization(node: Node, x: Any) -> Any:
    size = tc.linalg.vector_norm(x, node.get("p", 2), dim=node.get("axis", -1), keepdim=True)
    return tc.where(size == 0, tc.zeros_like(x), x / size)


@operator("MeanVarianceNormalization", attributes="axes")
def _mean_variance_normalization(node: Node, x: Any) -> Any:
    axes = tuple(node.get("axes", [0, 2, 3]))
    mean = x.mean(axes, keepdim=True)
    return (x - mean) / (((x * x).mean(axes, keepdim=True) - mean * mean).sqrt() + 1e-9)
