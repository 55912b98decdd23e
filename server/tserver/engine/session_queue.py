"""The queue of one session: its jobs run on the engine's thread in the order given.

What is asked for are bytes, messages and futures; torch is behind them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.engine import inspect
from tserver.engine.batch_run import BatchRun
from tserver.engine.executor import Executor
from tserver.engine.failures import DeviceFailure, is_device_lost
from tserver.engine.object_store import MAX_REPLY_BYTES, ObjectStore, Staged
from tserver.engine.operations import Operation
from tserver.engine.ready import ReadyQueue
from tserver.engine.scheduling import SLICE_S, Scheduler
from tserver.engine.transfers import Arrival
from tserver.engine.uploads import Upload

T = TypeVar("T")
log = logging.getLogger("tserver.engine")


class SessionQueue:
    """The jobs of one session that wait for the engine, and the store that they work on."""

    def __init__(self, scheduler: Scheduler, store: ObjectStore, device: torch.device) -> None:
        """`device` is where new tensors go."""
        self.store = store
        self._scheduler = scheduler
        self._device = str(device)
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._scheduled = False
        # Replies that wait for the device. While there are any, those behind them wait too, to keep their order.
        self.owed = 0

    @property
    def ready(self) -> ReadyQueue:
        """What the engine waits for."""
        return self._scheduler.ready

    def submit(self, batch: pb.Batch, done: Callable[[bytes], None]) -> None:
        """Run a batch; `done` is called with the encoded BatchReply, on the engine's thread or one that waited for the
        device. Replies come in the order of the batches.
        """
        self._append(_BatchJob(self, batch, None, done))

    def submit_typed(
        self, batch: pb.Batch, operations: Sequence[Operation | str], done: Callable[[bytes], None]
    ) -> None:
        """Run calls that bring their operations along (Call.operation is an index into them), with ids made here."""
        named = [self.store.operation(each) if isinstance(each, str) else each for each in operations]
        self._append(_BatchJob(self, batch, named, done))

    def run(self, function: Callable[[ObjectStore], T]) -> Future[T]:
        """Run a function on the engine's thread, in its place among the jobs."""
        job = _FunctionJob(self, function)
        self._append(job)
        return job.future

    def run_in_pieces(self, function: Callable[[ObjectStore], Generator[None, None, T]]) -> Future[T]:
        """The same for what may take long: others have their time wherever the function yields."""
        job = _PiecewiseJob(self, function)
        self._append(job)
        return job.future

    def close(self) -> None:
        """Let go of all that the session holds, when the jobs before it have run."""
        self.run_in_pieces(ObjectStore.clear)

    # --- what a session asks for, besides calls ---

    def begin_anew(self) -> Future[int]:
        """See ObjectStore.begin_anew."""
        return self.run(ObjectStore.begin_anew)

    def get_tensor(
        self, request: ts.GetTensorRequest, max_data_bytes: int | None = None
    ) -> Future[ts.GetTensorResponse]:
        """See inspect.get_tensor."""
        return self.run(lambda store: inspect.get_tensor(store, request, max_data_bytes))

    def list_tensors(self, request: ts.ListTensorsRequest) -> Future[ts.ListTensorsResponse]:
        """See inspect.list_tensors."""
        return self.run_in_pieces(lambda store: inspect.list_tensors(store, request))

    def free_tensors(self, request: ts.FreeTensorsRequest) -> Future[ts.FreeTensorsResponse]:
        """See inspect.free_tensors."""
        return self.run(lambda store: inspect.free_tensors(store, request))

    def stage(self, ref: pb.Ref) -> Future[Staged]:
        """See inspect.staged; what comes from a device has arrived."""
        return self.run(lambda store: inspect.staged(store, ref))

    def begin_upload(self, header: ts.UploadHeader) -> Future[Upload]:
        """See inspect.begin_upload."""
        return self.run(lambda store: inspect.begin_upload(store, header))

    def begin_named_upload(self, header: ts.UploadHeader) -> Future[Upload]:
        """An upload that calls may name from now on, and that is complete as soon as it says so.

        It waits for its place among the jobs only where they tell whether there is room; else it is there at once.
        """

        def begin(store: ObjectStore) -> Upload:
            upload = inspect.begin_upload(store, header)
            store.uploads.name(upload)
            return upload

        if self.store.max_bytes:
            return self.run(begin)
        begun: Future[Upload] = Future()
        try:
            begun.set_result(begin(self.store))
        except Exception as error:
            begun.set_exception(error)
        return begun

    def finish_upload(self, header: ts.UploadHeader, upload: Upload) -> Future[pb.TensorMeta | None]:
        """See inspect.finish_upload."""
        return self.run(lambda store: inspect.finish_upload(store, header, upload, self._device))

    def drop_upload(self, upload: Upload) -> None:
        """Let an upload go that failed. From any thread."""
        self.store.uploads.drop(upload)

    # --- on the engine's thread ---

    def reply_later(self, executor: Executor, run: BatchRun, done: Callable[[bytes], None]) -> None:
        """Call `done` when all that the batch reads has arrived."""

        def finish() -> None:
            executor.complete(run)
            done(run.encoded_reply())
            with self._lock:
                self.owed -= 1

        with self._lock:
            self.owed += 1
        self.when_arrived([result.arrival for _, _, _, result in run.deferred], finish)

    def when_arrived(self, awaited: Sequence[Arrival], finish: Callable[[], None]) -> None:
        """Call a function when all is there, behind those before it."""
        self._scheduler.when_arrived(self.store.state.pair, awaited, finish)

    def _append(self, job: _Job) -> None:
        with self._lock:
            self._jobs.append(job)
            if self._scheduled:
                return
            self._scheduled = True
        self._scheduler.schedule(self)

    def run_slice(self, executor: Executor, others_wait: Callable[[], bool]) -> bool:
        """Run jobs until none is left (False) or the time is up (True)."""
        deadline = time.perf_counter() + SLICE_S
        while True:
            job = self._jobs[0]
            while not job.step(executor, self.store, deadline):
                executor.steps += 1
                if others_wait():
                    return True
                deadline = time.perf_counter() + SLICE_S
            executor.steps += 1
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
            return self._jobs[0].what(self.store)
        except IndexError:
            return "the end of a request"


