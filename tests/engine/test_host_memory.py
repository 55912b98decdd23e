"""Memory that uploads arrive in is used again, and never while anybody has it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tserver.engine import host_memory
from tserver.engine.host_memory import HostMemory

SIZE = 3 << 20


def address(memory: memoryview) -> int:
    return int(np.frombuffer(memory, np.uint8).ctypes.data)


def test_a_block_is_used_again_when_its_tensor_is_gone() -> None:
    memory = HostMemory(torch.device("cpu"))
    data = memory.take(SIZE).data
    first = address(data)
    tensor = torch.frombuffer(data, dtype=torch.float32)
    view = tensor[10:20]
    del data, tensor
    assert address(memory.take(SIZE).data) != first, "a view holds it"
    del view
    assert address(memory.take(SIZE - 1000).data) == first


def test_a_block_that_is_far_too_large_is_left() -> None:
    memory = HostMemory(torch.device("cpu"))
    memory.take(64 << 20)
    assert not memory._leases, "it was let go at once"
    assert memory.take(SIZE).base.nbytes < 2 * SIZE  # type: ignore[union-attr]


def test_idle_blocks_are_given_back() -> None:
    memory = HostMemory(torch.device("cpu"))
    memory.take(SIZE)
    memory.trim(idle_s=60.0)
    assert len(memory._idle) == 1
    memory.trim(idle_s=0.0)
    assert not memory._idle


def test_idle_blocks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "_MAX_IDLE_BYTES", 9 << 20)
    memory = HostMemory(torch.device("cpu"))
    held = [memory.take(SIZE) for _ in range(4)]
    held.clear()
    memory.trim(idle_s=60.0)
    assert [block.nbytes for _, block in memory._idle] == [4 << 20] * 2


def test_few_bytes_are_left_to_the_c_library() -> None:
    memory = HostMemory(torch.device("cpu"))
    assert memory.take(1000).nbytes == 1000
    assert memory.take(0).nbytes == 0
    assert not memory._leases
