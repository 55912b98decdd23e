"""Neurons, perceptrons, layers and multilayer networks, as the course describes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

INPUTS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("threshold", "fires"), [(1.5, [0.0, 0.0, 0.0, 1.0]), (1.0, [0.0, 1.0, 1.0, 1.0])], ids=["and", "or"]
)
def test_a_step_neuron_fires_from_its_threshold_on(tc: Any, threshold: float, fires: list[float]) -> None:
    neuron = tc.nn.Neuron([1.0, 1.0], activation="step", threshold=threshold)
    assert neuron(tc.tensor(INPUTS)).tolist() == fires


def test_a_neuron_gives_one_number_for_a_vector_and_a_vector_for_a_batch(tc: Any) -> None:
    weights = np.array([0.5, -2.0], dtype=np.float32)
    neuron = tc.nn.Neuron(weights, bias=0.25, activation="sigmoid")
    expected = torch.sigmoid(torch.tensor(INPUTS) @ torch.tensor(weights) + 0.25)
    assert tuple(neuron(tc.tensor(INPUTS[1])).shape) == ()
    np.testing.assert_allclose(neuron(tc.tensor(INPUTS)).detach().numpy(), expected.numpy(), rtol=1e-6)
    np.testing.assert_allclose(
        neuron(tc.tensor(np.stack([INPUTS, INPUTS]))).detach().numpy(), np.stack([expected, expected]), rtol=1e-6
    )


def test_a_neuron_takes_weights_as_list_array_tensor_or_number_of_inputs(tc: Any) -> None:
    nn = tc.nn
    for weights in ([1, 2, 3], np.array([1.0, 2.0, 3.0]), tc.tensor([1.0, 2.0, 3.0])):
        neuron = nn.Neuron(weights, activation=None)
        assert neuron.weight.tolist() == [1.0, 2.0, 3.0]
        assert neuron.weight.dtype.is_floating_point
    drawn = nn.Neuron(3)
    assert tuple(drawn.weight.shape) == (3,)
    assert drawn.parameter_count() == 4
    assert repr(drawn) == "Neuron(\n  in_features=3\n  (activation): Sigmoid()\n)"


def test_a_perceptron_tells_the_side_of_the_hyperplane(tc: Any) -> None:
    weights, bias = [1.0, -1.0], 0.5
    perceptron = tc.nn.Perceptron(weights, bias)
    points = np.array([[0.0, 0.0], [-2.0, 1.0], [0.5, 1.0], [0.0, 0.51]], dtype=np.float32)
    expected = np.where(points @ np.array(weights) + bias >= 0, 1.0, -1.0)
    assert perceptron(tc.tensor(points)).tolist() == expected.tolist()
    assert perceptron(tc.tensor([5.0, 0.0])).item() == 1.0


def test_a_layer_gives_as_many_outputs_as_it_has_neurons(tc: Any) -> None:
    layer = tc.nn.Layer(2, 3, activation="tanh")
    assert tuple(layer(tc.tensor(INPUTS)).shape) == (4, 3)
    expected = torch.tanh(
        torch.nn.functional.linear(
            torch.tensor(INPUTS), torch.tensor(layer.weight.detach().numpy()), torch.tensor(layer.bias.detach().numpy())
        )
    )
    np.testing.assert_allclose(layer(tc.tensor(INPUTS)).detach().numpy(), expected.numpy(), rtol=1e-6)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert layer.parameter_count() == 2 * 3 + 3


def test_every_neuron_of_a_layer_is_a_neuron_with_its_row_of_weights(tc: Any) -> None:
    layer = tc.nn.Layer(2, 3, activation="sigmoid")
    x = tc.tensor(INPUTS)
    whole = layer(x).detach().numpy()
    for index in range(3):
        neuron = tc.nn.Neuron(layer.weight[index].detach(), layer.bias[index].detach(), activation="sigmoid")
        np.testing.assert_allclose(neuron(x).detach().numpy(), whole[:, index], rtol=1e-6)


def test_an_mlp_is_the_sequential_of_its_layers(tc: Any) -> None:
    mlp = tc.nn.MLP([4, 8, 6, 3], activation="tanh", output_activation="softmax")
    theirs = torch.nn.Sequential(
        torch.nn.Linear(4, 8),
        torch.nn.Tanh(),
        torch.nn.Linear(8, 6),
        torch.nn.Tanh(),
        torch.nn.Linear(6, 3),
        torch.nn.Softmax(-1),
    )
    assert repr(mlp) == repr(theirs).replace("Sequential", "MLP")
    theirs.load_state_dict({name: torch.tensor(value.numpy()) for name, value in mlp.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    np.testing.assert_allclose(
        mlp(tc.tensor(x)).detach().numpy(), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-5, atol=1e-7
    )
    assert mlp.parameter_count() == sum(p.numel() for p in theirs.parameters())


def test_a_fully_connected_layer_has_m_times_n_weights_and_n_biases(tc: Any) -> None:
    assert tc.nn.Linear(7, 5).parameter_count() == 7 * 5 + 5
    assert tc.nn.MLP([784, 256, 128, 10]).parameter_count() == 235_146


def test_a_deep_network_without_activations_is_one_linear_map(tc: Any) -> None:
    deep = tc.nn.MLP([3, 5, 2], activation=None)
    first, second = deep[0], deep[1]
    weight = second.weight @ first.weight
    bias = second.weight @ first.bias + second.bias
    x = tc.tensor(np.random.default_rng(1).standard_normal((6, 3)).astype(np.float32))
    np.testing.assert_allclose(deep(x).detach().numpy(), (x @ weight.T + bias).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_network_that_was_drawn_at_random_is_that_of_torch_for_the_same_seed(tc: Any) -> None:
    tc.manual_seed(3)
    mlp = tc.nn.MLP([4, 8, 3])
    torch.manual_seed(3)
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    for one, other in zip(mlp.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_array_equal(one.detach().numpy(), other.detach().numpy())


def test_a_neuron_learns(tc: Any) -> None:
    tc.manual_seed(0)
    neuron = tc.nn.Neuron(2, activation="sigmoid")
    x, wanted = tc.tensor(INPUTS), tc.tensor([0.0, 1.0, 1.0, 1.0])
    optimizer = tc.optim.SGD(neuron.parameters(), lr=5.0)
    for _ in range(200):
        optimizer.zero_grad()
        tc.nn.functional.binary_cross_entropy(neuron(x), wanted).backward()
        optimizer.step()
    assert (neuron(x) > 0.5).tolist() == [False, True, True, True]


def test_inputs_that_are_not_as_many_as_the_weights_are_refused(tc: Any) -> None:
    with pytest.raises(ValueError, match=r"inputs have shape \(4, 2\), but there are 3 weights"):
        tc.nn.Neuron([1.0, 1.0, 1.0])(tc.tensor(INPUTS)).tolist()
    with pytest.raises(RuntimeError, match=r"mat1 and mat2 shapes cannot be multiplied \(4x2 and 3x1\)"):
        tc.nn.MLP([3, 1])(tc.tensor(INPUTS)).tolist()


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "unknown activation": (lambda nn: nn.Layer(2, 2, "sigmoyd"), ValueError, "no activation 'sigmoyd'; give one of"),
    "activation of a wrong type": (lambda nn: nn.Layer(2, 2, 3), TypeError, "activation is a int"),
    "a threshold for sigmoid": (lambda nn: nn.Neuron([1.0], threshold=2.0), ValueError, "threshold=2.0 is for 'step'"),
    "a matrix of weights": (lambda nn: nn.Neuron([[1.0], [2.0]]), ValueError, r"weights have shape \(2, 1\)"),
    "no inputs": (lambda nn: nn.Neuron(0), ValueError, "0 inputs"),
    "one size": (lambda nn: nn.MLP([3]), ValueError, r"sizes \[3\]"),
    "a size of zero": (lambda nn: nn.MLP([3, 0, 1]), ValueError, "have 0"),
    "a size that is no integer": (lambda nn: nn.MLP([3, 2.5, 1]), ValueError, "have 2.5"),
}


@pytest.mark.parametrize(("make", "error", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_neuron_is_refused_with_a_remedy(tc: Any, make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make(tc.nn)
