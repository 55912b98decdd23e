"""Served models on a device that works by itself: who waits for it, and what is kept meanwhile."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from tensorcompute.v1 import model_service_pb2 as ms
from tests.models.programs import convolution, convolved
from tests.support.serving import wait_until
from tserver.engine.engine import Engine
from tserver.engine.models import runner
from tserver.engine.models.description import summarise
from tserver.engine.models.model import LayeredModel, Model
from tserver.engine.models.program_model import ProgramModel
from tserver.models.batching import BatchingConfig
from tserver.models.registry import Registry
from tserver.models.requests import Request

from .apart import Device


class _Pair:
    """A pair of streams of the stand-in."""

    index = 7

    def within(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


class _Graphed:
    def __init__(self, model: Model) -> None:
        self.lent = lambda inputs, rows: model.run(inputs)


@pytest.fixture
def served(apart: Engine, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Models that work on streams of the stand-in."""
    monkeypatch.setattr(runner, "take_pair", lambda device: _Pair())
    monkeypatch.setattr(runner.ModelRunner, "_graphed", lambda self, model, graphs, pair: _Graphed(model))
    return Registry(apart)


def _model() -> LayeredModel:
    layers = [summarise(3, 2, ms.Activation(), has_bias=True)]
    weights: list[tuple[torch.Tensor, torch.Tensor | None]] = [(torch.ones(2, 3), torch.zeros(2))]
    return LayeredModel(layers, weights, torch.float32, torch.device("cpu"))


def _ask(models: Registry, name: str) -> tuple[Request, threading.Event]:
    done = threading.Event()
    rows = torch.ones(1, 3).numpy().tobytes()
    request = Request(1, (rows,), ((1, 3),), len(rows), on_done=lambda _: done.set())
    found = models.find(name)
    found.batcher.queue.put(request)
    found.batcher.wake()
    return request, done


def test_a_model_that_was_deleted_is_let_go_with_its_outputs(apart: Engine, served: Registry, device: Device) -> None:
    device.is_quick = True
    model = _model()
    kept: list[weakref.ref[Any]] = [weakref.ref(model), *map(weakref.ref, model.network.parameters())]
    added = served.add("m", 1, model, BatchingConfig())
    request, done = _ask(served, "m")
    assert done.wait(10.0)
    assert request.outputs is not None
    assert bytes(request.outputs[0]) == torch.full((2,), 3.0).numpy().tobytes()
    served.remove(added)
    kept.append(weakref.ref(added.batcher))
    del model, added, request

    def is_gone() -> bool:
        # What the engine ran last it holds until it runs something else.
        apart.run(lambda: None).result(10.0)
        gc.collect()
        return not any(ref() for ref in kept)

    wait_until(is_gone, 10.0, "the model to be let go")


def test_models_bring_no_threads_of_their_own_and_those_there_are_end_with_the_engine(
    apart: Engine, served: Registry, device: Device
) -> None:
    device.is_quick = True
    before = set(threading.enumerate())
    for number in range(5):
        served.add(f"m{number}", 1, _model(), BatchingConfig())
        _, done = _ask(served, f"m{number}")
        assert done.wait(10.0)
    made = set(threading.enumerate()) - before
    assert [thread.name for thread in made] == ["arrivals-7"]
    apart.completions.stop()
    assert not any(thread.is_alive() for thread in made)


def test_a_batch_that_fails_on_its_way_fails_alone(apart: Engine, served: Registry, device: Device) -> None:
    served.add("m", 1, _model(), BatchingConfig())
    request, done = _ask(served, "m")
    apart.run(lambda: None).result(10.0)
    event = device.events[-1]
    event.failure = RuntimeError("a transfer failed")
    event.passed.set()
    assert done.wait(10.0)
    assert request.error is not None
    assert "a transfer failed" in request.error.message

    device.is_quick = True
    request, done = _ask(served, "m")
    assert done.wait(10.0)
    assert request.error is None


def test_a_program_hands_out_the_rows_and_shapes_of_each_request(
    apart: Engine, served: Registry, device: Device
) -> None:
    device.is_quick = True
    described, weights = convolution()
    served.add("conv", 1, ProgramModel(described, weights, torch.device("cpu"), apart.open_store()), BatchingConfig())
    found = served.find("conv")
    given = [torch.randn(rows, 3, 5, 4) for rows in (2, 1, 3)]
    ends = [threading.Event() for _ in given]
    requests = []
    for images, end in zip(given, ends, strict=True):
        data = images.numpy().tobytes()
        requests.append(Request(len(images), (data,), (images.shape,), len(data), form=(5, 4)))
        requests[-1].on_done = lambda _, end=end: end.set()
    requests[1].as_tensor = True
    for request in requests:
        found.batcher.queue.put(request)
    found.batcher.wake()
    assert all(end.wait(10.0) for end in ends)
    assert found.statistics.execution_count == 1
    for images, request in zip(given, requests, strict=True):
        assert request.outputs is not None
        (output,), (shape,) = request.outputs, request.output_shapes
        elements = output if request.as_tensor else torch.frombuffer(bytearray(output), dtype=torch.float32)
        torch.testing.assert_close(elements.reshape(shape), convolved(images, weights))
