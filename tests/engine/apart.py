"""A CPU that passes for a device that works by itself: copies are done when a test says so."""

from __future__ import annotations

import threading

import torch


class Event:
    """Stands in for a CUDA event: passes when it is let."""

    def __init__(self) -> None:
        self.passed = threading.Event()
        self.failure: Exception | None = None

    def query(self) -> bool:
        """Whether it has passed."""
        return self.passed.is_set() and self.failure is None

    def synchronize(self) -> None:
        """Wait for it."""
        assert self.passed.wait(10.0)
        if self.failure is not None:
            raise self.failure


class Device:
    """The device: every event that was recorded on it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        # Whether work is done at once.
        self.is_quick = False

    def mark(self, tensor: torch.Tensor, *, blocking: bool = False) -> Event:
        """Record an event."""
        event = Event()
        if self.is_quick:
            event.passed.set()
        self.events.append(event)
        return event
