"""Small graphs of ONNX, and what onnx's own evaluator makes of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

__all__ = [
    "Array",
    "ReferenceEvaluator",
    "assert_as_evaluated",
    "helper",
    "model",
    "node",
    "numpy_helper",
    "onnx",
    "run",
]

Array = np.ndarray[Any, Any]
Shape = Sequence[int | str | None]


def model(
    nodes: Sequence[Any],
    inputs: Mapping[str, tuple[Any, Shape]],
    outputs: Sequence[str],
    initializers: Mapping[str, Array] | None = None,
    opset: int = 20,
) -> Any:
    """A model of these nodes; inputs are dtypes and shapes by name, and outputs of any kind."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [_value(name, element, shape) for name, (element, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (initializers or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9 if opset < 22 else 11)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """A node; inputs and outputs are names with blanks between them, and `_` is one that is left out."""
    names = [["" if name == "_" else name for name in names.split()] for names in (inputs, outputs)]
    return helper.make_node(kind, *names, **attributes)


def run(tc: ModuleType, made: Any, *inputs: Array) -> list[Array]:
    """The outputs of a model that tclient runs."""
    with tc.no_grad():
        found = tc.onnx.load(made.SerializeToString())(*inputs)
    return [tensor.numpy() for tensor in (found.values() if isinstance(found, dict) else [found])]


def assert_as_evaluated(tc: ModuleType, made: Any, *inputs: Array, tolerance: float = 1e-5) -> None:
    """tclient gives what onnx's own evaluator does."""
    names = [value.name for value in made.graph.input]
    expected = ReferenceEvaluator(made).run(None, dict(zip(names, inputs, strict=True)))
    for found, wanted in zip(run(tc, made, *inputs), expected, strict=True):
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def _value(name: str, element: Any, shape: Shape) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(element)), shape)
