"""The devices of this process: which one new tensors go to, which others there are, and how much memory there is.

The only place that asks CUDA about memory.
"""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.errors import InvalidArgument
from tserver.host import available_bytes, reserve_bytes, total_bytes, within_limit

Device = torch.device

# Of a GPU, what tensors may take.
_GPU_SHARE = 0.97


def choose_device(wish: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `cuda:n`.

    Raises: InvalidArgument if the machine has no such device.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wish == "auto":
        return torch.device("cuda", 0) if available else torch.device("cpu")
    try:
        device = torch.device(wish)
    except RuntimeError as error:
        raise InvalidArgument(f"device {wish!r} is not known; use auto, cpu, cuda or cuda:n") from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise InvalidArgument(f"device {wish!r} is not served; use auto, cpu, cuda or cuda:n")
    index = device.index or 0
    if index >= available:
        raise InvalidArgument(
            f"device {wish!r} is not there: torch sees {available} CUDA devices{_shown()}; use auto or cpu"
        )
    return torch.device("cuda", index)


def _shown() -> str:
    """Which GPUs this process was shown, where somebody has chosen them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if chosen is None else f" (CUDA_VISIBLE_DEVICES is {chosen!r})"


def devices_beside(device: torch.device, count: int) -> tuple[torch.device, ...]:
    """The GPUs that an engine holds beside its own, which is the first of so many; none beside the CPU.

    Raises: InvalidArgument if there are fewer.
    """
    first = device.index or 0
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count > 1 and first + count > available:
        raise InvalidArgument(
            f"an engine is to hold {count} GPUs from {device} on, but torch sees {available} CUDA devices{_shown()}; "
            "give fewer with --devices-per-engine"
        )
    if device.type != "cuda":
        return ()
    return tuple(torch.device("cuda", index) for index in range(first + 1, first + count))


def exact(device: Any) -> torch.device:
    """A device with its number: "cuda" alone is the current GPU."""
    found = torch.device(device)
    if str(found) == "cuda" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return found


def check_device(name: str) -> None:
    """Refuse a device that this server does not have. Raises: InvalidArgument."""
    try:
        choose_device(name)
    except InvalidArgument:
        has = ", ".join(status.name for status in device_status())
        raise InvalidArgument(f"the server has no device {name[:100]!r}; it has {has}") from None


def free_bytes(device: torch.device) -> int:
    """Bytes that a new tensor may take on the device now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # memory_reserved() and memory_allocated() each sort out all of this anew.
        statistics = torch.cuda.memory_stats_as_nested_dict(device)
        cached = statistics["reserved_bytes"]["all"]["current"] - statistics["allocated_bytes"]["all"]["current"]
        return int(free + cached)
    if device.type == "meta":
        return 1 << 62
    # Where this process has a limit of its own, what is in reserve is beyond it.
    return max(0, min(available_bytes() - reserve_bytes(available_bytes()), within_limit()))


def device_status(host_allocated: int = 0) -> list[ts.DeviceInfo]:
    """Every device and its memory now, CUDA first; what tensors take on the host is for the caller to say."""
    found = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            found.append(_info(f"cuda:{index}", name, total, free, torch.cuda.memory_allocated(index)))
    total = total_bytes()
    description = platform.processor() or platform.machine()
    found.append(_info("cpu", description, total, min(available_bytes(), within_limit()), host_allocated))
    return found


def _info(name: str, description: str, total: int, free: int, allocated: int) -> ts.DeviceInfo:
    return ts.DeviceInfo(
        name=name, description=description, total_bytes=total, free_bytes=free, allocated_bytes=allocated
    )


def limit_device(device: torch.device) -> None:
    """Leave some of a GPU to what is not torch's allocator: contexts, libraries, graphs."""
    torch.cuda.set_per_process_memory_fraction(_GPU_SHARE, device)
