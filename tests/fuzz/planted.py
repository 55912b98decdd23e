"""Faults planted in one operation, to see that the fuzz sees them: prints what it says of each, a line each.

Run as a program of its own, because it forks: python -m tests.fuzz.planted
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tests.fuzz import stage, watch
from tests.fuzz.draw import NAMES
from tests.support.values import encode
from tserver.engine import initial

_NAME = "tc.trunc_normal_"


def _die(tensor: torch.Tensor) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _sleep(tensor: torch.Tensor) -> None:
    time.sleep(60.0)


def _leave_unwritten(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(64)


def _add_unwritten(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(64, dtype=torch.int64) + 1


def _show_another(tensor: torch.Tensor) -> list[float]:
    result: list[float] = _of_the_other().tolist()
    return result


def _change_another(tensor: torch.Tensor) -> None:
    _of_the_other().zero_()


def _of_the_other() -> torch.Tensor:
    mark = torch.frombuffer(bytearray(stage.SECRET), dtype=torch.float64)
    held = (one for one in gc.get_objects() if type(one) is torch.Tensor and one.dtype == torch.float32)
    return next(one for one in held if one.numel() == 64 and one.view(torch.float64)[0] == mark[0]).view(torch.float64)


def _reach_beyond(tensor: torch.Tensor) -> torch.Tensor:
    tensor.data = torch.empty(0).set_(torch.zeros(9).untyped_storage(), 0, (9,), (1,))
    tensor.untyped_storage().resize_(8)
    return tensor


FAULTS: dict[str, Callable[[torch.Tensor], Any]] = {
    "signal 11": _die,
    "blocked": _sleep,
    "shown": _leave_unwritten,
    "depends": _add_unwritten,
    "shown to another": _show_another,
    "changed": _change_another,
    "extent": _reach_beyond,
}


def main() -> None:
    """Plant each, and play one call."""
    watch.marked()
    watched = watch.Watch("planted", hang_s=0.3)
    call = pb.Call(id=5, operation=NAMES.index(_NAME), args=[encode(torch.ones(9))])
    print(f"nothing -> {watched.again([call]).partition(chr(10))[0]}")
    for fault, function in FAULTS.items():
        initial.BUILTIN_OPERATIONS[_NAME] = function
        print(f"{fault} -> {watched.again([call]).partition(chr(10))[0]}")


if __name__ == "__main__":
    main()
