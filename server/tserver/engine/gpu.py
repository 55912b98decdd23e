"""What NVIDIA's GPUs of this machine are doing, for the metrics. Empty where there are none.

Utilisation and power come from NVML (the package nvidia-ml-py); without it they are left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """A GPU at one moment; None is what cannot be told."""

    index: int
    uuid: str
    total_bytes: int
    used_bytes: int
    # 0 to 1.
    utilization: float | None
    power_w: float | None


def gpu_status() -> list[GpuStatus]:
    """Every GPU that torch sees. From any thread."""
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        percent = _told(lambda index=index: torch.cuda.utilization(index))  # type: ignore[misc]
        milliwatts = _told(lambda index=index: torch.cuda.power_draw(index))  # type: ignore[misc]
        found.append(
            GpuStatus(
                index=index,
                uuid=f"GPU-{torch.cuda.get_device_properties(index).uuid}",
                total_bytes=total,
                used_bytes=total - free,
                utilization=None if percent is None else percent / 100,
                power_w=None if milliwatts is None else milliwatts / 1000,
            )
        )
    return found


def _told(ask: Callable[[], int]) -> int | None:
    # No NVML, no permission, or a virtual GPU that does not tell: torch raises what NVML's binding raises.
    with contextlib.suppress(Exception):
        return ask()
    return None
