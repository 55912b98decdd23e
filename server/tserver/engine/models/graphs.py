"""Forward passes on CUDA as graphs: captured once for each size of batch and pair of streams, then launched as one.

A batch is padded to the next size that is captured; rows do not depend on each other, so what the padding holds is of
no matter. A size that comes but once or twice is not worth a capture. Only the engine's thread uses this. Nothing
here runs on a device other than CUDA.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from tserver.engine.failures import is_device_lost
from tserver.engine.graph_capture import CapturedGraph, capture
from tserver.engine.models.model import Model
from tserver.engine.streams import StreamPair
from tserver.errors import InvalidArgument

log = logging.getLogger("tserver.models")

# Beyond this many rows, or this much work, the launches are nothing beside it; and what a graph keeps in memory grows.
_LARGEST = 4096
_MOST_FLOPS = 50e9
_WARM_UP_RUNS = 1
_EAGER_RUNS = 2


def captured_sizes(max_batch_size: int, flops_per_row: int) -> list[int]:
    """The sizes to which batches are padded: powers of two, and the largest batch itself, where the work is small."""
    largest = min(max_batch_size, _LARGEST)
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power < largest]
    return [size for size in (*sizes, largest) if size * flops_per_row <= _MOST_FLOPS]


class GraphedForward:
    """The forward passes of one model on one pair of streams, whose work stream is current, by graphs of some sizes."""

    def __init__(self, model: Model, max_batch_size: int, pair: StreamPair) -> None:
        self._model = model
        self._pair = pair
        self._sizes = captured_sizes(max_batch_size, model.flops_per_row) if _has_one_form(model) else []
        self._captured: dict[int, CapturedGraph] = {}
        self._runs: Counter[int] = Counter()
        # One pool for all sizes: they never run at the same time, and outputs are copied before the next one runs.
        self._pool: Any = None
        self._works = True

    def lent(self, inputs: Sequence[torch.Tensor], rows: int) -> Sequence[torch.Tensor]:
        """The outputs for inputs, in memory that the next call may write into: copy what is to last."""
        outputs = self._replayed(inputs, rows)
        return self._model.run(inputs) if outputs is None else outputs

    def __call__(self, inputs: Sequence[torch.Tensor], rows: int) -> Sequence[torch.Tensor]:
        """The outputs for inputs."""
        outputs = self._replayed(inputs, rows)
        return self._model.run(inputs) if outputs is None else [output.clone() for output in outputs]

    def _replayed(self, inputs: Sequence[torch.Tensor], rows: int) -> Sequence[torch.Tensor] | None:
        place = bisect_left(self._sizes, rows)
        if place == len(self._sizes):
            return None
        size = self._sizes[place]
        captured = self._captured.get(size) or self._capture(size)
        if captured is None:
            return None
        for read, given in zip(captured.inputs, inputs, strict=True):
            (read if rows == size else read[:rows]).copy_(given, non_blocking=True)
        captured.replay()
        outputs: Sequence[torch.Tensor] = captured.outputs
        return outputs if rows == size else [output[:rows] for output in outputs]

    def _capture(self, size: int) -> CapturedGraph | None:
        self._runs[size] += 1
        if not self._works or self._runs[size] <= _EAGER_RUNS:
            return None
        model = self._model
        try:
            # Not in the inference mode of whoever came first: others could not write into it then.
            with torch.inference_mode(mode=False):
                inputs = [
                    torch.zeros(size, *spec.shape[1:], dtype=spec.torch_dtype, device=model.device)
                    for spec in model.inputs
                ]
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            made = capture(
                lambda *given: model.run(given), inputs, self._pair, warm_up_runs=_WARM_UP_RUNS, pool=self._pool
            )
        except (RuntimeError, InvalidArgument) as error:
            if is_device_lost(error):
                raise
            self._works = False
            log.warning("forward passes are not captured as CUDA graphs: %s", error)
            return None
        self._captured[size] = made
        return made


def _has_one_form(model: Model) -> bool:
    """Whether requests differ in nothing but the number of rows."""
    return model.is_batched and not any(isinstance(size, str) for spec in model.inputs for size in spec.dimensions[1:])
