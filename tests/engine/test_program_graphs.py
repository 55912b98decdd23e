"""Which programs become CUDA graphs, when, and that their results are those of the calls. The CPU stands in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine import graph_capture, program_graphs
from tserver.engine.engine import Engine
from tserver.engine.object_store import ObjectStore
from tserver.engine.pieces import whole
from tserver.engine.program_graphs import ProgramGraphs, is_capturable
from tserver.engine.programs import Program
from tserver.engine.streams import StreamPair

CPU = torch.device("cpu")
PAIR = StreamPair(0, SimpleNamespace(device=CPU), None)


class Moment:
    """Stands in for an event with a time."""

    now_ms = 0.0
    is_done = True

    def __init__(self) -> None:
        self.at_ms = Moment.now_ms

    def query(self) -> bool:
        """Whether it has passed."""
        return Moment.is_done

    def elapsed_time(self, other: Moment) -> float:
        """The time between the two."""
        return other.at_ms - self.at_ms


class Device:
    """Runs graphs by calling the function again, and says how long calls and graphs take."""

    def __init__(self) -> None:
        self.captures = self.replays = self.runs = 0
        self.run_ms, self.replay_ms = 1000.0, 10.0
        self.failure: Exception | None = None

    def capture(
        self,
        function: Callable[..., Any],
        inputs: list[Tensor],
        pair: StreamPair,
        *,
        warm_up_runs: int,
        pool: Any = None,
    ) -> graph_capture.CapturedGraph:
        """Stand in for graph_capture.capture."""
        if self.failure is not None:
            raise self.failure
        self.captures += 1
        outputs = function(*inputs)
        self.runs -= 1

        def replay() -> None:
            self.replays += 1
            Moment.now_ms += self.replay_ms
            for old, new in zip(_tensors(outputs), _tensors(function(*inputs)), strict=True):
                old.copy_(new)
            self.runs -= 1
            Moment.now_ms -= self.run_ms

        return graph_capture.CapturedGraph(SimpleNamespace(replay=replay), inputs, outputs)

    def counted(self, run: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Any]], Any]:
        """A run that is counted, and takes its time."""

        def counted(inputs: Sequence[Any]) -> Any:
            self.runs += 1
            result = run(inputs)
            Moment.now_ms += self.run_ms
            return result

        return counted


def _tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [item for item in result if isinstance(item, Tensor)]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """The device that captures."""
    made = Device()
    monkeypatch.setattr(graph_capture, "capture", made.capture)
    monkeypatch.setattr(program_graphs, "_moment", Moment)
    monkeypatch.setattr(Moment, "is_done", True)
    return made


def scaled(inputs: Sequence[Any]) -> Any:
    """A program: one tensor and a number."""
    return torch.tanh(inputs[0] * inputs[1]) + 1


def many(graphs: ProgramGraphs, run: Callable[[Sequence[Any]], Any], times: int, *rest: Any) -> None:
    """Run it on ever new inputs, and check each result."""
    for _ in range(times):
        x = torch.randn(2, 3)
        result = graphs.run(run, [x, *rest], PAIR)
        assert torch.equal(result, scaled([x, *rest]))


def test_it_is_recorded_after_a_few_runs_and_replayed_from_then_on(device: Device) -> None:
    graphs = ProgramGraphs("a test")
    many(graphs, device.counted(scaled), 20, 2.0)
    assert (device.runs, device.captures, device.replays) == (3, 1, 17)


def test_a_result_is_not_written_by_the_next_replay(device: Device) -> None:
    graphs = ProgramGraphs("a test")
    many(graphs, device.counted(scaled), 4, 2.0)
    x, y = torch.ones(2, 3), torch.zeros(2, 3)
    first = graphs.run(device.counted(scaled), [x, 2.0], PAIR)
    graphs.run(device.counted(scaled), [y, 2.0], PAIR)
    assert torch.equal(first, scaled([x, 2.0]))


def test_a_graph_that_is_slower_is_given_up_for_good(device: Device) -> None:
    device.replay_ms = 2000.0
    graphs = ProgramGraphs("a test")
    many(graphs, device.counted(scaled), 20, 2.0)
    assert (device.captures, device.replays) == (1, 4)
    assert device.runs == 16


def test_it_is_not_waited_for_the_timings(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.replay_ms = 2000.0
    monkeypatch.setattr(Moment, "is_done", False)
    graphs = ProgramGraphs("a test")
    many(graphs, device.counted(scaled), 10, 2.0)
    assert device.replays == 7
    monkeypatch.setattr(Moment, "is_done", True)
    many(graphs, device.counted(scaled), 3, 2.0)
    assert device.replays == 8


def test_what_cannot_be_recorded_after_all_runs_call_by_call(device: Device) -> None:
    device.failure = RuntimeError("CUDA error: operation not permitted when stream is capturing")
    graphs = ProgramGraphs("a test")
    many(graphs, device.counted(scaled), 10, 2.0)
    assert (device.runs, device.replays) == (10, 0)


def test_a_device_that_is_lost_while_capturing_is_told(device: Device) -> None:
    device.failure = RuntimeError("CUDA error: device-side assert triggered")
    graphs = ProgramGraphs("a test")
    many(graphs, device.counted(scaled), 3, 2.0)
    with pytest.raises(RuntimeError, match="device-side assert"):
        graphs.run(device.counted(scaled), [torch.ones(2, 3), 2.0], PAIR)


def test_each_form_has_a_graph_and_there_are_few(device: Device) -> None:
    graphs = ProgramGraphs("a test")
    for number in (1, 1.0, True, 2, 3, 4):
        many(graphs, device.counted(scaled), 6, number)
    assert device.captures == 4


def test_there_are_few_graphs_in_all(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_graphs, "_MOST_GRAPHS", 0)
    many(ProgramGraphs("a test"), device.counted(scaled), 10, 2.0)
    assert device.captures == 0


def test_large_inputs_are_read_where_they_are(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_graphs, "_MOST_COPIED_BYTES", 0)
    graphs = ProgramGraphs("a test")
    x, other = torch.ones(2, 3), torch.zeros(2, 3)
    for step in range(8):
        x.fill_(step)
        assert torch.equal(graphs.run(device.counted(scaled), [x, 2.0], PAIR), scaled([x, 2.0]))
    assert device.replays == 5
    assert torch.equal(graphs.run(device.counted(scaled), [other, 2.0], PAIR), scaled([other, 2.0]))
    assert device.replays == 5


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(lambda inputs: inputs[0].t(), id="a view of an input"),
        pytest.param(lambda inputs: inputs[0], id="an input"),
        pytest.param(lambda inputs: (y := inputs[0] + 1, y[0]), id="two views of one"),
        pytest.param(lambda inputs: (inputs[0] + 1).expand(2, 2, 3), id="with gaps or overlaps"),
        pytest.param(lambda inputs: object(), id="no tensor"),
    ],
)
def test_results_that_a_copy_would_change_are_made_call_by_call(device: Device, run: Callable[..., Any]) -> None:
    graphs = ProgramGraphs("a test")
    for _ in range(6):
        graphs.run(run, [torch.ones(2, 3)], PAIR)
    assert device.captures == 0


def test_with_gradients_calls_are_run_one_by_one(device: Device) -> None:
    graphs = ProgramGraphs("a test")
    x = torch.ones(2, 3, requires_grad=True)
    for _ in range(6):
        assert graphs.run(scaled, [x, 2.0], PAIR).requires_grad
    assert device.captures == 0
    with torch.no_grad():
        for _ in range(6):
            assert not graphs.run(scaled, [x, 2.0], PAIR).requires_grad
    assert device.captures == 1


def test_under_autocast_calls_are_run_one_by_one(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: True)
    many(ProgramGraphs("a test"), device.counted(scaled), 10, 2.0)
    assert (device.captures, device.replays) == (0, 0)


def test_a_structure_comes_out_as_it_was(device: Device) -> None:
    graphs = ProgramGraphs("a test")
    for step in range(6):
        x = torch.full((2,), float(step))
        result = graphs.run(lambda inputs: (inputs[0] + 1, 7, inputs[0] * 2), [x], PAIR)
        assert torch.equal(result[0], x + 1)
        assert result[1] == 7
        assert torch.equal(result[2], x * 2)
    assert device.captures == 1


@pytest.mark.parametrize(
    ("name", "constants", "expected"),
    [
        ("Tensor.__add__", [1], True),
        ("nn.functional.linear", [], True),
        ("add", [torch.ones(2)], False),
        ("dropout", [0.5], False),
        ("Tensor.add_", [1], False),
        ("nonzero", [], False),
        ("Tensor.item", [], False),
        ("gather", [0], False),
    ],
)
def test_only_what_is_known_is_captured(name: str, constants: list[Any], expected: bool) -> None:
    assert is_capturable(name, constants) is expected


def program(store: ObjectStore, name: str, *rest: pb.Value, **kwargs: pb.Value) -> Program:
    """A program of one call."""
    store.define([name], [])
    call = pb.Call(id=3, operation=len(store.operations) - 1, args=[pb.Value(result=1), *rest])
    for key, value in kwargs.items():
        call.kwargs.add(name=key, value=value)
    return Program(store, pb.Program(inputs=2, calls=[call], result=pb.Value(result=3)))


TRUE, FALSE = pb.Value(boolean=True), pb.Value(boolean=False)


def test_a_program_is_for_graphs_where_every_call_is(engine: Engine) -> None:
    store = engine.open_queue().store
    assert program(store, "tanh")._graphs is None
    store.state.pair = PAIR
    assert program(store, "tanh")._graphs is not None
    assert program(store, "nn.functional.relu", inplace=FALSE)._graphs is not None
    assert program(store, "nn.functional.relu", inplace=TRUE)._graphs is None
    assert program(store, "nn.functional.relu", TRUE)._graphs is None
    assert program(store, "nn.functional.relu", pb.Value(result=2))._graphs is None
    assert program(store, "tanh", out=pb.Value(result=2))._graphs is None
    assert program(store, "bernoulli")._graphs is None
    assert program(store, "Tensor.tanh_")._graphs is None


def test_with_a_quota_calls_are_run_one_by_one(engine: Engine, device: Device) -> None:
    store = engine.open_queue().store
    store.state.pair, store.max_bytes = PAIR, 1 << 20
    store.limits_changed()
    kept = program(store, "tanh")
    for _ in range(6):
        whole(kept.run(store, [torch.ones(2), 0]))
    assert device.captures == 0
    store.max_bytes = 0
    store.limits_changed()
    for _ in range(6):
        assert torch.equal(kept.run(store, [torch.ones(2), 0]), torch.ones(2).tanh())
    assert device.captures == 1
