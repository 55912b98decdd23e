"""An engine in this process, whose queues are run by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tserver.config import Config
from tserver.engine import streams, transfers
from tserver.engine.builtin_operations import builtin_operations
from tserver.engine.device_guards import guarded_on_device
from tserver.engine.engine import Engine
from tserver.engine.operations import Operations
from tserver.engine.reads import deferring

from .apart import Device


def refuse(cause: str) -> None:
    """The engine must not end."""
    pytest.fail(cause)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine that is not started: its queues are run by hand. It leaves this process's limits and settings alone."""
    monkeypatch.setattr(Engine, "_prepare", lambda self: None)
    return Engine(Config(device="cpu"), on_fatal=refuse)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """Tensors of the CPU are taken for tensors of this device."""
    made = Device()
    monkeypatch.setattr(streams, "runs_apart", lambda tensor: tensor.device.type == "cpu")
    monkeypatch.setattr(streams, "mark", made.mark)
    monkeypatch.setattr(transfers, "pinned", lambda like: torch.empty(like.shape, dtype=like.dtype))
    return made


@pytest.fixture
def apart(engine: Engine, device: Device) -> Iterator[Engine]:
    """An engine that runs, on such a device."""
    own: Any = builtin_operations(single_owner=False, find_model=engine.find_model, has_gpu=True)
    engine.operations = Operations(own, later=deferring, guard=guarded_on_device)
    engine.start()
    yield engine
    for event in device.events:
        event.passed.set()
    engine.stop()
