"""What the client tells of a call before torch has seen it. The oracle is torch: it makes the same call."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tclient._codec.overloads import resolve, written
from tests.operations.calls import is_tensor, table, targets

_X = torch.tensor([[1.5, -2.0, 3.0], [0.25, 5.0, -6.0]])
_IMAGE = torch.ones(1, 1, 8, 8)
_SQUARE = torch.eye(3) * 2
_PAIR = {"count": 2}


def _fields(name: str, *fields: str) -> dict[str, Any]:
    return {"fields": list(fields) or ["values", "indices"], "type": f"torch.return_types.{name}"}


_CASES: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = [
    ("max", (_X,), {}, "tensor"),
    ("max", (_X, 0), {}, _fields("max")),
    ("max", (_X, -1, True), {}, _fields("max")),
    ("max", (_X, _X), {}, "tensor"),
    ("max", (_X,), {"dim": 0}, _fields("max")),
    ("max", (_X,), {"axis": 0, "keepdims": True}, _fields("max")),
    ("max", (_X,), {"other": _X}, "tensor"),
    ("max", (), {"input": _X, "dim": 0}, _fields("max")),
    ("Tensor.max", (_X, 0), {}, _fields("max")),
    ("Tensor.min", (_X, 1), {"keepdim": True}, _fields("min")),
    ("Tensor.min", (_X, _X), {}, "tensor"),
    ("Tensor.median", (_X,), {}, "tensor"),
    ("median", (_X, 1), {}, _fields("median")),
    ("nanmedian", (_X,), {}, "tensor"),
    ("Tensor.nanmedian", (_X, 0), {}, _fields("nanmedian")),
    ("mode", (_X,), {}, _fields("mode")),
    ("Tensor.sort", (_X,), {"descending": True}, _fields("sort")),
    ("topk", (_X, 2), {}, _fields("topk")),
    ("kthvalue", (_X, 1), {}, _fields("kthvalue")),
    ("cummax", (_X, 0), {}, _fields("cummax")),
    ("aminmax", (_X,), {}, _fields("aminmax", "min", "max")),
    ("var_mean", (_X,), {}, _PAIR),
    ("std_mean", (_X, 1), {"correction": 0}, _PAIR),
    ("where", (_X > 0,), {}, "wait"),
    ("where", (_X > 0, _X, _X), {}, "tensor"),
    ("where", (_X > 0, 1, _X), {}, "tensor"),
    ("where", (_X > 0, _X, 0.5), {}, "tensor"),
    ("where", (_X > 0, 1, 2), {}, "tensor"),
    ("where", (), {"condition": _X > 0, "input": _X, "other": _X}, "tensor"),
    ("nonzero", (_X,), {}, "tensor"),
    ("nonzero", (_X,), {"as_tuple": False}, "tensor"),
    ("nonzero", (_X,), {"as_tuple": True}, "wait"),
    ("Tensor.nonzero", (_X,), {"as_tuple": True}, "wait"),
    ("unique", (_X,), {}, "tensor"),
    ("unique", (_X, True), {}, "tensor"),
    ("unique", (_X, True, True), {}, _PAIR),
    ("unique", (_X,), {"return_inverse": True, "return_counts": True}, {"count": 3}),
    ("Tensor.unique", (_X,), {"dim": 0, "return_counts": True}, _PAIR),
    ("unique_consecutive", (_X, True), {}, _PAIR),
    ("norm", (_X,), {"dim": 1}, "tensor"),
    ("split", (_X, 1), {}, "wait"),
    ("chunk", (_X, 2), {}, "wait"),
    ("meshgrid", (torch.arange(2), torch.arange(3)), {"indexing": "ij"}, "wait"),
    ("svd", (_X,), {}, _fields("svd", "U", "S", "V")),
    ("linalg.svd", (_X,), {}, _fields("linalg_svd", "U", "S", "Vh")),
    ("linalg.eigh", (_SQUARE,), {}, _fields("linalg_eigh", "eigenvalues", "eigenvectors")),
    ("linalg.qr", (_X,), {}, _fields("linalg_qr", "Q", "R")),
    ("linalg.slogdet", (_SQUARE,), {}, _fields("linalg_slogdet", "sign", "logabsdet")),
    ("linalg.lu", (_SQUARE,), {}, _fields("linalg_lu", "P", "L", "U")),
    ("linalg.lstsq", (_X, _X), {}, _fields("linalg_lstsq", "solution", "residuals", "rank", "singular_values")),
    ("histogram", (_X, 4), {}, _fields("histogram", "hist", "bin_edges")),
    ("frexp", (_X,), {}, _fields("frexp", "mantissa", "exponent")),
    ("lu", (_SQUARE,), {}, _PAIR),
    ("lu", (_SQUARE,), {"get_infos": True}, _fields("_lu_with_info", "LU", "pivots", "info")),
    ("Tensor.size", (_X,), {}, "wait"),
    ("Tensor.size", (_X, 0), {}, "wait"),
    ("Tensor.stride", (_X,), {}, "wait"),
    ("Tensor.type", (_X,), {}, "wait"),
    ("Tensor.type", (_X, torch.float64), {}, "tensor"),
    ("Tensor.type", (_X, "torch.IntTensor"), {}, "tensor"),
    ("Tensor.type", (_X,), {"dtype": torch.int8}, "tensor"),
    ("Tensor.to", (_X, torch.float64), {}, "tensor"),
    ("Tensor.view", (_X, -1), {}, "tensor"),
    ("Tensor.__eq__", (_X, 1), {}, "tensor"),
    ("Tensor.__eq__", (_X, _X), {}, "tensor"),
    ("atleast_2d", (_X,), {}, "tensor"),
    ("atleast_2d", (_X, _X), {}, "wait"),
    ("nn.functional.max_pool2d", (_IMAGE, 2), {}, "tensor"),
    ("nn.functional.max_pool2d", (_IMAGE, (2, 2), None, 0, 1, False), {}, "tensor"),
    ("nn.functional.max_pool2d", (_IMAGE, 2), {"return_indices": True}, _PAIR),
    ("nn.functional.max_pool2d", (_IMAGE, 2, 2, 0, 1, False, True), {}, _PAIR),
    ("nn.functional.adaptive_max_pool2d", (_IMAGE, 2, True), {}, _PAIR),
]


def _matches(result: Any, said: Any) -> bool:
    if said == "wait":
        return True
    if said == "tensor":
        return is_tensor(result)
    if "count" in said:
        return type(result) is tuple and len(result) == said["count"] and all(map(is_tensor, result))
    kind = type(result)
    return [*kind.__match_args__] == said["fields"] and said["type"].endswith("." + kind.__name__)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "expected"),
    [pytest.param(*case, id=f"{index}-{case[0]}") for index, case in enumerate(_CASES)],
)
@pytest.mark.filterwarnings("ignore:torch.lu is deprecated")
def test_a_call_is_foretold(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], expected: Any) -> None:
    assert resolve(table()[name], args, kwargs, is_tensor) == expected
    assert _matches(targets()[name](*args, **kwargs), expected)


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        pytest.param("max", (), {}, id="nothing given"),
        pytest.param("max", (_X, "a"), {}, id="wrong type"),
        pytest.param("max", (_X,), {"colour": 1}, id="unknown keyword"),
        pytest.param("max", (_X, 0), {"dim": 0}, id="given twice"),
        pytest.param("max", (_X,), {"dim": 0, "axis": 1}, id="given under two names"),
        pytest.param("max", (_X, object()), {}, id="unknown object"),
        pytest.param("Tensor.__eq__", (_X, [1]), {}, id="not comparable"),
        pytest.param("where", (_X > 0, _X), {}, id="one of two missing"),
    ],
)
def test_a_wrong_or_doubtful_call_waits(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert resolve(table()[name], args, kwargs, is_tensor) == "wait"


_ARGUMENTS = st.sampled_from(
    [
        _X,
        _X > 0,
        torch.tensor(1),
        0,
        1,
        -1,
        True,
        False,
        1.5,
        None,
        "a",
        "torch.IntTensor",
        torch.float64,
        (1,),
        [0, 1],
        [_X],
    ]
)
_BY_SIGNATURE = sorted(name for name, entry in table().items() if entry["returns"] == "by_signature")
_KEYWORDS = st.sampled_from(
    ["dim", "axis", "keepdim", "other", "as_tuple", "return_inverse", "return_counts", "get_infos", "dtype", "sorted"]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(_BY_SIGNATURE),
    rest=st.lists(_ARGUMENTS, max_size=3),
    kwargs=st.dictionaries(_KEYWORDS, _ARGUMENTS, max_size=2),
)
@pytest.mark.filterwarnings("ignore")
def test_whatever_torch_accepts_is_foretold_rightly_or_waited_for(
    name: str, rest: list[Any], kwargs: dict[str, Any]
) -> None:
    said = resolve(table()[name], (_X, *rest), kwargs, is_tensor)
    try:
        result = targets()[name](_X, *rest, **kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError, AssertionError):
        return
    assert result is NotImplemented or _matches(result, said), f"{said} foretold, {type(result)} returned"


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "expected"),
    [
        pytest.param("Tensor.add_", ("x", 1), {}, ["x"], id="in place"),
        pytest.param("relu_", (), {"input": "x"}, ["x"], id="by keyword"),
        pytest.param("Tensor.add", ("x", 1), {}, [], id="pure"),
        pytest.param("nn.functional.relu", ("x",), {}, [], id="flag left at its default"),
        pytest.param("nn.functional.relu", ("x", True), {}, ["x"], id="flag by position"),
        pytest.param("nn.functional.relu", ("x",), {"inplace": True}, ["x"], id="flag by keyword"),
        pytest.param("nn.functional.batch_norm", ("x", "m", "v"), {}, [], id="evaluation"),
        pytest.param("nn.functional.batch_norm", ("x", "m", "v"), {"training": True}, ["m", "v"], id="training"),
        pytest.param("nn.functional.batch_norm", ("x", None, None), {"training": True}, [], id="no statistics"),
        pytest.param("nn.functional.instance_norm", ("x", "m", "v"), {}, ["m", "v"], id="flag that is on by default"),
        pytest.param("nn.functional.embedding", ("i", "w"), {"max_norm": 1.0}, ["w"], id="renormalised weights"),
        pytest.param("tc.optimizer_step", ("optimizer", {}), {}, [], id="what is no argument"),
    ],
)
def test_what_a_call_writes_is_known_before(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], expected: list[str]
) -> None:
    assert written(table()[name], args, kwargs) == expected


def test_the_overloads_are_told_without_torch_and_numpy() -> None:
    code = (
        "import importlib.util, sys\n"
        "spec = importlib.util.find_spec('tclient')\n"
        "path = spec.submodule_search_locations[0] + '/_codec/overloads.py'\n"
        "spec = importlib.util.spec_from_file_location('overloads', path)\n"
        "spec.loader.exec_module(importlib.util.module_from_spec(spec))\n"
        "print([name for name in ('torch', 'numpy', 'grpc') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
