"""Results of many parts are told in pieces, and told and kept as they are in one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.batch_run import BatchRun
from tserver.engine.engine import Engine
from tserver.engine.executor import Executor
from tserver.engine.object_store import ObjectStore, Parts
from tserver.engine.operations import Operation
from tserver.engine.values import encode

RESULTS: dict[str, Any] = {
    "a tuple": torch.arange(1000.0).split(1),
    "a list of all kinds": [torch.ones(2), None, 1.5, (torch.ones(1), "text"), torch.ones(3, requires_grad=True)] * 100,
    "numbers": list(range(1000)),
}


def _run(engine: Engine, result: Any, call_id: int, deadline: float) -> tuple[ObjectStore, pb.BatchReply, int]:
    store = engine.open_queue().store
    store.operations.append(Operation("give", lambda: result))
    run = BatchRun(pb.Batch(seq=1, calls=[pb.Call(id=call_id), pb.Call(id=2)]))
    executor, turns = Executor(), 0
    while not executor.run(store, run, deadline):
        turns += 1
    return store, pb.BatchReply.FromString(run.encoded_reply()), turns


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_what_is_told_and_kept_is_what_it_would_be_in_one_piece(engine: Engine, result: Any) -> None:
    store, reply, turns = _run(engine, result, 1, 0.0)
    assert turns > 2 * len(result) // 128
    expected = pb.Value()
    encode(result, expected)
    assert [each.call_index for each in reply.results] == [0, 1]
    assert all(each.value == expected for each in reply.results)
    kept = Parts(result).by_path
    for call_id in (1, 2):
        held = store.objects.get(call_id, Parts(())).by_path
        assert held.keys() == kept.keys()
        assert all(held[path] is tensor for path, tensor in kept.items())


def test_of_what_nobody_keeps_nothing_is_told(engine: Engine) -> None:
    store, reply, _ = _run(engine, RESULTS["a tuple"], 0, float("inf"))
    assert 0 not in store.objects
    assert [each.call_index for each in reply.results] == [1]


def test_more_parts_than_a_reply_takes_are_an_error_before_all_are_described(
    engine: Engine,
) -> None:
    store = engine.open_queue().store
    store.reply_room = 4096
    store.operations.append(Operation("give", lambda: torch.ones(100_000).split(1)))
    run = BatchRun(pb.Batch(seq=1, calls=[pb.Call(id=1)]))
    executor, turns = Executor(), 0
    while not executor.run(store, run, 0.0):
        turns += 1
    assert turns < 5
    (told,) = pb.BatchReply.FromString(run.encoded_reply()).results
    assert told.error.reason == "REPLY_TOO_LARGE"
    assert "100000 parts" in told.error.message
