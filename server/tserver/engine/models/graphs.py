"""Forward passes on CUDA as graphs: recorded once for each size of batch, then launched as one.

A batch is padded to the next size that is recorded; rows do not depend on each other, so what the padding holds is of
no matter. Only the engine's thread uses this. Nothing here runs on a device other than CUDA.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from tserver.engine.failures import is_device_lost
from tserver.engine.models.model import Model
from tserver.engine.recording import Recorded, record
from tserver.engine.streams import Line

log = logging.getLogger("tserver.models")

# Beyond this many rows the launches are nothing beside the work.
_LARGEST = 4096
_WARM_UP_RUNS = 3


def captured_sizes(max_batch_size: int) -> list[int]:
    """The sizes to which batches are padded: powers of two, and the largest batch itself."""
    largest = min(max_batch_size, _LARGEST)
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power < largest]
    return [*sizes, largest]


class GraphedForward:
    """The forward pass of one model, by graphs that are recorded when a size first comes. For one line, in force."""

    def __init__(self, model: Model, max_batch_size: int, line: Line) -> None:
        self._model = model
        self._line = line
        self._sizes = captured_sizes(max_batch_size)
        self._recorded: dict[int, Recorded] = {}
        # One pool for all sizes: they never run at the same time, and outputs are copied before the next one runs.
        self._pool: Any = None
        self._works = True

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """The outputs for rows, in memory that the next call writes into: copy what is to last."""
        count = rows.shape[0]
        size = next((size for size in self._sizes if size >= count), 0)
        if not size or not self._works:
            return self._model.forward(rows)
        recorded = self._recorded.get(size)
        if recorded is None:
            recorded = self._record(size)
            if recorded is None:
                return self._model.forward(rows)
            self._recorded[size] = recorded
        recorded.inputs[0][:count].copy_(rows, non_blocking=True)
        recorded.replay()
        outputs: torch.Tensor = recorded.outputs
        return outputs[:count]

    def _record(self, size: int) -> Recorded | None:
        model = self._model
        try:
            # Not in the inference mode of whoever came first: others could not write into it then.
            with torch.inference_mode(mode=False):
                inputs = torch.zeros(size, model.in_features, dtype=model.dtype, device=model.device)
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            return record(model.forward, [inputs], self._line, warm_up_runs=_WARM_UP_RUNS, pool=self._pool)
        except RuntimeError as error:
            if is_device_lost(error):
                raise
            self._works = False
            log.warning("forward passes are not recorded as CUDA graphs: %s", error)
            return None
