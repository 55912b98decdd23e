"""torch.accelerator: the GPU of the server, whatever it is; on this wire that is CUDA."""

from __future__ import annotations

from typing import Any

from tclient import cuda
from tclient._codec.device import device
from tclient._exceptions import TensorRuntimeError


def is_available() -> bool:
    """Whether the server has a GPU."""
    return cuda.is_available()


def device_count() -> int:
    """How many GPUs the server has."""
    return cuda.device_count()


def current_accelerator(check_available: bool = False) -> device | None:
    """The kind of device; None without a GPU."""
    return device("cuda") if is_available() else None


def current_device_index() -> int:
    """The index of the GPU that "cuda" means to this thread. Raises: RuntimeError without a GPU."""
    _require()
    return cuda.current_device()


current_device_idx = current_device_index


def set_device_index(device: Any) -> None:
    """Have "cuda" mean a GPU to this thread. Raises: RuntimeError without a GPU."""
    _require()
    cuda.set_device(device)


set_device_idx = set_device_index


def synchronize(device: Any = None) -> None:
    """Wait until a GPU has done everything that was issued. Raises: RuntimeError without a GPU."""
    _require()
    cuda.synchronize(device)


def empty_cache() -> None:
    """Nothing: the memory of the server is the server's to manage."""


def _require() -> None:
    if not is_available():
        raise TensorRuntimeError("Cannot access accelerator device when none is available.")
