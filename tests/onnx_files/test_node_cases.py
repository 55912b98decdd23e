"""The cases that onnx has for its operators give here what it says, within its own tolerances."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tclient._onnx import load
from tclient._onnx.operators import TABLE
from tests.onnx_files.graphs import Array, numpy_helper, onnx

# What fills the table.
assert load.ROOMS

# Modules of onnx.backend.test.case.node; each has the cases of one operator.
OPERATORS = [
    *("affinegrid", "attention", "averagepool", "batch_normalization", "bitshift", "cast", "center_crop_pad", "clip"),
    *("concat", "constantofshape", "conv", "convinteger", "convtranspose", "cumprod", "cumsum", "depthtospace"),
    *("dequantizelinear", "div", "dropout", "dynamicquantizelinear", "einsum", "expand", "eyelike", "flatten"),
    *("gather", "gatherelements", "gathernd", "gelu", "gemm", "globalaveragepool", "gridsample", "groupnormalization"),
    *("gru", "hannwindow", "hardmax", "instance_normalization", "layernormalization", "logsoftmax", "lrn"),
    *("lstm", "matmul", "maxpool", "mean", "mod", "negativeloglikelihoodloss", "pad", "pow", "prelu", "qlinearmatmul"),
    *("quantizelinear", "rangeop", "reduce_log_sum_exp", "reducel2", "reducemax", "reducemean", "reducesum", "reshape"),
    *("resize", "reversesequence", "rmsnormalization", "rnn", "rotaryembedding", "scatterelements", "scatternd"),
    *("shape", "shrink", "slice", "softmax", "softmax_cross_entropy_loss", "spacetodepth", "split", "squeeze", "tile"),
    *("topk", "transpose", "trilu", "unsqueeze", "upsample", "where"),
]

# Cases that torch has no kernels for, and what is refused by name.
LEFT_OUT = {
    "uint16": "torch has no arithmetic for it",
    "uint32": "torch has no arithmetic for it",
    "uint64": "torch has no arithmetic for it",
    "training": "it drops elements",
    "delta_expanded": "a Loop",
    "affine_grid_2d_expanded": "an If",
    "affine_grid_2d_align_corners_expanded": "an If",
    "affine_grid_3d_expanded": "an If",
    "affine_grid_3d_align_corners_expanded": "an If",
    "sequence_map": "no tensors",
    "optional": "no tensors",
    "FNUZ": "no such dtype",
    "INT4": "no such dtype",
    "int4": "no such dtype",
    "INT2": "no such dtype",
    "int2": "no such dtype",
    "FLOAT4": "no such dtype",
    "float4": "no such dtype",
    "E8M0": "no such dtype",
    "e8m0": "no such dtype",
    "STRING": "no such dtype",
}
# Numbers of fewer bits are rounded at other places.
COARSE = {"bf16": 2e-2, "fp16": 2e-3}


def cases_of(operator: str) -> list[Any]:
    """The cases of an operator."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        node = importlib.import_module("onnx.backend.test.case.node")
        before = len(node._NodeTestCases)
        importlib.import_module(f"onnx.backend.test.case.node.{operator}")
    found = [case for case in node._NodeTestCases[before:] if not any(word in case.name for word in LEFT_OUT)]
    return list({case.name: case for case in found}.values())


def as_exported(case: Any) -> tuple[Any, list[Array], list[Array]]:
    """The case as an exporter would write it: what says shapes and axes is an initializer, and no input."""
    given, wanted = ([as_array(each) for each in values] for values in case.data_sets[0])
    made = onnx.ModelProto()
    made.CopyFrom(case.model)
    rows = [(each, TABLE.get((each.domain, each.op_type))) for each in made.graph.node]
    numbers = {name for each, row in rows if row is not None for at, name in enumerate(each.input) if at in row.numbers}
    inputs = []
    for value, array in zip(made.graph.input, given, strict=True):
        # What an operator is written out as may ask for other inputs by way of other nodes.
        is_small = "_expanded" in case.name and array.dtype.kind == "i" and array.ndim < 2
        if value.name in numbers or is_small:
            made.graph.initializer.append(numpy_helper.from_array(array, value.name))
        else:
            inputs.append(array)
    return made, inputs, wanted


def as_array(value: Any) -> Array:
    """A value of a case, which may be one of onnx's own."""
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_cases_of_an_operator_give_what_onnx_says(operator: str, tc: ModuleType) -> None:
    cases = cases_of(operator)
    assert cases
    for case in cases:
        made, inputs, wanted = as_exported(case)
        with tc.no_grad():
            found = tc.onnx.load(made.SerializeToString())(*inputs)
        several = list(found.values()) if isinstance(found, dict) else [found]
        for mine, other in zip(several, wanted, strict=True):
            assert (mine.shape, str(mine.dtype)) == (other.shape, f"torch.{other.dtype.name}"), case.name
            array = mine.numpy() if other.dtype.isbuiltin == 1 else mine.float().numpy()
            rtol = next((coarse for word, coarse in COARSE.items() if word in case.name), case.rtol)
            np.testing.assert_allclose(array, other.astype(array.dtype), rtol, max(case.atol, 1e-6), err_msg=case.name)
