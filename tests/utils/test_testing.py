"""`testing.assert_close` decides and says what torch's does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

nan, inf = float("nan"), float("inf")

# Arguments of assert_close, made of either module.
Case = Callable[[Any], tuple[tuple[Any, Any], dict[str, Any]]]


def pair(actual: Any, expected: Any, **options: Any) -> Case:
    """A case of what functions of the module give; anything else is taken as it is."""

    def make(module: Any) -> tuple[tuple[Any, Any], dict[str, Any]]:
        given = tuple(value(module) if callable(value) else value for value in (actual, expected))
        return (given[0], given[1]), options

    return make


def near(dtype: str, by: float, **options: Any) -> Case:
    """Two tensors of a dtype that differ in one element by this share of it."""
    return pair(
        lambda m: m.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=m.float64).mul(1 + by).to(getattr(m, dtype)),
        lambda m: m.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=m.float64).to(getattr(m, dtype)),
        **options,
    )


def of(*data: Any, **options: str) -> Callable[[Any], Any]:
    """A tensor of data."""
    return lambda m: m.tensor(data, **{name: getattr(m, value) for name, value in options.items()})


CASES: dict[str, Case] = {
    "same": pair(of(1.0, 2.0), of(1.0, 2.0)),
    "float32-within": near("float32", 1e-6),
    "float32-beyond": near("float32", 1e-4),
    "float64-within": near("float64", 5e-8),
    "float64-beyond": near("float64", 1e-6),
    "float16-beyond": near("float16", 5e-3),
    "bfloat16-within": near("bfloat16", 1e-2),
    "bfloat16-beyond": near("bfloat16", 5e-2),
    "complex64-beyond": near("complex64", 1e-4),
    "tolerances": near("float32", 1e-4, rtol=1e-3, atol=0),
    "tolerances-beyond": near("float32", 1e-2, rtol=1e-3, atol=0.0),
    "no-tolerance": near("float32", 1e-4, rtol=0, atol=0),
    "one-tolerance": near("float32", 0, rtol=1e-3),
    "other-tolerance": near("float32", 0, atol=1e-3),
    "integers": pair(of(1, 2, 3), of(1, 5, 3)),
    "small-integers": pair(of(-128, 2, dtype="int8"), of(127, 2, dtype="int8")),
    "bools": pair(of(True, False), of(True, True)),
    "scalar-tensors": pair(lambda m: m.tensor(1.0), lambda m: m.tensor(1.1)),
    "zero-expected": pair(of(1e-3, 0.0), of(0.0, 0.0)),
    "nan": pair(of(nan, 1.0), of(nan, 1.0)),
    "nan-equal": pair(of(nan, 1.0), of(nan, 1.0), equal_nan=True),
    "infinite": pair(of(inf, -inf), of(inf, -inf)),
    "infinite-other-sign": pair(of(inf, 1.0), of(-inf, 1.0)),
    "empty": pair(lambda m: m.empty(0, 3), lambda m: m.empty(0, 3)),
    "shapes": pair(lambda m: m.ones(2, 3), lambda m: m.ones(3, 2)),
    "dtypes": pair(of(1.0), of(1.0, dtype="float64")),
    "dtypes-unchecked": pair(of(1.0, 2.5), of(1, 2), check_dtype=False),
    "unsigned-unchecked": pair(of(1, 2, dtype="uint16"), of(1, 3, dtype="int32"), check_dtype=False),
    "strides": pair(lambda m: m.ones(2, 3).t(), lambda m: m.ones(3, 2), check_stride=True),
    "strides-unchecked": pair(lambda m: m.ones(2, 3).t(), lambda m: m.ones(3, 2)),
    "gradients": pair(lambda m: m.ones(2, requires_grad=True) * 3, lambda m: m.ones(2, requires_grad=True)),
    "parameter": pair(lambda m: m.nn.Parameter(m.ones(2)), lambda m: m.ones(2)),
    "numbers": pair(1.0, 1.0 + 1e-9),
    "numbers-beyond": pair(2.0, 1.0),
    "numbers-zero": pair(1.0, 0.0),
    "numbers-of-two-types": pair(1, 1.0),
    "numbers-of-two-types-unchecked": pair(1, 1.0, check_dtype=False),
    "integers-of-python": pair(3, 4),
    "complex-numbers": pair(1 + 1j, 1 + 2j),
    "nan-numbers": pair(nan, nan),
    "nan-numbers-equal": pair(nan, nan, equal_nan=True),
    "numpy-number": pair(np.float64(1.0), 1.0),
    "python-bools": pair(True, np.bool_(False)),
    "none": pair(None, None),
    "none-and-number": pair(None, 1),
    "arrays": pair(np.array([1.0, 2.0]), np.array([1.0, 2.1])),
    "array-and-tensor": pair(np.array([1.0]), lambda m: m.tensor([1.0])),
    "texts": pair("a", "a"),
    "message": near("float32", 1e-2, msg="not what it was"),
    "message-made": near("float32", 1e-2, msg=lambda text: f"before\n{text}\nafter"),
    "lists": pair(lambda m: [m.ones(1), 2.0, None], lambda m: (m.ones(1), 2.0, None)),
    "lists-beyond": pair(lambda m: [m.ones(1), m.ones(2)], lambda m: [m.ones(1), m.zeros(2)]),
    "lists-first-failure": pair(lambda m: [m.ones(1), 1, m.ones(2)], lambda m: [m.ones(1), 2, m.zeros(2)]),
    "lists-of-two-lengths": pair([1, 2], [1, 2, 3]),
    "mappings": pair(lambda m: {"a": m.ones(1), "b": 1}, lambda m: OrderedDict(b=1, a=m.ones(1))),
    "mappings-beyond": pair(lambda m: {"a": {"b": [m.ones(1)]}}, lambda m: {"a": {"b": [m.zeros(1)]}}),
    "mappings-of-other-keys": pair({"a": 1}, {"b": 1}),
    "mapping-and-list": pair({"a": 1}, [1]),
    "subclasses-refused": pair(
        lambda m: m.nn.Parameter(m.ones(1)), lambda m: m.nn.Parameter(m.ones(1)), allow_subclasses=False
    ),
    "float8": pair(
        lambda m: m.tensor([1.0, 2.0]).to(m.float8_e5m2),
        lambda m: m.tensor([1.0, 2.0]).to(m.float8_e5m2),
        rtol=1,
        atol=1,
    ),
}


def outcome(module: Any, case: Case) -> Any:
    """What happened, with the names of the module's classes made alike."""
    (actual, expected), options = case(module)
    try:
        module.testing.assert_close(actual, expected, **options)
    except (AssertionError, TypeError, ValueError) as error:
        kind = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
        return kind, str(error).replace("tclient._tensor.Tensor", "torch.Tensor").replace("tclient.", "torch.")
    return "close"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_outcome_is_that_of_torch(tc: Any, case: Case) -> None:
    assert outcome(tc, case) == outcome(torch, case)


def test_many_tensors_are_compared_with_two_waits(tc: Any) -> None:
    ours = {f"layer{n}": [tc.full((8, 8), float(n)), tc.ones(n + 1)] for n in range(20)}
    theirs = {f"layer{n}": [tc.full((8, 8), float(n)), tc.ones(n + 1)] for n in range(20)}
    session = tc.ones(1)._ref.session
    before = session.stats.waits
    tc.testing.assert_close(ours, theirs)
    assert session.stats.waits - before <= 2  # one for the shapes, one for whether all are close


def test_a_failure_upstream_is_raised_as_itself(tc: Any) -> None:
    broken = tc.ones(2) + tc.ones(3)
    with pytest.raises(RuntimeError, match="size of tensor a"):
        tc.testing.assert_close(broken, tc.ones(2))
