"""The one thread of a device on which torch runs, and the lines of work that wait for it.

A lane is one session's line: its jobs run in the order given. The engine takes the lanes in turn, a bounded slice
each, so that a long chain of one session does not hold up the others. A single long kernel does: it cannot be
interrupted.
"""

from __future__ import annotations

import contextlib
import heapq
import importlib
import itertools
import logging
import os
import queue
import sys
import threading
import time
import warnings
import weakref
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.config import Config
from tserver.engine import cost, threads
from tserver.engine.completions import Awaited, Completions
from tserver.engine.device import DeviceStatus, choose_device, device_status, limit_data_segment
from tserver.engine.device_guards import guarded_on_device
from tserver.engine.executor import BatchRun, Executor
from tserver.engine.failures import DeviceFailure, is_device_lost
from tserver.engine.host_memory import HostMemory
from tserver.engine.ledger import Totals
from tserver.engine.models.registry import Registry
from tserver.engine.operations import Operation, Operations
from tserver.engine.own import own_operations
from tserver.engine.reads import deferring
from tserver.engine.space import MAX_REPLY_BYTES, Space, Staged
from tserver.engine.streams import Line
from tserver.engine.transfers import Arrival

T = TypeVar("T")
log = logging.getLogger("tserver.engine")

# How long a session's turn lasts while others wait.
SLICE_S = 0.005
# From so many pieces on (some 25,000 tensors) what sessions hold is not counted again for every caller who asks: to
# count takes at most one part in so many of the engine's time.
_MANY_PIECES = 100
_REST = 20


class Turn(Protocol):
    """What takes its turn on the engine's thread: a session's line, or a model's."""

    @property
    def space(self) -> Space | None:
        """What the session holds whose state is to be in force; None where that does not matter."""

    def run_slice(self, executor: Executor, others_wait: Callable[[], bool]) -> bool:
        """Work for a while; whether there is more to do."""

    def at_work(self) -> str:
        """What is being done, in words. From any thread."""


class Lane:
    """One session's line of work on the engine, and the space it works on."""

    def __init__(self, engine: Engine, space: Space) -> None:
        self.space = space
        self._engine = engine
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._scheduled = False
        # Replies that wait for the device. While there are any, those behind them wait too, to keep their order.
        self.owed = 0

    def submit(self, batch: pb.Batch, done: Callable[[bytes], None]) -> None:
        """Run a batch; `done` is called with the encoded BatchReply, on the engine's thread or one that waited for the
        device. Replies come in the order of the batches.
        """
        self._append(_BatchJob(self, batch, None, done))

    def submit_typed(self, batch: pb.Batch, operations: list[Operation], done: Callable[[bytes], None]) -> None:
        """Run calls that bring their operations along (Call.operation is an index into them), with ids made here."""
        self._append(_BatchJob(self, batch, operations, done))

    def run(self, function: Callable[[Space], T]) -> Future[T]:
        """Run a function on the engine's thread, in its place in the line."""
        job = _FunctionJob(self, function)
        self._append(job)
        return job.future

    def run_in_pieces(self, function: Callable[[Space], Generator[None, None, T]]) -> Future[T]:
        """The same for what may take long: others have their turns wherever the function yields."""
        job = _PiecewiseJob(self, function)
        self._append(job)
        return job.future

    def close(self) -> None:
        """Let go of all that the session holds, when the jobs before it have run."""
        self.run_in_pieces(Space.clear)

    def reply_later(self, run: BatchRun, done: Callable[[bytes], None]) -> None:
        """Call `done` when all that the batch reads has arrived. From the engine's thread."""
        executor = self._engine.executor

        def finish() -> None:
            executor.complete(run)
            done(run.encoded_reply())
            with self._lock:
                self.owed -= 1

        with self._lock:
            self.owed += 1
        self.when_arrived([result.arrival for _, _, _, result in run.deferred], finish)

    def when_arrived(self, awaited: Sequence[Arrival], finish: Callable[[], None]) -> None:
        """Call a function when all is there, behind those before it. From the engine's thread."""
        self._engine.when_arrived(self.space.state.line, awaited, finish)

    def _append(self, job: _Job) -> None:
        with self._lock:
            self._jobs.append(job)
            if self._scheduled:
                return
            self._scheduled = True
        self._engine.ready.put(self)

    def run_slice(self, executor: Executor, others_wait: Callable[[], bool]) -> bool:
        """Run jobs until none is left (False) or the turn is over (True)."""
        deadline = time.perf_counter() + SLICE_S
        while True:
            job = self._jobs[0]
            while not job.step(executor, self.space, deadline):
                self._engine.steps += 1
                if others_wait():
                    return True
                deadline = time.perf_counter() + SLICE_S
            self._engine.steps += 1
            with self._lock:
                self._jobs.popleft()
                if not self._jobs:
                    self._scheduled = False
                    return False
            if time.perf_counter() > deadline:
                if others_wait():
                    return True
                deadline = time.perf_counter() + SLICE_S

    def at_work(self) -> str:
        """What is being done, in words. From any thread."""
        try:
            return self._jobs[0].what(self.space)
        except IndexError:
            return "the end of a request"


