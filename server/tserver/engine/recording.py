"""CUDA graphs: what a function gives the device to do is recorded once, and done again by one launch.

Knows a line (streams.py); does not know what is recorded, nor when that pays. Unlike torch.cuda.graph it neither waits
for the device nor empties the allocator's cache first: others go on meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tserver.engine.streams import Line


@dataclass(slots=True)
class Recorded:
    """A graph, what it reads, and what it writes: the same memory each time, of the line that recorded it."""

    graph: Any
    inputs: list[torch.Tensor]
    outputs: Any

    def replay(self) -> None:
        """Have it done once more. With the line in force."""
        self.graph.replay()


def record(
    function: Callable[..., Any], inputs: list[torch.Tensor], line: Line, *, warm_up_runs: int, pool: Any = None
) -> Recorded:
    """Record a function of inputs whose elements change and whose memory does not. With the line in force.

    Gradients, inference mode and autocast are off meanwhile: a recording is for everyone who comes later.
    Raises: RuntimeError where the function does what cannot be recorded.
    """
    device = line.work.device
    pool = torch.cuda.graph_pool_handle() if pool is None else pool
    graph = torch.cuda.CUDAGraph()
    line.capture.wait_stream(line.work)
    try:
        with (
            torch.inference_mode(mode=False),
            torch.no_grad(),
            torch.autocast("cuda", enabled=False),
            torch.cuda.stream(line.capture),
        ):
            # Libraries set themselves up in their first runs, which a recording does not allow.
            for _ in range(warm_up_runs):
                function(*inputs)
            outputs = _captured(graph, function, inputs, pool, device)
    finally:
        line.work.wait_stream(line.capture)
    return Recorded(graph, inputs, outputs)


def _captured(
    graph: Any, function: Callable[..., Any], inputs: list[torch.Tensor], pool: Any, device: torch.device
) -> Any:
    collects = gc.isenabled()
    # What the collector would let go of may be a graph, or memory that other streams use: not now.
    gc.disable()
    try:
        # Other threads may ask the driver about memory and events meanwhile; that is no part of the recording.
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            outputs = function(*inputs)
        except BaseException:
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
            raise
        graph.capture_end()
        return outputs
    except BaseException:
        # Where the recording broke, the allocator may still believe in it; it then would not reuse memory any more.
        with contextlib.suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(device.index or 0, pool)
        raise
    finally:
        if collects:
            gc.enable()
