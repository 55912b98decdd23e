"""Optimisers and schedules against torch.optim: the same numbers after several steps, and one call a step."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tserver.engine import optimizers
from tserver.engine.versions import set_data

OPTIMISERS: dict[str, Callable[[Any, Any], Any]] = {
    "SGD": lambda optim, p: optim.SGD(p, lr=0.1),
    "SGD with momentum": lambda optim, p: optim.SGD(p, 0.1, 0.9, 0.1, 0.01),
    "SGD of Nesterov": lambda optim, p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    "Adam": lambda optim, p: optim.Adam(p, lr=0.05),
    "Adam with AMSGrad": lambda optim, p: optim.Adam(p, 0.05, (0.8, 0.9), weight_decay=0.1, amsgrad=True),
    "AdamW": lambda optim, p: optim.AdamW(p, lr=0.05, weight_decay=0.1),
    "Adamax": lambda optim, p: optim.Adamax(p, lr=0.05),
    "NAdam": lambda optim, p: optim.NAdam(p, lr=0.05, decoupled_weight_decay=True, weight_decay=0.1),
    "RAdam": lambda optim, p: optim.RAdam(p, lr=0.05),
    "Adagrad": lambda optim, p: optim.Adagrad(p, lr=0.05, lr_decay=0.1, initial_accumulator_value=0.1),
    "Adadelta": lambda optim, p: optim.Adadelta(p, rho=0.8),
    "RMSprop": lambda optim, p: optim.RMSprop(p, lr=0.05, momentum=0.5, centered=True),
    "Rprop": lambda optim, p: optim.Rprop(p, etas=(0.4, 1.3)),
    "ASGD": lambda optim, p: optim.ASGD(p, t0=2),
    "Adafactor": lambda optim, p: optim.Adafactor(p),
    "Muon": lambda optim, p: optim.Muon([one for one in p if one.dim() == 2], 0.05, adjust_lr_fn="match_rms_adamw"),
}

by_optimiser = pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS.keys())
DATA = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)


def model(namespace: Any) -> Any:
    """A small network, drawn from the same seed."""
    namespace.manual_seed(5)
    nn = namespace.nn
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))


def train(namespace: Any, network: Any, optimizer: Any, steps: int) -> None:
    """Some steps on the same data."""
    x = namespace.tensor(DATA)
    for _ in range(steps):
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()


def assert_same(ours: Any, theirs: Any) -> None:
    """Same parameters in both networks."""
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=1e-5, atol=1e-6)


@by_optimiser
def test_an_optimiser_has_the_numbers_text_and_state_of_torch(tc: Any, make: Callable[[Any, Any], Any]) -> None:
    ours, theirs = model(tc), model(torch)
    one, other = make(tc.optim, ours.parameters()), make(torch.optim, theirs.parameters())
    assert repr(one) == repr(other)
    train(tc, ours, one, 4)
    train(torch, theirs, other, 4)
    assert_same(ours, theirs)
    got, expected = one.state_dict(), other.state_dict()
    assert got["param_groups"] == expected["param_groups"]
    assert got["state"].keys() == expected["state"].keys()
    for index, entries in expected["state"].items():
        assert got["state"][index].keys() == entries.keys()
        for name, value in entries.items():
            np.testing.assert_allclose(np.asarray(got["state"][index][name]), np.asarray(value), rtol=1e-5, atol=1e-7)


@by_optimiser
def test_training_goes_on_from_a_saved_state(tc: Any, make: Callable[[Any, Any], Any]) -> None:
    whole, first, second = model(tc), model(tc), model(tc)
    train(tc, whole, make(tc.optim, whole.parameters()), 4)
    early = make(tc.optim, first.parameters())
    train(tc, first, early, 2)
    late = make(tc.optim, second.parameters())
    second.load_state_dict(first.state_dict())
    late.load_state_dict(early.state_dict())
    train(tc, second, late, 2)
    assert_same(second, whole)


def test_a_step_is_one_call_and_so_is_zero_grad(tc: Any) -> None:
    network = tc.nn.MLP([4, 8, 8, 8, 1])
    optimizer = tc.optim.Adam(network.parameters(), lr=0.1)
    network(tc.tensor(DATA)).sum().backward()
    session = tc._session.current.current()
    session.synchronize()
    before = session.stats.calls, session.stats.waits
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.01
    optimizer.step()
    optimizer.zero_grad()
    assert session.stats.waits == before[1]
    session.synchronize()
    assert session.stats.calls - before[0] == 3
    assert all(parameter.grad is None for parameter in network.parameters())


def test_groups_have_options_of_their_own(tc: Any) -> None:
    networks = []
    for namespace in (tc, torch):
        network = model(namespace)
        optimizer = namespace.optim.SGD(
            [{"params": network[0].parameters(), "lr": 0.5}, {"params": network[2].weight}], lr=0.1, momentum=0.5
        )
        train(namespace, network, optimizer, 2)
        optimizer.add_param_group({"params": [network[2].bias], "lr": 0.01, "weight_decay": 0.1})
        optimizer.param_groups[1]["momentum"] = 0.25
        train(namespace, network, optimizer, 2)
        networks.append((network, repr(optimizer)))
    assert networks[0][1] == networks[1][1]
    assert_same(networks[0][0], networks[1][0])


def test_parameters_may_come_with_their_names(tc: Any) -> None:
    ours, theirs = model(tc), model(torch)
    one, other = tc.optim.SGD(ours.named_parameters()), torch.optim.SGD(theirs.named_parameters())
    assert one.param_groups[0]["param_names"] == other.param_groups[0]["param_names"]
    train(tc, ours, one, 2)
    train(torch, theirs, other, 2)
    assert_same(ours, theirs)


def test_a_closure_is_run_with_gradients_and_its_loss_returned(tc: Any) -> None:
    network = model(tc)
    optimizer = tc.optim.SGD(network.parameters(), lr=0.1)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = network(tc.tensor(DATA)).square().mean()
        loss.backward()
        return loss

    with tc.no_grad():
        losses = [optimizer.step(closure).item() for _ in range(3)]
    assert losses[0] > losses[1] > losses[2]


MISUSES: dict[str, Callable[[Any, Any], Any]] = {
    "no parameters": lambda namespace, m: namespace.optim.SGD([]),
    "negative rate": lambda namespace, m: namespace.optim.SGD(m.parameters(), lr=-1.0),
    "negative momentum": lambda namespace, m: namespace.optim.SGD(m.parameters(), momentum=-0.5),
    "nesterov without momentum": lambda namespace, m: namespace.optim.SGD(m.parameters(), nesterov=True),
    "beta above one": lambda namespace, m: namespace.optim.Adam(m.parameters(), betas=(0.9, 1.5)),
    "no tensor": lambda namespace, m: namespace.optim.SGD([3]),
    "a set": lambda namespace, m: namespace.optim.SGD([{"params": set(m.parameters())}]),
    "twice the same": lambda namespace, m: namespace.optim.SGD(
        [{"params": m.parameters()}, {"params": m.parameters()}]
    ),
    "no leaf": lambda namespace, m: namespace.optim.SGD([m[0].weight * 2]),
    "unknown option": lambda namespace, m: namespace.optim.SGD(m.parameters(), speed=3),
    "group that is no dict": lambda namespace, m: namespace.optim.SGD(m.parameters()).add_param_group([1]),
    "other groups": lambda namespace, m: namespace.optim.SGD(m.parameters()).load_state_dict(
        {"state": {}, "param_groups": []}
    ),
    "other parameters": lambda namespace, m: namespace.optim.SGD(m.parameters()).load_state_dict(
        {"state": {}, "param_groups": [{"params": [0]}]}
    ),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES.keys())
def test_misuse_is_refused_in_the_words_of_torch(tc: Any, misuse: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - torch says which
        misuse(torch, model(torch))
    with pytest.raises(type(expected.value)) as got:
        misuse(tc, model(tc))
    assert str(got.value) == str(expected.value)


# The server's side


def test_the_server_refuses_kinds_and_options_that_it_does_not_know() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    group = {"params": [parameter]}
    make = optimizers.BUILTIN_OPERATIONS["tc.optimizer"]
    with pytest.raises(ValueError, match="no optimiser 'Adm'; did you mean 'Adam'"):
        make("Adm", [group], {})
    with pytest.raises(TypeError, match="unexpected keyword argument 'differentiable'"):
        make("SGD", [group], {"differentiable": True})
    with pytest.raises(TypeError, match="lr is a str; give a number"):
        make("SGD", [{**group, "lr": "fast"}], {})
    with pytest.raises(TypeError, match="kind is a int"):
        make(3, [group], {})
    with pytest.raises(TypeError, match=r"give what tc\.optimizer returned"):
        optimizers.BUILTIN_OPERATIONS["tc.optimizer_step"](parameter, [])
    with pytest.raises(ValueError, match="options for 2 groups, but there are 1"):
        optimizers.BUILTIN_OPERATIONS["tc.optimizer_step"](make("SGD", [group], {}), [{}, {}])


def _a_larger_parameter(parameter: Any, state: list[Any]) -> None:
    set_data(parameter, torch.ones(1 << 24))


def _a_larger_parameter_and_gradient(parameter: Any, state: list[Any]) -> None:
    set_data(parameter, torch.ones(1 << 24))
    parameter.grad = torch.ones(1 << 24)


def _a_parameter_without_memory_of_its_own(parameter: Any, state: list[Any]) -> None:
    set_data(parameter, torch.ones(1).expand(4))


def _less_to_remember(parameter: Any, state: list[Any]) -> None:
    for value in state:
        if value.dim():
            set_data(value, torch.ones(2))


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "Adagrad"])
@pytest.mark.parametrize(
    "change",
    [
        _a_larger_parameter,
        _a_larger_parameter_and_gradient,
        _a_parameter_without_memory_of_its_own,
        _less_to_remember,
    ],
    ids=lambda change: change.__name__.strip("_"),
)
def test_a_fused_step_refuses_what_it_would_take_the_parameters_size_for(
    kind: str, change: Callable[[Any, list[Any]], None]
) -> None:
    parameter = torch.ones(4, requires_grad=True)
    parameter.grad = torch.ones(4)
    options = {"fused": True, "lr": 0.1, **({"momentum": 0.9} if kind == "SGD" else {})}
    optimizer = optimizers.make(kind, [{"params": [parameter]}], options)
    optimizer.step([])
    change(parameter, optimizer.state()[1])
    before = parameter.detach().clone()
    with pytest.raises(RuntimeError, match="with fused=True has a"):
        optimizer.step([])
    assert torch.equal(parameter, before)


# Schedules

SCHEDULES: dict[str, Callable[[Any, Any], Any]] = {
    "StepLR": lambda s, o: s.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [2, 5, 5], 0.5),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.9),
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda epoch: 0.9),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.25, 4),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.25, 0.9, 6),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 8, 2.0),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 5, 0.01),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 2, 2, 0.01),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 0.5, total_steps=20),
    "OneCycleLR of three phases": lambda s, o: s.OneCycleLR(
        o, [0.5, 0.25], epochs=4, steps_per_epoch=5, anneal_strategy="linear", three_phase=True
    ),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.01, 0.2, 3, 2, "triangular2"),
    "CyclicLR of powers": lambda s, o: s.CyclicLR(o, 0.01, 0.2, 3, mode="exp_range", gamma=0.9),
    "SequentialLR": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=3), s.CosineAnnealingLR(o, 6), s.ExponentialLR(o, 0.5)], [3, 8]
    ),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 4), s.ExponentialLR(o, 0.9)]),
}


def rates(namespace: Any, make: Callable[[Any, Any], Any]) -> list[Any]:
    """What every group's rate and momentum are, step by step."""
    network = model(namespace)
    optimizer = namespace.optim.SGD(
        [{"params": network[0].parameters()}, {"params": network[2].parameters(), "lr": 0.3}], lr=0.2, momentum=0.9
    )
    schedule = make(namespace.optim.lr_scheduler, optimizer)
    seen = []
    for _ in range(16):
        seen.append([(group["lr"], group["momentum"]) for group in optimizer.param_groups] + schedule.get_last_lr())
        optimizer.step()
        schedule.step()
    return seen


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_a_schedule_has_the_rates_of_torch(tc: Any, make: Callable[[Any, Any], Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR of torch passes an epoch, which torch deprecates
        assert rates(tc, make) == rates(torch, make)


def test_a_plateau_lowers_the_rate_as_in_torch(tc: Any) -> None:
    figures = [1.0, 0.9, 0.9, 0.9, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6, math.nan, 0.6, 0.1]
    seen = []
    for namespace in (tc, torch):
        optimizer = namespace.optim.SGD(model(namespace).parameters(), lr=0.2)
        schedule = namespace.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, cooldown=1, min_lr=0.001)
        found = []
        for figure in figures:
            schedule.step(namespace.tensor(figure))
            found.append(optimizer.param_groups[0]["lr"])
        seen.append(found)
    assert seen[0] == seen[1]


def test_a_new_rate_is_that_of_the_next_step(tc: Any) -> None:
    ours, theirs = model(tc), model(torch)
    for namespace, network in ((tc, ours), (torch, theirs)):
        optimizer = namespace.optim.Adam(network.parameters(), lr=0.1)
        schedule = namespace.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        for _ in range(4):
            train(namespace, network, optimizer, 1)
            schedule.step()
    assert_same(ours, theirs)


def test_a_schedule_goes_on_from_a_saved_state(tc: Any) -> None:
    def schedule() -> Any:
        return tc.optim.lr_scheduler.StepLR(tc.optim.SGD(model(tc).parameters(), lr=0.2), 2)

    first, second = schedule(), schedule()
    first.optimizer.step()
    for _ in range(3):
        first.step()
    second.load_state_dict(first.state_dict())
    assert second.last_epoch == 3
    assert second.get_last_lr() == first.get_last_lr()


def test_a_schedule_before_the_first_step_is_warned_about(tc: Any) -> None:
    schedule = tc.optim.lr_scheduler.StepLR(tc.optim.SGD(model(tc).parameters()), 2)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        schedule.step()


@by_optimiser
def test_a_copied_optimiser_goes_on_with_copies_of_the_parameters(tc: Any, make: Callable[[Any, Any], Any]) -> None:
    found = []
    for namespace in (tc, torch):
        network = model(namespace)
        optimizer = make(namespace.optim, network.parameters())
        schedule = namespace.optim.lr_scheduler.StepLR(optimizer, 2)
        train(namespace, network, optimizer, 3)
        schedule.step()
        twin_network, twin_schedule = copy.deepcopy((network, schedule))
        twin = twin_schedule.optimizer
        assert twin.param_groups[0]["params"][0] is next(twin_network.parameters())
        before = [parameter.tolist() for parameter in network.parameters()]
        train(namespace, twin_network, twin, 2)
        twin_schedule.step()
        assert [parameter.tolist() for parameter in network.parameters()] == before
        found.append((twin_network, twin.state_dict()["param_groups"], optimizer.state_dict()["param_groups"]))
    assert found[0][1:] == found[1][1:]
    assert_same(found[0][0], found[1][0])


def test_the_old_base_of_schedules_can_be_inherited_from(tc: Any) -> None:
    rates = []
    for namespace in (tc, torch):

        class Halving(namespace.optim.lr_scheduler._LRScheduler):  # type: ignore[misc, name-defined]
            def get_lr(self) -> list[float]:
                return [base * 0.5**self.last_epoch for base in self.base_lrs]

        optimizer = namespace.optim.SGD(model(namespace).parameters(), lr=1.0)
        schedule = Halving(optimizer)
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr())
        assert isinstance(schedule, namespace.optim.lr_scheduler.LRScheduler)
    assert rates[0] == rates[1] == [0.5]
