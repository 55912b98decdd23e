"""Calls that would take for ever are refused before they run, and what comes close to them is what torch says.

Each refused call here takes minutes to ages where it is not refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine import cost
from tserver.engine.apply import apply_operation
from tserver.engine.engine import Engine
from tserver.engine.object_store import ObjectStore
from tserver.engine.pieces import whole
from tserver.engine.programs import run_program
from tserver.errors import InvalidArgument

ENDLESS = 2**61
ones, zeros = torch.ones, torch.zeros
Call = tuple[str, Callable[[], tuple[Any, ...]]]


@pytest.fixture
def store(engine: Engine) -> Iterator[ObjectStore]:
    """A session."""
    queue = engine.open_queue()
    yield queue.store
    queue.close()


def run(store: ObjectStore, name: str, *args: Any, **kwargs: Any) -> Any:
    """The result of a call."""
    return apply_operation(store, store.operation(name), list(args), kwargs)


def long(shape: tuple[int, ...]) -> torch.Tensor:
    """A view of one element."""
    return ones((1,) * len(shape)).expand(shape)


REFUSED: dict[str, Call] = {
    "differences of differences": ("diff", lambda: (zeros(2**17), 2**17)),
    "a sum from far below zero": (
        "special.zeta",
        lambda: (torch.tensor(2.0), torch.tensor(0.5 - 1e15, dtype=torch.float64)),
    ),
    "the same within polygamma": ("polygamma", lambda: (1, torch.tensor(0.5 - 1e15, dtype=torch.float64))),
    "iterations until it converges": ("lobpcg", lambda: (torch.eye(9), 1, None, None, None, None, -1)),
    "iterations without number": ("svd_lowrank", lambda: (ones(9, 9), 2, 10**12)),
    "a long filter": ("conv1d", lambda: (ones(1, 1, 2**23), ones(1, 1, 2**22))),
    "a long filter, the other way": ("conv_transpose1d", lambda: (ones(1, 1, 2**22), ones(1, 1, 2**22))),
    "a long window": ("avg_pool1d", lambda: (ones(1, 1, 2**21), 2**20, 1)),
    "attention to a long sequence": (
        "nn.functional.scaled_dot_product_attention",
        lambda: (ones(1, 1, 2**22, 1), ones(1, 1, 2**22, 1), ones(1, 1, 2**22, 1)),
    ),
    "all pairs of classes": (
        "nn.functional.multilabel_margin_loss",
        lambda: (ones(1, 2**19), zeros(1, 2**19, dtype=torch.int64)),
    ),
    "distances of long views": ("cdist", lambda: (long((2**12, 2**15)), long((2**12, 2**15)))),
    "millions of views": ("Tensor.unbind", lambda: (zeros(2**21),)),
    "millions of parts": ("split", lambda: (zeros(2**21), 1)),
    "matrices without elements": ("linalg.inv", lambda: (zeros(0).view(2**40, 0, 0),)),
    "a product of long views": ("matmul", lambda: (long((2**11, 2**22)), long((2**22, 2**11)))),
    "a long sequence": (
        "rnn_tanh",
        lambda: (
            ones(2**22, 1, 1),
            zeros(1, 1, 1),
            [ones(1, 1), ones(1, 1), ones(1), ones(1)],
            *(True, 1, 0.0, False, False, False),
        ),
    ),
}
ALLOWED: dict[str, Call] = {
    "differences": ("diff", lambda: (torch.arange(9.0) ** 3, 3)),
    "a sum from below zero": ("special.zeta", lambda: (torch.tensor(2.0), torch.tensor([-7.5, -3.0, 2.0]))),
    "polygamma": ("polygamma", lambda: (1, torch.tensor([-7.5, 0.5, 1e9]))),
    "a filter": ("conv1d", lambda: (torch.arange(40.0).view(1, 2, 20), ones(3, 2, 4), None, 2, 1)),
    "a filter that keeps the size": ("conv1d", lambda: (ones(1, 1, 20), ones(3, 1, 5), None, 1, "same")),
    "windows": ("avg_pool1d", lambda: (torch.arange(20.0).view(1, 1, 20), 4, 2)),
    "parts": ("split", lambda: (torch.arange(10.0), [3, 7])),
    "a sum over a view": ("Tensor.sum", lambda: (long((2**10, 2**10)),)),
    "matrices without elements": ("linalg.inv", lambda: (zeros(5, 0, 0),)),
    "a product": ("matmul", lambda: (long((512, 512)), long((512, 512)))),
}


@pytest.mark.parametrize(("name", "arguments"), REFUSED.values(), ids=REFUSED)
def test_what_would_take_for_ever_is_refused(
    store: ObjectStore, name: str, arguments: Callable[[], tuple[Any, ...]]
) -> None:
    with pytest.raises(RuntimeError, match=rf"^{name}: .*--max-call-elements"):
        run(store, name, *arguments())


@pytest.mark.parametrize(("name", "arguments"), ALLOWED.values(), ids=ALLOWED)
def test_what_ends_is_what_torch_says(store: ObjectStore, name: str, arguments: Callable[[], tuple[Any, ...]]) -> None:
    function: Any = torch
    for part in name.split("."):
        function = getattr(function, part)
    torch.testing.assert_close(run(store, name, *arguments()), function(*arguments()), equal_nan=True)


@pytest.mark.parametrize("name", ["Tensor.sum", "prod", "std", "Tensor.erfinv", "Tensor.sort", "Tensor.tolist"])
def test_a_view_of_more_elements_than_there_are_may_be_held_and_not_gone_through(store: ObjectStore, name: str) -> None:
    x = run(store, "Tensor.expand", ones(1), ENDLESS)
    assert store.has_giants
    with pytest.raises(Exception, match="elements"):
        run(store, name, x)
    assert run(store, "Tensor.view", x, 2, -1).shape == (2, ENDLESS // 2)
    assert run(store, "Tensor.__getitem__", x, slice(3)).tolist() == [1, 1, 1]
    assert run(store, "Tensor.__getitem__", x, torch.tensor([5, 10**15])).tolist() == [1, 1]
    assert run(store, "Tensor.__repr__", x) == repr(ones(1).expand(ENDLESS))


def test_overlapping_windows_are_such_views_too(store: ObjectStore) -> None:
    x = run(store, "Tensor.unfold", zeros(2**20), 0, 2**19, 1)
    with pytest.raises(RuntimeError, match="max-call-elements"):
        run(store, "Tensor.sum", x)


def test_an_operator_may_allow_more_or_less(store: ObjectStore) -> None:
    x = run(store, "Tensor.expand", ones(1), 1000)
    assert run(store, "Tensor.sum", x) == 1000
    cost.set_up(100)
    try:
        x = run(store, "Tensor.expand", ones(1), 1000)
        with pytest.raises(RuntimeError, match="at most 100 elements"):
            run(store, "Tensor.sum", x)
        assert run(store, "Tensor.sum", ones(1000)) == 1000, "these are there"
    finally:
        cost.set_up(0)


def test_a_program_goes_through_no_such_view(store: ObjectStore) -> None:
    store.define(["Tensor.expand", "Tensor.sum"], [])
    program = pb.Program(inputs=1, result=pb.Value(result=3))
    program.calls.add(id=2, operation=0, args=[pb.Value(result=1), pb.Value(integer=ENDLESS)])
    program.calls.add(id=3, operation=1, args=[pb.Value(result=2)])
    kept = run(store, "tc.program", program)
    with pytest.raises(RuntimeError, match=r"Tensor.sum: .*max-call-elements"):
        whole(run_program(store, kept, ones(1)))


def test_a_program_cannot_run_programs(store: ObjectStore) -> None:
    store.define(["tc.run"], [])
    program = pb.Program(inputs=1, result=pb.Value(result=2))
    program.calls.add(id=2, operation=0, args=[pb.Value(result=1), pb.Value(result=1)])
    with pytest.raises(InvalidArgument, match=r"tc\.run cannot be a call of a program"):
        run(store, "tc.program", program)
