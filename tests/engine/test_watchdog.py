"""The watchdog: what goes on is left alone, and what does not is reported, once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.engine import Engine
from tserver.engine.operations import Operation
from tserver.engine.pieces import whole
from tserver.engine.programs import Program
from tserver.engines.watchdog import Watchdog

HANG_S = 0.3
LONG_S = 20.0


class Work:
    """Something that goes on, or does not, as it is told."""

    def __init__(self, progress: Callable[[], object]) -> None:
        self.progress = progress

    def at_work(self) -> str:
        """What it is."""
        return "Tensor.sum"


@pytest.fixture
def told() -> tuple[list[str], list[bool], threading.Event]:
    """What a watchdog says of a hang and of stalls, and whether there was a hang."""
    return [], [], threading.Event()


def watching(
    work: Work | Engine, told: tuple[list[str], list[bool], threading.Event], beats: int | None = None
) -> Watchdog:
    """A watchdog that tells."""
    causes, stalls, hung = told

    def hang(cause: str) -> None:
        causes.append(cause)
        hung.set()

    watchdog = Watchdog(work, HANG_S, on_hang=hang, on_stall=stalls.append, beats=beats)
    watchdog.start()
    return watchdog


def test_work_that_does_not_go_on_is_reported_once_and_named(
    told: tuple[list[str], list[bool], threading.Event],
) -> None:
    causes, stalls, hung = told
    watchdog = watching(Work(lambda: 1), told)
    assert hung.wait(LONG_S)
    watchdog.stop()
    assert len(causes) == 1
    assert causes[0].startswith("the engine hung in Tensor.sum for ")
    assert stalls == [True]


@pytest.mark.parametrize("goes_on", [True, False], ids=["work that goes on", "no work at all"])
def test_nothing_else_is_reported(told: tuple[list[str], list[bool], threading.Event], goes_on: bool) -> None:
    looks = 0
    enough = threading.Event()

    def progress() -> object:
        nonlocal looks
        looks += 1
        if looks > 40:
            enough.set()
        return looks if goes_on else None

    watchdog = watching(Work(progress), told)
    assert enough.wait(LONG_S)
    watchdog.stop()
    assert told[:2] == ([], [])


def test_a_stall_that_ends_is_taken_back(told: tuple[list[str], list[bool], threading.Event]) -> None:
    causes, stalls, _ = told
    back = threading.Event()

    def progress() -> object:
        if stalls == [True, False]:
            back.set()
        return len(stalls)

    watchdog = watching(Work(progress), told)
    assert back.wait(LONG_S)
    watchdog.stop()
    assert not causes


def test_it_beats_as_long_as_it_runs(told: tuple[list[str], list[bool], threading.Event]) -> None:
    beats, beats_to = os.pipe()
    watchdog = watching(Work(lambda: None), told, beats_to)
    assert os.read(beats, 1) == b"."
    watchdog.stop()
    os.close(beats_to)
    while os.read(beats, 100):
        pass
    os.close(beats)


def test_an_engine_says_which_call_does_not_go_on(
    engine: Engine, told: tuple[list[str], list[bool], threading.Event]
) -> None:
    causes, _, hung = told
    queue = engine.open_queue()
    done = threading.Event()
    queue.store.operations.append(Operation("Tensor.slow", lambda: hung.wait(LONG_S) and None))
    engine.start()
    watchdog = watching(engine, told)
    queue.submit(pb.Batch(seq=1, calls=[pb.Call()]), lambda reply: done.set())
    assert done.wait(LONG_S)
    watchdog.stop()
    engine.stop()
    assert causes[0].startswith("the engine hung in Tensor.slow for ")


def test_the_calls_of_a_program_are_seen_to_go_on(engine: Engine) -> None:
    store, seen = engine.open_store(), []
    store.operations.append(Operation("Tensor.slow", lambda: seen.append((engine.progress(), engine.at_work()))))
    message = pb.Program(calls=[pb.Call(), pb.Call(), pb.Call()])
    message.result.none.SetInParent()
    program = Program(store, message)
    engine.start()
    engine.run(lambda: whole(program.run(store, ()))).result(LONG_S)
    engine.stop()
    assert len({progress for progress, _ in seen}) == 3
    assert {work for _, work in seen} == {"Tensor.slow, a call of a program"}


def test_an_engine_that_is_within_a_call_does_not_keep_its_process_from_stopping(engine: Engine) -> None:
    queue = engine.open_queue()
    begun, over = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        over.wait(LONG_S)

    queue.store.operations.append(Operation("Tensor.slow", slow))
    engine.start()
    queue.submit(pb.Batch(seq=1, calls=[pb.Call()]), lambda reply: None)
    assert begun.wait(LONG_S)
    assert not engine.stop(0.01)
    assert engine.at_work() == "Tensor.slow"
    over.set()
    assert engine.stop(LONG_S)
