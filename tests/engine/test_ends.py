"""Every operation, given views of far more elements than there are, or endless rows of nothing: each call ends.

In children whose memory is bounded, as what does not end could not be interrupted. All cases are drawn from samples.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tests.operations.calls import Invocation, copied, from_torch, from_us, operators
from tests.operations.samples import SAMPLES
from tserver.engine.apply import apply_operation
from tserver.engine.engine import Engine
from tserver.engine.object_store import ObjectStore

ROWS = 2**40
# What is slow ends within this on a busy machine; what does not end would take hours.
ENDS_WITHIN_S = 20.0
_PER_CHILD = 2000
_MEMORY_BYTES = 4 << 30
Bend = Callable[[torch.Tensor], torch.Tensor]


def _many(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.dim() or not tensor.numel():
        return tensor.new_zeros(1).expand(ROWS)
    return tensor[:1].expand(ROWS, *tensor.shape[1:])


def _long(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.dim() or not tensor.numel():
        return tensor.new_zeros(1).expand(ROWS)
    return tensor[..., :1].expand(*tensor.shape[:-1], ROWS)


def _without_elements(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.new_zeros(0).view(ROWS, *[0] * max(1, tensor.dim() - 1))


def _bent(value: Any, bend: Bend) -> Any:
    if isinstance(value, torch.Tensor):
        return bend(value)
    if type(value) in (list, tuple):
        return type(value)(_bent(item, bend) for item in value)
    return value


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(24, id="some operators"),
        pytest.param(1, id="all operators", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def calls(request: pytest.FixtureRequest) -> list[Invocation]:
    """Calls of the operations that torch has no samples for, and of one in so many of those that it has."""
    torch.set_num_threads(1)
    found = [call for name in SAMPLES for call in from_us(name)]
    return found + [call for operator in list(operators())[:: request.param] for call in from_torch(operator, 1)]


def _cases(call: Invocation) -> Iterator[int | str | None]:
    """Which argument is bent; None for all of them."""
    yield None
    places: list[int | str] = [*range(len(call.args)), *call.kwargs]
    for place in places if len(places) > 1 else []:
        if isinstance(call.args[place] if isinstance(place, int) else call.kwargs[place], torch.Tensor):
            yield place


def _run(store: ObjectStore, call: Invocation, place: int | str | None, bend: Bend) -> None:
    args, kwargs = list(copied(call.args)), copied(call.kwargs)
    if place is None:
        args, kwargs = _bent(args, bend), {name: _bent(value, bend) for name, value in kwargs.items()}
    else:
        holder: Any = args if isinstance(place, int) else kwargs
        holder[place] = bend(holder[place])
    apply_operation(store, store.operation(call.entry["name"]), args, kwargs)


@pytest.mark.parametrize("bend", [_many, _long, _without_elements], ids=["many rows", "long rows", "rows of nothing"])
def test_every_call_ends(engine: Engine, calls: list[Invocation], bend: Bend) -> None:
    queue = engine.open_queue()
    queue.store.meet_giant()
    cases = [(call, place) for call in calls if call.entry["kind"] != "property" for place in _cases(call)]
    page = mmap.mmap(-1, mmap.PAGESIZE)
    troubles = []
    begin = 0
    while begin < len(cases):
        page[:16] = struct.pack("qd", begin, time.monotonic())
        child = os.fork()
        if not child:
            _be_the_child(queue.store, cases, begin, bend, page)
        status = _end_of(child, page)
        last = struct.unpack("qd", page[:16])[0]
        if status:
            call, place = cases[last]
            troubles.append(f"{call.entry['name']}, argument {place}: {status}")
        begin = last + 1
    assert not troubles
    assert len(cases) > 1000


def _be_the_child(store: ObjectStore, cases: list[Any], begin: int, bend: Bend, page: mmap.mmap) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    warnings.simplefilter("ignore")
    for index in range(begin, min(begin + _PER_CHILD, len(cases))):
        page[:16] = struct.pack("qd", index, time.monotonic())
        with contextlib.suppress(Exception):
            call, place = cases[index]
            _run(store, call, place, bend)
    os._exit(0)


def _end_of(child: int, page: mmap.mmap) -> str:
    """How a child ended, when it has ended or been ended: "" is well."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return f"ended with status {status}" if status else ""
        since = struct.unpack("qd", page[:16])[1]
        if time.monotonic() - since > ENDS_WITHIN_S:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return f"not over within {ENDS_WITHIN_S:g} s"
        time.sleep(0.01)
