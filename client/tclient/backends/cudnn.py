"""torch.backends.cudnn: convolutions on a GPU. What is set here is noted; the server keeps its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tclient._settings import has_gpu, watch

enabled = True
benchmark = False
benchmark_limit: int | None = None
deterministic = False
allow_tf32 = True

# `benchmark` decides how fast a convolution is, not what it gives.
watch(__name__, {"enabled": True, "deterministic": False, "allow_tf32": True})


def is_available() -> bool:
    """Whether the server computes convolutions with cuDNN: wherever it has a GPU."""
    return has_gpu()


def version() -> int | None:
    """None: the server does not tell it."""
    return None


def is_acceptable(tensor: Any) -> bool:
    """Whether cuDNN can work on a tensor."""
    return bool(enabled and tensor.is_cuda and tensor.is_floating_point())


@contextmanager
def flags(
    enabled: bool = False,
    benchmark: bool = False,
    benchmark_limit: int = 10,
    deterministic: bool = False,
    allow_tf32: bool = True,
) -> Iterator[None]:
    """Note other settings, within it."""
    cudnn = sys.modules[__name__]
    wanted = {
        "enabled": enabled,
        "benchmark": benchmark,
        "benchmark_limit": benchmark_limit,
        "deterministic": deterministic,
        "allow_tf32": allow_tf32,
    }
    before = {name: getattr(cudnn, name) for name in wanted}
    for name, value in wanted.items():
        setattr(cudnn, name, value)
    try:
        yield
    finally:
        vars(cudnn).update(before)
