"""Texts of tensors are torch's own, whatever decides how elements are shown."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch._tensor_str as tensor_str

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.batch_run import BatchRun
from tserver.engine.engine import Engine
from tserver.engine.executor import Executor
from tserver.engine.object_store import ObjectStore
from tserver.engine.texts import MAX_SHOWN, TORCHS

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_VALUES: dict[str, list[float]] = {
    "whole": [1.0, -20.0, 300.0],
    "broken": [0.5, -123.25, 7.0],
    "small": [1e-5, 1.0],
    "small below zero": [-1e-7, 5.0],
    "large": [3.0e4, -1.0],
    "round up": [9.99996, -99.99996],
    "none that is finite": [float("inf"), float("-inf"), float("nan")],
    "zeros": [0.0, -0.0],
    "not finite beside": [float("nan"), 2.0, float("-inf"), -0.0],
    "long exponents": [1e-120, -1e-5, 1e150],
}


def _theirs(tensor: torch.Tensor) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_str, "_Formatter", TORCHS)
        return repr(tensor)


def _tensors() -> list[Any]:
    made = []
    for (name, values), dtype in itertools.product(_VALUES.items(), _FLOATS):
        made.append(pytest.param(torch.tensor(values * 12).to(dtype), id=f"{name} {dtype}"))
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.bool):
        numbers = (torch.arange(60) * 7 - 100).abs() if not dtype.is_signed else torch.arange(60) * 2 - 100
        made.append(pytest.param(numbers.to(dtype).reshape(3, 20), id=f"{dtype}"))
    made.append(pytest.param(torch.randn(40, dtype=torch.complex64) * 1e3, id="complex"))
    made.append(pytest.param(torch.randn(30, 40, requires_grad=True) * 1e-3, id="with a graph"))
    made.append(pytest.param(torch.randn(5, 1000), id="summarised"))
    return made


@pytest.mark.parametrize("tensor", _tensors())
@pytest.mark.parametrize("options", [{}, {"sci_mode": True}, {"sci_mode": False, "precision": 0}], ids=str)
def test_a_text_is_as_torch_makes_it(tensor: torch.Tensor, options: dict[str, Any]) -> None:
    with torch._tensor_str.printoptions(**options):
        assert repr(tensor) == _theirs(tensor)


def _asks(engine: Engine, tensor: torch.Tensor) -> tuple[ObjectStore, BatchRun]:
    store = engine.open_queue().store
    store.operations.append(store.operation("Tensor.__repr__"))
    store.objects[1] = tensor
    return store, BatchRun(pb.Batch(seq=1, calls=[pb.Call(args=[pb.Value(result=1)])]))


def _told(run: BatchRun) -> pb.Result:
    (found,) = pb.BatchReply.FromString(run.encoded_reply()).results
    return found


def test_a_long_text_is_made_in_pieces(engine: Engine) -> None:
    tensor = torch.randn(20, 2000)
    store, run = _asks(engine, tensor)
    executor, turns = Executor(), 0
    with torch._tensor_str.printoptions(profile="full"):
        while not executor.run(store, run, deadline=0.0):
            turns += 1
        assert turns > 3
        assert _told(run).value.text == _theirs(tensor)


def test_a_text_that_is_cancelled_ends_and_its_thread_is_free(engine: Engine) -> None:
    store, run = _asks(engine, torch.randn(20, 2000))
    with torch._tensor_str.printoptions(profile="full"):
        assert not Executor().run(store, run, deadline=0.0)
        run.refusal = pb.Error(type="CallCancelled", reason="CANCELLED")
        assert Executor().run(store, run, deadline=0.0)
    assert _told(run).error.reason == "CANCELLED"
    assert len(engine._pass_threads._idle) == 1


@pytest.mark.parametrize("options", [{"threshold": 10**9}, {"edgeitems": 1000}], ids=str)
def test_a_text_of_too_many_elements_is_refused(engine: Engine, options: dict[str, Any]) -> None:
    store, run = _asks(engine, torch.zeros(1000, 1 + MAX_SHOWN // 1000))
    with torch._tensor_str.printoptions(**options):
        assert Executor().run(store, run, float("inf"))
    assert "is not made" in _told(run).error.message