class _Job:
    def what(self, space: Space) -> str:
        """What it is, in words. From any thread."""
        return "a request"

    def step(self, executor: Executor, space: Space, deadline: float) -> bool:
        """Go on until the deadline; True when the job is finished."""
        raise NotImplementedError


class _BatchJob(_Job):
    __slots__ = ("_batch", "_done", "_lane", "_operations", "_run")

    def __init__(
        self, lane: Lane, batch: pb.Batch, operations: list[Operation] | None, done: Callable[[bytes], None]
    ) -> None:
        self._lane = lane
        self._batch = batch
        self._operations = operations
        self._done = done
        self._run: BatchRun | None = None

    def step(self, executor: Executor, space: Space, deadline: float) -> bool:
        run = self._run
        space.version += 1
        if run is None:
            run = self._run = self._begin(space)
        try:
            if not executor.run(space, run, deadline):
                return False
        except Exception as error:
            log.exception("batch %d broke off at call %d", run.seq, run.index)
            run.reply.results.add(call_index=run.index, lost_effect=True).error.CopyFrom(
                pb.Error(
                    type="RuntimeError",
                    message=f"the server failed: {error}",
                    batch_seq=run.seq,
                    call_index=run.index,
                    reason="INTERNAL",
                )
            )
        if run.deferred or self._lane.owed:
            self._lane.reply_later(run, self._done)
        else:
            self._done(run.encoded_reply())
        return True

    def what(self, space: Space) -> str:
        """The call that is being run."""
        step, run = space.program_step, self._run
        if step is not None:
            return f"{step.operation.name}, a call of a program"
        if run is None or run.index >= len(self._batch.calls):
            return "a batch"
        operations = space.operations if self._operations is None else self._operations
        index = self._batch.calls[run.index].operation
        return operations[index].name if index < len(operations) else "a call"

    def _begin(self, space: Space) -> BatchRun:
        batch = self._batch
        space.reply_room = MAX_REPLY_BYTES
        if self._operations is not None:
            for call in batch.calls:
                if call.id:
                    # A typed RPC leaves the choice of the id to the server, and says only that there is to be one.
                    call.id = space.new_server_id()
        elif batch.define_operations or batch.define_contexts:
            space.define(batch.define_operations, batch.define_contexts)
        return BatchRun(batch, self._operations)


class _FunctionJob(_Job):
    __slots__ = ("_function", "_lane", "future")

    def __init__(self, lane: Lane, function: Callable[[Space], Any]) -> None:
        self._lane = lane
        self._function = function
        self.future: Future[Any] = Future()

    def step(self, executor: Executor, space: Space, deadline: float) -> bool:
        executor.leave_mode()
        if not self.future.set_running_or_notify_cancel():
            return True
        try:
            result = self._function(space)
        except Exception as error:
            if is_device_lost(error):
                raise DeviceFailure(str(error)) from error
            self.future.set_exception(error)
            return True
        if isinstance(result, Staged) and result.arrival is not None:
            self._lane.when_arrived([result.arrival], lambda: self.future.set_result(result))
        else:
            self.future.set_result(result)
        return True


