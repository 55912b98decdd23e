"""`tclient.models`: networks of the client on the server. The oracle is torch, or the same module of the client."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.networks import relu_mlp
from tests.support.proxy import Proxy
from tests.support.serving import ServerProcess, serving

ROWS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6)

MODULES: dict[str, Callable[[Any], Any]] = {
    "an MLP": lambda nn: nn.MLP([6, 5, 3], activation="tanh", output_activation="softmax"),
    "a Sequential": lambda nn: nn.Sequential(
        nn.Linear(6, 4, bias=False), nn.LeakyReLU(0.3), nn.Linear(4, 2), nn.GELU()
    ),
    "a Linear": lambda nn: nn.Linear(6, 4),
    "a Layer": lambda nn: nn.Layer(6, 4, "silu"),
    "nested ones": lambda nn: nn.Sequential(nn.Sequential(nn.Linear(6, 3), nn.ELU(0.5)), nn.Sigmoid())[:1],
    "with dropout": lambda nn: nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5), nn.Softplus()).eval(),
    "two activations": lambda nn: nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Tanh()),
    "another activation": lambda nn: nn.Sequential(nn.Linear(6, 3), nn.Mish()),
    "a normalisation": lambda nn: nn.Sequential(nn.Linear(6, 3), nn.LayerNorm(3)),
}


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_a_module_is_served_as_it_runs_here(tc: ModuleType, name: str, make: Callable[[Any], Any]) -> None:
    module = make(tc.nn)
    served = tc.models.create(name, module)
    expected = module(tc.from_numpy(ROWS)).detach().numpy()
    np.testing.assert_allclose(served(ROWS), expected, rtol=1.3e-6, atol=1e-5)
    np.testing.assert_allclose(served(ROWS.tolist()), expected, rtol=1.3e-6, atol=1e-5)
    here = served(tc.from_numpy(ROWS))
    assert isinstance(here, tc.Tensor)
    np.testing.assert_allclose(here.numpy(), expected, rtol=1.3e-6, atol=1e-5)
    assert served.parameter_count() == module.parameter_count()


@pytest.mark.parametrize("kind", ["Neuron", "Perceptron"])
def test_a_neuron_is_served_as_a_layer_of_one(tc: ModuleType, name: str, kind: str) -> None:
    neuron = getattr(tc.nn, kind)([1.0, -2.0, 0.5, 0.0, 1.0, 3.0], 0.25)
    served = tc.models.create(name, neuron)
    assert served(ROWS).shape == (2, 1)
    np.testing.assert_allclose(served(ROWS)[:, 0], neuron(tc.from_numpy(ROWS)).detach().numpy(), rtol=1e-6)


def test_layers_may_be_arrays(tc: ModuleType, name: str) -> None:
    weight, bias = np.ones((2, 6), np.float32), np.array([0.5, -0.5], np.float32)
    served = tc.models.create(name, [(weight, bias, "relu"), (np.eye(2, dtype=np.float32), None, None)])
    np.testing.assert_allclose(served(ROWS), np.maximum(ROWS @ weight.T + bias, 0), rtol=1e-6)


def test_a_forward_pass_is_one_call_and_a_tensor_waits_for_nothing(tc: ModuleType, name: str) -> None:
    served = tc.models.create(name, tc.nn.MLP([6, 50, 40, 30, 3]))
    inputs = tc.from_numpy(ROWS)
    tc.synchronize()
    stats = tc._session.current.current().stats
    waits, calls = stats.waits, stats.calls
    outputs = [served(inputs) for _ in range(5)]
    assert stats.waits == waits
    assert outputs[-1].numpy().shape == (2, 3)
    assert (stats.waits, stats.calls) == (waits + 1, calls + 6)
    before = served.statistics().success.count
    served(ROWS)
    assert served.statistics().success.count == before + 1


def test_autocast_of_the_caller_changes_nothing(tc: ModuleType, name: str) -> None:
    served = tc.models.create(name, tc.nn.MLP([4, 8, 3], activation="relu"))
    x = tc.rand(5, 4)
    plain = served(x)
    with tc.autocast("cpu", dtype=tc.bfloat16):
        cast = served(x)
    assert cast.dtype is tc.float32
    assert tc.equal(cast, plain)


def test_weights_are_copied_as_they_are_when_it_is_created(tc: ModuleType, name: str) -> None:
    linear = tc.nn.Linear(6, 2)
    with tc.no_grad():
        linear.weight.fill_(1.0)
        linear.bias.zero_()
    served = tc.models.create(name, linear)
    with tc.no_grad():
        linear.weight.zero_()
    np.testing.assert_allclose(served(ROWS), np.repeat(ROWS.sum(1, keepdims=True), 2, 1), rtol=1e-5)


def test_it_prints_what_it_is_and_its_layers_as_torch_does(tc: ModuleType, name: str) -> None:
    served = tc.models.create(name, tc.nn.MLP([6, 5, 3]))
    what = "53 parameters, batches up to 1024: input float32 (batch, 6) -> output float32 (batch, 3)"
    assert repr(served) == f"{name} version 1, ready, {what}\n{relu_mlp([6, 5, 3])}"
    assert f"{name} version 1, ready, {what}" in repr(tc.models.list()).splitlines()
    served.unload()
    assert f"{name} version 1, unloaded, 53" in repr(served)
    served.delete()
    assert f"{name} version 1, gone, 53" in repr(served)


def test_it_is_exported_for_torch_and_loaded_from_torch(tc: ModuleType, name: str, tmp_path: Path) -> None:
    network = relu_mlp([6, 5, 3])
    save_file(network.state_dict(), tmp_path / "made-by-torch.safetensors")
    served = tc.models.load(name, tmp_path / "made-by-torch.safetensors", ["relu", None])
    expected = network(torch.from_numpy(ROWS)).numpy()
    np.testing.assert_allclose(served(ROWS), expected, rtol=1.3e-6, atol=1e-5)
    served.export(tmp_path / "exported.safetensors")
    again = relu_mlp([6, 5, 3], seed=4)
    again.load_state_dict(load_file(tmp_path / "exported.safetensors"))
    np.testing.assert_array_equal(again(torch.from_numpy(ROWS)).numpy(), expected)
    second = tc.models.load(name, tmp_path / "exported.safetensors", version=2)
    np.testing.assert_array_equal(second(ROWS), served(ROWS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exported.safetensors", "made-by-torch.safetensors"]


def test_versions_are_latest_or_pinned(tc: ModuleType, name: str) -> None:
    latest = tc.models.create(name, [(np.ones((1, 6), np.float32), None, None)])
    first = tc.models.get(name, 1)
    tc.models.create(name, [(np.full((1, 6), 2.0, np.float32), None, None)], version=2)
    one = np.ones(6, np.float32)
    assert (latest(one).tolist(), first(one).tolist()) == ([12.0], [6.0])
    assert [model.version for model in tc.models.list() if model.name == name] == [1, 2]
    tc.models.get(name, 2).unload()
    assert latest(one).tolist() == [6.0]
    tc.models.get(name, 2).reload()
    assert latest(one).tolist() == [12.0]
    first.delete()
    with pytest.raises(KeyError, match="no version 1"):
        first(one)
    latest.delete()
    with pytest.raises(KeyError, match=name):
        tc.models.get(name)


def test_a_module_that_trains_is_served_as_it_evaluates(tc: ModuleType, name: str) -> None:
    module = tc.nn.Sequential(tc.nn.Linear(6, 3), tc.nn.Dropout(0.5))
    served = tc.models.create(name, module)
    assert (module.training, module[1].training) == (True, True)
    np.testing.assert_allclose(served(ROWS), module.eval()(tc.from_numpy(ROWS)).detach().numpy(), rtol=1e-6)
    assert len(served.describe().layers) == 1


@pytest.mark.parametrize("option", [{"priority": 1}, {"timeout_s": 5.0}, {"queue_timeout_us": 1}], ids=str)
def test_what_is_not_queued_takes_nothing_that_is_for_the_queue(
    tc: ModuleType, name: str, option: dict[str, Any]
) -> None:
    served = tc.models.create(name, tc.nn.MLP([6, 3]))
    large = np.zeros((1 << 16, 6), np.float32)
    for inputs, told in ((tc.from_numpy(ROWS), "a tensor is not queued"), (large, f"inputs of {large.nbytes} bytes")):
        with pytest.raises(ValueError, match=rf"{name}: {told}.*leave them out"):
            served(inputs, **option)
    assert served(large).shape == (1 << 16, 3)


def test_large_arrays_go_as_tensors(tc: ModuleType, name: str) -> None:
    weight = np.ones((1, 8), np.float32)
    served = tc.models.create(name, [(weight, None, None)])
    rows = np.ones((50_000, 8), np.float32)
    np.testing.assert_array_equal(served(rows), np.full((50_000, 1), 8, np.float32))


@pytest.mark.parametrize("rows", [131, 132, 520, 525, 3000], ids=str)
def test_outputs_come_whatever_their_size(tc: ModuleType, name: str, rows: int) -> None:
    """More than 1 MiB, more than a message has, and far more than that; the inputs are small."""
    module = tc.nn.MLP([4, 2000])
    served = tc.models.create(name, module)
    inputs = np.linspace(-1, 1, rows * 4, dtype=np.float32).reshape(rows, 4)
    expected = module(tc.from_numpy(inputs)).detach().numpy()
    np.testing.assert_allclose(served(inputs), expected, rtol=1.3e-6, atol=1e-5)
    np.testing.assert_allclose(served(tc.from_numpy(inputs)).numpy(), expected, rtol=1.3e-6, atol=1e-5)


def test_outputs_that_are_too_large_for_the_queue_are_refused_with_the_remedy(tc: ModuleType, name: str) -> None:
    served = tc.models.create(name, tc.nn.MLP([4, 2000]))
    assert served(np.ones((500, 4), np.float32), timeout_s=20.0).shape == (500, 2000)
    with pytest.raises(ValueError, match=f"{name}: inputs of 9600 bytes, or their outputs, .* fewer rows"):
        served(np.ones((600, 4), np.float32), timeout_s=20.0)


def test_requests_of_many_threads_and_sizes_go_in_messages_that_the_server_takes(name: str) -> None:
    import tclient

    options = ("--max-message-bytes", "4000", "--max-inline-bytes", "100000", "--max-chunk-bytes", "1000")
    with serving(*options) as server, tclient.connect(server.address) as session:
        served = tclient.models.create(name, [(np.ones((3, 6), np.float32), None, None)])

        def ask(number: int) -> None:
            session.checksums = True  # by way of gRPC
            for rows in (1, 7, 60, 83, 84, 90, 500)[number % 3 :]:
                assert np.array_equal(served(np.ones((rows, 6), np.float32)), np.full((rows, 3), 6, np.float32))

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(32)))


def test_a_request_that_a_proxy_refuses_as_too_large_goes_as_a_tensor_and_the_others_go_on(name: str) -> None:
    import tclient

    with serving("--max-message-bytes", "4000") as server, tclient.connect(server.address) as session:
        served = tclient.models.create(name, [(np.ones((3, 6), np.float32), None, None)])
        rows = np.ones((500, 6), np.float32)

        def ask(number: int) -> None:
            rows = np.ones((number * 20 + 1, 6), np.float32)
            assert np.array_equal(served(rows), np.full((len(rows), 3), 6, np.float32))

        with ThreadPoolExecutor(8) as pool:
            for first in range(0, 24, 8):
                # As the client is told where nothing but a proxy takes so little. Not while others ask: what they then
                # put into the stream of calls, where nothing can be refused by itself, would be as large.
                session.channel.bound_messages(1 << 20)
                list(pool.map(ask, range(first, first + 8)))
        assert np.array_equal(served(rows), np.full((500, 3), 6, np.float32))


REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "a module of torch itself": (lambda nn: torch.nn.Linear(6, 3), TypeError, "load_state_dict"),
    "the name of a file": (lambda nn: "net.onnx", TypeError, "models.load"),
    "a set of layers": (lambda nn: {(nn.Linear(6, 3).weight, None, None)}, TypeError, "a set cannot be served"),
    "a number": (lambda nn: 3, TypeError, "a int cannot be served"),
    "layers of two": (lambda nn: [(np.ones((3, 6)), None)], TypeError, "one for each layer"),
    "another activation": (lambda nn: [(np.ones((3, 6)), None, "mish")], TypeError, "mish"),
    "another gelu": (lambda nn: [(np.ones((3, 6)), None, nn.GELU("tanh"))], TypeError, "approximate='tanh'"),
    "nothing": (lambda nn: nn.Sequential(), ValueError, "no layers"),
    "layers that do not fit": (lambda nn: nn.Sequential(nn.Linear(6, 3), nn.Linear(4, 2)), ValueError, "4 inputs"),
}


@pytest.mark.parametrize(("make", "kind", "naming"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_served_is_refused(
    tc: ModuleType, name: str, make: Callable[[Any], Any], kind: type[Exception], naming: str
) -> None:
    with pytest.raises(kind, match=naming):
        tc.models.create(name, make(tc.nn))


def test_a_setting_that_does_not_exist_is_refused(tc: ModuleType, name: str) -> None:
    with pytest.raises(TypeError, match="max_batch_size"):
        tc.models.create(name, tc.nn.Linear(2, 1), max_batch=3)


def test_errors_are_pythons_own(tc: ModuleType, name: str) -> None:
    served = tc.models.create(name, tc.nn.Linear(6, 1))
    for inputs, naming in ((ROWS[:, :5], "must be 6"), (ROWS.astype("f8"), "float64"), (ROWS[:0], "no rows")):
        with pytest.raises(ValueError, match=naming):
            served(inputs)
        with pytest.raises(ValueError, match=naming):
            served(tc.from_numpy(inputs)).numpy()
    with pytest.raises(ValueError, match="version 2"):
        tc.models.create(name, tc.nn.Linear(6, 1))
    served.configure(max_queue_delay_us=60_000_000)
    with pytest.raises(tc.ServerBusy):
        served(ROWS, timeout_s=0.1)


def test_single_rows_of_64_callers_are_run_more_than_8_at_a_time(tc: ModuleType, name: str) -> None:
    served = tc.models.create(name, tc.nn.MLP([784, 256, 128, 10]))
    row = np.ones((1, 784), np.float32)
    served(row)
    before = served.statistics()
    outputs: list[Any] = []
    start = threading.Barrier(64)

    def ask() -> None:
        start.wait()
        # Long enough for the mean: within a second the size of batches goes up and down by half.
        outputs.extend(served(row) for _ in range(200))

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = served.statistics()
    rows = after.inference_count - before.inference_count
    assert (rows, len(outputs)) == (64 * 200, 64 * 200)
    assert rows / (after.execution_count - before.execution_count) > 8
    for output in outputs:
        np.testing.assert_allclose(output, outputs[0], rtol=1.3e-6, atol=1e-5)


def test_a_broken_connection_is_not_noticed(server: ServerProcess, name: str) -> None:
    import tclient

    with Proxy(server.address) as proxy, tclient.connect(proxy.address):
        served = tclient.models.create(name, tclient.nn.Linear(6, 1))
        expected = served(ROWS)
        for _ in range(3):
            proxy.cut()
            np.testing.assert_array_equal(served(ROWS), expected)


def test_a_closed_session_says_so(server: ServerProcess, name: str) -> None:
    import tclient

    with tclient.connect(server.address):
        served = tclient.models.create(name, tclient.nn.Linear(6, 1))
        served(ROWS)
    with pytest.raises(tclient.NotConnectedError, match="closed"):
        served(ROWS)
