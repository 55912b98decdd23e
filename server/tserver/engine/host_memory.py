"""Memory of the host that bytes arrive in, used again when the tensor that lived in it is gone.

A page that is touched for the first time costs more than the copy into it, and freed memory of this size goes back to
the kernel at once. So blocks are kept for half a minute. Whoever takes one fills all of it before anybody reads: what
was in it before does not show.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]

# Less than this the C library keeps by itself.
_KEPT_FROM_BYTES = 1 << 20
_STEP_BYTES = 2 << 20
_MAX_IDLE_BYTES = 1 << 30
_MAX_IDLE_S = 30.0


class Lease(np.ndarray[Any, Any]):
    """Bytes in use; the block behind them is free again when nothing refers to them."""


class HostMemory:
    """Blocks of memory that wait to be used again. Page-locked ones where a device copies from them by itself."""

    def __init__(self, device: torch.device) -> None:
        self._pinned = device.type == "cuda"
        self._lock = threading.Lock()
        # The oldest first: the moment when it became idle, and the block.
        self._idle: list[tuple[float, Array]] = []
        # Blocks whose lease has ended. That may happen at any line of any thread, so nothing is locked then.
        self._returned: deque[Array] = deque()
        self._leases: dict[int, tuple[weakref.ref[Lease], Array]] = {}

    def take(self, size: int) -> Array:
        """`size` bytes with whatever is in them. Raises: MemoryError."""
        if self._pinned and size:
            # torch keeps page-locked blocks itself, until the copies from them have run.
            pinned: Array = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
            return pinned
        if size < _KEPT_FROM_BYTES:
            return np.empty(size, np.uint8)
        block = self._reuse(size)
        if block is None:
            block = np.empty(-(-size // _STEP_BYTES) * _STEP_BYTES, np.uint8)
        lease = block[:size].view(Lease)
        key = id(lease)
        self._leases[key] = (weakref.ref(lease, lambda _: self._returned.append(self._leases.pop(key)[1])), block)
        return lease

    def trim(self, idle_s: float = _MAX_IDLE_S) -> None:
        """Give back what has been idle for so long."""
        with self._lock:
            self._collect()
            oldest = time.monotonic() - idle_s
            self._idle = [(since, block) for since, block in self._idle if since > oldest]

    def _reuse(self, size: int) -> Array | None:
        with self._lock:
            self._collect()
            fitting = [
                (block.nbytes, -index)
                for index, (_, block) in enumerate(self._idle)
                if size <= block.nbytes <= 2 * size + _STEP_BYTES
            ]
            return self._idle.pop(-min(fitting)[1])[1] if fitting else None

    def _collect(self) -> None:
        now = time.monotonic()
        while self._returned:
            self._idle.append((now, self._returned.popleft()))
        held = sum(block.nbytes for _, block in self._idle)
        while held > _MAX_IDLE_BYTES:
            held -= self._idle.pop(0)[1].nbytes
