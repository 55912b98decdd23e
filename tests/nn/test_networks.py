"""The server's networks against torch.nn: same weights, same output. Runs without a server."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tserver.engine import networks

LINEAR = nn.Linear(4, 3)


def linear(layer: nn.Module) -> dict[str, Any]:
    return {"kind": "linear", "weight": layer.weight, "bias": layer.bias}


ACTIVATIONS: list[tuple[dict[str, Any], nn.Module]] = [
    ({"kind": "identity"}, nn.Identity()),
    ({"kind": "sigmoid"}, nn.Sigmoid()),
    ({"kind": "tanh"}, nn.Tanh()),
    ({"kind": "relu"}, nn.ReLU()),
    ({"kind": "relu6"}, nn.ReLU6()),
    ({"kind": "leaky_relu"}, nn.LeakyReLU()),
    ({"kind": "leaky_relu", "negative_slope": 0.3}, nn.LeakyReLU(0.3)),
    ({"kind": "rrelu"}, nn.RReLU().eval()),
    ({"kind": "elu", "alpha": 0.5}, nn.ELU(0.5)),
    ({"kind": "celu", "alpha": 0.5}, nn.CELU(0.5)),
    ({"kind": "selu"}, nn.SELU()),
    ({"kind": "gelu"}, nn.GELU()),
    ({"kind": "gelu", "approximate": "tanh"}, nn.GELU("tanh")),
    ({"kind": "silu"}, nn.SiLU()),
    ({"kind": "mish"}, nn.Mish()),
    ({"kind": "softplus", "beta": 2, "threshold": 1}, nn.Softplus(2, 1)),
    ({"kind": "softsign"}, nn.Softsign()),
    ({"kind": "logsigmoid"}, nn.LogSigmoid()),
    ({"kind": "tanhshrink"}, nn.Tanhshrink()),
    ({"kind": "softshrink", "lambd": 0.1}, nn.Softshrink(0.1)),
    ({"kind": "hardshrink"}, nn.Hardshrink()),
    ({"kind": "hardtanh", "min_val": -0.5, "max_val": 2.0}, nn.Hardtanh(-0.5, 2.0)),
    ({"kind": "hardsigmoid"}, nn.Hardsigmoid()),
    ({"kind": "hardswish"}, nn.Hardswish()),
    ({"kind": "threshold", "threshold": 0.1, "value": 20}, nn.Threshold(0.1, 20)),
    ({"kind": "softmax", "dim": 1}, nn.Softmax(1)),
    ({"kind": "softmin", "dim": 1}, nn.Softmin(1)),
    ({"kind": "log_softmax", "dim": 0}, nn.LogSoftmax(0)),
    ({"kind": "glu"}, nn.GLU()),
    ({"kind": "flatten", "start_dim": 0}, nn.Flatten(0)),
    ({"kind": "prelu", "weight": torch.tensor([0.3])}, nn.PReLU(init=0.3)),
]


@pytest.mark.parametrize(("layer", "module"), ACTIVATIONS, ids=[repr(module) for _, module in ACTIVATIONS])
def test_an_activation_is_that_of_torch(layer: dict[str, Any], module: nn.Module) -> None:
    x = torch.randn(5, 4)
    assert torch.equal(networks.build([layer]).forward(x), module(x))


def test_every_activation_has_a_test() -> None:
    assert {layer["kind"] for layer, _ in ACTIVATIONS} >= set(networks.ACTIVATIONS) - {"step", "sign"}


def test_step_fires_at_its_threshold() -> None:
    x = torch.tensor([0.4, 0.5, 0.6])
    assert networks.build([{"kind": "step", "threshold": 0.5}]).forward(x).tolist() == [0.0, 1.0, 1.0]


def test_sign_is_plus_one_on_the_hyperplane() -> None:
    x = torch.tensor([-0.1, 0.0, 0.1], dtype=torch.float64)
    out = networks.build([{"kind": "sign"}]).forward(x)
    assert out.tolist() == [-1.0, 1.0, 1.0]
    assert out.dtype == torch.float64


def test_a_deep_network_is_that_of_torch() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6, bias=False), nn.Tanh(), nn.Linear(6, 2))
    network = networks.build(
        [linear(module[0]), {"kind": "relu"}, linear(module[2]), {"kind": "tanh"}, linear(module[4])]
    )
    x = torch.randn(3, 5, 4)
    assert torch.equal(network.forward(x), module(x))
    assert network.parameter_count == sum(p.numel() for p in module.parameters())
    assert network.bytes == 4 * network.parameter_count
    assert [id(p) for p in network.parameters()] == [id(p) for p in module.parameters()]


def test_a_weight_shared_by_two_layers_counts_once() -> None:
    weight = torch.eye(3)
    network = networks.build([{"kind": "linear", "weight": weight}, {"kind": "linear", "weight": weight}])
    assert network.parameter_count == 9


def test_gradients_reach_the_very_parameters() -> None:
    layer = nn.Linear(4, 3)
    out = networks.build([linear(layer), {"kind": "sigmoid"}]).forward(torch.ones(2, 4))
    torch.autograd.backward(out.sum())
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().sum() > 0


def test_a_later_change_of_a_weight_shows_in_the_next_forward() -> None:
    weight = torch.zeros(1, 2)
    network = networks.build([{"kind": "linear", "weight": weight, "bias": None}])
    weight.fill_(1)
    assert network.forward(torch.ones(2)).tolist() == [2.0]


@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 5, 2)], ids=["one", "batch", "batches"])
def test_a_neuron_drops_the_last_dimension(shape: tuple[int, ...]) -> None:
    x, weight, bias = torch.randn(shape), torch.randn(2), torch.tensor(0.5)
    out = networks.build([{"kind": "neuron", "weight": weight, "bias": bias}, {"kind": "sigmoid"}]).forward(x)
    assert out.shape == shape[:-1]
    torch.testing.assert_close(out, torch.sigmoid((x * weight).sum(-1) + 0.5))


def test_a_neuron_refuses_inputs_that_are_not_as_many_as_its_weights() -> None:
    network = networks.build([{"kind": "neuron", "weight": torch.ones(2)}])
    with pytest.raises(ValueError, match=r"shape \(5, 3\), but there are 2 weights"):
        network.forward(torch.ones(5, 3))
    with pytest.raises(ValueError, match=r"shape \(\)"):
        network.forward(torch.tensor(1.0))


def test_a_linear_layer_refuses_inputs_with_the_text_of_torch() -> None:
    x = torch.ones(2, 5)
    with pytest.raises(RuntimeError) as expected:
        LINEAR(x)
    with pytest.raises(RuntimeError) as got:
        networks.build([linear(LINEAR)]).forward(x)
    assert str(got.value) == str(expected.value)


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "unknown kind": ([{"kind": "sigmoidd"}], ValueError, "did you mean 'sigmoid'"),
    "nothing like it": ([{"kind": "???"}], ValueError, "give one of linear"),
    "no kind": ([{}], TypeError, "kind=None"),
    "no mapping": ([3], TypeError, "a layer is a int"),
    "no list": ("relu", TypeError, "layers is a str"),
    "no weight": ([{"kind": "linear"}], ValueError, r"no weight; give a tensor of shape \(out_features"),
    "a list as weight": ([{"kind": "linear", "weight": [1.0]}], TypeError, "a list as weight"),
    "a vector as weight": ([{"kind": "linear", "weight": torch.ones(3)}], ValueError, r"shape \(3,\)"),
    "a wrong bias": (
        [{"kind": "linear", "weight": torch.ones(3, 2), "bias": torch.ones(2)}],
        ValueError,
        r"bias of shape \(2,\) .* give a bias of shape \(3,\)",
    ),
    "a vector as bias": (
        [{"kind": "neuron", "weight": torch.ones(3), "bias": torch.ones(3)}],
        ValueError,
        r"a tensor of shape \(\)",
    ),
    "layers that do not fit": (
        [
            {"kind": "linear", "weight": torch.ones(3, 2)},
            {"kind": "relu"},
            {"kind": "linear", "weight": torch.ones(3, 4)},
        ],
        ValueError,
        r"takes 4 features, but the layer before it gives 3; .*\(layer 2\)",
    ),
    "an unknown option": ([{"kind": "relu", "slope": 1}], ValueError, "relu has no option 'slope'; it has no options"),
    "an unknown weight": ([{"kind": "linear", "wieght": 1}], ValueError, "linear has no 'wieght'"),
    "a bool as number": ([{"kind": "elu", "alpha": True}], ValueError, "alpha=True; it must be an integer or a float"),
    "a float as dim": ([{"kind": "softmax", "dim": 0.5}], ValueError, "dim=0.5; it must be an integer or None"),
    "an unknown choice": ([{"kind": "gelu", "approximate": "x"}], ValueError, "it must be 'none' or 'tanh'"),
}


@pytest.mark.parametrize(("layers", "error", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_description_is_refused_with_a_remedy(layers: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        networks.build(layers)


def test_forward_refuses_what_is_no_network_or_tensor() -> None:
    with pytest.raises(TypeError, match="network is a int"):
        networks.BUILTIN_OPERATIONS["tc.forward"](3, torch.ones(1))
    with pytest.raises(TypeError, match="input is a list"):
        networks.BUILTIN_OPERATIONS["tc.forward"](networks.build([]), [1.0])
