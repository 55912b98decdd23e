"""Copies between the memory of the host and that of a device, which run while the engine goes on.

Both ways go through pinned memory: from any other, CUDA first waits for all that the stream has to do. torch keeps
pinned memory back until the copies into and out of it have run, so nobody here has to.
"""

from __future__ import annotations

from typing import Any

import torch

from tserver.engine import streams
from tserver.engine.values import plain

# A block of pinned memory is a power of two in size, and stays with the process. What is larger waits for the device.
_MOST_PINNED = 1 << 30
# What came by value in a message, or was made here, is copied into pinned memory first; for more, that takes longer
# than it saves.
_MOST_COPIED_TWICE = 64 << 20


class Arrival:
    """Elements on their way to the host: the memory that they come to, and how to wait for them."""

    __slots__ = ("_event", "host")

    def __init__(self, host: torch.Tensor, event: Any) -> None:
        self.host = host
        self._event = event

    def wait(self) -> None:
        """Return when they are there. From any thread but the engine's. Raises: what the device failed of."""
        event = self._event
        if event is not None:
            if not event.query():
                event.synchronize()
            self._event = None


def bring(tensor: torch.Tensor) -> Arrival:
    """Begin to copy the elements of a tensor to the host, dense, as they are at this place in the stream."""
    dense = plain(tensor)
    if not dense.is_contiguous():
        dense = dense.contiguous()
    if dense.nbytes > _MOST_PINNED:
        return Arrival(dense.cpu(), None)
    host = pinned(dense)
    host.copy_(dense, non_blocking=True)
    return Arrival(host, streams.mark(dense, blocking=True))


def send(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy of a tensor of the host on a device. The host's memory may be let go, but not written, after this."""
    if not host.numel():
        return host.to(device)
    if not host.is_pinned():
        if host.nbytes > _MOST_COPIED_TWICE:
            return host.to(device)
        source, host = host, pinned(host)
        host.copy_(source)
    return host.to(device, non_blocking=True)


def pinned(like: torch.Tensor) -> torch.Tensor:
    """Pinned memory for the elements of a tensor."""
    return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