class _Job:
    def what(self, store: ObjectStore) -> str:
        """What it is, in words. From any thread."""
        return "a request"

    def step(self, executor: Executor, store: ObjectStore, deadline: float) -> bool:
        """Go on until the deadline; True when the job is finished."""
        raise NotImplementedError


class _BatchJob(_Job):
    __slots__ = ("_batch", "_done", "_operations", "_queue", "_run")

    def __init__(
        self, queue: SessionQueue, batch: pb.Batch, operations: list[Operation] | None, done: Callable[[bytes], None]
    ) -> None:
        self._queue = queue
        self._batch = batch
        self._operations = operations
        self._done = done
        self._run: BatchRun | None = None

    def step(self, executor: Executor, store: ObjectStore, deadline: float) -> bool:
        run = self._run
        store.version += 1
        if run is None:
            run = self._run = self._begin(store)
        try:
            if not executor.run(store, run, deadline):
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
        if run.deferred or self._queue.owed:
            self._queue.reply_later(executor, run, self._done)
        else:
            self._done(run.encoded_reply())
        return True

    def what(self, store: ObjectStore) -> str:
        """The call that is being run."""
        run = self._run
        if run is None or run.number < 0:
            return "a batch"
        operations = store.operations if self._operations is None else self._operations
        index = run.number
        return operations[index].name if index < len(operations) else "a call"

    def _begin(self, store: ObjectStore) -> BatchRun:
        batch = self._batch
        store.reply_room = MAX_REPLY_BYTES
        if self._operations is not None:
            for call in batch.calls:
                if call.id:
                    # A typed RPC leaves the choice of the id to the server, and says only that there is to be one.
                    call.id = store.new_server_id()
        elif batch.define_operations or batch.define_contexts:
            store.define(batch.define_operations, batch.define_contexts)
        return BatchRun(batch, self._operations)


class _FunctionJob(_Job):
    __slots__ = ("_function", "_queue", "future")

    def __init__(self, queue: SessionQueue, function: Callable[[ObjectStore], Any]) -> None:
        self._queue = queue
        self._function = function
        self.future: Future[Any] = Future()

    def step(self, executor: Executor, store: ObjectStore, deadline: float) -> bool:
        executor.leave_mode()
        if not self.future.set_running_or_notify_cancel():
            return True
        try:
            result = self._function(store)
        except Exception as error:
            if is_device_lost(error):
                raise DeviceFailure(str(error)) from error
            self.future.set_exception(error)
            return True
        if isinstance(result, Staged) and result.arrival is not None:
            self._queue.when_arrived([result.arrival], lambda: self.future.set_result(result))
        else:
            self.future.set_result(result)
        return True


class _PiecewiseJob(_Job):
    __slots__ = ("_function", "_pieces", "future")

    def __init__(self, queue: SessionQueue, function: Callable[[ObjectStore], Generator[None, None, Any]]) -> None:
        self._function = function
        self._pieces: Generator[None, None, Any] | None = None
        self.future: Future[Any] = Future()

    def step(self, executor: Executor, store: ObjectStore, deadline: float) -> bool:
        executor.leave_mode()
        if self._pieces is None:
            if not self.future.set_running_or_notify_cancel():
                return True
            self._pieces = self._function(store)
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
