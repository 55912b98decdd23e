"""Requests for one model, and the queue in which they wait. Knows no torch, and nothing of how a batch is run.

Any thread may put and remove; one thread takes. Times are of `time.monotonic`, in seconds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.shares import Share
from tserver.errors import DeadlineExceeded, QueueFull, ServerError, TooLarge
from tserver.models.batching import BatchingConfig, QueuePolicy
from tserver.tracing.traced import Traced


class Given(NamedTuple):
    """One input of a request by value."""

    dtype: pb.DType
    shape: Sequence[int]
    data: bytes | memoryview


class Request:
    """One request: its inputs by value or as tensors, and what has become of them."""

    __slots__ = (
        "arrived",
        "as_tensor",
        "batch_shapes",
        "deadline",
        "error",
        "form",
        "inputs",
        "is_delayed",
        "level",
        "made",
        "on_done",
        "on_engine",
        "outputs",
        "priority",
        "rows",
        "shapes",
        "share",
        "size_bytes",
        "timeout_at",
        "timeout_us",
        "traced",
        "version",
    )

    def __init__(
        self,
        rows: int,
        inputs: Sequence[Any],
        shapes: Sequence[Sequence[int]],
        size_bytes: int,
        *,
        form: tuple[int, ...] | None = (),
        as_tensor: bool = False,
        priority: int = 0,
        timeout_us: int = 0,
        deadline: float | None = None,
        on_done: Callable[[Request], None] | None = None,
    ) -> None:
        # Each input of the model, row-major in its dtype, or a tensor; and their shapes. What is no tensor has so many
        # bytes in all. A request that is not batched is one row.
        self.rows, self.inputs, self.shapes, self.size_bytes = rows, inputs, shapes, size_bytes
        # Requests are run together where this is equal, and not None.
        self.form = form
        # Where tensors are made on other streams of the device: what to wait for before they are used.
        self.made: Any = None
        # Whether the outputs are wanted as tensors, on the device.
        self.as_tensor = as_tensor
        self.priority, self.timeout_us, self.deadline = priority, timeout_us, deadline
        # Called by whoever takes what has been delivered, once there are outputs or an error.
        self.on_done = on_done
        # Whether that is done on the engine's thread.
        self.on_engine = False
        # Who is charged with the engine's time that its rows take; None where that is nobody.
        self.share: Share | None = None
        # What notes how long it waits and runs, where it is traced.
        self.traced: Traced | None = None
        self.level = 0
        self.is_delayed = False
        self.arrived = 0.0
        self.timeout_at: float | None = None
        # One of the two, in the end: the bytes of each output (or its tensor, where that is wanted), or why there are
        # none.
        self.outputs: Sequence[Any] | None = None
        # The shapes that the outputs of its batch had together.
        self.batch_shapes: Sequence[Sequence[int]] = ()
        self.error: ServerError | None = None
        self.version = 0

    @property
    def output_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the outputs, once there are any."""
        if self.form is None:
            return [tuple(shape) for shape in self.batch_shapes]
        return [(self.rows, *shape[1:]) for shape in self.batch_shapes]


def notify(requests: list[Request]) -> None:
    """Tell those who wait for these that they were run."""
    for request in requests:
        if request.on_done is not None:
            request.on_done(request)


def check_size(size_bytes: int, max_bytes: int) -> None:
    """Raises: TooLarge for outputs that do not fit into a message."""
    if size_bytes > max_bytes:
        raise TooLarge(
            f"the outputs have {size_bytes} bytes, a message carries {max_bytes}; "
            "send fewer rows, or have MlpForward keep them and use Download"
        )


@dataclass(slots=True)
class Taken:
    """What came out of a queue: requests to run together, requests that are too late, and when to look again."""

    batch: list[Request] = field(default_factory=list)
    expired: list[Request] = field(default_factory=list)
    look_again_at: float | None = None
    more: bool = False


# Requests of another form that are passed over to fill a batch.
_MOST_PASSED = 1000
# Requests of one priority that may wait where the model says nothing of that.
MAX_WAITING = 65_536
# What the inputs of waiting requests may take of the host's memory, for each model.
_MAX_WAITING_BYTES = 256 << 20


class _Level:
    """The requests of one priority: those in time, then those whose time was up and who wait for the others."""

    __slots__ = ("delayed", "policy", "waiting")

    def __init__(self, policy: QueuePolicy) -> None:
        self.policy = policy
        self.waiting: deque[Request] = deque()
        self.delayed: deque[Request] = deque()

    def __len__(self) -> int:
        return len(self.waiting) + len(self.delayed)


