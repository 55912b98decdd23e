"""The queue of one session: its jobs run on the engine's thread in the order given.

What is asked for are bytes, messages and futures; torch is behind them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.engine import inspect, looking
from tserver.engine.batch_run import BatchRun
from tserver.engine.executor import Executor
from tserver.engine.failures import DeviceFailure, is_device_lost
from tserver.engine.object_store import MAX_REPLY_BYTES, ObjectStore, Staged
from tserver.engine.operations import Operation
from tserver.engine.ready import LOOK_S, ReadyQueue
from tserver.engine.rest import Rest
from tserver.engine.scheduling import Scheduler
from tserver.engine.shares import Share
from tserver.engine.snapshots.files import Saved, Told, load, save
from tserver.engine.snapshots.graphs import needs_graph
from tserver.engine.traced_batch import TracedBatch
from tserver.engine.transfers import Arrival
from tserver.engine.uploads import Upload
from tserver.tracing.traced import timed
from tserver.tracing.tracer import TRACER

T = TypeVar("T")
# How much longer than to see whether a queue may rest it is gone on before that is seen again.
_REST_SHARE = 4
log = logging.getLogger("tserver.engine")
_CANCELLED = "the call was cancelled before it was run"
_LATE = "the time was up before the call was run"


class SessionQueue:
    """The jobs of one session that wait for the engine, and the store that they work on."""

    def __init__(self, scheduler: Scheduler, store: ObjectStore, device: torch.device, share: Share) -> None:
        """`device` is where new tensors go."""
        self.store = store
        self.share = share
        self._scheduler = scheduler
        self._device = str(device)
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._scheduled = False
        # Replies that wait for the device. While there are any, those behind them wait too, to keep their order.
        self.owed = 0
        # Set where the queue is to come to rest.
        self.rest: Rest | None = None
        # How far an earlier process has come with the batch that is next.
        self.begun: dict[str, Any] | None = None

    @property
    def waiting(self) -> int:
        """How many jobs wait, with the one that is under way. From any thread."""
        return len(self._jobs)

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
        self,
        batch: pb.Batch,
        operations: Sequence[Operation | str],
        done: Callable[[bytes], None],
        deadline: float = math.inf,
    ) -> Callable[[], None]:
        """Run calls that bring their operations along (Call.operation is an index into them), with ids made here; not
        behind the deadline (time.monotonic), nor once what is returned was called, where they have not begun by then.
        """
        named = [self.store.operation(each) if isinstance(each, str) else each for each in operations]
        job = _BatchJob(self, batch, named, done, deadline)
        self._append(job)
        return job.give_up

    def cancel(self) -> int:
        """Have no call begin any more of the batches that are here; how many those are. From any thread."""
        with self._lock:
            batches = [job for job in self._jobs if isinstance(job, _BatchJob)]
        # What is told of one of them is told of all, so that it is raised once.
        shared = pb.Error(type="CallCancelled", message=_CANCELLED, reason="CANCELLED")
        for job in batches:
            job.cancel(shared)
        return len(batches)

    def run(self, function: Callable[[ObjectStore], T]) -> Future[T]:
        """Run a function on the engine's thread, in its place among the jobs."""
        job = _FunctionJob(self, timed(function))
        self._append(job)
        return job.future

    def run_in_pieces(self, function: Callable[[ObjectStore], Generator[None, None, T]]) -> Future[T]:
        """The same for what may take long: others have their time wherever the function yields."""
        job = _PiecewiseJob(self, function)
        self._append(job)
        return job.future

    def come_to_rest(self, rest: Rest) -> None:
        """Run no more batches from the next point on where no graph of autograd is needed, or `rest` is due."""
        rest.ask = lambda: self.run(lambda store: None)
        self.rest = rest
        rest.ask()

    def save(self, folder: Path) -> Future[Saved]:
        """See snapshots.files. It is the last of the session here: no upload is taken any more."""

        def run(store: ObjectStore) -> Generator[None, None, Saved]:
            store.uploads.over()
            return save(store, folder)

        return self.run_in_pieces(run)

    def load(self, folder: Path, files: Told, begun: dict[str, Any] | None) -> Future[None]:
        """See snapshots.files. What is submitted from now on is run behind it. Of the next batch an earlier process may
        have run the beginning.
        """

        def run(store: ObjectStore) -> Generator[None, None, None]:
            yield from load(store, folder, files)
            self.begun = begun

        return self.run_in_pieces(run)

    def close(self) -> None:
        """Let go of all that the session holds, when the jobs before it have run."""
        self.run_in_pieces(ObjectStore.clear)

    # --- what a session asks for, besides calls ---

    def begin_anew(self) -> Future[int]:
        """See ObjectStore.begin_anew."""

        def run(store: ObjectStore) -> int:
            # Its number is another batch's from now on.
            self.begun = None
            return store.begin_anew()

        return self.run(run)

    def get_tensor(
        self, request: ts.GetTensorRequest, max_data_bytes: int | None = None
    ) -> Future[ts.GetTensorResponse]:
        """See inspect.get_tensor."""
        return self.run(lambda store: inspect.get_tensor(store, request, max_data_bytes))

    def list_tensors(self, request: ts.ListTensorsRequest) -> Future[ts.ListTensorsResponse]:
        """See inspect.list_tensors."""
        return self.run_in_pieces(lambda store: inspect.list_tensors(store, request))

    def listing(self) -> Future[looking.Listing]:
        """See looking.listing."""
        return self.run_in_pieces(looking.listing)

    def look(self, name: tuple[int, ...], at: int) -> Future[looking.Looked]:
        """See looking.look; what comes from a device has arrived."""
        return self.run(lambda store: looking.look(store, name, at))

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

        if self.store.counts:
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
        """Run jobs until none is left (False) or others are to have their turn (True)."""
        deadline = time.perf_counter() + LOOK_S
        while True:
            job = self._jobs[0]
            while not job.step(executor, self.store, deadline):
                executor.steps += 1
                if self.rest is not None and self._may_rest(job):
                    break
                if others_wait():
                    return True
                deadline = time.perf_counter() + LOOK_S
            else:
                if self.rest is not None:
                    self._may_rest(None)
            executor.steps += 1
            with self._lock:
                self._jobs.popleft()
                if not self._jobs:
                    self._scheduled = False
                    return False
            if time.perf_counter() > deadline:
                if others_wait():
                    return True
                deadline = time.perf_counter() + LOOK_S

    def _may_rest(self, job: _Job | None) -> bool:
        """Come to rest here, if that may be: behind the first job, or in the middle of it. Whether it does."""
        rest = self.rest
        assert rest is not None
        stopped = None
        if time.perf_counter() < rest.ask_again_at and not rest.is_due():
            return False
        if job is not None and not job.can_stop:
            return False
        began = time.perf_counter()
        if not rest.is_due() and needs_graph(self.store):
            # Most of the time is for what is asked about.
            rest.ask_again_at = time.perf_counter() + _REST_SHARE * (time.perf_counter() - began)
            return False
        if job is not None and (stopped := job.stopped()) is None:
            return False
        self.rest = None
        # From here on nothing is submitted.
        rest.begin()
        with self._lock:
            first, *others = self._jobs
            numbered = [each.seq for each in others if each.seq]
            self._jobs = deque([first, *(each for each in others if not each.seq)])
        if stopped is not None:
            numbered.insert(0, stopped["seq"])
        rest.end(numbered, stopped)
        return True

    def at_work(self) -> str:
        """What is being done, in words. From any thread."""
        try:
            return self._jobs[0].what(self.store)
        except IndexError:
            return "the end of a request"


