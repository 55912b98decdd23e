"""One polite session beside eight that never stop: it is counted how many turns of theirs it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future

import pytest

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.config import Config
from tserver.engine.engine import Engine
from tserver.engine.object_store import ObjectStore
from tserver.engine.operations import Operation
from tserver.engine.session_queue import SessionQueue

CALL_S = 0.0002
# The turn that is under way when it comes, and its own.
MOST_TURNS = 2


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine that runs."""
    monkeypatch.setattr(Engine, "_prepare", lambda self: None)
    made = Engine(Config(device="cpu"), on_fatal=pytest.fail)
    made.start()
    yield made
    assert made.stop(10.0)


class _Busy:
    """A session that always has work, of one kind."""

    def __init__(self, engine: Engine, kind: str, over: threading.Event, principal: str) -> None:
        self._queue: SessionQueue = engine.open_queue(principal)
        self._over = over
        self._seq = 0
        self._queue.store.operations.append(Operation("spin", self._spin))
        self._again = {"batches": self._batch, "calls": self._call, "pieces": self._pieces}[kind]
        self._again()

    def _spin(self) -> None:
        until = time.perf_counter() + CALL_S
        while time.perf_counter() < until:
            pass

    def _next(self, _: object) -> None:
        if not self._over.is_set():
            self._again()

    def _batch(self) -> None:
        self._seq += 1
        self._queue.submit(pb.Batch(seq=self._seq, calls=[pb.Call() for _ in range(500)]), self._next)

    def _call(self) -> None:
        for _ in range(100):
            self._queue.run(lambda _: self._spin())
        self._queue.run(lambda _: self._spin()).add_done_callback(self._next)

    def _pieces(self) -> None:
        def work(_: ObjectStore) -> Generator[None, None, None]:
            for _piece in range(500):
                self._spin()
                yield

        self._queue.run_in_pieces(work).add_done_callback(self._next)


@pytest.mark.parametrize("principals", ["one", "two"])
def test_short_work_waits_for_no_more_than_the_turn_that_is_under_way(engine: Engine, principals: str) -> None:
    over = threading.Event()
    kinds = ["batches", "calls", "pieces"]
    try:
        for number in range(8):
            _Busy(engine, kinds[number % 3], over, "busy")
        polite = engine.open_queue("busy" if principals == "one" else "polite")
        waited = []
        for _ in range(60):
            before = engine.slices
            done: Future[int] = polite.run(lambda _: engine.slices)
            waited.append(done.result(10.0) - before)
        # The median: between the look at the count and the call there may be any number of turns.
        assert sorted(waited)[30] <= MOST_TURNS
    finally:
        over.set()
