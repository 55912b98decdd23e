"""The weights of a served model at work: one forward pass for many requests, on whatever device they are.

Knows torch and what a request brings; does not know queues, statistics, names or versions. For the engine's thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch

from tserver.engine import streams
from tserver.engine.failures import DeviceFailure, is_device_lost
from tserver.engine.memory import is_out_of_memory
from tserver.engine.models.graphs import GraphedForward
from tserver.engine.models.model import Model
from tserver.engine.scheduling import Scheduler
from tserver.engine.streams import StreamPair, take_pair
from tserver.engine.transfers import bring
from tserver.errors import Exhausted, ServerError

log = logging.getLogger("tserver.models")

# Less work than this is done by one thread on the CPU: more of them take longer to meet than to work, and take the
# processor from the threads that serve.
_SMALL_WORK_FLOPS = 50_000_000

# A batch larger than this gets memory of its own, which is let go with it.
_MAX_KEPT_STAGING = 64 << 20
# The elements of each input begin at a multiple of that.
_ALIGNED = 64


class Rows(Protocol):
    """What a request brings, and where its outputs go."""

    rows: int
    # Each input of the model: the elements, or a tensor on the device. Of a model that is batched, rows come first.
    inputs: Sequence[Any]
    # The shapes of the inputs; all but the first dimension where the model is batched, for a tensor is cut into rows.
    shapes: Sequence[Sequence[int]]
    # What the elements that are no tensors take.
    size_bytes: int
    # Where a tensor is made on other streams: what to wait for before it is used.
    made: Any
    # Whether the outputs are wanted as tensors, on the device; else they are bytes.
    as_tensor: bool
    outputs: Sequence[Any] | None
    # The shapes of the outputs of the whole batch.
    batch_shapes: Sequence[Sequence[int]]


class Times(NamedTuple):
    """When a batch was begun, gathered, run and handed out, by time.perf_counter_ns."""

    began: int
    gathered: int
    inferred: int
    finished: int


Ended = Callable[[Times | ServerError], None]


class ModelRunner:
    """Runs batches by the model in use."""

    def __init__(self, model: Model, max_batch_size: int, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._max_batch_size = max_batch_size
        self._staging = torch.empty(0, dtype=torch.uint8)
        self._threads = torch.get_num_threads()
        # Where the batches run, on a device that works by itself.
        self._pair = take_pair(model.device)
        # Replaced as one: a batch sees both of the same model. Graphs are by the pair of streams that they are for.
        self._in_use: tuple[Model | None, dict[int, GraphedForward]] = (None, {})
        self.use(model)

    # --- from any thread ---

    @property
    def model(self) -> Model | None:
        """The model that batches are run by; None when it is unloaded."""
        return self._in_use[0]

    @property
    def runs_apart(self) -> bool:
        """Whether batches are run by a device that works by itself, so that they end later."""
        return self._pair is not None

    def use(self, model: Model | None) -> None:
        """Run the batches to come by this model. A batch is run by one model, whenever this happens."""
        self._in_use = (model, {})

    def configure(self, max_batch_size: int) -> None:
        """Batches have at most that many rows from now on."""
        self._max_batch_size = max_batch_size
        self.use(self.model)

    # --- on the engine's thread ---

    def run(self, batch: Sequence[Rows], ended: Ended) -> Times | None:
        """Run a batch and hand out the outputs. None where it runs apart: `ended` is called when it has, on a thread
        that waited for the device.

        Raises: what torch raises; DeviceFailure.
        """
        try:
            if self._pair is None:
                return self._execute(batch)
            with self._pair.within():
                self._begin(batch, self._pair, ended)
                return None
        except Exception as error:
            if is_device_lost(error):
                raise DeviceFailure(str(error)) from error
            raise

    def run_now(
        self, inputs: Sequence[torch.Tensor], rows: int, pair: StreamPair | None
    ) -> tuple[Sequence[torch.Tensor], int]:
        """The outputs for inputs, at once and alone, and the nanoseconds that took. `pair` has the current stream.

        As in a batch with others, the caller's autocast is not applied.
        """
        kind = inputs[0].device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self.run_now(inputs, rows, pair)
        if pair is not None and not pair.is_on_current:
            # What a program makes on "cuda" is made where its weights are.
            with pair.within():
                return self.run_now(inputs, rows, pair)
        model, graphs = self._in_use
        if model is None:
            raise ServerError("the model is unloaded")
        began = time.perf_counter_ns()
        if pair is None or self._pair is None:
            outputs = self._forward(inputs, rows, model)
        else:
            outputs = self._graphed(model, graphs, pair)(inputs, rows)
        return outputs, time.perf_counter_ns() - began

    def _graphed(self, model: Model, graphs: dict[int, GraphedForward], pair: StreamPair) -> GraphedForward:
        """The forward passes on the pair that has the current stream. One that is new waits for the weights, once."""
        found = graphs.get(pair.index)
        if found is None:
            found = graphs[pair.index] = GraphedForward(model, self._max_batch_size, pair)
            if model.made is not None:
                pair.work.wait_event(model.made)
            for tensor in model.tensors():
                # When the model goes, its memory must not be handed on before the last batch is done with it.
                tensor.record_stream(pair.work)
        return found

    def _execute(self, batch: Sequence[Rows]) -> Times:
        model = self._in_use[0]
        if model is None:
            raise _unloaded()
        began = time.perf_counter_ns()
        inputs, rows = self._gather(batch, model)
        gathered = time.perf_counter_ns()
        outputs = self._forward(inputs, rows, model)
        inferred = time.perf_counter_ns()
        _hand_out(batch, outputs, outputs, model, rows)
        return Times(began, gathered, inferred, time.perf_counter_ns())

    def _begin(self, batch: Sequence[Rows], pair: StreamPair, ended: Ended) -> None:
        """Give the device a batch, and have the outputs brought to the host; another thread waits for them."""
        model, graphs = self._in_use
        if model is None:
            raise _unloaded()
        began = time.perf_counter_ns()
        graphed = self._graphed(model, graphs, pair)
        for request in batch:
            for given in request.inputs:
                if isinstance(given, torch.Tensor):
                    streams.adopt(given, request.made)
        inputs, rows = self._gather(batch, model)
        gathered = time.perf_counter_ns()
        outputs = graphed.lent(inputs, rows)
        row = 0
        for request in batch:
            if request.as_tensor:
                # Replayed graphs write to the same memory again.
                request.outputs = [_part(output, row, request, model).clone() for output in outputs]
            row += request.rows
        arrivals = [bring(output) for output in outputs]

        def finish() -> None:
            try:
                for arrival in arrivals:
                    arrival.wait()
                inferred = time.perf_counter_ns()
                _hand_out(batch, outputs, [arrival.host for arrival in arrivals], model, rows)
                end: Times | ServerError = Times(began, gathered, inferred, time.perf_counter_ns())
            except RuntimeError as error:
                if is_device_lost(error):
                    raise
                end = refusal(error)
            ended(end)

        # It waits itself: what fails for one batch is told to those whose batch it was.
        self._scheduler.when_arrived(pair, (), finish)

    def _forward(self, inputs: Sequence[torch.Tensor], rows: int, model: Model) -> Sequence[torch.Tensor]:
        if self._threads == 1 or rows * model.flops_per_row > _SMALL_WORK_FLOPS:
            return model.run(inputs)
        torch.set_num_threads(1)
        try:
            return model.run(inputs)
        finally:
            torch.set_num_threads(self._threads)

    def _gather(self, batch: Sequence[Rows], model: Model) -> tuple[list[torch.Tensor], int]:
        """Each input of all requests, one below the other, on the device; and how many rows they are."""
        rows = size = 0
        for request in batch:
            rows += request.rows
            size += request.size_bytes
        staging = self._staging
        if size:
            staging = self._room(size + _ALIGNED * len(model.inputs), model.device.type == "cuda")
        view = staging.numpy().data
        begin = 0
        gathered: list[torch.Tensor] = []
        for position, spec in enumerate(model.inputs):
            shape = batch[0].shapes[position]
            tall = (-1, *shape[1:]) if model.is_batched else tuple(shape)
            pieces: list[torch.Tensor] = []
            end = begin
            for request in batch:
                given = request.inputs[position]
                if isinstance(given, torch.Tensor):
                    if end > begin:
                        pieces.append(_typed(staging[begin:end], spec.torch_dtype, tall, model.device))
                        begin = end
                    pieces.append(given.reshape(tall))
                else:
                    start = end
                    end += len(given)
                    view[start:end] = given
            if end > begin:
                pieces.append(_typed(staging[begin:end], spec.torch_dtype, tall, model.device))
            gathered.append(pieces[0] if len(pieces) == 1 else torch.cat(pieces))
            begin = -(-end // _ALIGNED) * _ALIGNED
        return gathered, rows

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


def _typed(elements: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Bytes of the host as rows on the device."""
    # Any byte but 0 and 1 in a bool is undefined behaviour in the kernels that read it.
    rows = (elements.ne(0) if dtype is torch.bool else elements.view(dtype)).view(shape)
    return rows.to(device, non_blocking=True) if device.type == "cuda" else rows


