"""A batch that is traced: how long it waits, the turns in which it is run, its calls in them, and kernels of a GPU.

Of one that is not, nothing is noted. The device is waited for by the thread that does so anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from tserver.engine.batch_run import BatchRun
from tserver.engine.object_store import ObjectStore
from tserver.engine.profiling import Profile
from tserver.tracing.traced import Traced

# Calls of a batch that are spans of their own.
_MOST_CALLS = 100


class TracedBatch:
    """What is noted of it, and how it becomes spans."""

    def __init__(self, traced: Traced) -> None:
        self._traced = traced
        self._arrived = time.perf_counter()
        self._profile: Profile | None = None
        # This turn; None before the first.
        self._began: float | None = None

    def begin_turn(self, store: ObjectStore) -> None:
        """It goes on. On the engine's thread, as all that follows."""
        now = time.perf_counter()
        if self._began is None:
            self._traced.within("queue", self._arrived, now)
        self._began = now
        if store.profile is None:
            # Of a session that has a profile made, that has the calls.
            if self._profile is None:
                device = torch.device(store.state.device)
                self._profile = Profile(device if device.type == "cuda" else None, _MOST_CALLS)
            store.profile = self._profile

    def end_turn(self, store: ObjectStore) -> None:
        """It is interrupted, or over."""
        if store.profile is self._profile:
            store.profile = None
        assert self._began is not None
        turn = self._traced.within("turn", self._began, time.perf_counter())
        if self._profile is not None:
            for kind, name, began, seconds, _ in self._profile.events:
                if kind == "call":
                    self._traced.within(name, began, began + seconds, parent=turn)
            self._profile.events.clear()

    def end(self, run: BatchRun, when_arrived: Callable[[list[Any], Callable[[], None]], None]) -> None:
        """All has run. `when_arrived` calls a function when the device has come so far."""
        reasons = [result.error.reason for result in run.reply.results if result.HasField("error")]
        error = reasons[0] if reasons else ""
        told = {"tserver.calls": run.index, "tserver.failed_calls": len(reasons)}
        profile = self._profile
        if profile is None or profile.last_kernel is None:
            self._traced.end(error, told)
            return

        def finish() -> None:
            for name, began, ended in profile.kernels(time.perf_counter()):
                self._traced.within(f"{name} on the device", began, ended)
            self._traced.end(error, told)

        when_arrived([_Passed(profile.last_kernel)], finish)


class _Passed:
    """See Awaited."""

    def __init__(self, mark: Any) -> None:
        self._mark = mark

    def wait(self) -> None:
        """Return when the device has come so far."""
        self._mark.synchronize()
