"""Rows N1 to N8: neurons, layers, perceptrons, networks and activations, against numpy, torch.nn and the formulae."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    """Random float32 numbers."""
    return RNG.standard_normal(shape).astype(np.float32)


def close(got: Any, expected: Any) -> None:
    """The same shape and, to the last few bits, the same float32 numbers."""
    expected = np.asarray(expected.detach().cpu() if isinstance(expected, torch.Tensor) else expected)
    values = got.detach().numpy()
    assert values.shape == expected.shape
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def state_of(module: nn.Module) -> dict[str, np.ndarray]:
    """The weights of a local torch module, as they are sent to the server."""
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


# ---------------------------------------------------------------- N1: the M-P neuron


@pytest.mark.parametrize(
    ("threshold", "gate"), [(2.0, lambda a, b: a and b), (1.0, lambda a, b: a or b)], ids=["N1-and", "N1-or"]
)
def test_a_neuron_fires_when_its_input_reaches_the_threshold(
    tc: Any, threshold: float, gate: Callable[[int, int], int]
) -> None:
    neuron = tc.nn.Neuron([1.0, 1.0], activation="step", threshold=threshold)
    for a, b in itertools.product((0, 1), repeat=2):
        assert neuron(tc.tensor([float(a), float(b)])).item() == float(bool(gate(a, b)))


def test_n1_a_neuron_with_a_negative_weight_is_inhibited(tc: Any) -> None:
    neuron = tc.nn.Neuron([-1.0], activation="step", threshold=0.0)
    assert neuron(tc.tensor([[0.0], [1.0]])).tolist() == [1.0, 0.0]


def test_n1_a_threshold_without_a_step_is_refused(tc: Any) -> None:
    with pytest.raises(ValueError, match="threshold"):
        tc.nn.Neuron([1.0], activation="tanh", threshold=0.5)


# ---------------------------------------------------------------- N2: t = f(WᵀA + b)

FORMULAE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "step": lambda z: (z >= 0).astype(z.dtype),
    "sign": lambda z: np.where(z >= 0, 1, -1).astype(z.dtype),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(z)),
}


@pytest.mark.parametrize("activation", FORMULAE, ids=[f"N2-{name}" for name in FORMULAE])
def test_a_neuron_is_its_formula(tc: Any, activation: str) -> None:
    weights, inputs = numbers(4), numbers(7, 4)
    neuron = tc.nn.Neuron(weights, 0.25, activation)
    close(neuron(tc.tensor(inputs)), FORMULAE[activation](inputs @ weights + np.float32(0.25)))


def test_n2_one_vector_gives_one_number_and_a_batch_gives_a_vector(tc: Any) -> None:
    neuron = tc.nn.Neuron([0.5, -0.5, 1.0], bias=1.0)
    assert neuron(tc.ones(3)).shape == ()
    assert isinstance(neuron(tc.ones(3)).item(), float)
    assert neuron(tc.ones(5, 3)).shape == (5,)
    assert neuron(tc.ones(2, 5, 3)).shape == (2, 5)


@pytest.mark.parametrize(
    "weights",
    [lambda tc: [1, 2, 3], lambda tc: np.array([1.0, 2.0, 3.0], np.float32), lambda tc: tc.tensor([1.0, 2.0, 3.0])],
    ids=["N2-list", "N2-numpy", "N2-tensor"],
)
def test_weights_come_as_list_array_or_tensor(tc: Any, weights: Callable[[Any], Any]) -> None:
    neuron = tc.nn.Neuron(weights(tc), 1, "identity")
    assert neuron(tc.tensor([1.0, 1.0, 2.0])).item() == 10.0


def test_n2_inputs_that_do_not_fit_the_weights_are_refused(tc: Any) -> None:
    neuron = tc.nn.Neuron([1.0, 2.0])
    with pytest.raises((ValueError, RuntimeError), match="2"):
        neuron(tc.ones(3)).item()
    assert neuron(tc.zeros(2)).item() == 0.5  # the session goes on


def test_n2_an_unknown_activation_is_refused_with_the_names_there_are(tc: Any) -> None:
    with pytest.raises(ValueError, match=r"'sigmod'.*sigmoid"):
        tc.nn.Neuron([1.0], activation="sigmod")


# ---------------------------------------------------------------- N3: a single layer


@pytest.mark.parametrize(
    ("activation", "module"),
    [(None, nn.Identity()), ("sigmoid", nn.Sigmoid()), ("tanh", nn.Tanh()), ("relu", nn.ReLU())],
    ids=["N3-none", "N3-sigmoid", "N3-tanh", "N3-relu"],
)
def test_a_layer_gives_one_output_for_each_neuron(tc: Any, activation: str | None, module: nn.Module) -> None:
    local = nn.Linear(4, 3)
    layer = tc.nn.Layer(4, 3, activation)
    layer.load_state_dict(state_of(local))
    for shape in ((4,), (5, 4), (2, 5, 4), (0, 4)):
        inputs = numbers(*shape)
        outputs = layer(tc.tensor(inputs))
        assert outputs.shape == (*shape[:-1], 3)
        close(outputs, module(local(torch.from_numpy(inputs))))


def test_n3_a_layer_is_its_neurons_side_by_side(tc: Any) -> None:
    weight, bias, inputs = numbers(3, 4), numbers(3), tc.tensor(numbers(6, 4))
    layer = tc.nn.Layer(4, 3, "tanh")
    layer.load_state_dict({"weight": weight, "bias": bias})
    neurons = [tc.nn.Neuron(w, float(b), "tanh") for w, b in zip(weight, bias, strict=True)]
    close(layer(inputs), tc.stack([neuron(inputs) for neuron in neurons], dim=1).detach().numpy())


# ---------------------------------------------------------------- N4: fully connected, Y = Wx + b


def test_n4_a_linear_layer_is_torchs(tc: Any) -> None:
    local = nn.Linear(5, 3)
    remote = tc.nn.Linear(5, 3)
    remote.load_state_dict(state_of(local))
    inputs = numbers(8, 5)
    close(remote(tc.tensor(inputs)), local(torch.from_numpy(inputs)))
    assert repr(remote) == repr(local)


def test_n4_m_inputs_and_n_neurons_have_m_times_n_weights_and_n_biases(tc: Any) -> None:
    layer = tc.nn.Linear(7, 4)
    assert layer.weight.shape == (4, 7)
    assert layer.bias.shape == (4,)
    assert layer.parameter_count() == 7 * 4 + 4
    assert sum(p.numel() for p in layer.parameters()) == 7 * 4 + 4
    assert tc.nn.Linear(7, 4, bias=False).parameter_count() == 28


def test_n4_the_same_seed_draws_the_weights_that_torch_draws(tc: Any) -> None:
    tc.manual_seed(11)
    remote = tc.nn.Linear(6, 2)
    if remote.weight.is_cuda:
        pytest.skip("torch.nn draws on the CPU unless told otherwise; the numbers of a GPU are others")
    with torch.random.fork_rng():
        torch.manual_seed(11)
        local = nn.Linear(6, 2)
    np.testing.assert_array_equal(remote.weight.detach().numpy(), local.weight.detach().numpy())
    np.testing.assert_array_equal(remote.bias.detach().numpy(), local.bias.detach().numpy())


def test_n4_inputs_that_do_not_fit_give_torchs_error(tc: Any) -> None:
    remote = tc.nn.Linear(3, 2)
    with pytest.raises(RuntimeError) as local_error:
        nn.Linear(3, 2)(torch.ones(4, 5))
    with pytest.raises(RuntimeError) as error:
        remote(tc.ones(4, 5)).sum().item()
    assert str(error.value) == str(local_error.value)


# ---------------------------------------------------------------- N5: the perceptron


def test_n5_a_perceptron_tells_the_side_of_the_hyperplane(tc: Any) -> None:
    weights, points = numbers(3), numbers(50, 3)
    perceptron = tc.nn.Perceptron(weights, -0.5)
    sides = perceptron(tc.tensor(points)).detach().numpy()
    np.testing.assert_array_equal(sides, np.where(points @ weights - np.float32(0.5) >= 0, 1.0, -1.0))
    assert set(sides.tolist()) == {1.0, -1.0}


def test_n5_in_two_dimensions_the_border_is_a_line(tc: Any) -> None:
    perceptron = tc.nn.Perceptron([1.0, 2.0], -1.0)  # x1 + 2 x2 = 1
    points = tc.tensor([[3.0, 2.0], [-2.0, -1.0], [1.0, 0.0], [0.0, 0.0]])
    assert perceptron(points).tolist() == [1.0, -1.0, 1.0, -1.0]  # a point of the line itself is positive
    assert perceptron(points[0]).item() == 1.0


# ---------------------------------------------------------------- N6: multilayer networks


@pytest.mark.parametrize(
    ("sizes", "activation"),
    [([3, 4, 2], "relu"), ([5, 8, 8, 8, 1], "tanh"), ([2, 3], "sigmoid"), ([4, 16, 3], "gelu")],
    ids=["N6-one-hidden", "N6-three-hidden", "N6-none-hidden", "N6-wide"],
)
def test_a_multilayer_network_is_its_layers_in_order(tc: Any, sizes: list[int], activation: str) -> None:
    kinds = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [*([kinds[activation]()] if layers else []), nn.Linear(fan_in, fan_out)]
    local = nn.Sequential(*layers)
    remote = tc.nn.MLP(sizes, activation=activation)
    assert list(remote.state_dict()) == list(local.state_dict())
    remote.load_state_dict(state_of(local))
    inputs = numbers(9, sizes[0])
    close(remote(tc.tensor(inputs)), local(torch.from_numpy(inputs)))
    close(remote(tc.tensor(inputs[0])), local(torch.from_numpy(inputs[0])))
    assert remote.parameter_count() == sum(p.numel() for p in local.parameters())
    for name, value in remote.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state_of(local)[name])


def test_n6_sequential_takes_any_layers(tc: Any) -> None:
    local = nn.Sequential(nn.Linear(3, 6), nn.LeakyReLU(0.2), nn.Linear(6, 4), nn.Softmax(dim=-1))
    remote = tc.nn.Sequential(tc.nn.Linear(3, 6), tc.nn.LeakyReLU(0.2), tc.nn.Linear(6, 4), tc.nn.Softmax(dim=-1))
    remote.load_state_dict(state_of(local))
    inputs = numbers(5, 3)
    close(remote(tc.tensor(inputs)), local(torch.from_numpy(inputs)))
    assert repr(remote) == repr(local)
    assert [name for name, _ in remote.named_parameters()] == [name for name, _ in local.named_parameters()]


def test_n6_a_state_that_does_not_fit_is_refused_with_torchs_text(tc: Any) -> None:
    local, remote = nn.Sequential(nn.Linear(3, 2)), tc.nn.Sequential(tc.nn.Linear(3, 2))
    wrong = {
        "0.weight": np.ones((2, 4), np.float32),
        "0.bias": np.ones(2, np.float32),
        "1.bias": np.ones(2, np.float32),
    }
    with pytest.raises(RuntimeError) as local_error:
        local.load_state_dict({name: torch.from_numpy(value) for name, value in wrong.items()})
    with pytest.raises(RuntimeError) as error:
        remote.load_state_dict(wrong)
    assert str(error.value) == str(local_error.value)


@pytest.mark.parametrize("sizes", [[], [3], [3, 0], [3, -1, 2], [3, 2.5]], ids=str)
def test_n6_sizes_that_make_no_network_are_refused(tc: Any, sizes: list[Any]) -> None:
    with pytest.raises(ValueError, match="MLP"):
        tc.nn.MLP(sizes)


# ---------------------------------------------------------------- N7: no activation, no depth


def test_n7_without_activations_two_layers_are_one_linear_map(tc: Any) -> None:
    deep = tc.nn.MLP([4, 6, 3], activation=None)
    with tc.no_grad():
        first, second = deep[0], deep[1]
        one = tc.nn.Linear(4, 3)
        one.load_state_dict({"weight": second.weight @ first.weight, "bias": second.weight @ first.bias + second.bias})
        inputs = tc.tensor(numbers(10, 4))
        close(deep(inputs), one(inputs).numpy())


def test_n7_with_an_activation_they_are_not(tc: Any) -> None:
    bent = tc.nn.MLP([4, 6, 3], activation="tanh")
    with tc.no_grad():
        inputs = tc.tensor(numbers(10, 4))
        # A linear map (and a shift) takes the middle of two points to the middle of their images.
        middle = bent((inputs[:5] + inputs[5:]) / 2)
        assert (middle - (bent(inputs[:5]) + bent(inputs[5:])) / 2).abs().max().item() > 1e-3


# ---------------------------------------------------------------- N8: activations

MODULES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "sigmoid": ("Sigmoid", ()),
    "tanh": ("Tanh", ()),
    "relu": ("ReLU", ()),
    "leaky-relu": ("LeakyReLU", (0.1,)),
    "elu": ("ELU", (0.5,)),
    "gelu": ("GELU", ()),
    "silu": ("SiLU", ()),
    "softplus": ("Softplus", ()),
    "softmax": ("Softmax", (1,)),
    "log-softmax": ("LogSoftmax", (1,)),
    "hardtanh": ("Hardtanh", ()),
    "identity": ("Identity", ()),
}


@pytest.mark.parametrize(("name", "arguments"), MODULES.values(), ids=[f"N8-{name}" for name in MODULES])
def test_an_activation_module_is_torchs(tc: Any, name: str, arguments: tuple[Any, ...]) -> None:
    local = getattr(nn, name)(*arguments)
    remote = getattr(tc.nn, name)(*arguments)
    inputs = np.linspace(-4, 4, 24, dtype=np.float32).reshape(4, 6)
    close(remote(tc.tensor(inputs)), local(torch.from_numpy(inputs)))
    assert repr(remote) == repr(local)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "softmax"], ids=lambda name: f"N8-functional-{name}")
def test_an_activation_function_is_torchs(tc: Any, name: str) -> None:
    options = {"dim": 0} if name == "softmax" else {}
    inputs = np.linspace(-3, 3, 13, dtype=np.float32)
    expected = getattr(torch, name)(torch.from_numpy(inputs), **options)
    close(getattr(tc, name)(tc.tensor(inputs), **options), expected)
    close(getattr(tc.nn.functional, name)(tc.tensor(inputs), **options), expected)


def test_n8_what_each_does_to_negative_input(tc: Any) -> None:
    below = tc.linspace(-6.0, -0.1, 20)
    assert bool(((tc.sigmoid(below) > 0) & (tc.sigmoid(below) < 0.5)).all())  # positive only
    assert bool((tc.tanh(below) < 0).all())  # negative too
    assert bool((tc.relu(below) == 0).all())  # nothing


def test_n8_sigmoid_is_steepest_at_zero(tc: Any) -> None:
    x = tc.linspace(-5.0, 5.0, 101)
    slope = tc.sigmoid(x).diff()
    assert abs(int(slope.argmax()) - 50) <= 1
