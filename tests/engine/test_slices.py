"""The engine takes sessions in turn, and gives memory back where the sequence says so."""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace

import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.batch_run import BatchRun
from tserver.engine.engine import Engine
from tserver.engine.executor import Executor
from tserver.engine.object_store import ObjectStore
from tserver.engine.operations import Operation
from tserver.engine.programs import Program


def test_a_long_batch_stops_at_the_deadline_and_goes_on_where_it_stopped(engine: Engine) -> None:
    store = engine.open_queue().store
    ran: list[int] = []
    store.operations.append(Operation("count", lambda: ran.append(len(ran))))
    under_way = BatchRun(pb.Batch(seq=1, calls=[pb.Call() for _ in range(5)]))
    executor = Executor()
    turns = 0
    while not executor.run(store, under_way, deadline=0.0):
        turns += 1
        assert len(ran) == turns
    assert ran == [0, 1, 2, 3, 4]


def test_a_result_that_is_let_go_within_a_batch_is_gone_before_the_next_call(engine: Engine) -> None:
    store = engine.open_queue().store
    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def make() -> torch.Tensor:
        tensor = torch.ones(3)
        made.append(weakref.ref(tensor))
        return tensor

    def count() -> None:
        alive.append(sum(reference() is not None for reference in made))

    store.operations += [Operation("make", make), Operation("count", count)]
    calls = [pb.Call(id=1), pb.Call(operation=1), pb.Call(id=2, frees=[1]), pb.Call(operation=1)]
    under_way = BatchRun(pb.Batch(seq=1, calls=calls, frees=[2]))
    assert Executor().run(store, under_way, float("inf"))
    assert alive == [1, 1]
    assert sum(reference() is not None for reference in made) == 0
    assert not pb.BatchReply.FromString(under_way.encoded_reply()).results


def _program(engine: Engine, count: int) -> tuple[ObjectStore, BatchRun, list[int]]:
    """A batch with a run of a program of so many calls, each of which writes its number down; and a call behind it."""
    store = engine.open_queue().store
    ran: list[int] = []
    store.operations += [
        Operation("count", lambda: ran.append(len(ran)), has_effect=True),
        replace(store.operation("tc.run"), has_effect=True),
    ]
    message = pb.Program(calls=[pb.Call() for _ in range(count)])
    message.result.none.SetInParent()
    store.objects[1] = Program(store, message)
    calls = [pb.Call(operation=1, args=[pb.Value(result=1)]), pb.Call()]
    return store, BatchRun(pb.Batch(seq=1, calls=calls)), ran


def test_a_program_stops_at_the_deadline_between_two_of_its_calls(engine: Engine) -> None:
    store, under_way, ran = _program(engine, 5)
    executor = Executor()
    turns = 0
    while not executor.run(store, under_way, deadline=0.0):
        turns += 1
        assert len(ran) == turns
    assert ran == [0, 1, 2, 3, 4, 5]
    assert not pb.BatchReply.FromString(under_way.encoded_reply()).results


def test_a_program_that_is_cancelled_ends_at_its_next_call(engine: Engine) -> None:
    store, under_way, ran = _program(engine, 5)
    executor = Executor()
    assert not executor.run(store, under_way, deadline=0.0)
    assert not executor.run(store, under_way, deadline=0.0)
    under_way.refusal = pb.Error(type="CallCancelled", reason="CANCELLED")
    assert executor.run(store, under_way, float("inf"))
    assert ran == [0, 1]
    told = pb.BatchReply.FromString(under_way.encoded_reply()).results
    assert [(each.call_index, each.error.reason, each.lost_effect) for each in told] == [
        (0, "CANCELLED", True),
        (1, "CANCELLED", True),
    ]


def test_a_short_batch_overtakes_a_long_one_of_another_session(engine: Engine) -> None:
    order: list[str] = []
    long, short = engine.open_queue(), engine.open_queue()
    begun, both = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        both.wait(10.0)
        torch.ones(300, 300) @ torch.ones(300, 300)

    long.store.operations.append(Operation("slow", slow))
    done = threading.Semaphore(0)

    def finished(name: str) -> None:
        order.append(name)
        done.release()

    long.submit(pb.Batch(seq=1, calls=[pb.Call() for _ in range(2000)]), lambda reply: finished("long"))
    engine.start()
    assert begun.wait(10.0)
    short.store.operations.append(Operation("quick", lambda: None))
    short.submit(pb.Batch(seq=1, calls=[pb.Call()]), lambda reply: finished("short"))
    both.set()
    assert done.acquire(timeout=60.0)
    assert done.acquire(timeout=60.0)
    engine.stop()
    assert order == ["short", "long"]


def test_a_defect_of_ours_costs_one_batch_and_not_the_server(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = engine.open_queue()
    told: list[pb.BatchReply] = []
    done = threading.Semaphore(0)

    def finished(reply: bytes) -> None:
        told.append(pb.BatchReply.FromString(reply))
        done.release()

    def broken(*args: object) -> None:
        raise AssertionError("a defect")

    monkeypatch.setattr(Executor, "_tell_made", broken)
    queue.submit(pb.Batch(seq=1), finished)
    engine.start()
    assert done.acquire(timeout=10.0)
    monkeypatch.undo()
    queue.submit(pb.Batch(seq=2), finished)
    assert done.acquire(timeout=10.0)
    engine.stop()
    assert [result.error.reason for result in told[0].results] == ["INTERNAL"]
    assert not told[1].results
