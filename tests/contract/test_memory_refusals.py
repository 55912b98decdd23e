"""Requests for more memory than there is: refused before they are tried, and the server lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tests.support.raw import RawSession
from tests.support.refusals import refused
from tests.support.values import Kept, encode

HUGE = 1 << 42
SIDE = 1 << 21
Calls = Callable[[RawSession], list[pb.Call]]


def expanded(session: RawSession, *then: tuple[Any, ...]) -> list[pb.Call]:
    """A long view of one element, which takes no memory, and what is done with it, which would."""
    calls = [session.call(5, "ones", 1), session.call(6, "Tensor.expand", Kept(5), HUGE)]
    return [*calls, *(session.call(7, operation, *args) for operation, *args in then)]


FACTORIES: dict[str, Calls] = {
    "zeros": lambda s: [s.call(7, "zeros", HUGE)],
    "zeros of a tuple": lambda s: [s.call(7, "zeros", (SIDE, SIDE))],
    "zeros of a list": lambda s: [s.call(7, "zeros", [SIDE, SIDE])],
    "zeros by keyword": lambda s: [s.call(7, "zeros", size=(SIDE, SIDE))],
    "ones": lambda s: [s.call(7, "ones", SIDE, SIDE)],
    "empty": lambda s: [s.call(7, "empty", SIDE, SIDE)],
    "full": lambda s: [s.call(7, "full", (SIDE, SIDE), 1.5)],
    "rand": lambda s: [s.call(7, "rand", SIDE, SIDE)],
    "randn": lambda s: [s.call(7, "randn", SIDE, SIDE)],
    "randint": lambda s: [s.call(7, "randint", 0, 9, (SIDE, SIDE))],
    "randperm": lambda s: [s.call(7, "randperm", HUGE)],
    "arange": lambda s: [s.call(7, "arange", HUGE)],
    "arange of floats": lambda s: [s.call(7, "arange", 0.0, 1.0, 1e-13)],
    "linspace": lambda s: [s.call(7, "linspace", 0, 1, HUGE)],
    "logspace": lambda s: [s.call(7, "logspace", 0, 1, HUGE)],
    "eye": lambda s: [s.call(7, "eye", SIDE)],
    "tril_indices": lambda s: [s.call(7, "tril_indices", SIDE, SIDE)],
    "hann_window": lambda s: [s.call(7, "hann_window", HUGE)],
    "empty_strided": lambda s: [s.call(7, "empty_strided", (2, 2), (HUGE, 1))],
    "zeros_like": lambda s: expanded(s, ("zeros_like", Kept(6))),
    "new_ones": lambda s: [s.call(5, "ones", 1), s.call(7, "Tensor.new_ones", Kept(5), (SIDE, SIDE))],
    "new_empty": lambda s: [s.call(5, "ones", 1), s.call(7, "Tensor.new_empty", Kept(5), (SIDE, SIDE))],
}
OVERRUNS: dict[str, Calls] = {
    "repeat": lambda s: [s.call(5, "ones", 1), s.call(7, "Tensor.repeat", Kept(5), HUGE)],
    "tile": lambda s: [s.call(5, "ones", 1), s.call(7, "tile", Kept(5), (HUGE,))],
    "repeat_interleave": lambda s: [s.call(5, "ones", 1), s.call(7, "repeat_interleave", Kept(5), HUGE)],
    "expand and clone": lambda s: expanded(
        s,
        (
            "Tensor.clone",
            Kept(6),
        ),
    ),
    "expand and contiguous": lambda s: expanded(s, ("Tensor.contiguous", Kept(6))),
    "expand and add": lambda s: expanded(s, ("Tensor.__add__", Kept(6), 1)),
    "expand and change the dtype": lambda s: expanded(s, ("Tensor.double", Kept(6))),
    "expand and read": lambda s: expanded(s, ("tc.read", Kept(6))),
    "expand and sum": lambda s: expanded(s, ("Tensor.sum", Kept(6))),
    "expand and multiply out": lambda s: expanded(s, ("prod", Kept(6))),
    "expand and look for the largest": lambda s: expanded(s, ("Tensor.argmax", Kept(6))),
    "expand and compare": lambda s: expanded(s, ("equal", Kept(6), Kept(6))),
    "expand and spread out": lambda s: expanded(s, ("Tensor.std", Kept(6))),
    "expand, split and sum": lambda s: [
        *expanded(s, ("Tensor.view", Kept(6), 2, -1)),
        s.call(0, "Tensor.sum", Kept(7), 1),
    ],
    "expand and mask": lambda s: [
        *expanded(s, ("Tensor.bool", Kept(5))),
        s.call(8, "Tensor.expand", Kept(7), HUGE),
        s.call(0, "Tensor.__getitem__", Kept(5), Kept(8)),
    ],
    "an outer product": lambda s: [s.call(5, "ones", SIDE), s.call(7, "outer", Kept(5), Kept(5))],
    "broadcasting": lambda s: [
        s.call(5, "ones", SIDE, 1),
        s.call(6, "ones", 1, SIDE),
        s.call(7, "Tensor.__add__", Kept(5), Kept(6)),
    ],
    "padding": lambda s: [s.call(5, "ones", 1), s.call(7, "nn.functional.pad", Kept(5), [0, HUGE])],
    "resize_": lambda s: [s.call(5, "ones", 1), s.call(0, "Tensor.resize_", Kept(5), HUGE)],
    "one_hot": lambda s: [s.call(5, "tensor", [HUGE]), s.call(7, "nn.functional.one_hot", Kept(5))],
    "bincount": lambda s: [s.call(5, "tensor", [HUGE]), s.call(7, "bincount", Kept(5))],
    "combinations": lambda s: [s.call(5, "ones", SIDE), s.call(7, "cartesian_prod", Kept(5), Kept(5))],
}


@pytest.mark.parametrize("name", [*FACTORIES, *OVERRUNS])
def test_more_memory_than_there_is_is_refused_and_the_server_lives(nothing_leaks: RawSession, name: str) -> None:
    session = nothing_leaks
    made = {**FACTORIES, **OVERRUNS}[name](session)
    reply = session.run(*made, frees=[5, 6, 7, 8])
    error = reply.error(len(made) - 1)
    assert len(reply.errors) == 1
    assert (error.reason, error.type) == ("OUT_OF_MEMORY", "OutOfMemoryError"), error
    if name in FACTORIES:
        assert {"bytes", "free"} <= set(error.message.replace(";", "").split()), "what was asked, and what is free"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"zeros": {}, "shape": [SIDE, SIDE]}, id="zeros"),
        pytest.param({"empty": {}, "shape": [SIDE, SIDE]}, id="empty"),
        pytest.param({"full": {"value": encode(1)}, "shape": [SIDE, SIDE]}, id="full"),
        pytest.param({"randint": {"low": 0, "high": 9}, "shape": [SIDE, SIDE]}, id="randint"),
        pytest.param({"arange": {"end": encode(HUGE)}}, id="arange"),
        pytest.param({"eye": {"rows": SIDE}}, id="eye"),
        pytest.param({"linspace": {"start": 0, "end": 1, "steps": HUGE}}, id="linspace"),
    ],
)
def test_a_typed_factory_for_more_memory_than_there_is_is_refused(
    nothing_leaks: RawSession, fields: dict[str, Any]
) -> None:
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, naming="bytes"):
        nothing_leaks.create(**fields)


def test_a_download_of_more_than_there_is_memory_for_is_refused(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    session.run(*expanded(session)).clean()
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, naming=str(4 * HUGE)):
        session.download(Kept(6))
    session.run(frees=[5, 6])


def test_a_view_that_is_longer_than_memory_costs_nothing(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    session.run(*expanded(session)).clean()
    assert session.held() == (2, 4)
    text = session.ask("GetTensor", tensor=Kept(6), include_text=True).text
    assert text == str(torch.ones(1).expand(HUGE))
    session.run(frees=[5, 6])
