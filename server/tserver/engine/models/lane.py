"""One model's line on the engine's thread: takes what waits, runs it as one forward pass, and hands the outputs out.

Knows torch and the line; does not know who asked, nor names and versions.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import torch

from tserver.engine import streams
from tserver.engine.completions import Awaited
from tserver.engine.failures import DeviceFailure, is_device_lost
from tserver.engine.memory import is_out_of_memory
from tserver.engine.models.batching import BatchingConfig
from tserver.engine.models.graphs import GraphedForward
from tserver.engine.models.model import Model
from tserver.engine.models.requests import Request, RequestQueue
from tserver.engine.models.statistics import ModelStatistics
from tserver.engine.streams import Line, take_line
from tserver.engine.transfers import bring
from tserver.errors import Exhausted, ServerError

log = logging.getLogger("tserver.models")

Deliver = Callable[[list[Request]], None]

# Less work than this is done by one thread on the CPU: more of them take longer to meet than to work, and take the
# processor from the threads that serve.
_SMALL_WORK_FLOPS = 50_000_000

# Batches under way on a device that works on its own. While it has that many, requests gather for the next one.
_MAX_UNDER_WAY = 2

# A batch larger than this gets memory of its own, which is let go with it.
_MAX_KEPT_STAGING = 64 << 20


class Scheduler(Protocol):
    """What a lane needs of the engine."""

    def schedule(self, lane: Any) -> None:
        """Give the lane a turn. From any thread."""

    def wake_at(self, lane: Any, when: float) -> None:
        """Give the lane a turn at that moment of time.monotonic. From the engine's thread."""

    def when_arrived(self, line: Line | None, awaited: Sequence[Awaited], finish: Callable[[], None]) -> None:
        """Call a function when all is there that a line brings. From the engine's thread."""


