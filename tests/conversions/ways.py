"""The ways in which a value becomes a tensor, or a part of a call, and those in which a tensor becomes something else.

A way is drawn; it is a text and a function of a module and a value. Knows the surface of torch, and of no server.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.conversions.values import Draw

DTYPES = "float32 float64 float16 bfloat16 uint8 int8 int16 int32 int64 bool complex64 complex128 uint16 uint32 uint64"
DTYPES += " float8_e4m3fn float8_e5m2 complex32"


class Way(NamedTuple):
    """What is done with a value."""

    text: str
    run: Callable[[Any, Any], Any]


CREATE: list[Way] = [
    *[Way("tensor(v)", lambda m, v: m.tensor(v))] * 4,
    Way("as_tensor(v)", lambda m, v: m.as_tensor(v)),
    Way("asarray(v)", lambda m, v: m.asarray(v)),
    Way("asarray(v, copy=True)", lambda m, v: m.asarray(v, copy=True)),
    Way("asarray(v, copy=False)", lambda m, v: m.asarray(v, copy=False)),
    *[Way("from_numpy(v)", lambda m, v: m.from_numpy(v))] * 2,
    Way("Tensor(v)", lambda m, v: m.Tensor(v)),
    Way("Tensor(v, dtype)", lambda m, v: m.Tensor(v, dtype=m.int64)),
    Way("FloatTensor(v)", lambda m, v: m.FloatTensor(v)),
    Way("LongTensor(v)", lambda m, v: m.LongTensor(v)),
    Way("BoolTensor(v)", lambda m, v: m.BoolTensor(v)),
    Way("new_tensor(v)", lambda m, v: m.ones(2, dtype=m.float64).new_tensor(v)),
    Way("tensor(data=v)", lambda m, v: m.tensor(data=v)),
    Way("tensor(v, requires_grad)", lambda m, v: m.tensor(v, requires_grad=True)),
    Way("tensor([v, v])", lambda m, v: m.tensor([v, v])),
    Way("tensor([[v], [1]])", lambda m, v: m.tensor([[v], [1]])),
    Way("asarray([v, 1.5])", lambda m, v: m.asarray([v, 1.5])),
    Way("scalar_tensor(v)", lambda m, v: m.scalar_tensor(v)),
]
CREATE_AS: list[Callable[[str], Way]] = [
    lambda d: Way(f"tensor(v, {d})", lambda m, v: m.tensor(v, dtype=getattr(m, d))),
    lambda d: Way(f"tensor(v, {d})", lambda m, v: m.tensor(v, dtype=getattr(m, d))),
    lambda d: Way(f"tensor([v], {d})", lambda m, v: m.tensor([v], dtype=getattr(m, d))),
    lambda d: Way(f"as_tensor(v, {d})", lambda m, v: m.as_tensor(v, dtype=getattr(m, d))),
    lambda d: Way(f"asarray(v, {d})", lambda m, v: m.asarray(v, dtype=getattr(m, d))),
    lambda d: Way(f"new_tensor(v, {d})", lambda m, v: m.ones(2).new_tensor(v, dtype=getattr(m, d))),
    lambda d: Way(f"full((2,), v, {d})", lambda m, v: m.full((2,), v, dtype=getattr(m, d))),
    lambda d: Way(f"{d} ones + v", lambda m, v: m.ones(2).to(getattr(m, d)) + v),
    lambda d: Way(f"{d} zeros.fill_(v)", lambda m, v: m.zeros(2, dtype=getattr(m, d)).fill_(v)),
    lambda d: Way(f"{d} zeros[0] = v", lambda m, v: put(m.zeros(2, dtype=getattr(m, d)), 0, v)),
]


def put(x: Any, where: Any, value: Any) -> Any:
    """The tensor, after a write."""
    x[where] = value
    return x


def _x(m: Any) -> Any:
    return m.arange(12.0).reshape(3, 4)


INDEX: list[Way] = [
    *[Way("x[v]", lambda m, v: _x(m)[v])] * 4,
    Way("x[v, 1]", lambda m, v: _x(m)[v, 1]),
    Way("x[:, v]", lambda m, v: _x(m)[:, v]),
    Way("x[v:]", lambda m, v: _x(m)[v:]),
    Way("x[:v]", lambda m, v: _x(m)[:v]),
    Way("x[..., v]", lambda m, v: _x(m)[..., v]),
    Way("x[[v, v]]", lambda m, v: _x(m)[[v, v]]),
    *[Way("x[v] = 7", lambda m, v: put(_x(m), v, 7))] * 2,
    Way("x[0] = v", lambda m, v: put(_x(m), 0, v)),
    Way("x[:] = v", lambda m, v: put(_x(m), slice(None), v)),
    Way("x[x > 3] = v", lambda m, v: (lambda x: put(x, x > 3, v))(_x(m))),
    Way("x[0, 0] = v", lambda m, v: put(_x(m), (0, 0), v)),
    Way("v in x", lambda m, v: v in _x(m)),
]


def _binary(text: str, of: Callable[[Any, Any], Any]) -> list[Way]:
    return [
        Way(f"floats {text} v", lambda m, v: of(m.arange(3.0), v)),
        Way(f"v {text} floats", lambda m, v: of(v, m.arange(3.0))),
        Way(f"ints {text} v", lambda m, v: of(m.arange(1, 4), v)),
        Way(f"v {text} ints", lambda m, v: of(v, m.arange(1, 4))),
    ]


OPERATORS: list[Way] = [
    way
    for text, of in {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": operator.truediv,
        "//": operator.floordiv,
        "%": operator.mod,
        "**": operator.pow,
        "@": operator.matmul,
        "==": operator.eq,
        "!=": operator.ne,
        "<": operator.lt,
        ">=": operator.ge,
        "&": operator.and_,
        "|": operator.or_,
        "<<": operator.lshift,
        "+=": operator.iadd,
        "*=": operator.imul,
        "&=": operator.iand,
    }.items()
    for way in _binary(text, of)
]

ARGUMENTS: list[Way] = [
    Way("add(x, v)", lambda m, v: m.add(_x(m), v)),
    Way("add(x, 1, alpha=v)", lambda m, v: m.add(_x(m), 1, alpha=v)),
    Way("mul(v, x)", lambda m, v: m.mul(v, _x(m))),
    Way("full((2,), v)", lambda m, v: m.full((2,), v)),
    Way("full(v, 1)", lambda m, v: m.full(v, 1)),
    Way("full_like(x, v)", lambda m, v: m.full_like(_x(m), v)),
    Way("new_full((2,), v)", lambda m, v: _x(m).new_full((2,), v)),
    Way("where(x > 3, v, x)", lambda m, v: m.where(_x(m) > 3, v, _x(m))),
    Way("where(x > 3, x, v)", lambda m, v: m.where(_x(m) > 3, _x(m), v)),
    Way("clamp(x, v)", lambda m, v: m.clamp(_x(m), v)),
    Way("clamp(x, max=v)", lambda m, v: m.clamp(_x(m), max=v)),
    Way("x.clamp(min=v)", lambda m, v: _x(m).clamp(min=v)),
    Way("x.fill_(v)", lambda m, v: _x(m).fill_(v)),
    Way("masked_fill(x, x > 3, v)", lambda m, v: _x(m).masked_fill(_x(m) > 3, v)),
    Way("maximum(x, v)", lambda m, v: m.maximum(_x(m), v)),
    Way("x.copy_(v)", lambda m, v: _x(m).copy_(v)),
    Way("x.eq(v)", lambda m, v: _x(m).eq(v)),
    Way("x.pow(v)", lambda m, v: _x(m).pow(v)),
    Way("pow(v, x)", lambda m, v: m.pow(v, _x(m))),
    Way("arange(v)", lambda m, v: m.arange(v)),
    Way("arange(0, 3, v)", lambda m, v: m.arange(0, 3, v)),
    Way("linspace(0, v, 3)", lambda m, v: m.linspace(0, v, 3)),
    Way("linspace(0, 1, v)", lambda m, v: m.linspace(0, 1, v)),
    Way("zeros(v)", lambda m, v: m.zeros(v)),
    Way("zeros(2, v)", lambda m, v: m.zeros(2, v)),
    Way("zeros([v])", lambda m, v: m.zeros([v])),
    Way("ones(size=v)", lambda m, v: m.ones(size=v)),
    Way("eye(v)", lambda m, v: m.eye(v)),
    Way("reshape(v)", lambda m, v: _x(m).reshape(v)),
    Way("reshape(v, 4)", lambda m, v: _x(m).reshape(v, 4)),
    Way("view(v)", lambda m, v: _x(m).view(v)),
    Way("expand(v)", lambda m, v: m.ones(1).expand(v)),
    Way("permute(v)", lambda m, v: _x(m).permute(v)),
    Way("repeat(v)", lambda m, v: m.ones(2).repeat(v)),
    Way("sum(v)", lambda m, v: _x(m).sum(v)),
    Way("sum(dim=v)", lambda m, v: m.sum(_x(m), dim=v)),
    Way("softmax(v)", lambda m, v: _x(m).softmax(v)),
    Way("max(v)", lambda m, v: _x(m).max(v)),
    Way("unsqueeze(v)", lambda m, v: _x(m).unsqueeze(v)),
    Way("transpose(v, 0)", lambda m, v: _x(m).transpose(v, 0)),
    Way("flip(v)", lambda m, v: _x(m).flip(v)),
    Way("split(v)", lambda m, v: _x(m).split(v)),
    Way("chunk(v)", lambda m, v: _x(m).chunk(v)),
    Way("size(v)", lambda m, v: _x(m).size(v)),
    Way("topk(v)", lambda m, v: _x(m).topk(v)),
    Way("round(decimals=v)", lambda m, v: _x(m).round(decimals=v)),
    Way("roll(v, 0)", lambda m, v: _x(m).roll(v, 0)),
    Way("quantile(v)", lambda m, v: _x(m).quantile(v)),
    Way("stack(v)", lambda m, v: m.stack(v)),
    Way("cat(v)", lambda m, v: m.cat(v)),
    Way("cat([x, v])", lambda m, v: m.cat([_x(m), v])),
    Way("index_select(0, v)", lambda m, v: _x(m).index_select(0, v)),
    Way("take(v)", lambda m, v: _x(m).take(v)),
    Way("narrow(0, v, 1)", lambda m, v: _x(m).narrow(0, v, 1)),
    Way("item of x[v]", lambda m, v: m.arange(5)[v].item()),
    Way("sum(keepdim=v)", lambda m, v: _x(m).sum(0, keepdim=v)),
    Way("ones(1, requires_grad=v)", lambda m, v: m.ones(1, requires_grad=v)),
    Way("ones(1, dtype=v)", lambda m, v: m.ones(1, dtype=v)),
    Way("x.to(v)", lambda m, v: _x(m).to(v)),
    Way("x.type_as(v)", lambda m, v: _x(m).type_as(v)),
    Way("isclose(x, v)", lambda m, v: m.isclose(_x(m), v)),
    Way("equal(x, v)", lambda m, v: m.equal(_x(m), v)),
    Way("sin(v)", lambda m, v: m.sin(v)),
    Way("relu(v)", lambda m, v: m.nn.functional.relu(v)),
    Way("is_tensor(v)", lambda m, v: m.is_tensor(v)),
    Way("numel(v)", lambda m, v: m.numel(v)),
    Way("result_type(x, v)", lambda m, v: m.result_type(_x(m), v)),
    Way("Size(v)", lambda m, v: m.Size(v)),
    Way("x.new_zeros(v)", lambda m, v: _x(m).new_zeros(v)),
    Way("x.scatter(0, i, v)", lambda m, v: _x(m).scatter(0, m.zeros(1, 4, dtype=m.int64), v)),
    Way("x.index_fill(0, i, v)", lambda m, v: _x(m).index_fill(0, m.tensor([0]), v)),
    Way("addcmul(x, x, x, value=v)", lambda m, v: m.addcmul(_x(m), _x(m), _x(m), value=v)),
    Way("lerp(x, x, v)", lambda m, v: m.lerp(_x(m), _x(m), v)),
]

OUT: list[Way] = [
    *(Way(f"{of.__name__}(t)", lambda m, t, of=of: of(t)) for of in (int, float, bool, complex, list, len, str, repr)),
    *(
        Way(f"{of.__name__}(t)", lambda m, t, of=of: of(t))
        for of in (abs, round, range, hex, chr, iter, tuple, sum, max)
    ),
    *(Way(f"math.{of.__name__}(t)", lambda m, t, of=of: of(t)) for of in (math.floor, math.ceil, math.trunc)),
    *(Way(f"math.{of.__name__}(t)", lambda m, t, of=of: of(t)) for of in (math.sqrt, math.isnan, math.factorial)),
    *(Way(f"np.{kind}(t)", lambda m, t, kind=kind: getattr(np, kind)(t)) for kind in ("float64", "int32", "bool_")),
    *(Way(f"t.{name}()", lambda m, t, name=name: getattr(t, name)()) for name in ("item", "tolist", "numpy", "stride")),
    *(
        Way(f"format(t, {spec!r})", lambda m, t, spec=spec: format(t, spec))
        for spec in ("", ".2f", "d", "5", "e", "x", "s", ">10", "%", "q")
    ),
    *(
        Way(f"np.asarray(t, {kind!r})", lambda m, t, kind=kind: np.asarray(t, dtype=kind))
        for kind in (None, "f8", "f4", "i8", "?", "c16", "O", "U5")
    ),
    Way("np.array(t, copy=True)", lambda m, t: np.array(t, copy=True)),
    Way("np.array([t, t])", lambda m, t: np.array([t, t])),
    Way("np.asarray(t, copy=False)", lambda m, t: np.asarray(t, copy=False)),
    Way("int(tensor(1e20) * t)", lambda m, t: int(m.tensor(1e20) * t)),
    Way("int(tensor(-1e300) * t)", lambda m, t: int(m.tensor(-1e300, dtype=m.float64) * t)),
    Way("round(t, 1)", lambda m, t: round(t, 1)),
    Way("divmod(t, 2)", lambda m, t: divmod(t, 2)),
    Way("divmod(7, t)", lambda m, t: divmod(7, t)),
    Way("operator.index(t)", lambda m, t: operator.index(t)),
    Way("[0, 1, 2][t]", lambda m, t: [0, 1, 2][t]),
    Way("'ab' * t", lambda m, t: "ab" * t),
    Way("'%d' % t", lambda m, t: "%d" % t),
    Way("'%.2f' % t", lambda m, t: "%.2f" % t),
    Way("'%s' % t", lambda m, t: "%s" % t),
    Way("f'{t}'", lambda m, t: f"{t}"),
    Way("f'{t!r}'", lambda m, t: f"{t!r}"),
    Way("'{:.3}'.format(t)", lambda m, t: "{:.3}".format(t)),
    Way("not t", lambda m, t: not t),
    Way("-t", lambda m, t: -t),
    Way("~t", lambda m, t: ~t),
    Way("t and 1", lambda m, t: t and 1),
    Way("1 if t else 2", lambda m, t: 1 if t else 2),
    Way("reversed(t)", lambda m, t: list(reversed(t))),
    Way("sorted([t, t + 1])", lambda m, t: sorted([t + 1, t])),
    Way("max(t, 3)", lambda m, t: max(t, 3)),
    Way("sum([t, t])", lambda m, t: sum([t, t])),
    Way("t.type()", lambda m, t: t.type()),
    Way("isinstance(hash(t), int)", lambda m, t: isinstance(hash(t), int)),
    Way("t.__array__('f8')", lambda m, t: t.__array__("f8")),
    Way("a, b = t", lambda m, t: (lambda a, b: (a, b))(*t)),
    Way("bytes(t)", lambda m, t: bytes(t)),
    Way("t.is_contiguous()", lambda m, t: t.is_contiguous()),
    Way("t.view(-1)", lambda m, t: t.view(-1)),
    Way("t.t()", lambda m, t: t.t()),
    Way("tensor([t, t])", lambda m, t: m.tensor([t, t])),
    Way("tensor([[t], [2]])", lambda m, t: m.tensor([[t], [2]])),
    Way("tensor(t)", lambda m, t: m.tensor(t)),
    Way("np.arange(5)[t]", lambda m, t: np.arange(5)[t]),
]

NUMPY: list[Way] = [
    *(
        Way(f"np.{name}(t)", lambda m, t, name=name: getattr(np, name)(t))
        for name in (
            "transpose squeeze sum mean ravel max min prod cumsum sort argsort argmax any all sin exp abs std var "
            "nonzero diagonal trace shape ndim isnan isfinite median unique atleast_1d copy zeros_like ones_like "
            "sign negative logical_not round around real imag conj square floor"
        ).split()
    ),
    Way("np.reshape(t, (-1,))", lambda m, t: np.reshape(t, (-1,))),
    Way("np.reshape(t, (2, 2))", lambda m, t: np.reshape(t, (2, 2))),
    Way("np.reshape(t, -1)", lambda m, t: np.reshape(t, -1)),
    Way("np.concatenate([t, t])", lambda m, t: np.concatenate([t, t])),
    Way("np.stack([t, t])", lambda m, t: np.stack([t, t])),
    Way("np.vstack([t, t])", lambda m, t: np.vstack([t, t])),
    Way("np.sum(t, axis=0)", lambda m, t: np.sum(t, axis=0)),
    Way("np.sum(t, axis=0, keepdims=True)", lambda m, t: np.sum(t, axis=0, keepdims=True)),
    Way("np.mean(t, axis=-1)", lambda m, t: np.mean(t, axis=-1)),
    Way("np.max(t, axis=0)", lambda m, t: np.max(t, axis=0)),
    Way("np.clip(t, 0, 1)", lambda m, t: np.clip(t, 0, 1)),
    Way("np.expand_dims(t, 0)", lambda m, t: np.expand_dims(t, 0)),
    Way("np.squeeze(t, axis=0)", lambda m, t: np.squeeze(t, axis=0)),
    Way("np.transpose(t, (1, 0))", lambda m, t: np.transpose(t, (1, 0))),
    Way("np.swapaxes(t, 0, 1)", lambda m, t: np.swapaxes(t, 0, 1)),
    Way("np.moveaxis(t, 0, 1)", lambda m, t: np.moveaxis(t, 0, 1)),
    Way("np.where(t, 1, 0)", lambda m, t: np.where(t, 1, 0)),
    Way("np.add(t, 1)", lambda m, t: np.add(t, 1)),
    Way("np.add(t, t)", lambda m, t: np.add(t, t)),
    Way("np.multiply(np.ones(1), t)", lambda m, t: np.multiply(np.ones(1), t)),
    Way("np.dot(t, t)", lambda m, t: np.dot(t, t)),
    Way("np.matmul(t, t)", lambda m, t: np.matmul(t, t)),
    Way("np.maximum(t, 0.5)", lambda m, t: np.maximum(t, 0.5)),
    Way("np.allclose(t, t)", lambda m, t: np.allclose(t, t)),
    Way("np.array_equal(t, t)", lambda m, t: np.array_equal(t, t)),
    Way("np.take(t, [0])", lambda m, t: np.take(t, [0])),
    Way("np.repeat(t, 2)", lambda m, t: np.repeat(t, 2)),
    Way("np.tile(t, 2)", lambda m, t: np.tile(t, 2)),
    Way("np.linalg.norm(t)", lambda m, t: np.linalg.norm(t)),
    Way("np.argmax(t, axis=0)", lambda m, t: np.argmax(t, axis=0)),
    Way("np.cumsum(t, axis=0)", lambda m, t: np.cumsum(t, axis=0)),
    Way("np.split(t, 1)", lambda m, t: np.split(t, 1)),
    Way("np.float32(1.5) * t", lambda m, t: np.float32(1.5) * t),
    Way("np.float64(1.5) + t", lambda m, t: np.float64(1.5) + t),
    Way("np.int64(2) - t", lambda m, t: np.int64(2) - t),
    Way("np.ones(2) + t", lambda m, t: np.ones(2) + t),
    Way("np.ones(2) == t", lambda m, t: np.ones(2) == t),
    Way("t / np.ones(2)", lambda m, t: t / np.ones(2)),
]


def way_in(draw: Draw) -> Way:
    """A way for a value to become a tensor, or a part of a call."""
    kinds: list[Any] = [CREATE, CREATE_AS, INDEX, OPERATORS, ARGUMENTS]
    chosen = draw.one(draw.random.choices(kinds, [6, 5, 3, 3, 5])[0])
    made: Way = chosen if isinstance(chosen, Way) else chosen(draw.one(DTYPES.split()))
    return made


def way_out(draw: Draw) -> Way:
    """A way for a tensor to become something else."""
    made: Way = draw.one(OUT if draw.flip(0.6) else NUMPY)
    return made
