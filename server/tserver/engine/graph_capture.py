"""CUDA graphs: what a function gives the device to do is captured once, and done again by one launch.

Knows a pair of streams; does not know what is captured, nor when that pays. Unlike torch.cuda.graph it neither waits
for the device nor empties the allocator's cache first: others go on meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tserver.engine.streams import StreamPair


@dataclass(slots=True)
class CapturedGraph:
    """A graph, what it reads, and what it writes: the same memory each time, of the pair that captured it."""

    graph: Any
    inputs: list[torch.Tensor]
    outputs: Any

    def replay(self) -> None:
        """Have it done once more. The pair's work stream is the current one."""
        self.graph.replay()


def capture(
    function: Callable[..., Any], inputs: list[torch.Tensor], pair: StreamPair, *, warm_up_runs: int, pool: Any = None
) -> CapturedGraph:
    """Capture a function of inputs whose elements change and whose memory does not. The work stream is the current one.

    Gradients, inference mode and autocast are off meanwhile: a capture is for everyone who comes later.
    Raises: RuntimeError where the function does what cannot be captured.
    """
    device = pair.work.device
    pool = torch.cuda.graph_pool_handle() if pool is None else pool
    graph = torch.cuda.CUDAGraph()
    pair.capture.wait_stream(pair.work)
    try:
        with (
            torch.inference_mode(mode=False),
            torch.no_grad(),
            torch.autocast("cuda", enabled=False),
            torch.cuda.stream(pair.capture),
        ):
            # Libraries set themselves up in their first runs, which a capture does not allow.
            for _ in range(warm_up_runs):
                function(*inputs)
            outputs = _captured(graph, function, inputs, pool, device)
    finally:
        pair.work.wait_stream(pair.capture)
    return CapturedGraph(graph, inputs, outputs)


def _captured(
    graph: Any, function: Callable[..., Any], inputs: list[torch.Tensor], pool: Any, device: torch.device
) -> Any:
    collects = gc.isenabled()
    # What the collector would let go of may be a graph, or memory that other streams use: not now.
    gc.disable()
    try:
        # Other threads may ask the driver about memory and events meanwhile; that is no part of the capture.
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
        # Where the capture broke, the allocator may still believe in it; it then would not reuse memory any more.
        with contextlib.suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(device.index or 0, pool)
        raise
    finally:
        if collects:
            gc.enable()
