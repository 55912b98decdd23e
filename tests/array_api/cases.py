"""Programs for the array API standard, each run with two namespaces: that of tclient, and one that is strict.

`CASES` are written out; `generated()` calls every function of elements with values of every dtype that it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Array = Any
# A program takes a namespace, and a function that makes one of its arrays of one of numpy's.
Program = Callable[[Any, Callable[..., Array]], Any]

INTEGERS = ("int8", "int16", "int32", "int64", "uint8")
FLOATS = ("float32", "float64")
COMPLEX = ("complex64", "complex128")
REAL = (*INTEGERS, *FLOATS)
NUMERIC = (*REAL, *COMPLEX)
EVERY = ("bool", *NUMERIC)
KINDS = ("bool", "signed integer", "unsigned integer", "integral", "real floating", "complex floating", "numeric")
_SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 7.25, np.inf, -np.inf, np.nan]


def values(dtype: str) -> np.ndarray[Any, Any]:
    """Elements of a dtype that matter: its limits, zeros of both signs, infinities, NaN."""
    if dtype == "bool":
        return np.array([True, False])
    if dtype in INTEGERS:
        low = np.iinfo(dtype).min
        return np.array([0, 1, 2, 3, 7, 100, *([-1, -3, -100] if low else [200])], dtype)
    if dtype in FLOATS:
        return np.array(_SPECIAL, dtype)
    return np.array([0, 1, -1, 2j, -0.5j, 3 + 4j, -1.5 - 2j, 0.25 + 1j], dtype)


UNARY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            *("acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "exp", "expm1", "log", "log10"),
            *("log1p", "log2", "reciprocal", "sin", "sinh", "sqrt", "tan", "tanh"),
        ),
        (*FLOATS, *COMPLEX),
    ),
    **dict.fromkeys(("abs", "negative", "positive", "square", "sign", "round"), NUMERIC),
    **dict.fromkeys(("isfinite", "isinf", "isnan"), NUMERIC),
    **dict.fromkeys(("ceil", "floor", "trunc"), REAL),
    "signbit": FLOATS,
    "bitwise_invert": ("bool", *INTEGERS),
    "logical_not": ("bool",),
    **dict.fromkeys(("conj", "imag"), COMPLEX),
    "real": COMPLEX,
}
BINARY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("add", "subtract", "multiply", "equal", "not_equal"), NUMERIC),
    "divide": (*FLOATS, *COMPLEX),
    **dict.fromkeys(("less", "less_equal", "greater", "greater_equal", "maximum", "minimum"), REAL),
    "remainder": FLOATS,
    **dict.fromkeys(("atan2", "copysign", "hypot", "logaddexp", "nextafter", "pow"), FLOATS),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), ("bool", *INTEGERS)),
    **dict.fromkeys(("logical_and", "logical_or", "logical_xor"), ("bool",)),
}
REDUCTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("sum", "prod"), ("int8", "int32", "int64", *FLOATS, *COMPLEX)),
    **dict.fromkeys(("max", "min"), REAL),
    **dict.fromkeys(("mean", "std", "var"), FLOATS),
    **dict.fromkeys(("all", "any", "count_nonzero"), EVERY),
}
_PROMOTES = [("int8", "int16"), ("uint8", "int8"), ("int64", "uint8"), ("float32", "float64"), ("float32", "complex64")]
_AXES = {"all": None, "none": (), "one": 1, "last": -1, "two": (0, 2), "reversed": (-1, 0)}


def _grid(dtype: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    found = values(dtype)
    return found[:, None], found[None, :]


def _unary(name: str, dtype: str) -> Program:
    return lambda xp, a: [getattr(xp, name)(a(values(dtype))), getattr(xp, name)(a(values(dtype)[1]))]


def _binary(name: str, dtype: str) -> Program:
    def program(xp: Any, a: Any) -> Any:
        function = getattr(xp, name)
        one, other = (a(each) for each in _grid(dtype))
        number = values(dtype)[1].item()
        flat, single = a(values(dtype)), a(values(dtype)[1])
        return [function(one, other), function(flat, number), function(number, flat), function(single, flat)]

    return program


def _promoting(name: str, dtypes: tuple[str, str]) -> Program:
    def program(xp: Any, a: Any) -> Any:
        one, other = (a(np.array([1, 2, 3], each)) for each in dtypes)
        single = a(np.array(2, dtypes[1]))
        return [getattr(xp, name)(one, other), getattr(xp, name)(other, one), getattr(xp, name)(one, single)]

    return program


def _reduced(name: str, dtype: str, axis: Any, keepdims: bool) -> Program:
    def program(xp: Any, a: Any) -> Any:
        x = (np.arange(24) % 5 - (dtype not in ("bool", "uint8"))).astype(dtype).reshape(2, 3, 4)
        return getattr(xp, name)(a(x), axis=axis, keepdims=keepdims)

    return program


def generated() -> Iterator[tuple[str, Program]]:
    """A program for each function of elements and each dtype, and for each reduction and way to name axes."""
    for name, dtypes in UNARY.items():
        yield from ((f"{name} {each}", _unary(name, each)) for each in dtypes)
    for name, dtypes in BINARY.items():
        yield from ((f"{name} {each}", _binary(name, each)) for each in dtypes)
    for name in ("add", "multiply", "equal", "subtract"):
        yield from ((f"{name} {one} {other}", _promoting(name, (one, other))) for one, other in _PROMOTES)
    for name, dtypes in REDUCTIONS.items():
        for dtype in dtypes:
            for said, axis in _AXES.items():
                keepdims = said in ("all", "two")
                yield f"{name} {dtype} {said}", _reduced(name, dtype, axis, keepdims)


X = np.arange(24, dtype="float32").reshape(2, 3, 4)
M = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.25], [0.5, 0.25, 2.0]])
V = np.array([3, 1, 2, 3, 1, 0], "int32")
C = np.array([1 + 1j, 2, 1 + 1j, -2j, 2])
N = np.array([2.0, np.nan, 1.0, np.nan, 2.0])

CASES: dict[str, Program] = {
    # creation
    "asarray numbers": lambda xp, a: [xp.asarray([[1, 2], [3, 4]]), xp.asarray(True), xp.asarray(5, dtype=xp.int8)],
    "asarray copies": lambda xp, a: [xp.asarray(list(range(24)), copy=True), xp.asarray(a(X), copy=True)],
    "asarray dtype": lambda xp, a: [xp.asarray(a(V), dtype=xp.float64), xp.asarray([1.5, 2], dtype=xp.float32)],
    "asarray memory": lambda xp, a: xp.asarray(memoryview(bytearray(b"abc"))),
    "asarray no copy": lambda xp, a: xp.asarray(a(V), dtype=xp.float64, copy=False),
    "arange": lambda xp, a: [xp.arange(5), xp.arange(2, 9, 3), xp.arange(9, 2, -3), xp.arange(5, 2)],
    "arange dtype": lambda xp, a: [xp.arange(0, 1, 0.25, dtype=xp.float32), xp.arange(3, dtype=xp.int8)],
    "empty shape": lambda xp, a: [xp.empty((2, 3), dtype=xp.int8).shape, xp.empty_like(a(X)).shape, xp.empty(2).shape],
    "zeros ones full": lambda xp, a: [xp.zeros((2, 1), dtype=xp.int16), xp.ones(3, dtype=xp.bool), xp.full(2, 7)],
    "full kinds": lambda xp, a: [xp.full((), True), xp.full((2,), 1.5, dtype=xp.float32), xp.full((0,), 3)],
    "like": lambda xp, a: [xp.zeros_like(a(X)), xp.ones_like(a(X), dtype=xp.int8), xp.full_like(a(V), 3)],
    "eye": lambda xp, a: [xp.eye(3, dtype=xp.int64), xp.eye(2, 4, k=1, dtype=xp.float32), xp.eye(2, k=-9).shape],
    "linspace": lambda xp, a: [
        xp.linspace(0, 1, 5, dtype=xp.float64),
        xp.linspace(1, 0, 4, dtype=xp.float32, endpoint=False),
        xp.linspace(0, 1, 1, dtype=xp.float64),
        xp.linspace(0, 1, 0, dtype=xp.float64),
    ],
    "meshgrid": lambda xp, a: [
        *xp.meshgrid(a(V), a(np.array([1, 2], "int32"))),
        *xp.meshgrid(a(V), a(np.array([1, 2], "int32")), indexing="ij"),
    ],
    "triangles": lambda xp, a: [xp.tril(a(X)), xp.triu(a(X), k=1), xp.tril(a(M), k=-1)],
    "from_dlpack": lambda xp, a: xp.from_dlpack(a(X)),
    # manipulation
    "astype": lambda xp, a: [xp.astype(a(X), xp.int8), xp.astype(a(V), xp.complex64), xp.astype(a(X), xp.float32)],
    "broadcast_to": lambda xp, a: [xp.broadcast_to(a(V), (2, 6)), xp.broadcast_to(a(np.array(1.5)), (2, 2))],
    "broadcast_to refused": lambda xp, a: xp.broadcast_to(a(X), (3, 4)),
    "broadcast_arrays": lambda xp, a: xp.broadcast_arrays(a(X), a(np.ones((3, 1))), a(np.array(2))),
    "broadcast_arrays refused": lambda xp, a: xp.broadcast_arrays(a(X), a(V)),
    "concat": lambda xp, a: [xp.concat([a(X), a(X)], axis=-1), xp.concat((a(V), a(V.astype("int8"))), axis=None)],
    "concat promotes": lambda xp, a: xp.concat([a(X), a(X.astype("float64"))]),
    "concat refused": lambda xp, a: xp.concat([a(V), a(V)], axis=1),
    "stack": lambda xp, a: [xp.stack([a(V), a(V)]), xp.stack((a(V), a(V.astype("int64"))), axis=-1)],
    "unstack": lambda xp, a: [*xp.unstack(a(X)), *xp.unstack(a(X), axis=-1)],
    "expand_dims": lambda xp, a: [xp.expand_dims(a(X), axis=0), xp.expand_dims(a(X), axis=-1), xp.expand_dims(a(X), 1)],
    "expand_dims refused": lambda xp, a: xp.expand_dims(a(X), axis=5),
    "squeeze": lambda xp, a: [xp.squeeze(a(X[None]), 0), xp.squeeze(a(X[None, ..., None]), (0, -1))],
    "squeeze refused": lambda xp, a: xp.squeeze(a(X), 0),
    "flip": lambda xp, a: [xp.flip(a(X)), xp.flip(a(X), axis=1), xp.flip(a(X), axis=(0, -1))],
    "roll": lambda xp, a: [xp.roll(a(X), 2), xp.roll(a(X), 1, axis=1), xp.roll(a(X), (1, -1), axis=(0, 2))],
    "roll one shift": lambda xp, a: xp.roll(a(X), 1, axis=(0, 2)),
    "moveaxis": lambda xp, a: [xp.moveaxis(a(X), 0, -1), xp.moveaxis(a(X), (0, 1), (-1, 0))],
    "permute": lambda xp, a: [xp.permute_dims(a(X), (2, 0, 1)), xp.matrix_transpose(a(X))],
    "matrix_transpose refused": lambda xp, a: xp.matrix_transpose(a(V)),
    "reshape": lambda xp, a: [xp.reshape(a(X), (4, -1)), xp.reshape(a(X), (24,), copy=True)],
    "reshape no copy": lambda xp, a: xp.reshape(xp.matrix_transpose(a(X)), (24,), copy=False),
    "repeat": lambda xp, a: [xp.repeat(a(V), 2), xp.repeat(a(X), 2, axis=1), xp.repeat(a(V), a(V.astype("int64")))],
    "tile": lambda xp, a: [xp.tile(a(V), (2,)), xp.tile(a(X), (2, 1)), xp.tile(a(V), (2, 1, 2))],
    # sorting, searching, sets
    "sort": lambda xp, a: [xp.sort(a(V)), xp.sort(a(X), axis=0, descending=True), xp.sort(a(V), stable=False)],
    "argsort": lambda xp, a: [xp.argsort(a(V)), xp.argsort(a(X), axis=1), xp.argsort(a(V), descending=True)[:2].shape],
    "argmax": lambda xp, a: [xp.argmax(a(X)), xp.argmax(a(X), axis=1), xp.argmax(a(X), keepdims=True)],
    "argmin": lambda xp, a: [xp.argmin(a(V)), xp.argmin(a(X), axis=-1, keepdims=True)],
    "nonzero": lambda xp, a: [*xp.nonzero(a(V)), *xp.nonzero(a(X))],
    "nonzero refused": lambda xp, a: xp.nonzero(a(np.array(1))),
    "searchsorted": lambda xp, a: [
        xp.searchsorted(a(np.array([1, 2, 2, 5])), a(np.array([0, 2, 9]))),
        xp.searchsorted(a(np.array([1, 2, 2, 5])), a(np.array([0, 2, 9])), side="right"),
        xp.searchsorted(a(np.array([5, 1, 2])), a(np.array([0, 2, 9])), sorter=a(np.array([1, 2, 0]))),
    ],
    "where": lambda xp, a: [xp.where(a(V > 1), a(V), a(V * 2)), xp.where(a(V > 1), a(V), a(np.array(7, "int64")))],
    "where numbers": lambda xp, a: [xp.where(a(V > 1), a(X[0, 0, :1]), 3.0), xp.where(a(V > 1), 1, a(V))],
    "take": lambda xp, a: [xp.take(a(V), a(np.array([0, 3]))), xp.take(a(X), a(np.array([1, 0, 1])), axis=1)],
    "take from the end": lambda xp, a: xp.take(a(X), a(np.array([-1, 0])), axis=-1),
    "take_along_axis": lambda xp, a: xp.take_along_axis(a(X), a(np.array([[[0, -1]]] * 2)), axis=-1),
    "isin": lambda xp, a: [xp.isin(a(V), a(np.array([1, 3], "int32"))), xp.isin(a(np.array(2)), a(np.array([1, 2])))],
    "unique of integers": lambda xp, a: [*xp.unique_all(a(V)), *xp.unique_counts(a(V)), *xp.unique_inverse(a(V))],
    "unique values": lambda xp, a: [xp.unique_values(a(V.reshape(2, 3))), xp.unique_values(a(np.array([True, True])))],
    "unique of NaN": lambda xp, a: [*xp.unique_all(a(N))],
    "unique of complex": lambda xp, a: [*xp.unique_all(a(C)), xp.unique_values(a(C))],
    "unique of nothing": lambda xp, a: [*xp.unique_all(a(np.array([], "float32")))],
    "unique shape": lambda xp, a: xp.unique_inverse(a(V.reshape(2, 3))).inverse_indices,
    # statistics
    "cumulative_sum": lambda xp, a: [xp.cumulative_sum(a(V)), xp.cumulative_sum(a(X), axis=1, include_initial=True)],
    "cumulative_prod": lambda xp, a: [xp.cumulative_prod(a(V)), xp.cumulative_prod(a(X), axis=-1, dtype=xp.float64)],
    "cumulative_sum refused": lambda xp, a: xp.cumulative_sum(a(X)),
    "diff": lambda xp, a: [xp.diff(a(X)), xp.diff(a(V), n=2), xp.diff(a(X), axis=0), xp.diff(a(V), append=a(V))],
    "std correction": lambda xp, a: [xp.std(a(X), correction=1.5), xp.var(a(X), axis=1, correction=0.5)],
    "sum dtype": lambda xp, a: [xp.sum(a(V), dtype=xp.float64), xp.prod(a(V), axis=(), dtype=xp.int8)],
    "sum refused": lambda xp, a: xp.sum(a(X), axis=3),
    "clip": lambda xp, a: [xp.clip(a(X), 2.0, 7.0), xp.clip(a(V), 1), xp.clip(a(V), None, 2), xp.clip(a(V))],
    "clip arrays": lambda xp, a: [xp.clip(a(X), a(X[0]), a(X[1])), xp.clip(a(N), 1.5)],
    # dtypes
    "result_type": lambda xp, a: [
        xp.result_type(xp.int8, xp.uint8) == xp.int16,
        xp.result_type(a(X), xp.float64) == xp.float64,
        xp.result_type(a(X), 1j) == xp.complex64,
        xp.result_type(xp.float64, xp.complex64) == xp.complex128,
        xp.result_type(xp.int32, xp.uint32) == xp.int64,
        xp.result_type(a(V), 3) == xp.int32,
    ],
    "result_type refused": lambda xp, a: xp.result_type(xp.uint64, xp.int8),
    "can_cast": lambda xp, a: [
        xp.can_cast(xp.int8, xp.int16),
        xp.can_cast(a(M), xp.float32),
        xp.can_cast(xp.int8, xp.uint8),
    ],
    "isdtype": lambda xp, a: [
        [xp.isdtype(getattr(xp, each), kind) for each in EVERY]
        for kind in (*KINDS, ("bool", "integral"), xp.int8)
    ],
    "isdtype refused": lambda xp, a: xp.isdtype(xp.int8, "integer"),
    "finfo": lambda xp, a: [
        [getattr(xp.finfo(each), name) for name in ("bits", "eps", "max", "min", "smallest_normal")]
        + [xp.finfo(each).dtype == xp.float32]
        for each in (xp.float32, xp.complex64, a(X))
    ],
    "iinfo": lambda xp, a: [
        [getattr(xp.iinfo(each), name) for name in ("bits", "max", "min")] + [xp.iinfo(each).dtype == xp.int32]
        for each in (xp.int8, xp.int32, a(V))
    ],
    "constants": lambda xp, a: [xp.e, xp.pi, xp.inf, xp.nan, xp.newaxis],
    # linear algebra
    "matmul": lambda xp, a: [xp.matmul(a(M), a(M)), xp.matmul(a(X), a(X[0, 0])), xp.matmul(a(X[0, 0]), a(X[0, 0]))],
    "matmul promotes": lambda xp, a: [xp.matmul(a(X), a(np.ones((4, 2)))), xp.matmul(a(V), a(V.astype("int64")))],
    "tensordot": lambda xp, a: [
        xp.tensordot(a(X), a(X[0].T.copy()), axes=1),
        xp.tensordot(a(X), a(X), axes=((0, 2), (0, 2))),
        xp.tensordot(a(V), a(V), axes=0),
    ],
    "vecdot": lambda xp, a: [xp.vecdot(a(X), a(X[0])), xp.vecdot(a(C), a(C)), xp.vecdot(a(X), a(X), axis=-2)],
    "vecdot refused": lambda xp, a: xp.vecdot(a(X), a(V.astype("float32"))),
    "outer cross": lambda xp, a: [xp.linalg.outer(a(V), a(V)), xp.linalg.cross(a(M), a(M[0]))],
    "cross refused": lambda xp, a: xp.linalg.cross(a(X), a(X)),
    "diagonal trace": lambda xp, a: [xp.linalg.diagonal(a(X), offset=1), xp.linalg.trace(a(X)), xp.linalg.trace(a(M))],
    "det inv": lambda xp, a: [xp.linalg.det(a(M)), xp.linalg.inv(a(M)), *xp.linalg.slogdet(a(M))],
    "cholesky": lambda xp, a: [xp.linalg.cholesky(a(M)), xp.linalg.cholesky(a(M), upper=True)],
    "eigenvalues": lambda xp, a: [xp.linalg.eigvalsh(a(M)), xp.linalg.eigh(a(M)).eigenvalues],
    "qr": lambda xp, a: [xp.matmul(*xp.linalg.qr(a(M))), xp.linalg.qr(a(X), mode="complete").Q.shape],
    "svd": lambda xp, a: [xp.linalg.svdvals(a(M)), xp.linalg.svd(a(X), full_matrices=False).U.shape],
    "solve": lambda xp, a: [
        xp.linalg.solve(a(M), a(M[0])),
        xp.linalg.solve(a(np.stack([M, M])), a(M[0])),
        xp.linalg.solve(a(np.stack([M, M, M])), a(M)),
    ],
    "rank": lambda xp, a: [xp.linalg.matrix_rank(a(X)), xp.linalg.matrix_rank(a(M), rtol=0.9)],
    "pinv": lambda xp, a: [xp.linalg.pinv(a(M)), xp.linalg.pinv(a(M), rtol=0.5)],
    "power norms": lambda xp, a: [
        xp.linalg.matrix_power(a(M), 3),
        xp.linalg.matrix_norm(a(X)),
        xp.linalg.matrix_norm(a(M), ord="nuc", keepdims=True),
        *(xp.linalg.vector_norm(a(X), ord=ord) for ord in (0, 1, 2, np.inf, -np.inf)),
        xp.linalg.vector_norm(a(X), axis=(0, 1), keepdims=True),
    ],
    # Fourier transforms
    "fft": lambda xp, a: [
        xp.fft.fft(a(C)), xp.fft.ifft(a(C), n=4), xp.fft.rfft(a(X), axis=1, norm="ortho"), xp.fft.irfft(a(C)),
        xp.fft.hfft(a(C)), xp.fft.ihfft(a(M)), xp.fft.fft(a(C), norm="forward"),
    ],
    "fftn": lambda xp, a: [
        xp.fft.fftn(a(np.stack([C, C]))), xp.fft.ifftn(a(np.stack([C, C])), axes=(0,)), xp.fft.rfftn(a(X), axes=(0, 1)),
        xp.fft.irfftn(a(np.stack([C, C])), s=(2, 4), axes=(0, 1)),
    ],
    "frequencies": lambda xp, a: [
        xp.fft.fftfreq(5, dtype=xp.float32), xp.fft.rfftfreq(6, d=0.5, dtype=xp.float64),
        xp.fft.fftshift(a(X)), xp.fft.ifftshift(a(X), axes=(0, 2)), xp.fft.fftshift(a(X), axes=1),
    ],
}  # fmt: skip
