"""What is told of GPUs, by a torch that says it has two: one whose NVML answers and one whose does not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tserver.engine.gpu import gpu_status
from tserver.front.metrics import GpuCollector


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(value: int, index: int) -> int:
        if index:
            raise ModuleNotFoundError("pynvml")
        return value

    cuda = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 2,
        "mem_get_info": lambda index: (30 << 30, 80 << 30),
        "get_device_properties": lambda index: SimpleNamespace(uuid=f"0-{index}"),
        "utilization": lambda index: told(37, index),
        "power_draw": lambda index: told(251_500, index),
    }
    for name, function in cuda.items():
        monkeypatch.setattr(torch.cuda, name, function)


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_told_in_tritons_units() -> None:
    samples = {
        (sample.name, sample.labels["gpu_uuid"]): sample.value
        for family in GpuCollector(gpu_status).collect()
        for sample in family.samples
    }
    assert samples == {
        ("nv_gpu_utilization", "GPU-0-0"): 0.37,
        ("nv_gpu_power_usage", "GPU-0-0"): 251.5,
        ("nv_gpu_memory_total_bytes", "GPU-0-0"): 80 << 30,
        ("nv_gpu_memory_used_bytes", "GPU-0-0"): 50 << 30,
        ("nv_gpu_memory_total_bytes", "GPU-0-1"): 80 << 30,
        ("nv_gpu_memory_used_bytes", "GPU-0-1"): 50 << 30,
    }


def test_no_gpu_is_no_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_status() == []
    assert list(GpuCollector(gpu_status).collect()) == []


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: docs/gpu.md")
def test_a_real_gpu_tells_its_memory_and_utilisation() -> None:
    torch.ones(1, device="cuda")
    status = gpu_status()[0]
    assert 0 < status.used_bytes < status.total_bytes
    assert status.utilization is not None
    assert 0 <= status.utilization <= 1
    assert status.uuid.startswith("GPU-")