class _PiecewiseJob(_Job):
    __slots__ = ("_function", "_pieces", "future")

    def __init__(self, lane: Lane, function: Callable[[Space], Generator[None, None, Any]]) -> None:
        self._function = function
        self._pieces: Generator[None, None, Any] | None = None
        self.future: Future[Any] = Future()

    def step(self, executor: Executor, space: Space, deadline: float) -> bool:
        executor.leave_mode()
        if self._pieces is None:
            if not self.future.set_running_or_notify_cancel():
                return True
            self._pieces = self._function(space)
        try:
            while time.perf_counter() < deadline:
                next(self._pieces)
        except StopIteration as end:
            self.future.set_result(end.value)
        except Exception as error:
            if is_device_lost(error):
                raise DeviceFailure(str(error)) from error
            self.future.set_exception(error)
        else:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Usage:
    """What all sessions hold together, and the devices."""

    # Storages: views of one are counted once.
    tensors: int
    # By the device.
    tensor_bytes: dict[str, int]
    devices: list[DeviceStatus]


class Engine:
    """The thread that runs torch."""

    def __init__(self, config: Config, *, on_fatal: Callable[[str], None]) -> None:
        self.device = choose_device(config.device)
        cost.set_up(config.max_call_elements)
        self.torch_version: str = torch.__version__
        self.ready: queue.SimpleQueue[Turn | None] = queue.SimpleQueue()
        self.memory = HostMemory(self.device)
        self.models = Registry(self.device, self)
        # Also a server whose own device is the CPU may be told to use a GPU that is there.
        has_gpu = torch.cuda.is_available()
        self.operations = Operations(
            own_operations(single_owner=config.single_owner, models=self.models, has_gpu=has_gpu),
            later=deferring if has_gpu else None,
            guard=guarded_on_device if has_gpu else None,
            single_owner=config.single_owner,
        )
        self.completions = Completions(on_fatal)
        # Turns that are due at a moment of time.monotonic; the number orders those of one moment.
        self._alarms: list[tuple[float, int, Turn]] = []
        self._alarm_numbers = itertools.count()
        self._config = config
        self._on_fatal = on_fatal
        self.executor = Executor()
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        # Whose turn it is, and counts by which it is seen that work goes on.
        self._turn: Turn | None = None
        self.turns = self.steps = 0
        self._current: Space | None = None
        self._lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
        # What was counted last, and when it is to be counted again.
        self._storages, self._held = 0, Counter[str]()
        self._count_again_at = 0.0
        self._prepare()
        self._own_lane = self.open_lane()

    def start(self) -> None:
        """Begin to take work."""
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> bool:
        """End after the jobs that are in line now; whether that came about in time."""
        self.ready.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self.completions.stop()
        return True

    def progress(self) -> object:
        """Another value whenever work has gone on; None while there is none. From any thread."""
        turn = self._turn
        if turn is None:
            return None
        space, run = turn.space, self.executor.current
        call = None if run is None else run.index
        return self.turns, self.steps, run, call, None if space is None else space.program_step

    def at_work(self) -> str:
        """What is being done, in words. From any thread."""
        turn = self._turn
        return "nothing" if turn is None else turn.at_work()

    def open_lane(self) -> Lane:
        """A new line with an empty space."""
        config = self._config
        space = Space(
            self.operations,
            default_device=self.device,
            memory=self.memory,
            max_nesting=config.max_nesting,
            max_inline_bytes=config.max_inline_bytes,
            max_bytes=config.max_session_bytes,
        )
        lane = Lane(self, space)
        self._lanes.add(lane)
        return lane

    def run(self, function: Callable[[], T]) -> Future[T]:
        """Run a function on the engine's thread, in the name of no session."""
        return self._own_lane.run(lambda _: function())

    def schedule(self, lane: Turn) -> None:
        """Give a lane a turn. From any thread."""
        self.ready.put(lane)

    def wake_at(self, lane: Turn, when: float) -> None:
        """Give a lane a turn at a moment of time.monotonic. From the engine's thread."""
        heapq.heappush(self._alarms, (when, next(self._alarm_numbers), lane))

    def when_arrived(self, line: Line | None, awaited: Sequence[Awaited], finish: Callable[[], None]) -> None:
        """Call a function when all is there that a line brings, behind those before it. From the engine's thread."""
        self.completions.put(0 if line is None else line.index, awaited, finish)

    def usage(self) -> Future[Usage]:
        """What all sessions hold, seen from the engine's thread.

        Where that is very much, it is not counted again at once: what was counted last is told for a while.
        """
        return self._own_lane.run_in_pieces(lambda _: self._usage())

    def _usage(self) -> Generator[None, None, Usage]:
        if time.monotonic() >= self._count_again_at:
            yield from self._count()
        held = self._held
        return Usage(self._storages, dict(held), device_status(held["cpu"]))

    def _count(self) -> Generator[None, None, None]:
        held = Counter[str]()
        storages = counted = 0
        took_s = 0.0
        for lane in list(self._lanes):
            counting = lane.space.count()
            while True:
                began = time.perf_counter()
                try:
                    next(counting)
                except StopIteration as end:
                    totals: Totals = end.value
                    break
                finally:
                    took_s += time.perf_counter() - began
                counted += 1
                yield
            storages += totals.storages
            for device, size in totals.tensor_bytes.items():
                held[str(device)] += size
        self._storages, self._held = storages, held
        if counted > _MANY_PIECES:
            self._count_again_at = time.monotonic() + took_s * _REST

    def _prepare(self) -> None:
        threads.set_up(self._config.threads)
        if self.device.type == "cuda":
            torch.cuda.init()
            torch.cuda.set_device(self.device)
        else:
            limit_data_segment()
        # torch.optim imports this on first use, which would hold up every session for a second then.
        importlib.import_module("torch._dynamo")
        # Every session must hear torch's warnings, not only the first one that causes them.
        torch.set_warn_always(True)
        warnings.simplefilter("always")
        warnings.showwarning = self._relay_warning

    def _relay_warning(self, message: Warning | str, category: type[Warning], *rest: Any, **kwargs: Any) -> None:
        run = self.executor.current
        if run is None or threading.current_thread() is not self._thread:
            log.debug("%s: %s", category.__name__, message)
            return
        run.reply.warnings.add(category=category.__name__, message=str(message), call_index=run.index)

    def _next(self) -> Turn | None:
        """Who is next: whoever is ready, or has an alarm that is due."""
        alarms = self._alarms
        while alarms:
            wait_s = alarms[0][0] - time.monotonic()
            if wait_s <= 0:
                self.ready.put(heapq.heappop(alarms)[2])
                continue
            try:
                return self.ready.get(timeout=wait_s)
            except queue.Empty:
                continue
        return self.ready.get()

    def _loop(self) -> None:
        _do_not_preempt()
        if self.device.type == "cuda":
            # Which device is the current one, each thread has to say for itself.
            torch.cuda.set_device(self.device)
        ready = self.ready
        executor = self.executor

        def others_wait() -> bool:
            return not ready.empty()

        while True:
            lane = self._next()
            if lane is None:
                return
            space = lane.space
            if space is not None and space is not self._current:
                if self._current is not None:
                    self._current.state.save()
                space.state.load()
                self._current = space
            self._turn = lane
            try:
                more = lane.run_slice(executor, others_wait)
            except DeviceFailure as error:
                self._on_fatal(f"the device failed: {error}")
                return
            except BaseException:
                log.exception("the engine failed")
                self._on_fatal("the engine failed; its log says why")
                return
            executor.leave_mode()
            self._turn = None
            self.turns += 1
            if more:
                ready.put(lane)


def _do_not_preempt() -> None:
    """Let who gives this thread work go on until it has nothing to do.

    Woken at once on the same core, the engine would only wait for the interpreter lock that its waker holds: two
    switches for nothing, a tenth of a lone round trip. Batch scheduling takes nothing else away from it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
