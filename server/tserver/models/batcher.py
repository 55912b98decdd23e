"""Dynamic batching: what waits for one model is taken as one batch when the engine has time, run, and handed out.

Knows the queue, the statistics and when to run; does not know tensors, who asked, nor names and versions.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from tserver.engine.models.model import Model
from tserver.engine.models.runner import ModelRunner, Times, refusal
from tserver.engine.scheduling import Scheduler
from tserver.errors import ServerError
from tserver.models.batching import BatchingConfig
from tserver.models.requests import Request, RequestQueue
from tserver.models.statistics import ModelStatistics
from tserver.tracing.traced import Traced

Deliver = Callable[[list[Request]], None]

# Batches under way on a device that works on its own. While it has that many, requests gather for the next one.
_MAX_UNDER_WAY = 2


class DynamicBatcher:
    """The batches of one version of one model. The engine gives it time, as it does to the queues of sessions."""

    store: ClassVar[None] = None

    def __init__(
        self, model: Model, config: BatchingConfig, statistics: ModelStatistics, scheduler: Scheduler, deliver: Deliver
    ) -> None:
        self.queue = RequestQueue(config)
        self.version = 0
        self._statistics = statistics
        self._scheduler = scheduler
        self._deliver = deliver
        self._runner = ModelRunner(model, config.max_batch_size, scheduler)
        # Who wants its batches is many: models stand beside the principals, as one of them.
        self.share = scheduler.ready.turns.share("")
        self._lock = threading.Lock()
        self._is_scheduled = False
        self._under_way = 0
        self._drained: list[Callable[[], None]] = []
        # Batches that ran apart, and for how long: they are charged where turns are taken.
        self._ended: deque[tuple[list[Request], float]] = deque()

    # --- from any thread ---

    @property
    def model(self) -> Model | None:
        """The model that batches are run by; None when it is unloaded."""
        return self._runner.model

    def use(self, model: Model | None) -> None:
        """Run the batches to come by this model."""
        self._runner.use(model)

    def configure(self, config: BatchingConfig) -> None:
        """Change how requests are batched."""
        self.queue.configure(config)
        self._runner.configure(config.max_batch_size)
        self.wake()

    def wake(self) -> None:
        """Ask for time, after requests were put in the queue."""
        with self._lock:
            if self._is_scheduled:
                return
            self._is_scheduled = True
        self._scheduler.schedule(self)

    def when_drained(self, function: Callable[[], None]) -> None:
        """Call the function on the engine's thread as soon as no request waits."""
        with self._lock:
            self._drained.append(function)
        self.wake()

    # --- on the engine's thread ---

    def run_slice(self, executor: object, others_wait: Callable[[], bool]) -> bool:
        """Run one batch; whether there is more to do."""
        with self._lock:
            self._is_scheduled = False
        while self._ended:
            _charge(*self._ended.popleft())
        if self._under_way >= _MAX_UNDER_WAY:
            # The end of one of them brings the next slice.
            return False
        # Who waits for the queue to be empty lets nobody join it: there is no reason to hold requests back.
        taken = self.queue.take(holds_back=not self._drained)
        if taken.expired:
            self._statistics.timed_out += len(taken.expired)
            for request in taken.expired:
                self._count_failure(request)
            self._deliver(taken.expired)
        if taken.batch:
            self._run(taken.batch)
        if taken.look_again_at is not None:
            self._scheduler.wake_at(self, taken.look_again_at)
        elif taken.more:
            with self._lock:
                again, self._is_scheduled = not self._is_scheduled, True
            return again
        elif self._drained and not self._under_way and not len(self.queue):
            with self._lock:
                functions, self._drained = self._drained, []
            for function in functions:
                function()
        return False

    def at_work(self) -> str:
        """What is being done, in words. From any thread."""
        return "a forward pass of a model"

    def run_now(self, inputs: Sequence[Any], rows: int, pair: Any) -> Sequence[Any]:
        """See ModelRunner.run_now; counted as a batch of its own."""
        outputs, took = self._runner.run_now(inputs, rows, pair)
        statistics = self._statistics
        self._count_batch(rows, 0, took, 0, requests=1)
        statistics.queue.add(0)
        statistics.waited.add(0.0)
        statistics.success.add(took)
        statistics.latency.add(took / 1e9)
        return outputs

    def _run(self, batch: list[Request]) -> None:
        began_s = time.monotonic()
        if self._runner.runs_apart:
            with self._lock:
                self._under_way += 1
        try:
            times = self._runner.run(batch, lambda end: self._finish(batch, began_s, end))
        except Exception as error:
            if self._runner.runs_apart:
                with self._lock:
                    self._under_way -= 1
            if len(batch) > 1:
                # Whoever is at fault, the others are not.
                for request in batch:
                    self._run([request])
                return
            self._fail(batch, refusal(error))
            self._deliver(batch)
            return
        if times is not None:
            _charge(batch, (times.finished - times.began) / 1e9)
            self._count(batch, began_s, times)
            self._deliver(batch)

    def _finish(self, batch: list[Request], began_s: float, end: Times | ServerError) -> None:
        """A batch that ran apart has ended. From the thread that waited for it."""
        if isinstance(end, ServerError):
            self._fail(batch, end)
        else:
            self._ended.append((batch, (end.inferred - end.gathered) / 1e9))
            self._count(batch, began_s, end)
        self._deliver(batch)
        with self._lock:
            self._under_way -= 1
        self.wake()

    def _fail(self, batch: list[Request], error: ServerError) -> None:
        for request in batch:
            request.error = error
            self._count_failure(request)

    def _count(self, batch: list[Request], began_s: float, times: Times) -> None:
        began, gathered, inferred, finished = times
        statistics, requests = self._statistics, len(batch)
        rows = sum(request.rows for request in batch)
        self._count_batch(rows, gathered - began, inferred - gathered, finished - inferred, requests=requests)
        waited_ns = int((began_s * requests - sum(request.arrived for request in batch)) * 1e9)
        statistics.queue.count += requests
        statistics.queue.ns += waited_ns
        statistics.success.count += requests
        statistics.success.ns += waited_ns + (finished - began) * requests
        ran_s = (finished - began) / 1e9
        waited, latency = statistics.waited, statistics.latency
        traced: list[Traced] = []
        for request in batch:
            if request.traced is not None:
                request.traced.within("queue", request.arrived, began_s)
                traced.append(request.traced)
            request.version = self.version
            statistics.bytes_in += request.size_bytes
            if not request.as_tensor and request.outputs is not None:
                for output in request.outputs:
                    statistics.bytes_out += len(output)
            wait_s = began_s - request.arrived
            waited.add(wait_s)
            latency.add(wait_s + ran_s)
        if traced:
            _trace(traced, times, rows, requests)

    def _count_batch(self, rows: int, input_ns: int, infer_ns: int, output_ns: int, *, requests: int) -> None:
        statistics = self._statistics
        statistics.inference_count += rows
        statistics.execution_count += 1
        statistics.last_inference_ms = time.time_ns() // 1_000_000
        batch = statistics.batch(rows)
        for whole, each, took in (
            (statistics.compute_input, batch.compute_input, input_ns),
            (statistics.compute_infer, batch.compute_infer, infer_ns),
            (statistics.compute_output, batch.compute_output, output_ns),
        ):
            whole.add(took, requests)
            each.add(took)

    def _count_failure(self, request: Request) -> None:
        assert request.error is not None
        self._statistics.fail.add(int((time.monotonic() - request.arrived) * 1e9))
        self._statistics.failed(request.error.reason)
        if request.traced is not None:
            request.traced.end(request.error.reason)


def _trace(traced: list[Traced], times: Times, rows: int, requests: int) -> None:
    """Note in the trace of each how the batch was run in which they were; there it is linked with the others."""
    began, gathered, inferred, finished = (each / 1e9 for each in times)
    for each in traced:
        links = [other.context for other in traced if other is not each]
        told = {"tserver.batch.rows": rows, "tserver.batch.requests": requests}
        batch = each.within("batch", began, finished, told, links=links)
        each.within("compute_input", began, gathered, parent=batch)
        each.within("compute_infer", gathered, inferred, parent=batch)
        each.within("compute_output", inferred, finished, parent=batch)
        each.end()


def _charge(batch: list[Request], took_s: float) -> None:
    """Share out by rows what a batch took among those who asked for it."""
    each_s = took_s / sum(request.rows for request in batch)
    for request in batch:
        share = request.share
        if share is not None:
            share.charge(each_s * request.rows)
            account = share.account
            if account is not None and account.is_timed:
                account.compute(each_s * request.rows)
