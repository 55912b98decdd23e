"""Faults planted in one operation, to see that the fuzz sees them: prints what it says of each, a line each.

Run as a program of its own, because it forks: python -m tests.fuzz.planted
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.wire.packed import from_bytes
from tests.fuzz import stage, watch, words
from tests.fuzz.draw import NAMES
from tests.support.values import encode
from tserver.engine import initial, packed
from tserver.engine.object_store import ObjectStore

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


def _without_rest(data: bytes) -> tuple[list[int], bool]:
    return from_bytes(data[: len(data) // 8 * 8]), True


def _without_whole(data: bytes) -> tuple[list[int], bool]:
    return from_bytes(data), True


def _without_tags(store: ObjectStore, given: Sequence[int]) -> list[Any]:
    # As if every word were the place of a tensor in memory.
    return [torch.frombuffer((ctypes.c_char * 8).from_address(word), dtype=torch.uint8) for word in given]


# What does not look at words any more, and what it does instead.
MISSING_CHECKS: dict[str, tuple[str, Callable[..., Any]]] = {
    "rules": ("words_of", _without_rest),
    "fuzz": ("words_of", _without_whole),
    "signal 11": ("arguments", _without_tags),
}


def main() -> None:
    """Plant each, and play one call."""
    watch.marked()
    watched = watch.Watch("planted", hang_s=0.3)
    call = pb.Call(id=5, operation=NAMES.index(_NAME), args=[encode(torch.ones(9))])
    batches = [pb.Batch(calls=[call])]
    print(f"nothing -> {watched.again([*batches, *_of_words()]).partition(chr(10))[0]}")
    for fault, function in FAULTS.items():
        initial.BUILTIN_OPERATIONS[_NAME] = function
        print(f"{fault} -> {watched.again(batches).partition(chr(10))[0]}")
    for fault, (name, without_check) in MISSING_CHECKS.items():
        # Of the loop in pure Python: what is compiled looks at words by itself.
        with mock.patch.object(packed, "run_plain", None), mock.patch.object(packed, name, without_check):
            print(f"{fault} -> {watched.again(_of_words()).partition(chr(10))[0]}")


def _of_words() -> list[pb.Batch]:
    """Some batches of words, most of which are tampered with."""
    chance = random.Random("planted")
    ones, neg = NAMES.index("ones"), NAMES.index("neg")
    plain = [pb.Call(id=5, operation=ones, args=[encode(2)]), pb.Call(id=6, operation=neg, args=[pb.Value(result=5)])]
    return [words.tampered(words.written(plain, chance), chance, len(NAMES)) for _ in range(100)]


if __name__ == "__main__":
    main()
