"""A forward pass is one call on the wire, as long as the layers can be described."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def calls(tc: Any) -> Callable[[Callable[[], Any]], int]:
    """Counts the calls that a function issues."""
    session = tc._session.current.current()

    def count(function: Callable[[], Any]) -> int:
        session.synchronize()
        before = session.stats.calls
        function()
        session.synchronize()
        return int(session.stats.calls - before)

    return count


Count = Callable[[Callable[[], Any]], int]

MODELS: dict[str, Callable[[Any], Any]] = {
    "neuron": lambda nn: nn.Neuron(4),
    "perceptron": lambda nn: nn.Perceptron([1.0, 2.0, 3.0, 4.0]),
    "layer": lambda nn: nn.Layer(4, 3, "relu"),
    "linear": lambda nn: nn.Linear(4, 3),
    "mlp": lambda nn: nn.MLP([4, 8, 8, 8, 2], output_activation="softmax"),
    "sequential": lambda nn: nn.Sequential(nn.Linear(4, 8), nn.GELU("tanh"), nn.Linear(8, 2), nn.LogSoftmax(-1)),
    "nested": lambda nn: nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.PReLU()), nn.Flatten(), nn.Layer(4, 2)),
    "inplace": lambda nn: nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)),
    "dropout in evaluation": lambda nn: nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2)).eval(),
    "step": lambda nn: nn.Step(0.5),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_a_forward_is_one_call(tc: Any, calls: Count, make: Callable[[Any], Any]) -> None:
    model, x = make(tc.nn), tc.randn(5, 4)
    expected = x
    for layer in model if isinstance(model, tc.nn.Sequential) else ():
        expected = layer(expected)
    first = model(x)
    assert calls(lambda: model(x)) == 1
    if isinstance(model, tc.nn.Sequential):
        assert bool(tc.allclose(first, expected))


def test_a_forward_and_its_read_wait_once(tc: Any) -> None:
    model, x = tc.nn.MLP([4, 8, 8, 2]), tc.randn(5, 4)
    session = tc._session.current.current()
    session.synchronize()
    before = session.stats.waits
    model(x).sum().item()
    assert session.stats.waits - before == 1


def test_making_a_model_does_not_wait(tc: Any) -> None:
    session = tc._session.current.current()
    before = session.stats.waits
    tc.nn.Sequential(tc.nn.Conv2d(1, 4, 3), tc.nn.BatchNorm2d(4), tc.nn.Flatten(), tc.nn.MLP([4, 8, 2]))
    assert session.stats.waits == before


def test_a_step_of_training_shows_in_the_next_forward_of_the_same_network(tc: Any, calls: Count) -> None:
    model, x = tc.nn.MLP([4, 3, 1]), tc.ones(2, 4)
    before = model(x).tolist()
    model(x).sum().backward()
    tc.optim.SGD(model.parameters(), lr=0.1).step()
    assert calls(lambda: model(x)) == 1
    assert model(x).tolist() != before


def test_a_parameter_that_is_replaced_makes_a_new_network(tc: Any) -> None:
    model = tc.nn.Sequential(tc.nn.Linear(2, 1, bias=False), tc.nn.Identity())
    model(tc.ones(1, 2))
    model[0].weight = tc.nn.Parameter(tc.full((1, 2), 3.0))
    assert model(tc.ones(1, 2)).tolist() == [[6.0]]


def test_a_setting_that_is_changed_makes_a_new_network(tc: Any) -> None:
    model = tc.nn.Sequential(tc.nn.Identity(), tc.nn.LeakyReLU(0.5))
    assert model(tc.tensor([-2.0])).tolist() == [-1.0]
    model[1].negative_slope = 0.25
    assert model(tc.tensor([-2.0])).tolist() == [-0.5]
    model[1] = tc.nn.ReLU()
    assert model(tc.tensor([-2.0])).tolist() == [0.0]


def test_a_layer_that_is_put_in_behind_the_back_of_its_module_is_seen(tc: Any) -> None:
    model = tc.nn.Sequential(tc.nn.Linear(2, 2), tc.nn.Identity())
    model(tc.ones(2))
    model._modules["0"] = tc.nn.ReLU()
    assert model(tc.tensor([-1.0, 1.0])).tolist() == [0.0, 1.0]
    model[0].forward = lambda input: input * 5
    assert model(tc.tensor([-1.0, 1.0])).tolist() == [-5.0, 5.0]


def test_dropout_drops_again_when_training_goes_on(tc: Any) -> None:
    model = tc.nn.Sequential(tc.nn.Identity(), tc.nn.Dropout(0.5)).eval()
    x = tc.ones(1000)
    assert model(x).min().item() == 1.0
    assert model.train()(x).min().item() == 0.0


def test_layers_that_cannot_be_described_run_one_by_one(tc: Any, calls: Count) -> None:
    model, x = tc.nn.Sequential(tc.nn.Conv1d(1, 1, 1), tc.nn.ReLU(), tc.nn.Flatten()), tc.randn(2, 1, 4)
    model(x)
    assert calls(lambda: model(x)) == 3


def test_a_hook_within_is_called(tc: Any) -> None:
    model, seen = tc.nn.MLP([4, 3, 1]), []
    with model[1].register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape))):
        model(tc.randn(2, 4))
    model(tc.randn(2, 4))
    assert seen == [(2, 3)]


def test_a_subclass_with_a_forward_of_its_own_is_asked(tc: Any) -> None:
    class Doubled(tc.nn.Linear):  # type: ignore[misc]
        def forward(self, input: Any) -> Any:
            return 2 * super().forward(input)

    layer = Doubled(4, 3)
    plain = tc.nn.functional.linear(tc.ones(4), layer.weight, layer.bias)
    assert bool(tc.allclose(tc.nn.Sequential(layer, tc.nn.Identity())(tc.ones(4)), 2 * plain))


def test_an_input_that_is_written_into_is_written_into(tc: Any) -> None:
    x = tc.tensor([-1.0, 1.0])
    tc.nn.Sequential(tc.nn.ReLU(inplace=True), tc.nn.Identity())(x)
    assert x.tolist() == [0.0, 1.0]


def test_layers_without_weights_work_in_every_session(tc: Any, server: Any) -> None:
    model, here = tc.nn.Sequential(tc.nn.ReLU(), tc.nn.Step(2.0)), tc.tensor([1.0, 2.0])
    assert model(here).tolist() == [0.0, 1.0]
    with tc.connect(server.address):
        assert model(tc.tensor([3.0])).tolist() == [1.0]
        assert model(here).tolist() == [0.0, 1.0]
    assert model(here).tolist() == [0.0, 1.0]


def test_gradients_flow_through_a_network_as_through_its_layers(tc: Any) -> None:
    model, x = tc.nn.MLP([4, 5, 1], activation="tanh"), tc.randn(3, 4)
    whole = tc.autograd.grad(model(x).sum(), list(model.parameters()))
    out = x
    for layer in model:
        out = layer(out)
    for one, other in zip(whole, tc.autograd.grad(out.sum(), list(model.parameters())), strict=True):
        assert bool(tc.allclose(one, other))


def test_no_grad_reaches_a_network(tc: Any) -> None:
    model = tc.nn.MLP([4, 5, 1])
    with tc.no_grad():
        assert not model(tc.ones(4)).requires_grad
    assert model(tc.ones(4)).requires_grad