class ModelLane:
    """The line of one version of one model, and its turn on the engine."""

    space: ClassVar[None] = None

    def __init__(
        self, model: Model, config: BatchingConfig, statistics: ModelStatistics, scheduler: Scheduler, deliver: Deliver
    ) -> None:
        self.queue = RequestQueue(config)
        self.version = 0
        self._config = config
        self._statistics = statistics
        self._scheduler = scheduler
        self._deliver = deliver
        self._lock = threading.Lock()
        self._is_scheduled = False
        self._under_way = 0
        self._drained: list[Callable[[], None]] = []
        self._staging = torch.empty(0, dtype=torch.uint8)
        self._threads = torch.get_num_threads()
        # Where the batches run, on a device that works by itself.
        self._line = take_line(model.device)
        # Replaced as one: a batch sees both of the same network. Graphs are by the line that they are for.
        self._in_use: tuple[Model | None, dict[int, GraphedForward]] = (None, {})
        self.use(model)

    # --- from any thread ---

    @property
    def model(self) -> Model | None:
        """The network that batches are run by; None when it is unloaded."""
        return self._in_use[0]

    def use(self, model: Model | None) -> None:
        """Run the batches to come by this network. A batch is run by one network, whenever this happens."""
        self._in_use = (model, {})

    def configure(self, config: BatchingConfig) -> None:
        """Change how requests are batched."""
        self._config = config
        self.queue.configure(config)
        self.use(self.model)
        self.wake()

    def wake(self) -> None:
        """Ask for a turn, after requests were put in line."""
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
        if self._under_way >= _MAX_UNDER_WAY:
            # The end of one of them brings the next turn.
            return False
        # Who waits for the line to be empty lets nobody join it: there is no reason to hold requests back.
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

    def run_now(self, rows: torch.Tensor, line: Line | None) -> torch.Tensor:
        """The outputs for rows, at once and alone; counted as a batch of their own. `line` is the one in force.

        As in a batch with others, the caller's autocast is not applied.
        """
        if torch.is_autocast_enabled(rows.device.type):
            with torch.autocast(rows.device.type, enabled=False):
                return self.run_now(rows, line)
        model, graphs = self._in_use
        if model is None:
            raise ServerError("the model is unloaded")
        statistics, began = self._statistics, time.perf_counter_ns()
        if line is None or self._line is None:
            output = self._forward(rows, model)
        else:
            output = self._graphed(model, graphs, line)(rows)
        took = time.perf_counter_ns() - began
        self._count_batch(rows.shape[0], 0, took, 0, requests=1)
        statistics.queue.add(0)
        statistics.waited.add(0.0)
        statistics.success.add(took)
        statistics.latency.add(took / 1e9)
        return output

    def _graphed(self, model: Model, graphs: dict[int, GraphedForward], line: Line) -> GraphedForward:
        """The forward passes on the line that is in force. A line that is new waits for the weights, once."""
        found = graphs.get(line.index)
        if found is None:
            found = graphs[line.index] = GraphedForward(model, self._config.max_batch_size, line)
            if model.made is not None:
                line.work.wait_event(model.made)
            for tensor in model.network.parameters():
                # When the model goes, its memory must not be handed on before the last batch is done with it.
                tensor.record_stream(line.work)
        return found

    def _run(self, batch: list[Request]) -> None:
        try:
            if self._line is None:
                self._execute(batch)
            else:
                with self._line.within():
                    self._execute(batch)
        except Exception as error:
            if is_device_lost(error):
                raise DeviceFailure(str(error)) from error
            if len(batch) > 1:
                # Whoever is at fault, the others are not.
                for request in batch:
                    self._run([request])
                return
            request = batch[0]
            request.error = _refusal(error)
            self._count_failure(request)
            self._deliver(batch)

    def _execute(self, batch: list[Request]) -> None:
        model, graphs = self._in_use
        if model is None:
            raise ServerError("the model was unloaded while a request waited for it")
        began_s, began = time.monotonic(), time.perf_counter_ns()
        graphed = None
        if self._line is not None:
            graphed = self._graphed(model, graphs, self._line)
            for request in batch:
                if request.tensor is not None:
                    streams.adopt(request.tensor, request.made)
        inputs = self._gather(batch, model)
        gathered = time.perf_counter_ns()
        if graphed is not None:
            outputs = graphed.lent(inputs)
            self._finish_later(batch, model, outputs, began_s, (began, gathered))
            return
        outputs = self._forward(inputs, model)
        inferred = time.perf_counter_ns()
        self._hand_out(batch, outputs, outputs, model)
        self._count(batch, began_s, (began, gathered, inferred, time.perf_counter_ns()))
        self._deliver(batch)

    def _forward(self, rows: torch.Tensor, model: Model) -> torch.Tensor:
        if self._threads == 1 or rows.shape[0] * model.flops_per_row > _SMALL_WORK_FLOPS:
            return model.forward(rows)
        torch.set_num_threads(1)
        try:
            return model.forward(rows)
        finally:
            torch.set_num_threads(self._threads)

    def _gather(self, batch: Sequence[Request], model: Model) -> torch.Tensor:
        """The rows of all requests, one below the other, on the device."""
        width = model.in_features
        if len(batch) == 1 and batch[0].tensor is not None:
            alone: torch.Tensor = batch[0].tensor.reshape(-1, width)
            return alone
        is_cuda = model.device.type == "cuda"
        staging = self._room(sum(len(request.data) for request in batch if request.data is not None), is_cuda)
        view = staging.numpy().data
        pieces: list[torch.Tensor] = []
        begin = end = 0

        def staged() -> torch.Tensor:
            rows = staging[begin:end].view(model.dtype).view(-1, width)
            return rows.to(model.device, non_blocking=True) if is_cuda else rows

        for request in batch:
            if request.data is not None:
                size = len(request.data)
                view[end : end + size] = request.data
                end += size
                continue
            if end > begin:
                pieces.append(staged())
                begin = end
            pieces.append(request.tensor.reshape(-1, width))
        if end > begin:
            pieces.append(staged())
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _room(self, size: int, is_cuda: bool) -> torch.Tensor:
        """Host memory for the bytes of a batch."""
        if is_cuda:
            # torch keeps pinned memory back until the copy out of it has been made.
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        if size > _MAX_KEPT_STAGING:
            return torch.empty(size, dtype=torch.uint8)
        if size > self._staging.numel():
            self._staging = torch.empty(1 << max(12, (size - 1).bit_length()), dtype=torch.uint8)
        return self._staging

    def _hand_out(self, batch: list[Request], outputs: torch.Tensor, host: torch.Tensor, model: Model) -> None:
        """Give each request its rows of the outputs."""
        raw = host.reshape(-1).view(torch.uint8).numpy().data
        row_bytes = model.out_features * model.dtype.itemsize
        statistics = self._statistics
        row = 0
        for request in batch:
            end = row + request.rows
            if not request.as_tensor:
                request.output = raw[row * row_bytes : end * row_bytes]
                statistics.bytes_out += request.rows * row_bytes
            elif request.output is None:
                # A part of a batch must not keep the whole of it in memory.
                request.output = outputs if len(batch) == 1 else outputs[row:end].clone()
            if request.data is not None:
                statistics.bytes_in += len(request.data)
            row = end

    def _finish_later(
        self, batch: list[Request], model: Model, outputs: torch.Tensor, began_s: float, times: tuple[int, int]
    ) -> None:
        """Bring the outputs to the host and wait for that, but not on this thread."""
        row = 0
        for request in batch:
            if request.as_tensor:
                request.output = outputs[row : row + request.rows].clone()
            row += request.rows
        arrival = bring(outputs)

        def finish() -> None:
            try:
                arrival.wait()
                inferred = time.perf_counter_ns()
                self._hand_out(batch, outputs, arrival.host, model)
                self._count(batch, began_s, (*times, inferred, time.perf_counter_ns()))
            except RuntimeError as error:
                if is_device_lost(error):
                    raise
                for request in batch:
                    request.error = _refusal(error)
                    self._count_failure(request)
            self._deliver(batch)
            with self._lock:
                self._under_way -= 1
            self.wake()

        with self._lock:
            self._under_way += 1
        # It waits itself: what fails for one batch is told to those whose batch it was.
        self._scheduler.when_arrived(self._line, (), finish)

    def _count(self, batch: list[Request], began_s: float, times: tuple[int, int, int, int]) -> None:
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
        for request in batch:
            request.version = self.version
            wait_s = began_s - request.arrived
            waited.add(wait_s)
            latency.add(wait_s + ran_s)

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


def _refusal(error: Exception) -> ServerError:
    if isinstance(error, ServerError):
        return error
    if is_out_of_memory(error):
        return Exhausted(str(error), reason="OUT_OF_MEMORY")
    log.error("a forward pass failed", exc_info=error)
    return ServerError(f"the forward pass failed: {error}"[:2000])
