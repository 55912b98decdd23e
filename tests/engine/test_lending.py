"""Memory that sessions share, seen from the engine: between whom, and in which order a GPU reads and writes it."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tserver.engine.moving import Parcels
from tserver.engine.object_store import ObjectStore
from tserver.engine.streams import StreamPair, in_turn
from tserver.errors import InvalidArgument

from .gpus import Gpus

NAME = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def engine() -> Any:
    """A stand-in for what makes stores: nothing of it is needed here but their principals."""
    operations = dict(Parcels().operations())

    def store(principal: str) -> Any:
        made = object.__new__(ObjectStore)
        made.principal, made.read_only, made.readers = principal, None, weakref.WeakSet()
        return made

    return SimpleNamespace(store=store, lend=operations["tc.lend"], borrow=operations["tc.borrow"])


def test_only_sessions_of_one_principal_share(engine: Any) -> None:
    owner, friend, stranger = engine.store("a"), engine.store("a"), engine.store("b")
    x = torch.ones(2)
    loan = engine.lend(owner, NAME, [x])
    (borrowed,) = engine.borrow(friend, NAME)
    assert borrowed.data_ptr() == x.data_ptr()
    with pytest.raises(InvalidArgument, match="one principal"):
        engine.borrow(stranger, NAME)
    del loan
    with pytest.raises(InvalidArgument, match="nothing waits"):
        engine.borrow(friend, NAME)


def test_what_is_written_waits_for_those_who_read_and_they_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Gpus(2)
    gpus.install(monkeypatch)

    def state() -> Any:
        pairs = [StreamPair(0, torch.cuda.Stream(index), torch.cuda.Stream(index)) for index in range(2)]
        return SimpleNamespace(pair=pairs[0], others=pairs[1:])

    owner, reader, idle = state(), state(), SimpleNamespace(pair=None, others=[])
    writing: Any = owner.pair.work
    reading: Any = reader.pair.work
    with in_turn(owner, [reader, idle]):
        assert [event.stream for event in writing.waited_for] == [reader.pair.work, reader.others[0].work]
        assert reading.waited_for == []
    assert [event.stream for event in reading.waited_for] == [owner.pair.work, owner.others[0].work]


def test_sessions_on_one_stream_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Gpus(1)
    gpus.install(monkeypatch)
    pair = StreamPair(0, torch.cuda.Stream(0), torch.cuda.Stream(0))
    state: Any = SimpleNamespace(pair=pair, others=[])
    with in_turn(state, [state]):
        pass
    assert pair.work.waited_for == []