class RequestQueue:
    """What waits for one model."""

    def __init__(self, config: BatchingConfig) -> None:
        self._lock = threading.Lock()
        self._levels: dict[int, _Level] = {}
        self._config = config
        self._preferred = frozenset(config.preferred_batch_size)
        self._bytes = 0

    def __len__(self) -> int:
        return sum(len(level) for level in list(self._levels.values()))

    def configure(self, config: BatchingConfig) -> None:
        """Change the settings. Requests that wait stay, with the priority that they have under the new settings."""
        with self._lock:
            waiting = [request for level in self._ordered() for request in (*level.waiting, *level.delayed)]
            self._config = config
            self._preferred = frozenset(config.preferred_batch_size)
            self._levels = {}
            for request in waiting:
                self._place(request)

    def put(self, request: Request) -> None:
        """Join the queue. Raises: QueueFull."""
        with self._lock:
            config = self._config
            level = config.level(request.priority)
            policy = config.policy(level)
            queue = self._levels.get(level)
            if policy.max_queue_size and queue is not None and len(queue) >= policy.max_queue_size:
                raise QueueFull(
                    f"{len(queue)} requests wait for this model, which is the limit; retry later",
                    retry_after_s="0.1",
                )
            if not policy.max_queue_size and queue is not None and len(queue) >= MAX_WAITING:
                raise QueueFull(f"{len(queue)} requests wait for this model; retry later", retry_after_s="0.1")
            size = request.size_bytes
            # One that is alone is taken whatever its size: it would never be, later.
            if self._bytes and self._bytes + size > _MAX_WAITING_BYTES:
                raise QueueFull(
                    f"inputs of {self._bytes} bytes wait for this model, and {size} more are too many; retry later",
                    retry_after_s="0.1",
                )
            self._bytes += size
            request.arrived = time.monotonic()
            timeout_us = policy.timeout_us(request.timeout_us)
            request.timeout_at = request.arrived + timeout_us / 1e6 if timeout_us else None
            self._place(request)

    def remove(self, request: Request) -> bool:
        """Leave the queue; False if it is not there any more."""
        with self._lock:
            level = self._levels.get(request.level)
            if level is None:
                return False
            try:
                (level.delayed if request.is_delayed else level.waiting).remove(request)
            except ValueError:
                return False
            self._forget(request)
            return True

    def take(self, *, holds_back: bool = True) -> Taken:
        """The next requests to run together, as many as wait up to max_batch_size rows.

        At a preferred size it stops short of that. Where others may still join, it gives nothing and says until when,
        unless it is told to hold nothing back.
        """
        taken = Taken()
        with self._lock:
            now = time.monotonic()
            is_full, best = self._pick(taken, now)
            batch = taken.batch
            if best:
                self._give_back(batch, best)
            elif holds_back and batch and not is_full and (delay_us := self._config.max_queue_delay_us):
                due = min(request.arrived for request in batch) + delay_us / 1e6
                if due > now:
                    ends = (
                        end for request in batch for end in (request.deadline, request.timeout_at) if end is not None
                    )
                    taken.look_again_at = min([due, *ends])
                    self._give_back(batch, 0)
            for request in (*batch, *taken.expired):
                self._forget(request)
            taken.more = any(len(level) for level in self._levels.values())
        return taken

    def _pick(self, taken: Taken, now: float) -> tuple[bool, int]:
        """Move requests into the batch; whether it is full, and how many of them make the largest preferred size.

        What is not of the form of the first is passed over, and keeps its place, unless answers are to keep the order
        of requests.
        """
        largest, preferred = self._config.max_batch_size, self._preferred
        rows = best = 0
        batch = taken.batch
        for level in self._ordered():
            for waiting in (level.waiting, level.delayed):
                passed: list[Request] = []
                try:
                    while waiting:
                        request = waiting[0]
                        if self._is_late(request, level, now, taken):
                            continue
                        if batch and (request.form != batch[0].form or request.form is None):
                            if batch[0].form is None or self._config.preserve_ordering or len(passed) >= _MOST_PASSED:
                                return True, best
                            passed.append(waiting.popleft())
                            continue
                        if batch and rows + request.rows > largest:
                            return True, best
                        batch.append(waiting.popleft())
                        rows += request.rows
                        if rows in preferred:
                            best = len(batch)
                finally:
                    waiting.extendleft(reversed(passed))
        return rows >= largest, best

    def _is_late(self, request: Request, level: _Level, now: float, taken: Taken) -> bool:
        """Take the first that waits out of the queue if its time is up."""
        waiting = level.delayed if request.is_delayed else level.waiting
        if request.deadline is not None and request.deadline <= now:
            request.error = DeadlineExceeded("the deadline passed before the request was run; allow more time")
        elif request.timeout_at is not None and request.timeout_at <= now:
            if level.policy.timeout_action == "DELAY":
                waiting.popleft()
                request.timeout_at, request.is_delayed = None, True
                level.delayed.append(request)
                return True
            waited_us = int((now - request.arrived) * 1e6)
            request.error = DeadlineExceeded(
                f"the request waited {waited_us} µs in the queue, longer than it may; retry later",
                reason="QUEUE_TIMEOUT",
            )
        else:
            return False
        taken.expired.append(waiting.popleft())
        return True

    def _give_back(self, batch: list[Request], keep: int) -> None:
        while len(batch) > keep:
            request = batch.pop()
            level = self._levels[request.level]
            (level.delayed if request.is_delayed else level.waiting).appendleft(request)

    def _forget(self, request: Request) -> None:
        self._bytes -= request.size_bytes

    def _place(self, request: Request) -> None:
        request.level = self._config.level(request.priority)
        level = self._levels.get(request.level)
        if level is None:
            self._levels[request.level] = level = _Level(self._config.policy(request.level))
        (level.delayed if request.is_delayed else level.waiting).append(request)

    def _ordered(self) -> list[_Level]:
        return (
            [self._levels[level] for level in sorted(self._levels)]
            if len(self._levels) > 1
            else [*self._levels.values()]
        )
