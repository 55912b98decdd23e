"""Forward passes on CUDA as graphs: captured once for each size of batch, then launched as one.

A batch is padded to the next size that is captured; rows do not depend on each other, so what the padding holds is of
no matter. Only the engine's thread uses this. Nothing here runs on a device other than CUDA.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch

from tserver.engine.models.model import Model

log = logging.getLogger("tserver.models")

# Beyond this many rows the launches are nothing beside the work.
_LARGEST = 4096
_WARM_UP_RUNS = 3


@dataclass(slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: torch.Tensor
    outputs: torch.Tensor


def captured_sizes(max_batch_size: int) -> list[int]:
    """The sizes to which batches are padded: powers of two, and the largest batch itself."""
    largest = min(max_batch_size, _LARGEST)
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power < largest]
    return [*sizes, largest]


class GraphedForward:
    """The forward pass of one model, by graphs that are captured when a size first comes."""

    def __init__(self, model: Model, max_batch_size: int) -> None:
        self._model = model
        self._sizes = captured_sizes(max_batch_size)
        self._captured: dict[int, _Captured] = {}
        # One pool for all sizes: they never run at the same time, and outputs are copied before the next one runs.
        self._pool: Any = None
        self._works = True

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """The outputs for rows, in memory that the next call writes into: copy what is to last."""
        count = rows.shape[0]
        size = next((size for size in self._sizes if size >= count), 0)
        if not size or not self._works:
            return self._model.forward(rows)
        captured = self._captured.get(size)
        if captured is None:
            captured = self._capture(size)
            if captured is None:
                return self._model.forward(rows)
            self._captured[size] = captured
        captured.inputs[:count].copy_(rows, non_blocking=True)
        captured.graph.replay()
        return captured.outputs[:count]

    def _capture(self, size: int) -> _Captured | None:
        model = self._model
        try:
            inputs = torch.zeros(size, model.in_features, dtype=model.dtype, device=model.device)
            # Libraries set themselves up in their first runs, which a capture does not allow.
            side = torch.cuda.Stream(model.device)
            side.wait_stream(torch.cuda.current_stream(model.device))
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP_RUNS):
                    model.forward(inputs)
            torch.cuda.current_stream(model.device).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads may ask the driver about memory meanwhile; that is no part of the capture.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = model.forward(inputs)
            self._pool = graph.pool()
        except RuntimeError as error:
            self._works = False
            log.warning("forward passes are not captured as CUDA graphs: %s", error)
            return None
        return _Captured(graph, inputs, outputs)