class _Job:
    # Of a numbered batch.
    seq = 0
    # Whether it can be stopped in the middle, for another process to go on.
    can_stop = False

    def stopped(self) -> dict[str, Any] | None:
        """It is over here: how far it has come; None if it cannot end here."""
        return None

    def what(self, store: ObjectStore) -> str:
        """What it is, in words. From any thread."""
        return "a request"

    def step(self, executor: Executor, store: ObjectStore, deadline: float) -> bool:
        """Go on until the deadline; True when the job is finished."""
        raise NotImplementedError


class _BatchJob(_Job):
    __slots__ = ("_batch", "_deadline", "_done", "_operations", "_queue", "_refusal", "_run", "_traced", "seq")
    can_stop = True

    def __init__(
        self,
        queue: SessionQueue,
        batch: pb.Batch,
        operations: list[Operation] | None,
        done: Callable[[bytes], None],
        deadline: float = math.inf,
    ) -> None:
        self._queue = queue
        self._deadline = deadline
        # Why no more calls are run, once that is so.
        self._refusal: pb.Error | None = None
        self._batch = batch
        self._operations = operations
        self._done = done
        self._run: BatchRun | None = None
        self.seq = batch.seq
        traced = TRACER.request("batch", batch.traceparent) if TRACER.is_on else None
        self._traced = None if traced is None else TracedBatch(traced)

    def cancel(self, refusal: pb.Error) -> None:
        """Run no more calls. From any thread."""
        self._refusal = refusal

    def give_up(self) -> None:
        """Nobody waits for it any more: run it only if that has begun. From any thread."""
        self._deadline = 0.0

    def step(self, executor: Executor, store: ObjectStore, deadline: float) -> bool:
        run = self._run
        store.version += 1
        if run is None:
            run = self._run = self._begin(store)
            if self._deadline < math.inf and time.monotonic() > self._deadline:
                self.cancel(pb.Error(type="CallCancelled", message=_LATE, reason="DEADLINE_EXCEEDED"))
        if run.refusal is not self._refusal:
            run.refusal = refusal = self._refusal
            if refusal is not None and not refusal.batch_seq:
                refusal.batch_seq = run.seq
                refusal.call_index = run.index if run.unfinished is None else run.unfinished.index
        if self._queue.rest is not None:
            # One call, after which it is looked.
            deadline = 0.0
        traced = self._traced
        if traced is not None:
            traced.begin_turn(store)
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
        finally:
            if traced is not None:
                traced.end_turn(store)
        if traced is not None:
            traced.end(run, self._queue.when_arrived)
        if run.deferred or self._queue.owed:
            self._queue.reply_later(executor, run, self._done)
        else:
            self._done(run.encoded_reply())
        return True

    def stopped(self) -> dict[str, Any] | None:
        """See _Job."""
        return self._run.stopped() if self._run is not None and self.seq and not self._queue.owed else None

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
            return BatchRun(batch, self._operations)
        begun, self._queue.begun = self._queue.begun, None
        if begun is None or begun["seq"] != batch.seq:
            if batch.define_operations or batch.define_contexts:
                store.define(batch.define_operations, batch.define_contexts)
            return BatchRun(batch)
        run = BatchRun(batch)
        try:
            run.go_on_from(begun, len(batch.calls))
        except Exception as error:
            log.exception("batch %d was begun by another process, and cannot go on", batch.seq)
            run = BatchRun(pb.Batch(seq=batch.seq))
            run.reply.results.add(lost_effect=True).error.CopyFrom(
                pb.Error(type="RuntimeError", message=f"the batch cannot go on: {error}", batch_seq=run.seq)
            )
        return run


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
