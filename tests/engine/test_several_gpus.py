"""A session that names several GPUs, before the real services in one process. Stand-ins take the place of the GPUs.

The oracle is torch on the same stand-ins.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tclient
from tclient._session.session import Session
from tensorcompute.v1 import tensor_pb2 as pb
from tests.support.in_memory import serving_in_memory
from tests.support.serving import server_environment
from tserver.config import Config
from tserver.engine import graph_capture, program_graphs
from tserver.engine.batch_run import BatchRun
from tserver.engine.engine import Engine
from tserver.engine.executor import Executor
from tserver.engine.graph_capture import CapturedGraph
from tserver.engine.models.runner import ModelRunner
from tserver.engine.object_store import ObjectStore
from tserver.engine.programs import Program
from tserver.engine.streams import StreamPair
from tserver.errors import InvalidArgument
from tserver.visible_gpus import show_own_gpus

from .gpus import GIB, NO_SUCH, Gpus


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """Two of them."""
    made = Gpus(2)
    made.install(monkeypatch)
    made.serve(monkeypatch)
    return made


@pytest.fixture
def session(gpus: Gpus) -> Iterator[Session]:
    """A session that may use both."""
    with (
        serving_in_memory(Config(device="cuda", devices_per_engine=2)) as channel,
        Session.open("127.0.0.1:1", transport=channel) as session,
    ):
        yield session


def as_torch_does(gpus: Gpus, program: Callable[[Any], Any]) -> Any:
    """What a program gives with torch, whose new tensors go to the GPU."""
    try:
        with gpus.tensors():
            torch.set_default_device("cuda")
            return program(torch)
    except Exception as error:
        return error
    finally:
        torch.set_default_device(None)
        gpus.current = 0


def here(program: Callable[[Any], Any]) -> Any:
    """What it gives with the client."""
    try:
        return program(tclient)
    except Exception as error:
        return error
    finally:
        tclient.set_default_device(None)
        tclient.cuda.set_device(0)


def within(place: Callable[[Any], Any], make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A program that makes something within a context."""

    def program(m: Any) -> Any:
        with place(m):
            return make(m)

    return program