def _hand_out(
    batch: Sequence[Rows], outputs: Sequence[torch.Tensor], hosts: Sequence[torch.Tensor], model: Model, total: int
) -> None:
    """Give each request its rows of the outputs."""
    wholes = [host.reshape(-1).view(torch.uint8).numpy().data for host in hosts]
    shapes = [output.shape for output in outputs]
    begin = 0
    for request in batch:
        end = begin + request.rows
        request.batch_shapes = shapes
        if not request.as_tensor:
            request.outputs = [whole[begin * (size := len(whole) // total) : end * size] for whole in wholes]
        elif request.outputs is None:
            # A part of a batch must not keep the whole of it in memory.
            request.outputs = (
                outputs if len(batch) == 1 else [_part(output, begin, request, model).clone() for output in outputs]
            )
        begin = end


def _part(output: torch.Tensor, row: int, request: Rows, model: Model) -> torch.Tensor:
    """The rows of a request among those of its batch."""
    return output[row : row + request.rows] if model.is_batched else output


def _unloaded() -> ServerError:
    return ServerError("the model was unloaded while a request waited for it")


def refusal(error: Exception) -> ServerError:
    """What callers are told of a forward pass that failed; what is not theirs is logged."""
    if isinstance(error, ServerError):
        return error
    if is_out_of_memory(error):
        return Exhausted(str(error), reason="OUT_OF_MEMORY")
    log.error("a forward pass failed", exc_info=error)
    return ServerError(f"the forward pass failed: {error}"[:2000])
