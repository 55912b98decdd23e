"""Operators that work element by element: arithmetic, comparisons, logic, activations, casts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tclient as tc
from tclient._exceptions import TensorNotImplementedError
from tclient._onnx.operators import operator
from tclient._onnx.reading import DTYPES, Node
from tclient.nn import functional as F

_UNARY: dict[str, Callable[[Any], Any]] = {
    "Abs": tc.abs,
    "Acos": tc.acos,
    "Acosh": tc.acosh,
    "Asin": tc.asin,
    "Asinh": tc.asinh,
    "Atan": tc.atan,
    "Atanh": tc.atanh,
    "BitwiseNot": tc.bitwise_not,
    "Ceil": tc.ceil,
    "Cos": tc.cos,
    "Cosh": tc.cosh,
    "Det": tc.det,
    "Erf": tc.erf,
    "Exp": tc.exp,
    "Floor": tc.floor,
    "HardSwish": F.hardswish,
    "IsNaN": tc.isnan,
    "Log": tc.log,
    "Mish": F.mish,
    "Neg": tc.neg,
    "Not": tc.logical_not,
    "Reciprocal": tc.reciprocal,
    "Relu": tc.relu,
    "Round": tc.round,
    "Sigmoid": tc.sigmoid,
    "Sign": tc.sign,
    "Sin": tc.sin,
    "Sinh": tc.sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": tc.sqrt,
    "Tan": tc.tan,
    "Tanh": tc.tanh,
}
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": tc.add,
    "And": tc.logical_and,
    "BitwiseAnd": tc.bitwise_and,
    "BitwiseOr": tc.bitwise_or,
    "BitwiseXor": tc.bitwise_xor,
    "Equal": tc.eq,
    "Greater": tc.gt,
    "GreaterOrEqual": tc.ge,
    "Less": tc.lt,
    "LessOrEqual": tc.le,
    "Mul": tc.mul,
    "Or": tc.logical_or,
    "Sub": tc.sub,
    "Xor": tc.logical_xor,
}
_VARIADIC: dict[str, Callable[[Any, Any], Any]] = {"Max": tc.maximum, "Min": tc.minimum, "Sum": tc.add}


def _unary(node: Node, x: Any) -> Any:
    return _UNARY[node.kind](x)


def _binary(node: Node, x: Any, y: Any) -> Any:
    return _BINARY[node.kind](x, y)


operator(*_UNARY)(_unary)
operator(*_BINARY)(_binary)


@operator(*_VARIADIC)
def _variadic(node: Node, *xs: Any) -> Any:
    return functools.reduce(_VARIADIC[node.kind], xs)


@operator("Mean")
def _mean(node: Node, *xs: Any) -> Any:
    return functools.reduce(tc.add, xs) / len(xs)


@operator("Div")
def _div(node: Node, x: Any, y: Any) -> Any:
    return x / y if _is_inexact(x) else tc.div(x, y, rounding_mode="trunc")


@operator("Mod", attributes="fmod")
def _mod(node: Node, x: Any, y: Any) -> Any:
    return tc.fmod(x, y) if node.get("fmod", 0) else tc.remainder(x, y)


@operator("Pow")
def _pow(node: Node, x: Any, y: Any) -> Any:
    return tc.pow(x, y).to(x.dtype)


@operator("BitShift", attributes="direction")
def _bit_shift(node: Node, x: Any, y: Any) -> Any:
    return (tc.bitwise_left_shift if node.get("direction") == "LEFT" else tc.bitwise_right_shift)(x, y)


@operator("Where")
def _where(node: Node, condition: Any, x: Any, y: Any) -> Any:
    return tc.where(condition, x, y)


@operator("IsInf", attributes="detect_negative detect_positive")
def _is_inf(node: Node, x: Any) -> Any:
    negative, positive = node.get("detect_negative", 1), node.get("detect_positive", 1)
    if negative and positive:
        return tc.isinf(x)
    if not negative and not positive:
        return tc.zeros_like(x, dtype=tc.bool)
    return tc.isneginf(x) if negative else tc.isposinf(x)


def _is_inexact(x: Any) -> bool:
    return x.dtype.is_floating_point or x.dtype.is_complex  # type: ignore[no-any-return]


# ---- activations ---------------------------------------------------------------------------------------------------


@operator("Clip", attributes="min max")
def _clip(node: Node, x: Any, low: Any = None, high: Any = None) -> Any:
    low, high = node.get("min", low), node.get("max", high)
    if low is None and high is None:
        return x
    # What is above the highest is that, even where the lowest is higher still: as torch has it, too.
    return tc.clamp(x, low, high)


@operator("Elu", attributes="alpha")
def _elu(node: Node, x: Any) -> Any:
    return F.elu(x, node.get("alpha", 1.0))


@operator("Celu", attributes="alpha")
def _celu(node: Node, x: Any) -> Any:
    return F.celu(x, node.get("alpha", 1.0))


@operator("Selu", attributes="alpha gamma")
def _selu(node: Node, x: Any) -> Any:
    return F.elu(x, node.get("alpha", 1.67326319217681884765625)) * node.get("gamma", 1.05070102214813232421875)


@operator("LeakyRelu", attributes="alpha")
def _leaky_relu(node: Node, x: Any) -> Any:
    return F.leaky_relu(x, node.get("alpha", 0.01))


@operator("ThresholdedRelu", attributes="alpha")
def _thresholded_relu(node: Node, x: Any) -> Any:
    return F.threshold(x, node.get("alpha", 1.0), 0.0)


@operator("HardSigmoid", attributes="alpha beta")
def _hard_sigmoid(node: Node, x: Any) -> Any:
    return tc.clamp(x * node.get("alpha", 0.2) + node.get("beta", 0.5), 0, 1)


@operator("PRelu")
def _prelu(node: Node, x: Any, slope: Any) -> Any:
    return tc.where(x < 0, x * slope, x)


@operator("Gelu", attributes="approximate")
def _gelu(node: Node, x: Any) -> Any:
    return F.gelu(x, approximate=node.get("approximate", "none"))


@operator("Swish", attributes="alpha")
def _swish(node: Node, x: Any) -> Any:
    alpha = node.get("alpha", 1.0)
    return F.silu(x) if alpha == 1 else x * tc.sigmoid(x * alpha)


@operator("Shrink", attributes="bias lambd")
def _shrink(node: Node, x: Any) -> Any:
    bias, edge = node.get("bias", 0.0), node.get("lambd", 0.5)
    return tc.where(x < -edge, x + bias, tc.where(x > edge, x - bias, tc.zeros_like(x))).to(x.dtype)


# ---- types and copies ----------------------------------------------------------------------------------------------


def _wrong_type(node: Node) -> str | None:
    return None if node.get("to") in DTYPES else f"there are no tensors of the type numbered {node.get('to')}"


@operator("Cast", attributes="to saturate round_mode", complaint=_wrong_type)
def _cast(node: Node, x: Any) -> Any:
    return _as_type(node, x, DTYPES[node.get("to")])


@operator("CastLike", attributes="saturate round_mode")
def _cast_like(node: Node, x: Any, like: Any) -> Any:
    return _as_type(node, x, like.dtype)


def _as_type(node: Node, x: Any, element: Any) -> Any:
    if not element.is_floating_point or element.itemsize != 1:
        return x.to(element)
    largest = tc.finfo(element).max
    if node.get("saturate", 1):
        return tc.clamp(x, -largest, largest).to(element)
    # Of what rounds to more than the largest one type has infinity, and the other has none.
    if element == tc.float8_e4m3fn:
        x = tc.where(x.abs() >= 464, tc.full((), tc.nan, dtype=x.dtype), x)
    return x.to(element)


@operator("BitCast", attributes="to", complaint=_wrong_type)
def _bit_cast(node: Node, x: Any) -> Any:
    return x.view(DTYPES[node.get("to")])


@operator("Identity")
def _identity(node: Node, x: Any) -> Any:
    return x


@operator("Dropout", attributes="ratio seed", numbers=(2,))
def _dropout(node: Node, x: Any, ratio: Any = None, training: Any = None) -> Any:
    if training is not None and training.item():
        raise TensorNotImplementedError(f"{node} drops elements, as in training: export the model for evaluation")
    return (x, tc.ones_like(x, dtype=tc.bool)) if len(node.outputs) > 1 else x
