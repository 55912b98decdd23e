"""Every module of torch.nn as a model: served as it runs here, or refused with the reason."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.nn.cases import ALL, Case

SERVED = [case for case in ALL if case.inputs]
# What cannot be served, and why.
REFUSED = {
    "FractionalMaxPool2d": "draws random numbers",
    "FractionalMaxPool3d": "draws random numbers",
    "AdaptiveLogSoftmaxWithLoss": "gives a result whose size depends on the elements",
}
# Modules whose rows depend on each other, or lie in another dimension, and functions of whole batches.
ALONE = (
    *("RNN", "GRU", "LSTM", "MultiheadAttention", "Transformer", "TransformerEncoderLayer", "TransformerDecoderLayer"),
    *("L1Loss", "MSELoss", "SmoothL1Loss", "HuberLoss", "SoftMarginLoss", "NLLLoss", "NLLLoss2d", "BCELoss"),
    *("BCEWithLogitsLoss", "KLDivLoss", "PoissonNLLLoss", "GaussianNLLLoss", "HingeEmbeddingLoss", "CTCLoss"),
    *("MarginRankingLoss", "CosineEmbeddingLoss", "MultiMarginLoss", "MultiLabelMarginLoss", "TripletMarginLoss"),
    *("MultiLabelSoftMarginLoss", "TripletMarginWithDistanceLoss"),
)


def tensors_of(result: Any) -> list[Any]:
    """All tensors or arrays of a result, in order."""
    if isinstance(result, dict):
        result = list(result.values())
    if not isinstance(result, (tuple, list)):
        return [] if result is None else [result]
    return [each for part in result for each in tensors_of(part)]


def is_batched(case: Case) -> bool:
    """Whether requests are run together."""
    shapes = [array.shape for array in case.inputs]
    rows_first = case.kwargs.get("batch_first") and case.name not in ("GRU", "LSTM")
    if (case.name in ALONE and not rows_first) or len({shape[:1] for shape in shapes}) > 1:
        return False
    return {
        "Softmax": case.args == (1,),
        "Linear": len(shapes[0]) > 1,
        "Flatten": not case.args,
        "CrossEntropyLoss": case.kwargs.get("reduction") == "none",
        "BatchNorm2d": case.kwargs.get("track_running_stats", True),
        "LSTMCell": len(shapes[0]) > 1,
    }.get(case.name, True)


@pytest.mark.filterwarnings("ignore:`NLLLoss2d` has been deprecated", "ignore:LSTM with projections")
@pytest.mark.parametrize("case", SERVED, ids=lambda case: case.label)
def test_a_module_is_served_as_it_runs_here(tc: ModuleType, name: str, case: Case) -> None:
    module = case.build(tc.nn)
    network = (lambda *inputs: module(*inputs, **case.call)) if case.call else module
    reason = "writes to weight" if case.kwargs.get("max_norm") else REFUSED.get(case.name)
    if reason is not None:
        with pytest.raises(TypeError, match=f"`.*` {reason}, at .*test_served_modules.py:.*{case.name}"):
            tc.models.create(name, network, case.inputs)
        return
    served = tc.models.create(name, network, case.inputs)
    assert module.training
    assert served.describe().is_batched == is_batched(case)
    module.eval()
    with tc.no_grad():
        wanted = tensors_of(module(*map(tc.from_numpy, case.inputs), **case.call))
    arrays = tensors_of(served(*case.inputs))
    here = tensors_of(served(*map(tc.from_numpy, case.inputs)))
    for expected, array, tensor in zip(wanted, arrays, here, strict=True):
        assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)
        for found in (array, tensor.numpy()):
            np.testing.assert_allclose(found, expected.numpy(), rtol=1.3e-6, atol=1e-5, equal_nan=True)
