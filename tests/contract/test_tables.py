"""The tables of dtypes and activations: every row is whole, everybody reads it, and there is no second one."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.utils as triton
from operations import enums
from safetensors.torch import _TYPES as SAFETENSORS_TYPES
from torch import nn

from tclient import _layers
from tclient import nn as client_nn
from tclient._codec.dtypes import ALIASES, BY_CODE, finfo
from tclient._codec.dtypes import DTYPES as CLIENT_DTYPES
from tclient.nn.neuron import activation_of
from tensorcompute.oip import inference_pb2 as oip
from tensorcompute.tables.activations import ACTIVATIONS, Activation
from tensorcompute.tables.dtypes import DTYPES, DType
from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire import safetensors
from tests.support.serving import ROOT
from tserver.engine import dtypes as server_dtypes
from tserver.engine import networks
from tserver.engine.models import description
from tserver.errors import InvalidArgument

_dtypes = pytest.mark.parametrize("row", DTYPES, ids=[row.name for row in DTYPES])
_activations = pytest.mark.parametrize("row", ACTIVATIONS, ids=[row.name for row in ACTIVATIONS])
_served = pytest.mark.parametrize(
    "row", [row for row in ACTIVATIONS if row.code], ids=[row.name for row in ACTIVATIONS if row.code]
)
_NOT_OF_TORCH = {"step", "sign"}
_X = torch.linspace(-3, 3, 12).reshape(3, 4)


def test_the_contract_has_a_value_for_each_dtype_and_each_served_activation() -> None:
    dtypes = {f"D_TYPE_{row.name.upper()}": row.code for row in DTYPES}
    assert dict(pb.DType.items()) == {"D_TYPE_UNSPECIFIED": 0, **dtypes}
    activations = {f"ACTIVATION_KIND_{row.name.upper()}": row.code for row in ACTIVATIONS if row.code is not None}
    assert dict(ms.ActivationKind.items()) == {"ACTIVATION_KIND_UNSPECIFIED": 0, **activations}
    for path, text in enums.files().items():
        assert path.read_text(encoding="utf-8") == text, "stale: run `make proto`"


def test_rows_have_names_and_numbers_of_their_own() -> None:
    columns: list[Sequence[Any]] = [
        *([*column] for column in zip(*[(row.code, row.name, row.scalar) for row in DTYPES], strict=True)),
        *([cell for cell in column if cell] for column in zip(*[row[5:9] for row in DTYPES], strict=True)),
        *([*column] for column in zip(*[(row.name, row.module) for row in ACTIVATIONS], strict=True)),
        [row.code for row in ACTIVATIONS if row.code is not None],
    ]
    for column in columns:
        assert len(set(column)) == len(column)


# ---- dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@_dtypes
def test_a_row_says_of_a_dtype_what_torch_says(row: DType) -> None:
    theirs = getattr(torch, row.name)
    kind = "f" if theirs.is_floating_point else "c" if theirs.is_complex else "i" if theirs.is_signed else "u"
    assert (row.kind if row.kind != "b" else "u", row.size) == (kind, theirs.itemsize)
    empty = torch.empty(0, dtype=theirs)
    assert empty.type() == f"torch.{row.scalar}Tensor"
    if row.numpy:
        assert empty.numpy().dtype == np.dtype(row.numpy)
    else:
        with pytest.raises(TypeError, match=row.scalar):
            empty.numpy()
    if row.alias:
        assert getattr(torch, row.alias) is theirs
    if row.complex:
        assert theirs.to_complex() is getattr(torch, row.complex)
    else:
        with pytest.raises(RuntimeError, match="Unknown Complex"):
            theirs.to_complex()
    if row.limits is not None:
        limits = torch.finfo(theirs)
        assert row.limits == (limits.eps, limits.max, limits.smallest_normal, limits.resolution)
    assert (row.limits is not None) == (row.kind == "f" and not row.numpy)


@_dtypes
def test_a_row_has_the_names_that_others_have_for_a_dtype(row: DType) -> None:
    by_torch = {dtype: name for name, dtype in SAFETENSORS_TYPES.items()}
    assert row.safetensors == by_torch.get(getattr(torch, row.name), "")
    if row.oip:
        assert oip.DataType.Value(f"TYPE_{row.oip}")
        assert row.oip == ("BF16" if row.name == "bfloat16" else triton.np_to_triton_dtype(np.dtype(row.numpy)))
    else:
        # OIP names no complex numbers, and none of 8 bits.
        assert row.kind == "c" or row.size == 1


@_dtypes
def test_both_sides_have_a_dtype_from_its_row(row: DType) -> None:
    ours = CLIENT_DTYPES[row.name]
    theirs = server_dtypes.DTYPES[row.code]
    assert (repr(ours), ours.code, BY_CODE[row.code]) == (repr(theirs), server_dtypes.DTYPE_CODES[theirs], ours)
    assert (ours.itemsize, ours.is_floating_point, ours.is_complex, ours.is_signed) == (
        *(theirs.itemsize, theirs.is_floating_point, theirs.is_complex, theirs.is_signed),
    )
    assert repr(ours.to_real()) == repr(theirs.to_real())
    if ours.is_floating_point:
        assert repr(finfo(ours)) == repr(torch.finfo(theirs))
    assert {alias: name for alias, name in ALIASES.items() if name == row.name} == (
        {row.alias: row.name} if row.alias else {}
    )
    if row.safetensors:
        assert safetensors.DTYPES[row.safetensors] == (row.name, theirs.itemsize)


def test_nobody_has_a_dtype_that_has_no_row() -> None:
    names = {row.name for row in DTYPES}
    codes = {row.code for row in DTYPES}
    assert set(CLIENT_DTYPES) == names
    assert set(BY_CODE) == set(server_dtypes.DTYPES) == set(server_dtypes.DTYPE_CODES.values()) == codes
    assert set(safetensors.CODES) == {row.name for row in DTYPES if row.safetensors}


# ---- activations -----------------------------------------------------------------------------------------------------


@_activations
def test_a_row_names_the_class_of_an_activation_on_both_sides_and_its_options(row: Activation) -> None:
    ours = activation_of(row.name)
    assert type(ours) is getattr(client_nn, row.module)
    assert {name: getattr(ours, name) for name in row.options} == row.defaults
    if row.name not in _NOT_OF_TORCH:
        theirs = getattr(nn, row.module)(**row.defaults)
        assert {name: getattr(theirs, name) for name in row.options} == row.defaults
        assert repr(ours) == repr(theirs)


@_activations
def test_the_server_runs_an_activation_as_its_row_says(row: Activation) -> None:
    made = networks.build([{"kind": row.name}]).forward(_X)
    torch.testing.assert_close(made, networks.build([{"kind": row.name, **row.defaults}]).forward(_X), rtol=0, atol=0)
    if row.name not in _NOT_OF_TORCH:
        torch.testing.assert_close(made, getattr(nn, row.module)(**row.defaults).eval()(_X), rtol=0, atol=0)
    with pytest.raises(ValueError, match="has no option 'other'"):
        networks.build([{"kind": row.name, "other": 1}])


@_served
def test_a_served_activation_is_named_described_and_printed_as_its_row_says(row: Activation) -> None:
    message = _layers.activation_of(row.name)
    assert (message.kind, message.HasField("parameter")) == (row.code, False)
    assert description.activation_layer(message) == {"kind": row.name}
    layer = ms.LayerSummary(in_features=2, out_features=2, activation=message)
    lines = description.text([layer]).splitlines()[2:-1]
    module = activation_of(row.name)
    assert lines == ([] if row.name == "identity" else [f"  (1): {module!r}"])
    parameter = ms.Activation(kind=message.kind, parameter=0.75)
    if row.parameter:
        assert description.activation_layer(parameter) == {"kind": row.name, row.parameter: 0.75}
        given: Any = getattr(client_nn, row.module)(0.75)
        assert _layers.activation_of(given).parameter == 0.75
    else:
        with pytest.raises(InvalidArgument, match=f"{row.name} has no parameter"):
            description.activation_layer(parameter)


def test_what_has_no_row_is_refused() -> None:
    unknown: Any = 1 + max(row.code for row in ACTIVATIONS if row.code is not None)
    with pytest.raises(InvalidArgument, match=f"kind {unknown} is not known"):
        description.activation_layer(ms.Activation(kind=unknown))
    with pytest.raises(ValueError, match="no activation 'foo'"):
        activation_of("foo")
    with pytest.raises(TypeError, match="no served activation 'foo'"):
        _layers.activation_of("foo")
    with pytest.raises(ValueError, match="no layer of kind 'foo'"):
        networks.build([{"kind": "foo"}])


@_activations
def test_an_activation_without_a_number_is_not_served(row: Activation) -> None:
    if row.code is None:
        with pytest.raises(TypeError, match=f"no served activation '{row.name}'"):
            _layers.activation_of(row.name)


# ---- no second table -------------------------------------------------------------------------------------------------

# So many names of one column in one literal are a table: fewer stand together where code treats a few of them apart.
_MANY = 5
_COLUMNS: list[set[str]] = [
    {row.name for row in DTYPES},
    {row.safetensors for row in DTYPES},
    {row.oip for row in DTYPES},
    {row.numpy for row in DTYPES},
    {row.scalar for row in DTYPES},
    {row.name for row in ACTIVATIONS},
]
_APART = {
    "client/tclient/_onnx/elementwise.py": "the operators of ONNX, some of which are activations",
    "client/tclient/_onnx/recurrent.py": "the activations that recurrent operators of ONNX name, and their defaults",
    "client/tclient/_types.py": "the dtypes of torch's typed classes, of which there will be no more",
    "server/tserver/engine/texts.py": "the dtypes whose least and greatest elements torch finds",
    "client/tclient/testing.py": "how near is near enough, for those dtypes that are not compared exactly",
}


def _names(node: ast.AST) -> set[str]:
    """The texts, names and attributes in a literal."""
    found = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            found.add(each.value)
        elif isinstance(each, ast.Attribute):
            found.add(each.attr.removeprefix("D_TYPE_").removeprefix("ACTIVATION_KIND_").lower())
    return found


def _tables(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    literals = [node for node in ast.walk(tree) if isinstance(node, ast.Dict | ast.List | ast.Set | ast.Tuple)]
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for node in literals
        if any(len(_names(node) & (column - {""})) >= _MANY for column in _COLUMNS)
    ]


def test_no_other_table_of_dtypes_or_activations_stands_anywhere() -> None:
    sources = [
        path
        for room in ("client/tclient", "server/tserver", "proto")
        for path in (ROOT / room).rglob("*.py")
        if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))
    ]
    found = {path.relative_to(ROOT).as_posix(): tables for path in sources if (tables := _tables(path))}
    ours = {"proto/tensorcompute/tables/dtypes.py", "proto/tensorcompute/tables/activations.py"}
    assert set(found) - set(_APART) == ours, found
    assert set(found) >= set(_APART), "these are there no more; take them off the list"
