"""The cases that onnx has for its operators give here what it says, within its own tolerances."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.onnx_files.graphs import Array, numpy_helper, onnx

# Modules of onnx.backend.test.case.node; each has the cases of one operator.
OPERATORS = [
    *("averagepool", "batch_normalization", "bitshift", "clip", "concat", "constantofshape", "conv", "convtranspose"),
    *("cumsum", "depthtospace", "div", "dropout", "einsum", "expand", "eyelike", "flatten", "gather"),
    *("gatherelements", "gathernd", "gelu", "gemm", "globalaveragepool", "groupnormalization", "hardmax"),
    *("instance_normalization", "layernormalization", "logsoftmax", "lppool", "lrn", "matmul", "maxpool", "mean"),
    *("mod", "pad", "pow", "prelu", "rangeop", "reducel2", "reduce_log_sum_exp", "reducemax", "reducemean"),
    *("reducesum", "reshape", "reversesequence", "scatterelements", "scatternd", "shape", "shrink", "slice", "softmax"),
    *("spacetodepth", "split", "squeeze", "tile", "topk", "transpose", "trilu", "unsqueeze", "where"),
]

# Cases that torch has no kernels for, and what is refused by name.
LEFT_OUT = {
    "uint16": "torch has no arithmetic for it",
    "uint32": "torch has no arithmetic for it",
    "uint64": "torch has no arithmetic for it",
    "training": "it drops elements",
    "delta_expanded": "a Loop",
    "sequence_map": "no tensors",
    "optional": "no tensors",
}


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
    given, wanted = ([np.asarray(each) for each in values] for values in case.data_sets[0])
    made = onnx.ModelProto()
    made.CopyFrom(case.model)
    names = [value.name for value in made.graph.input]
    tensors = [name for node in made.graph.node for name in node.input[:1]]
    inputs = []
    for name, array in zip(names, given, strict=True):
        is_data = name in tensors or array.dtype.kind == "f" or (array.ndim > 1 and array.size > 1)
        if is_data and case.model.graph.node[0].op_type not in {"ConstantOfShape", "Range"}:
            inputs.append(array)
        else:
            made.graph.initializer.append(numpy_helper.from_array(array, name))
    return made, inputs, wanted


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
            np.testing.assert_allclose(
                array, other.astype(array.dtype), case.rtol, max(case.atol, 1e-6), err_msg=case.name
            )
