"""What a session's time on the engine went into, while it asks for that: its calls, the slices that they were run in,
and kernels of a GPU.

Of a session that does not ask, nothing is noted and nothing is looked at but once a slice. Times are those of
time.perf_counter, in seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tserver.engine.object_store import ObjectStore

_MOST = 200_000
"""Events of one profile; what is beyond that is counted."""

Events = list[tuple[str, str, float, float, dict[str, Any]]]


class Profile:
    """What is noted of one session."""

    def __init__(self, device: torch.device | None, most: int = _MOST) -> None:
        """`device` is a GPU whose kernels are timed, too, and `most` how many events there may be."""
        self.events: Events = []
        self.missing = 0
        self._device = device
        self._most = most
        # Pairs of events on the device, with what was run between them; and the beginning, on both clocks.
        self._kernels: list[tuple[str, Any, Any]] = []
        self._zero: Any = None
        self.began = time.perf_counter()

    def align(self) -> None:
        """Begin now. Waits for the device, so that both clocks begin together."""
        if self._device is not None:
            torch.cuda.synchronize(self._device)
            self._zero = self._mark()
        self.began = time.perf_counter()

    def add(self, kind: str, name: str, began: float, ended: float, **more: Any) -> None:
        """Something that took a while."""
        if len(self.events) < self._most:
            self.events.append((kind, name, began, ended - began, more))
        else:
            self.missing += 1

    def timing(self, call: Callable[..., None]) -> Callable[..., None]:
        """What runs a call, as Executor._call does, and notes how long that took."""

        def timed(store: ObjectStore, run: Any, operations: Any, call_id: int, number: int, *rest: Any) -> None:
            name = operations[number].name if number < len(operations) else "a call"
            mark = None if self._device is None else self._mark()
            began = time.perf_counter()
            try:
                call(store, run, operations, call_id, number, *rest)
            finally:
                self.add("call", name, began, time.perf_counter(), id=call_id)
                if mark is not None and len(self._kernels) < self._most:
                    self._kernels.append((name, mark, self._mark()))

        return timed

    def _mark(self) -> Any:
        mark = torch.cuda.Event(enable_timing=True)
        mark.record(torch.cuda.current_stream(self._device))
        return mark

    @property
    def last_kernel(self) -> Any:
        """What the device passes behind the last of them; None where there is none."""
        return self._kernels[-1][2] if self._kernels else None

    def kernels(self, ended: float) -> Sequence[tuple[str, float, float]]:
        """The name, beginning and end of each, of which the last one has ended then."""
        last = self.last_kernel
        ends = [(name, ended - mark.elapsed_time(last) / 1e3, mark, after) for name, mark, after in self._kernels]
        return [(name, began, began + mark.elapsed_time(after) / 1e3) for name, began, mark, after in ends]

    def told(self) -> dict[str, Any]:
        """All of it, in plain values. Waits for the device."""
        if self._device is not None:
            torch.cuda.synchronize(self._device)
            for name, first, last in self._kernels:
                began = self.began + self._zero.elapsed_time(first) / 1e3
                self.add("kernel", name, began, began + first.elapsed_time(last) / 1e3)
        return {"events": self.events, "missing": self.missing, "began": self.began, "ended": time.perf_counter()}


def _begin(store: ObjectStore) -> float:
    device = torch.device(store.state.device)
    store.profile = Profile(device if device.type == "cuda" else None)
    store.profile.align()
    return time.perf_counter()


def _clock() -> float:
    """The engine's clock, by which a client finds out how its own differs."""
    return time.perf_counter()


def _end(store: ObjectStore) -> torch.Tensor:
    """The profile as JSON, in bytes. Raises: RuntimeError where none was begun."""
    profile, store.profile = store.profile, None
    if profile is None:
        raise RuntimeError("the session has no profile that could end; begin one with session.profile()")
    data = bytearray(json.dumps(profile.told(), separators=(",", ":")).encode())
    return torch.frombuffer(data, dtype=torch.uint8)


OPERATIONS: dict[str, Callable[..., Any]] = {"tc.profile_begin": _begin, "tc.profile_end": _end}
CLOCK: dict[str, Callable[..., Any]] = {"tc.profile_clock": _clock}
