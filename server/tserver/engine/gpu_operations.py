"""What torch.cuda does besides to compute: its generators of random numbers, and to wait for a GPU.

The generators are torch's own of the process, with the state of the session whose call is run (modes.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tserver.engine import streams
from tserver.engine.reads import Deferred
from tserver.engine.transfers import Arrival

# What a truth takes in a reply, at most.
_TRUTH_BYTES = 24


def generator(index: Any) -> torch.Generator:
    """`tc.Generator.of_gpu`: what draws a GPU's numbers. Raises: AssertionError without any GPU; IndexError."""
    torch.cuda.init()
    found: torch.Generator = torch.cuda.default_generators[index]
    return found


def synchronize(index: Any) -> Deferred:
    """`tc.gpu_synchronize`: true when a GPU has done all that the session has given it; the engine goes on meanwhile.

    Raises: what torch raises if it is not there.
    """
    if not isinstance(index, int):
        raise TypeError(f"tc.gpu_synchronize takes the number of a GPU, not a {type(index).__name__}")
    return Deferred(Arrival(torch.empty(0), streams.mark_gpu(index)), lambda _: True, _TRUTH_BYTES)


BUILTIN_OPERATIONS: dict[str, Callable[..., Any]] = {
    "tc.Generator.of_gpu": generator,
    "tc.gpu_synchronize": synchronize,
}
"""What the engine adds to torch's operations."""