def then(first: Callable[[Any], Any], make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A program that makes something after a change."""

    def program(m: Any) -> Any:
        first(m)
        return make(m)

    return program


ON_1: Callable[[Any], Any] = lambda m: m.cuda.device(1)  # noqa: E731
PROGRAMS = {
    "by default": lambda m: m.ones(2),
    "by name": lambda m: m.ones(2, device="cuda:1"),
    "by device": lambda m: m.zeros(2, device=m.device("cuda", 1)),
    "without a number": lambda m: m.ones(2, device="cuda"),
    "to": lambda m: m.ones(2).to("cuda:1"),
    "to a number": lambda m: m.ones(2).to(1),
    "and back": lambda m: m.ones(2, device="cuda:1").to("cuda:0"),
    "to the host": lambda m: m.ones(2, device="cuda:1").cpu(),
    "cuda": lambda m: m.ones(2, device="cpu").cuda(1),
    "cuda without a number": lambda m: m.ones(2, device="cpu").cuda(),
    "what is made of it": lambda m: m.ones(2, device="cuda:1") * 2 + 1,
    "what is made like it": lambda m: m.rand_like(m.ones(2, device="cuda:1")),
    "with a number on the host": lambda m: m.ones(2, device="cuda:1") + m.tensor(2.0, device="cpu"),
    "of another tensor": lambda m: m.ones(2).type_as(m.ones(2, device="cuda:1")),
    "the current one": within(ON_1, lambda m: m.ones(2, device="cuda")),
    "the current one by default": within(ON_1, lambda m: m.ones(2)),
    "the current one, moved": within(ON_1, lambda m: m.ones(2, device="cpu").cuda()),
    "the current one, moved by name": within(ON_1, lambda m: m.ones(2, device="cpu").to("cuda")),
    "another than the current one": within(ON_1, lambda m: m.ones(2, device="cuda:0")),
    "the host for default": within(ON_1, within(lambda m: m.device("cpu"), lambda m: m.ones(2))),
    "a default with a number": then(lambda m: m.set_default_device("cuda:0"), within(ON_1, lambda m: m.ones(2))),
    "behind it": then(within(ON_1, lambda m: m.ones(2)), lambda m: m.ones(2)),
    "within another": within(ON_1, within(lambda m: m.cuda.device(0), lambda m: m.ones(2))),
    "within none": within(ON_1, within(lambda m: m.cuda.device(-1), lambda m: m.ones(2))),
    "without gradients": within(ON_1, within(lambda m: m.no_grad(), lambda m: m.ones(2))),
    "set": then(lambda m: m.cuda.set_device(1), lambda m: m.ones(2)),
    "set by name": then(lambda m: m.cuda.set_device("cuda:1"), lambda m: m.rand(2)),
    "set and back": then(lambda m: (m.cuda.set_device(1), m.cuda.set_device(0)), lambda m: m.ones(2)),
    "a stream": within(lambda m: m.cuda.stream(m.cuda.Stream(1)), lambda m: m.ones(2)),
}


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_tensor_is_where_torch_has_it(gpus: Gpus, program: Callable[[Any], Any]) -> None:
    expected = as_torch_does(gpus, program)
    got = here(program)
    assert (str(got.device), tuple(got.shape), str(got.dtype)) == (
        str(expected.device),
        tuple(expected.shape),
        str(expected.dtype),
    )


# torch makes these in ways that the stand-ins do not have.
ON_THE_SECOND = {
    "of elements": lambda m: m.tensor([1.0, 2.0], device="cuda:1"),
    "the current one of elements": within(ON_1, lambda m: m.tensor([1, 2])),
    "by number": lambda m: m.ones(2, device=m.device(1)),
    "an old constructor": within(ON_1, lambda m: m.Tensor(2)),
}


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("program", ON_THE_SECOND.values(), ids=ON_THE_SECOND.keys())
def test_what_is_made_elsewhere_is_on_the_gpu_that_was_named(program: Callable[[Any], Any]) -> None:
    assert str(here(program).device) == "cuda:1"


@pytest.mark.usefixtures("session")
def test_the_default_device_is_the_current_gpu() -> None:
    assert str(tclient.get_default_device()) == "cuda:0"
    with tclient.cuda.device(1):
        assert str(tclient.get_default_device()) == "cuda:1"
        with tclient.device("cuda"):
            assert str(tclient.get_default_device()) == "cuda:1"
        with tclient.device("cpu"):
            assert str(tclient.get_default_device()) == "cpu"


LOOKS = {
    "count": lambda m: m.cuda.device_count(),
    "current": lambda m: m.cuda.current_device(),
    "current within": within(ON_1, lambda m: m.cuda.current_device()),
    "current behind": then(within(ON_1, lambda m: None), lambda m: m.cuda.current_device()),
    "name": lambda m: m.cuda.get_device_name(1),
    "name of the current one": within(ON_1, lambda m: m.cuda.get_device_name()),
    "memory in use": lambda m: m.cuda.memory_allocated(1),
    "memory in use by name": lambda m: m.cuda.memory_allocated("cuda:0"),
    "memory": lambda m: m.cuda.mem_get_info(1),
    "number of a tensor's": lambda m: m.ones(1, device="cuda:1").get_device(),
    "wait": lambda m: m.cuda.synchronize(1),
    "set below 0": then(lambda m: m.cuda.set_device(-1), lambda m: m.cuda.current_device()),
    "of a stream": lambda m: m.cuda.Stream(1).device,
}


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("program", LOOKS.values(), ids=LOOKS.keys())
def test_torch_cuda_tells_of_each(gpus: Gpus, monkeypatch: pytest.MonkeyPatch, program: Callable[[Any], Any]) -> None:
    gpus.free[1] = 5 * GIB
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    expected, got = as_torch_does(gpus, program), here(program)
    assert str(got) == str(expected)
    assert not isinstance(got, Exception)


REFUSALS = {
    "sum": lambda m: m.ones(2) + m.ones(2, device="cuda:1"),
    "product": lambda m: m.ones(2, 2, device="cuda:1") @ m.ones(2, 2),
    "one after the other": lambda m: m.cat([m.ones(2), m.ones(2, device="cuda:1")]),
    "in place": lambda m: m.ones(2, device="cuda:1").add_(m.ones(2)),
    "a layer": lambda m: m.nn.functional.linear(m.ones(1, 2), m.ones(3, 2, device="cuda:1")),
    "with the host": lambda m: m.ones(2, device="cuda:1") + m.ones(2, device="cpu"),
}


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("program", REFUSALS.values(), ids=REFUSALS.keys())
def test_operands_of_two_gpus_are_refused_as_by_torch(gpus: Gpus, program: Callable[[Any], Any]) -> None:
    expected = as_torch_does(gpus, program)
    assert isinstance(expected, RuntimeError), expected
    got = here(lambda m: (program(m).shape, m.synchronize()))
    assert isinstance(got, RuntimeError)
    assert str(got) == str(expected)
    assert tclient.ones(2, device="cuda:1").shape == (2,)


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    "program",
    [
        lambda m: m.cuda.set_device(2),
        lambda m: m.cuda.device(5).__enter__(),
        lambda m: m.cuda.synchronize(2),
        lambda m: m.cuda.mem_get_info(2),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_in_torchs_words(program: Callable[[Any], Any]) -> None:
    got = here(program)
    assert isinstance(got, tclient.AcceleratorError)
    assert str(got) == NO_SUCH
    assert tclient.cuda.current_device() == 0


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    ("program", "kind", "text"),
    [
        (lambda m: m.cuda.get_device_name(2), AssertionError, "Invalid device id"),
        (lambda m: m.cuda.memory_allocated(2), RuntimeError, "Invalid device argument 2: did you call init?"),
        (lambda m: m.cuda.set_device("cpu"), ValueError, "Expected a cuda device, but got: cpu"),
        (
            lambda m: m.cuda.set_device("cuda"),
            ValueError,
            "Expected a torch.device with a specified index or an integer, but got:cuda",
        ),
        (lambda m: m.cuda.get_rng_state(2), IndexError, "tuple index out of range"),
    ],
)
def test_torch_cuda_refuses_what_names_no_gpu(program: Callable[[Any], Any], kind: type[Exception], text: str) -> None:
    got = here(lambda m: str(program(m)))
    assert isinstance(got, kind)
    assert str(got) == text


# ---- random numbers --------------------------------------------------------------------------------------------------


def seeds(m: Any) -> list[int]:
    """The seed of each GPU."""
    found = []
    for index in range(2):
        with m.cuda.device(index):
            found.append(m.cuda.initial_seed())
    return found


SEEDED = {
    "all": lambda m: m.manual_seed(7),
    "all by cuda": lambda m: m.cuda.manual_seed_all(8),
    "the current one": then(lambda m: m.manual_seed(1), lambda m: m.cuda.manual_seed(9)),
    "the other": then(lambda m: m.manual_seed(1), within(ON_1, lambda m: m.cuda.manual_seed(10))),
    "by its state": then(
        lambda m: (m.manual_seed(3), m.cuda.manual_seed(4)),
        lambda m: m.cuda.set_rng_state(m.cuda.get_rng_state(0), 1),
    ),
    "by all states": then(
        lambda m: (m.manual_seed(3), m.cuda.manual_seed(4)),
        lambda m: m.cuda.set_rng_state_all(m.cuda.get_rng_state_all()[::-1]),
    ),
    "by a generator": then(lambda m: m.manual_seed(3), lambda m: m.cuda.default_generators[1].manual_seed(5)),
}


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("program", SEEDED.values(), ids=SEEDED.keys())
def test_each_gpu_has_a_generator_of_its_own(gpus: Gpus, program: Callable[[Any], Any]) -> None:
    def run(m: Any) -> list[int]:
        program(m)
        return seeds(m)

    torch.manual_seed(0)
    expected = run(torch)
    gpus.current = 0
    assert run(tclient) == expected


def test_sessions_have_generators_of_their_own(gpus: Gpus) -> None:
    with (
        serving_in_memory(Config(device="cuda", devices_per_engine=2)) as channel,
        Session.open("127.0.0.1:1", transport=channel) as one,
        Session.open("127.0.0.1:1", transport=channel) as other,
    ):
        with one.use():
            tclient.manual_seed(1)
            with tclient.cuda.device(1):
                tclient.cuda.manual_seed(2)
        with other.use():
            tclient.manual_seed(3)
            assert seeds(tclient) == [3, 3]
        with one.use():
            assert seeds(tclient) == [1, 2]


def test_random_numbers_are_as_before_behind_a_fork_of_them(session: Session) -> None:
    tclient.manual_seed(5)
    with tclient.random.fork_rng():
        tclient.manual_seed(6)
        assert seeds(tclient) == [6, 6]
    assert seeds(tclient) == [5, 5]
    with tclient.random.fork_rng(devices=[1]):
        tclient.manual_seed(6)
    assert seeds(tclient) == [6, 5]


# ---- what a session is told ------------------------------------------------------------------------------------------


def test_a_client_is_told_of_all(session: Session) -> None:
    assert [each.name for each in session.opened.devices] == ["cuda:0", "cuda:1", "cpu"]
    assert session.opened.default_device == "cuda:0"
    assert [each.name for each in tclient.server_info().devices] == ["cuda:0", "cuda:1", "cpu"]


@pytest.mark.usefixtures("session")
def test_memory_that_is_not_there_is_refused_by_the_name_of_the_gpu(gpus: Gpus) -> None:
    gpus.free[1] = 1 * GIB
    assert tclient.zeros(1 << 29).shape == (1 << 29,)
    for place in ("cuda:1", "cuda"):
        with tclient.cuda.device(1), pytest.raises(tclient.OutOfMemoryError, match=r"cuda:1 has 1073741824 bytes free"):
            tclient.zeros(1 << 29, device=place).sum().item()


def test_each_gpu_has_a_quota(gpus: Gpus) -> None:
    mebibyte = 1 << 18
    with (
        serving_in_memory(Config(device="cuda", devices_per_engine=2, max_session_bytes=3 << 20)) as channel,
        Session.open("127.0.0.1:1", transport=channel),
    ):
        held = [tclient.ones(2 * mebibyte), tclient.ones(2 * mebibyte, device="cuda:1")]
        assert [each.shape for each in held] == [(2 * mebibyte,)] * 2
        with pytest.raises(tclient.OutOfMemoryError, match="would hold 4194304 bytes on cuda:1, but may hold 3145728"):
            print(held[1] + 1)
        with pytest.raises(tclient.OutOfMemoryError, match="would hold 4194304 bytes, but may hold 3145728"):
            print(held[0] + 1)
        del held[1]
        assert (tclient.ones(2 * mebibyte, device="cuda:1")).shape == (2 * mebibyte,)


# ---- streams ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def engine(gpus: Gpus) -> Engine:
    """An engine that holds both, and is not started: its queues are run by hand."""
    return Engine(Config(device="cuda", devices_per_engine=2), on_fatal=pytest.fail)


def loaded(engine: Engine) -> ObjectStore:
    """The store of a session whose state is in force."""
    store = engine.open_queue().store
    store.state.load()
    return store


def test_a_session_has_a_stream_of_its_own_on_each_gpu(gpus: Gpus, engine: Engine) -> None:
    for one, other in itertools.pairwise(loaded(engine) for _ in range(3)):
        for store in (one, other, one):
            store.state.load()
            assert len({pair.index for pair in pairs(store)}) == 1
            assert gpus.of == [pair.work for pair in pairs(store)]
            assert [str(stream.device) for stream in gpus.of] == ["cuda:0", "cuda:1"]
            assert gpus.current == 0
        assert not {*map(id, taken(one))} & {*map(id, taken(other))}


def pairs(store: ObjectStore) -> list[StreamPair]:
    """The pair of each GPU."""
    assert store.state.pair is not None
    return [store.state.pair, *store.state.others]


def taken(store: ObjectStore) -> list[Any]:
    """All streams of a session."""
    return [stream for pair in pairs(store) for stream in (pair.work, pair.capture)]


def calls(store: ObjectStore, *given: tuple[str, list[pb.Value], dict[str, pb.Value]], gpu: int | None = None) -> Any:
    """Run calls, whose ids are 1, 2 and so on, with that GPU as the current one; what of them is told later."""
    batch = pb.Batch(seq=1, define_operations=[name for name, _, _ in given])
    if gpu is not None:
        batch.define_contexts.add(cuda_device=gpu)
    store.define(batch.define_operations, batch.define_contexts)
    for index, (_, args, kwargs) in enumerate(given):
        call = batch.calls.add(id=index + 1, operation=index, args=args, context=0 if gpu is None else 1)
        for name, value in kwargs.items():
            call.kwargs.add(name=name, value=value)
    under_way = BatchRun(batch)
    executor = Executor()
    assert executor.run(store, under_way, float("inf"))
    executor.leave_mode()
    return under_way.deferred


SIZE, ONE = pb.Value(size=pb.Size(dims=[2, 3])), pb.Value(size=pb.Size(dims=[1]))


def on(place: str) -> dict[str, pb.Value]:
    """As a keyword argument."""
    return {"device": pb.Value(device=place)}


def test_a_read_waits_for_the_gpu_where_the_tensor_is(gpus: Gpus, engine: Engine) -> None:
    store = loaded(engine)
    with gpus.tensors():
        deferred = calls(
            store,
            ("ones", [ONE], on("cuda:1")),
            ("ones", [ONE], on("cuda:0")),
            ("Tensor.item", [pb.Value(result=1)], {}),
            ("Tensor.item", [pb.Value(result=2)], {}),
            ("tc.gpu_synchronize", [pb.Value(integer=1)], {}),
        )
    streams = [result.arrival._event.stream for _, _, _, result in deferred]
    assert streams == [gpus.of[1], gpus.of[0], gpus.of[1]]
    deferred[-1][-1].arrival.wait()
    assert [event.was_waited_for.is_set() for event in gpus.events] == [False, False, True]
    assert deferred[-1][-1].value() is True


def test_another_current_gpu_lasts_as_long_as_the_calls_that_ask_for_it(gpus: Gpus, engine: Engine) -> None:
    store = loaded(engine)
    with gpus.tensors():
        calls(store, ("ones", [SIZE], {}), gpu=1)
        assert str(store.objects[1].device) == "cuda:1"
        assert gpus.current == 0
    other = loaded(engine)
    with gpus.tensors():
        calls(other, ("ones", [SIZE], {}))
    assert str(other.objects[1].device) == "cuda:0"


def test_a_current_gpu_that_is_not_there_fails_the_calls_that_ask_for_it(engine: Engine) -> None:
    store = loaded(engine)
    store.define([], [pb.Context(cuda_device=2)])
    with pytest.raises(InvalidArgument, match="cuda:2 is to be the current GPU; there are 2 here"):
        store.mode(1)


def test_a_backward_that_is_suspended_runs_where_the_session_does(gpus: Gpus, engine: Engine) -> None:
    store = loaded(engine)
    own = list(gpus.of)
    loaded(engine)
    seen: list[Any] = []
    with gpus.device(1):
        engine._pass_threads.begin(lambda: seen.extend((*gpus.of, gpus.current)), store.state.enter_streams)
    assert seen == [*own, 1]
    engine._pass_threads.stop()


# ---- graphs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["cuda:0", "cuda:1"])
def test_a_program_is_a_graph_of_the_gpu_where_its_tensors_are(
    gpus: Gpus, engine: Engine, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    captured: list[tuple[str, int]] = []

    def capture(function: Callable[..., Any], inputs: list[Any], pair: StreamPair, **_: Any) -> CapturedGraph:
        captured.append((str(pair.work.device), gpus.current))
        return CapturedGraph(SimpleNamespace(replay=lambda: None), inputs, function(*inputs))

    monkeypatch.setattr(graph_capture, "capture", capture)
    # The stand-ins have no elements to copy, no memory that could be shared, and no times.
    monkeypatch.setattr(program_graphs, "_is_copied", lambda tensor: False)
    monkeypatch.setattr(torch.Tensor, "data_ptr", lambda tensor: 0)
    monkeypatch.setattr(program_graphs, "_is_self_contained", lambda result, inputs: True)
    monkeypatch.setattr(program_graphs, "_Timing", lambda: SimpleNamespace(end=lambda: None, is_known=lambda: False))
    store = loaded(engine)
    store.define(["add"], [])
    call = pb.Call(id=3, operation=0, args=[pb.Value(result=1), pb.Value(result=2)])
    program = Program(store, pb.Program(inputs=2, calls=[call], result=pb.Value(result=3)))
    with gpus.tensors():
        x, host = torch.ones(2, device=place), torch.ones(())
        elsewhere = torch.ones(2, device="cuda:1" if place == "cuda:0" else "cuda:0")
        for _ in range(6):
            with pytest.raises(RuntimeError, match="found at least two devices, cuda:0 and cuda:1"):
                program.run(store, [torch.ones(2, device="cuda:0"), torch.ones(2, device="cuda:1")])
            assert str(program.run(store, [x, host]).device) == place
        assert captured == []
        for _ in range(6):
            assert str(program.run(store, [x, x]).device) == place
        assert captured == [(place, int(place[-1]))]
        # Another GPU's tensors of the same form are another graph's.
        for _ in range(3):
            assert program.run(store, [elsewhere, elsewhere]).device == elsewhere.device
        assert len(captured) == 1
    assert gpus.current == 0


# ---- models ----------------------------------------------------------------------------------------------------------


def test_a_model_runs_on_its_own_gpu_whichever_is_current(gpus: Gpus, engine: Engine) -> None:
    store, seen = loaded(engine), []

    class Network:
        device = torch.device("cuda:0")
        flops_per_row = 1
        is_batched = False
        made = None
        inputs = ()

        def tensors(self) -> list[Any]:
            return []

        def run(self, inputs: Any) -> Any:
            seen.append(gpus.current)
            return inputs

    network: Any = Network()
    runner = ModelRunner(network, 4, engine)
    with gpus.tensors(), gpus.device(1):
        runner.run_now([torch.ones(1, 2, device="cuda:0")], 1, store.state.pair)
        assert gpus.current == 1
    assert seen == [0]


def test_models_have_no_gpu_but_the_engines_own(engine: Engine) -> None:
    store = engine.open_store()
    assert str(store.default_device) == "cuda:0"
    assert str(engine.open_queue().store.default_device) == "cuda"


# ---- which GPUs an engine has ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "count", "shown", "seen", "known_as"),
    [
        ("auto", 1, None, "0", "auto"),
        ("auto", 2, None, "0,1", "auto"),
        ("cpu", 1, None, "0", "cpu"),
        ("cuda", 3, None, "0,1,2", "cuda"),
        ("cuda:2", 1, None, "2", "cuda:0"),
        ("cuda:2", 2, None, "2,3", "cuda:0"),
        ("cuda:0", 1, "3", "3", "cuda:0"),
        ("cuda:1", 1, "GPU-a,GPU-b,GPU-c", "GPU-b", "cuda:0"),
        ("auto", 2, "5, 6, 7", "5,6", "auto"),
        ("auto", 1, "", "", "auto"),
        ("cuda:9", 1, "0,1", "", "cuda:0"),
    ],
)
def test_an_engine_is_shown_its_own_gpus(device: str, count: int, shown: str | None, seen: str, known_as: str) -> None:
    environment = {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
    config = Config(device=device, devices_per_engine=count, threads=3)
    assert show_own_gpus(config, environment) == replace(config, device=known_as)
    assert environment == {"CUDA_VISIBLE_DEVICES": seen}


@pytest.mark.parametrize("device", ["cuda:x", "mps", "cuda:0,cuda:1", "cuda:all", ""])
def test_what_is_no_device_of_one_engine_changes_nothing(device: str) -> None:
    environment: dict[str, str] = {}
    config = Config(device=device)
    assert show_own_gpus(config, environment) is config
    assert environment == {}


@pytest.mark.usefixtures("gpus")
def test_an_engine_does_not_begin_with_fewer_gpus_than_it_is_to_hold() -> None:
    with pytest.raises(InvalidArgument, match="hold 3 GPUs from cuda:0 on, but torch sees 2 CUDA devices"):
        Engine(Config(device="cuda", devices_per_engine=3), on_fatal=pytest.fail)
    with pytest.raises(InvalidArgument, match="hold 2 GPUs from cuda:1 on, but torch sees 2 CUDA devices"):
        Engine(Config(device="cuda:1", devices_per_engine=2), on_fatal=pytest.fail)


def test_a_server_without_gpus_does_not_begin_with_several() -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a host without a GPU")
    done = subprocess.run(
        [sys.executable, "-m", "tserver", "serve", "--listen", "127.0.0.1:0", "--devices-per-engine", "2"],
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    assert done.returncode
    assert "hold 2 GPUs from cpu on, but torch sees 0 CUDA devices (CUDA_VISIBLE_DEVICES is '0,1')" in done.stderr
