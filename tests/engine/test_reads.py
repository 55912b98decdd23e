"""Reads from a device that works by itself are answered when the elements have come, and hold up nobody."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine import inspect
from tserver.engine.engine import Engine
from tserver.engine.object_store import ObjectStore, Staged
from tserver.engine.pieces import whole
from tserver.engine.programs import keep_program, run_program
from tserver.engine.session_queue import SessionQueue

from .apart import Device

HELD = torch.tensor([[1.5, -2.0], [0.0, 4.0]])


class Caller:
    """Sends batches to a queue and takes its replies."""

    def __init__(self, engine: Engine) -> None:
        self.queue: SessionQueue = engine.open_queue()
        self.replies: queue.SimpleQueue[pb.BatchReply] = queue.SimpleQueue()
        self._seq = 0

    def hold(self, call_id: int, tensor: torch.Tensor) -> None:
        """Put a tensor among what the session holds."""
        self.queue.run(lambda store: store.objects.__setitem__(call_id, tensor)).result(10.0)

    def send(self, *names: str, on: int = 1, args: list[pb.Value] | None = None) -> int:
        """Send a batch of calls on a tensor; its number."""
        self._seq += 1
        batch = pb.Batch(seq=self._seq, define_operations=names)
        self.queue.run(lambda store: None).result(10.0)
        first = len(self.queue.store.operations)
        for index in range(len(names)):
            batch.calls.add(operation=first + index, args=[pb.Value(result=on), *(args or [])])
        self.queue.submit(batch, lambda reply: self.replies.put(pb.BatchReply.FromString(reply)))
        return self._seq

    def reply(self) -> pb.BatchReply:
        """The next reply."""
        return self.replies.get(timeout=10.0)

    def has_none(self) -> bool:
        """Whether no reply came, though the engine has done all it was given."""
        self.queue.run(lambda store: None).result(10.0)
        time.sleep(0.02)
        return self.replies.empty()


@pytest.fixture
def caller(apart: Engine) -> Caller:
    """A session that holds a tensor as 1."""
    made = Caller(apart)
    made.hold(1, HELD.clone())
    return made


def test_a_read_is_answered_when_its_elements_have_come(caller: Caller, device: Device) -> None:
    caller.send("tc.read")
    assert caller.has_none()
    device.events[0].passed.set()
    data = caller.reply().results[0].value.data
    assert (list(data.shape), data.data) == ([2, 2], HELD.numpy().tobytes())


def test_a_read_sees_the_elements_of_its_place_in_the_line(caller: Caller, device: Device) -> None:
    caller.send("tc.read", "Tensor.zero_", "tc.read")
    assert caller.has_none()
    for event in device.events:
        event.passed.set()
    told = {result.call_index: result.value.data.data for result in caller.reply().results}
    assert told[0] == HELD.numpy().tobytes()
    assert told[2] == bytes(16)


def test_replies_of_one_session_keep_their_order(caller: Caller, device: Device) -> None:
    first = caller.send("tc.read")
    second = caller.send("Tensor.dim")
    third = caller.send("tc.numpy")
    assert caller.has_none()
    # The later copy is done first.
    device.events[1].passed.set()
    assert caller.has_none()
    device.events[0].passed.set()
    assert [caller.reply().seq for _ in range(3)] == [first, second, third]
    assert caller.send("Tensor.dim") == caller.reply().seq


def test_other_sessions_and_later_calls_go_on_while_one_waits(caller: Caller, apart: Engine, device: Device) -> None:
    other = Caller(apart)
    other.hold(1, torch.ones(3))
    caller.send("tc.read")
    caller.send("Tensor.add_", args=[pb.Value(integer=1)])
    assert other.send("Tensor.dim") == other.reply().seq
    assert caller.has_none()
    assert caller.queue.run(lambda store: float(store.objects[1][0, 0])).result(10.0) == 2.5


def test_a_failure_while_a_read_waits_ends_the_process(
    caller: Caller, device: Device, monkeypatch: pytest.MonkeyPatch, apart: Engine
) -> None:
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    monkeypatch.setattr(apart.completions, "_on_fatal", told.put)
    caller.send("tc.read")
    assert caller.has_none()
    device.events[0].failure = RuntimeError("CUDA error: an illegal memory access was encountered")
    device.events[0].passed.set()
    assert told.get(timeout=10.0) == "the device failed: CUDA error: an illegal memory access was encountered"
    assert caller.has_none()


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        ("Tensor.item", torch.tensor(2.5), pb.Value(number=2.5)),
        ("Tensor.item", torch.tensor([[3]]), pb.Value(integer=3)),
        ("Tensor.item", torch.tensor(True), pb.Value(boolean=True)),
        ("Tensor.item", torch.tensor(1 - 2j), pb.Value(complex=pb.Complex(real=1, imag=-2))),
        ("Tensor.__float__", torch.tensor(3), pb.Value(number=3.0)),
        ("Tensor.__int__", torch.tensor(True), pb.Value(integer=1)),
        ("Tensor.__bool__", torch.tensor(0.0), pb.Value(boolean=False)),
        ("Tensor.__index__", torch.tensor(5), pb.Value(integer=5)),
        ("is_nonzero", torch.tensor([4.0]), pb.Value(boolean=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_number_comes_later_and_as_ever(
    caller: Caller, device: Device, name: str, tensor: torch.Tensor, expected: pb.Value
) -> None:
    caller.hold(3, tensor)
    caller.send(name, on=3)
    assert caller.has_none()
    assert len(device.events) == 1
    device.events[0].passed.set()
    assert caller.reply().results[0].value == expected


def test_a_list_comes_later_and_as_ever(caller: Caller, device: Device) -> None:
    device.is_quick = True
    caller.send("Tensor.tolist")
    rows = caller.reply().results[0].value.list.items
    assert [[item.number for item in row.list.items] for row in rows] == HELD.tolist()
    assert len(device.events) == 1


@pytest.mark.parametrize(
    ("other", "copies"),
    [(HELD.clone(), 1), (HELD + 1, 1), (HELD.double(), 0), (HELD[0], 0)],
    ids=["alike", "unlike", "another dtype", "another shape"],
)
def test_equal_looks_later_where_it_has_to_look(
    caller: Caller, device: Device, other: torch.Tensor, copies: int
) -> None:
    device.is_quick = True
    caller.hold(4, other)
    caller.send("equal", args=[pb.Value(result=4)])
    assert caller.reply().results[0].value == pb.Value(boolean=torch.equal(HELD, other))
    assert len(device.events) == copies


def test_a_tensor_equals_itself_without_a_look(caller: Caller, device: Device) -> None:
    caller.send("equal", args=[pb.Value(result=1)])
    assert caller.reply().results[0].value == pb.Value(boolean=True)
    assert not device.events


def test_allclose_looks_later(caller: Caller, device: Device) -> None:
    device.is_quick = True
    caller.hold(4, HELD * (1 + 1e-6))
    caller.send("allclose", args=[pb.Value(result=4)])
    assert caller.reply().results[0].value == pb.Value(boolean=True)
    assert len(device.events) == 1


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("Tensor.item", torch.ones(2)),
        ("Tensor.__bool__", torch.ones(2)),
        ("Tensor.__int__", torch.tensor(float("nan"))),
        ("Tensor.__index__", torch.tensor(1.0)),
        ("Tensor.__float__", torch.tensor(1j)),
        ("tc.numpy", torch.ones(2, requires_grad=True)),
        ("tc.numpy", torch.ones(2, dtype=torch.bfloat16)),
        ("tc.numpy", torch.ones(2, dtype=torch.complex64).conj()),
    ],
)
def test_what_torch_refuses_it_refuses_in_its_own_words(
    caller: Caller, device: Device, name: str, tensor: torch.Tensor
) -> None:
    function: Callable[..., Any] = torch.Tensor.numpy if name == "tc.numpy" else getattr(torch.Tensor, name[7:])
    with pytest.raises(Exception) as refused:  # noqa: PT011 - whatever it is
        function(tensor)
    caller.hold(5, tensor)
    caller.send(name, on=5)
    error = caller.reply().results[0].error
    assert (error.type, error.message) == (type(refused.value).__name__, str(refused.value))
    assert not device.events


def test_the_room_of_a_reply_is_taken_when_a_read_is_issued(caller: Caller, device: Device) -> None:
    caller.hold(6, torch.zeros(200_000, dtype=torch.uint8))
    names = ["tc.read"] * 100
    caller.send(*names, on=6)
    caller.has_none()
    for event in device.events:
        event.passed.set()
    results = caller.reply().results
    # What finds no room in the reply is staged for a download, as ever.
    assert len(results) == 83
    assert all(len(result.value.data.data) == 200_000 for result in results)


def test_a_list_that_no_reply_can_take_is_refused(caller: Caller, device: Device) -> None:
    caller.hold(6, torch.zeros(10_000_000))
    caller.send("Tensor.tolist", on=6)
    assert caller.reply().results[0].error.reason == "REPLY_TOO_LARGE"


def test_a_staged_copy_is_handed_out_when_it_is_there(caller: Caller, device: Device) -> None:
    future = caller.queue.run(lambda store: inspect.staged(store, pb.Ref(id=1)))
    assert caller.has_none()
    assert not future.done()
    device.events[0].passed.set()
    staged: Staged = future.result(10.0)
    assert bytes(staged.data) == HELD.numpy().tobytes()


def test_a_read_within_a_program_is_made_at_once(caller: Caller, device: Device) -> None:
    caller.send("Tensor.item")

    def keep(store: ObjectStore) -> object:
        message = pb.Program(inputs=1, result=pb.Value(result=2))
        message.calls.add(id=2, args=[pb.Value(result=1)])
        return whole(run_program(store, keep_program(store, message), torch.tensor(2.5)))

    assert caller.queue.run(keep).result(10.0) == 2.5
    assert not device.events


def test_all_that_was_read_is_answered_before_the_engine_has_stopped(apart: Engine, device: Device) -> None:
    caller = Caller(apart)
    caller.hold(1, HELD)
    caller.send("tc.read")
    assert caller.has_none()
    threading.Timer(0.05, device.events[0].passed.set).start()
    apart.stop()
    assert caller.reply().seq == 1


def test_on_a_cpu_reads_are_answered_at_once(engine: Engine) -> None:
    engine.start()
    caller = Caller(engine)
    caller.hold(1, HELD)
    caller.send("tc.read", "Tensor.tolist")
    assert len(caller.reply().results) == 2
    assert engine.operations.get("Tensor.item").at_once is None
    engine.stop()
