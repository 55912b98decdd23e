"""How many threads a kernel on the CPU takes.

One core stays with gRPC and the event loop: a kernel whose threads wait for a busy core takes far longer. But a product
of large matrices is worth all cores, for it runs longer than anything that waits for one. To change the number costs
next to nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from tserver.engine import cost

# Multiplications from which on a product takes all cores: some tenths of a millisecond on one.
_HEAVY = 1 << 24


class _AllCores:
    """Kernels take all cores within it."""

    def __init__(self) -> None:
        self.few = self.all = 1

    def __enter__(self) -> None:
        torch.set_num_threads(self.all)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.set_num_threads(self.few)


all_cores = _AllCores()


def set_up(threads: int) -> None:
    """Say how many; 0 is as said above. Another number is that, whatever the work."""
    cores = len(os.sched_getaffinity(0))
    all_cores.few = threads or max(1, cores - 1)
    all_cores.all = threads or cores
    take_few()


def take_few() -> None:
    """Have this thread's kernels take the number that is usual.

    The number belongs to the thread that sets it: MKL's products on another one take all cores, until something there
    asks torch for its number.
    """
    torch.set_num_threads(all_cores.few)


def is_heavy(multiplications: int) -> bool:
    """Whether so much work is worth all cores, and there is one to be had."""
    return multiplications >= _HEAVY and all_cores.all > all_cores.few


def spread(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a name of the table; a product takes all cores where it is heavy, and is refused where it
    would take for ever.
    """
    bound = cost.PRODUCTS.get(name)
    if bound is None:
        return function

    @functools.wraps(function, assigned=("__name__", "__doc__"), updated=())
    def product(*args: Any, **kwargs: Any) -> Any:
        if len(args) > 1:
            left, right = args[0], args[1]
            if isinstance(left, Tensor) and isinstance(right, Tensor) and left.numel() * _width(right) >= _HEAVY:
                cost.check_bound(name, bound, args, kwargs)
                if all_cores.all > all_cores.few:
                    with all_cores:
                        return function(*args, **kwargs)
        elif kwargs:
            cost.check_bound(name, bound, args, kwargs)
        return function(*args, **kwargs)

    return product


def _width(right: Tensor) -> int:
    """About how often each element of the left factor is used."""
    return max(right.shape) if right.dim() > 1 else 1
