"""Graphs of ONNX as models: their inputs and outputs are those of the file, and so is what they give."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

from tests.onnx_files.test_networks import STYLES, inputs_of, written


@pytest.mark.parametrize(("by_export", "opset"), [STYLES[0], STYLES[-1]], ids=["old", "new"])
@pytest.mark.parametrize("kind", ["resnet", "bert"])
def test_a_graph_is_served_as_it_describes_itself(
    tc: ModuleType, name: str, kind: str, by_export: bool, opset: int
) -> None:
    network, file = written(kind, by_export, opset)
    graph = tc.onnx.load(file)
    served = tc.models.create(name, graph)
    assert [each.name for each in served.inputs] == [each.name for each in graph.inputs]
    assert [each.name for each in served.outputs] == [each.name for each in graph.outputs]
    assert served.describe().is_batched
    for rows, steps in ((1, 7), (3, 4), (17, 2)):
        inputs = inputs_of(kind, rows, steps)
        with torch.no_grad():
            wanted = network(*inputs)
        found = served(*[each.numpy() for each in inputs])
        several = list(found.values()) if isinstance(found, dict) else [found]
        for mine, other in zip(several, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
            np.testing.assert_allclose(mine, other.numpy(), rtol=1e-4, atol=1e-5)
