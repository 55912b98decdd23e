"""Functions of each element, and of the elements of two arrays.

Most are torch's, with numbers on either side and the standard's promotion. Written out are those whose special values
differ from torch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import tclient as tc
from tclient import Tensor
from tclient.array_api._arguments import as_native, converted, pair
from tclient.array_api._dtypes import Scalar

Unary = Callable[[Tensor], Tensor]
F = TypeVar("F", bound=Callable[..., Any])
Binary = Callable[[Tensor | Scalar, Tensor | Scalar], Tensor]


def _unary(name: str, of: Callable[..., Any]) -> Unary:
    def function(x: Tensor, /) -> Tensor:
        made: Tensor = of(x)
        return made

    return _named(function, name)


def _binary(name: str, of: Callable[..., Any], arguments: Callable[..., Any] = pair) -> Binary:
    def function(x1: Tensor | Scalar, x2: Tensor | Scalar, /) -> Tensor:
        made: Tensor = of(*arguments(x1, x2))
        return made

    return _named(function, name)


def _named(function: F, name: str) -> F:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The standard's {name}."
    return function


acos = _unary("acos", tc.acos)
acosh = _unary("acosh", tc.acosh)
asin = _unary("asin", tc.asin)
asinh = _unary("asinh", tc.asinh)
atan = _unary("atan", tc.atan)
atanh = _unary("atanh", tc.atanh)
bitwise_invert = _unary("bitwise_invert", tc.bitwise_not)
conj = _unary("conj", tc.conj_physical)
cos = _unary("cos", tc.cos)
cosh = _unary("cosh", tc.cosh)
exp = _unary("exp", tc.exp)
imag = _unary("imag", tc.imag)
isfinite = _unary("isfinite", tc.isfinite)
isinf = _unary("isinf", tc.isinf)
isnan = _unary("isnan", tc.isnan)
log = _unary("log", tc.log)
log10 = _unary("log10", tc.log10)
log2 = _unary("log2", tc.log2)
logical_not = _unary("logical_not", tc.logical_not)
negative = _unary("negative", tc.negative)
positive = _unary("positive", tc.positive)
real = _unary("real", tc.real)
reciprocal = _unary("reciprocal", tc.reciprocal)
signbit = _unary("signbit", tc.signbit)
sin = _unary("sin", tc.sin)
sinh = _unary("sinh", tc.sinh)
sqrt = _unary("sqrt", tc.sqrt)
square = _unary("square", tc.square)
tan = _unary("tan", tc.tan)
tanh = _unary("tanh", tc.tanh)

add = _binary("add", tc.add, as_native)
atan2 = _binary("atan2", tc.atan2)
bitwise_and = _binary("bitwise_and", tc.bitwise_and, as_native)
bitwise_left_shift = _binary("bitwise_left_shift", tc.bitwise_left_shift, as_native)
bitwise_or = _binary("bitwise_or", tc.bitwise_or, as_native)
bitwise_right_shift = _binary("bitwise_right_shift", tc.bitwise_right_shift, as_native)
bitwise_xor = _binary("bitwise_xor", tc.bitwise_xor, as_native)
copysign = _binary("copysign", tc.copysign)
divide = _binary("divide", tc.divide, as_native)
equal = _binary("equal", tc.eq, as_native)
greater = _binary("greater", tc.greater, as_native)
greater_equal = _binary("greater_equal", tc.greater_equal, as_native)
hypot = _binary("hypot", tc.hypot)
less = _binary("less", tc.less, as_native)
less_equal = _binary("less_equal", tc.less_equal, as_native)
logaddexp = _binary("logaddexp", tc.logaddexp)
logical_and = _binary("logical_and", tc.logical_and)
logical_or = _binary("logical_or", tc.logical_or)
logical_xor = _binary("logical_xor", tc.logical_xor)
maximum = _binary("maximum", tc.maximum)
minimum = _binary("minimum", tc.minimum)
multiply = _binary("multiply", tc.multiply, as_native)
nextafter = _binary("nextafter", tc.nextafter)
not_equal = _binary("not_equal", tc.not_equal, as_native)
pow = _binary("pow", tc.pow, as_native)
subtract = _binary("subtract", tc.subtract, as_native)


def abs(x: Tensor, /) -> Tensor:
    """The distance of each element from zero; of unsigned ones, themselves."""
    return tc.abs(x) if x.dtype.is_signed else x.clone()


def _rounded(name: str, of: Callable[..., Any]) -> Unary:
    def function(x: Tensor, /) -> Tensor:
        """What has no fraction stays as it is."""
        dtype = x.dtype
        if dtype.is_complex:
            return tc.complex(of(x.real), of(x.imag))
        made: Tensor = of(x) if dtype.is_floating_point else x.clone()
        return made

    return _named(function, name)


ceil = _rounded("ceil", tc.ceil)
floor = _rounded("floor", tc.floor)
round = _rounded("round", tc.round)
trunc = _rounded("trunc", tc.trunc)


def sign(x: Tensor, /) -> Tensor:
    """-1, 0 or 1; of a complex number, itself at the distance 1. NaN stays NaN, which torch makes 0."""
    dtype = x.dtype
    if dtype.is_complex:
        return tc.where(x == 0, x, x / tc.abs(x))
    return tc.where(tc.isnan(x), x, tc.sign(x)) if dtype.is_floating_point else tc.sign(x)


def expm1(x: Tensor, /) -> Tensor:
    """exp(x) - 1, exact near zero; torch loses that for complex numbers, and their special values."""
    if not x.dtype.is_complex:
        return tc.expm1(x)
    a, b = x.real, x.imag
    half = tc.sin(b / 2)
    grown = tc.exp(a)
    # Where the exponential is 0, no angle matters; where there is no angle, no imaginary part comes of it.
    lost, flat = grown == 0, b == 0
    real = tc.where(flat, tc.expm1(a), tc.where(lost, -tc.ones_like(a), tc.expm1(a) * tc.cos(b) - 2 * half * half))
    imag = tc.where(flat, b, tc.where(lost, tc.copysign(tc.zeros_like(b), b), grown * tc.sin(b)))
    endless = (a == math.inf) & ~tc.isfinite(b)
    real = tc.where(endless, a, real)
    imag = tc.where(endless, tc.full_like(b, math.nan), imag)
    return tc.complex(real, imag)


def log1p(x: Tensor, /) -> Tensor:
    """log(1 + x), exact near zero; where a part is infinite, the logarithm says what torch loses."""
    made = tc.log1p(x)
    if not x.dtype.is_complex:
        return made
    return tc.where(tc.isinf(x), tc.log(x), made)


def floor_divide(x1: Tensor | Scalar, x2: Tensor | Scalar, /) -> Tensor:
    """The quotient, rounded down; with an infinite number, of the quotient that true division has."""
    one, other = pair(x1, x2)
    quotient = tc.floor_divide(one, other)
    if not one.dtype.is_floating_point:
        return quotient
    return tc.where(tc.isinf(one) | tc.isinf(other), tc.floor(one / other), quotient)


def remainder(x1: Tensor | Scalar, x2: Tensor | Scalar, /) -> Tensor:
    """What floor division leaves, with the sign of the divisor: also where it is zero."""
    one, other = pair(x1, x2)
    rest = tc.remainder(one, other)
    return tc.where(rest == 0, tc.copysign(rest, other), rest) if one.dtype.is_floating_point else rest


def clip(x: Tensor, /, min: Tensor | float | None = None, max: Tensor | float | None = None) -> Tensor:
    """The elements, none below `min` nor above `max`, in their dtype; NaN as a limit gives NaN."""
    limited = x
    for limit, choose in ((min, tc.maximum), (max, tc.minimum)):
        if limit is None:
            continue
        if not isinstance(limit, Tensor):
            limit = tc.full((), _within(limit, x), dtype=x.dtype, device=x.device)
        limited = choose(limited, converted(limit, x.dtype))
    return limited.clone() if limited is x else limited


def _within(limit: float, x: Tensor) -> float:
    """A limit that the dtype of an array can hold, and that does the same."""
    dtype = x.dtype
    if dtype.is_floating_point or dtype is tc.bool or math.isnan(limit):
        return limit
    info = tc.iinfo(dtype)
    return info.min if limit < info.min else info.max if limit > info.max else limit
