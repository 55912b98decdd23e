"""Optimisers whose steps run in the client, and what all optimisers have: hooks, state, groups; against torch."""

from __future__ import annotations

import copy
import importlib
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

DATA = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
Program = Callable[[Any], Any]


def model(namespace: Any) -> Any:
    """A small network, drawn from the same seed."""
    namespace.manual_seed(5)
    nn = namespace.nn
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))


def plain(value: Any) -> Any:
    """A value as it is compared: tensors as lists, parameters by their shape where they are keys."""
    if hasattr(value, "detach"):
        return [round(number, 4) for number in value.detach().double().reshape(-1).tolist()]
    if isinstance(value, dict):
        return {f"of {tuple(key.shape)}" if hasattr(key, "detach") else key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return round(float(value), 4) if isinstance(value, float | np.floating) else value


def numbers(network: Any) -> list[float]:
    """All parameters of a network."""
    return [number for param in network.parameters() for number in param.detach().reshape(-1).tolist()]


def seen(program: Program, namespace: Any) -> Any:
    """What a program returns, or what it raises."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # sockets of other tests
        try:
            result = plain(program(namespace))
        except Exception as error:
            builtin = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
            return builtin, re.sub(r"<function .*?>", "<function>", str(error))
    return result, [str(warning.message) for warning in caught]


# L-BFGS

SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "a rate of its own": {"lr": 0.3, "max_iter": 7},
    "one iteration a step": {"max_iter": 1},
    "short memory": {"history_size": 2, "lr": 0.5},
    "strong Wolfe": {"line_search_fn": "strong_wolfe"},
    "strong Wolfe, little": {"line_search_fn": "strong_wolfe", "max_iter": 4, "history_size": 3, "lr": 0.1},
    "strong Wolfe, far": {"line_search_fn": "strong_wolfe", "max_iter": 9, "lr": 80.0},
    "few evaluations": {"max_eval": 3, "line_search_fn": "strong_wolfe"},
}


def minimised(namespace: Any, settings: dict[str, Any], steps: int, dtype: str = "float32") -> Any:
    """A network after some steps, the optimiser, and the losses."""
    network = model(namespace).to(getattr(namespace, dtype))
    optimizer = namespace.optim.LBFGS(network.parameters(), **settings)
    x = namespace.tensor(DATA).to(getattr(namespace, dtype))
    evaluations = [0]

    def closure() -> Any:
        evaluations[0] += 1
        optimizer.zero_grad()
        loss = (network(x) - x.sin().sum(1, keepdim=True)).square().mean()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(steps)]
    return network, optimizer, losses, evaluations[0]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_lbfgs_goes_the_steps_of_torch(tc: Any, settings: dict[str, Any]) -> None:
    ours, one, losses, evaluations = minimised(tc, settings, 3, "float64")
    theirs, other, expected, expected_evaluations = minimised(torch, settings, 3, "float64")
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-5, atol=1e-6)
    assert evaluations == expected_evaluations
    assert repr(one) == repr(other)
    got, wanted = one.state_dict()["state"][0], other.state_dict()["state"][0]
    assert set(got) == set(wanted)
    assert [len(got[name]) for name in ("old_dirs", "ro", "al")] == [len(wanted[n]) for n in ("old_dirs", "ro", "al")]
    assert {name: got[name] for name in ("func_evals", "n_iter")} == {n: wanted[n] for n in ("func_evals", "n_iter")}


def test_lbfgs_has_the_numbers_of_torch_in_float32(tc: Any) -> None:
    settings = {"line_search_fn": "strong_wolfe", "max_iter": 5}
    ours, _, losses, evaluations = minimised(tc, settings, 2)
    theirs, _, expected, expected_evaluations = minimised(torch, settings, 2)
    assert evaluations == expected_evaluations
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-3, atol=1e-4)


def test_lbfgs_goes_on_from_a_saved_state(tc: Any) -> None:
    whole, _, losses, _ = minimised(tc, {"max_iter": 3}, 2, "float64")
    _, first, _, _ = minimised(tc, {"max_iter": 3}, 1, "float64")
    second, optimizer, _, _ = minimised(tc, {"max_iter": 3}, 0, "float64")
    second.load_state_dict(
        dict(zip(second.state_dict(), [p.detach() for p in first.param_groups[0]["params"]], strict=True))
    )
    optimizer.load_state_dict(copy.deepcopy(first.state_dict()))
    x = tc.tensor(DATA).double()

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (second(x) - x.sin().sum(1, keepdim=True)).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(losses[1])
    np.testing.assert_allclose(numbers(second), numbers(whole), rtol=1e-6, atol=1e-8)


# An optimiser of one's own


def descent(namespace: Any) -> Any:
    """A class as courses write it."""
    required = importlib.import_module(f"{namespace.__name__}.optim.optimizer").required

    class Descent(namespace.optim.Optimizer):  # type: ignore[misc]
        def __init__(self, params: Any, lr: Any = required, momentum: float = 0.5) -> None:
            super().__init__(params, {"lr": lr, "momentum": momentum})

        @namespace.no_grad()  # type: ignore[untyped-decorator]
        def step(self, closure: Any = None) -> Any:
            loss = None
            if closure is not None:
                with namespace.enable_grad():
                    loss = closure()
            for group in self.param_groups:
                for param in group["params"]:
                    if param.grad is None:
                        continue
                    state = self.state[param]
                    if len(state) == 0:
                        state["step"] = 0
                        state["mean"] = namespace.zeros_like(param)
                    state["step"] += 1
                    state["mean"].mul_(group["momentum"]).add_(param.grad)
                    param.add_(state["mean"], alpha=-group["lr"])
            return loss

    return Descent


def descended(namespace: Any, steps: int = 3, **options: Any) -> Any:
    """A network after some steps of it, and the optimiser."""
    network = model(namespace)
    optimizer = descent(namespace)(network.parameters(), **{"lr": 0.1, **options})
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=False)
        network(namespace.tensor(DATA)).square().mean().backward()
        optimizer.step()
    return network, optimizer


def _continued(namespace: Any) -> Any:
    network, first = descended(namespace)
    state = copy.deepcopy(first.state_dict())
    state["state"]["mine"] = 3
    optimizer = descent(namespace)(network.parameters(), lr=7.0)
    optimizer.load_state_dict(state)
    network(namespace.tensor(DATA)).square().mean().backward()
    optimizer.step()
    return numbers(network), optimizer.state_dict()


def _other_dtype(namespace: Any) -> Any:
    _, first = descended(namespace)
    network = model(namespace).double()
    optimizer = descent(namespace)(network.parameters(), lr=7.0)
    optimizer.load_state_dict(first.state_dict())
    return [str(entry["mean"].dtype) for entry in optimizer.state.values()]


def _copied(namespace: Any) -> Any:
    network, optimizer = descended(namespace)
    twin_network, twin = copy.deepcopy((network, optimizer))
    twin_network(namespace.tensor(DATA)).square().mean().backward()
    twin.step()
    return numbers(network), numbers(twin_network), twin.state_dict(), twin.param_groups[0]["lr"]


def _scheduled(namespace: Any) -> Any:
    network, optimizer = descended(namespace, 0)
    schedule = namespace.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    rates = []
    for _ in range(3):
        network(namespace.tensor(DATA)).mean().backward()
        optimizer.step()
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates, numbers(network)


def _hooked(kind: Program) -> Program:
    def program(namespace: Any) -> Any:
        network = model(namespace)
        optimizer = kind(namespace)(network.parameters(), lr=0.1)
        notes: list[Any] = []
        optimizer_module = importlib.import_module(f"{namespace.__name__}.optim.optimizer")
        handles = [
            optimizer_module.register_optimizer_step_pre_hook(
                lambda o, a, k: notes.append(("all pre", len(a), len(k)))
            ),
            optimizer_module.register_optimizer_step_post_hook(lambda o, a, k: notes.append(("all post", o is a[0]))),
            optimizer.register_step_pre_hook(lambda o, a, k: notes.append(("pre", len(a), sorted(k)))),
            optimizer.register_step_post_hook(lambda o, a, k: notes.append(("post", len(a), sorted(k)))),
            optimizer.register_state_dict_pre_hook(lambda o: notes.append("state pre")),
            optimizer.register_state_dict_post_hook(lambda o, s: {**s, "more": 1}),
            optimizer.register_state_dict_post_hook(lambda o, s: notes.append(sorted(s)), prepend=True),
            optimizer.register_load_state_dict_pre_hook(lambda o, s: notes.append(("load", sorted(s)))),
            optimizer.register_load_state_dict_post_hook(lambda o: notes.append("loaded")),
        ]

        def closure() -> Any:
            optimizer.zero_grad()
            loss = network(namespace.tensor(DATA)).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure=closure)
        state = optimizer.state_dict()
        notes.append(sorted(state))
        optimizer.load_state_dict(state)
        for handle in handles:
            handle.remove()
        optimizer.step()
        optimizer.state_dict()
        return notes, numbers(network)

    return program


def _replaced_arguments(namespace: Any) -> Any:
    network = model(namespace)
    optimizer = namespace.optim.SGD(network.parameters(), lr=0.1)
    called: list[int] = []
    optimizer.register_step_pre_hook(lambda o, a, k: ((o, lambda: called.append(1)), {}))
    optimizer.step()
    optimizer.register_step_pre_hook(lambda o, a, k: 3)
    return called, optimizer.step()


def _grouped(namespace: Any) -> Any:
    network = model(namespace)
    optimizer = descent(namespace)([{"params": network[0].parameters(), "lr": 0.5}])
    optimizer.add_param_group({"params": network[2].weight, "lr": 0.25, "momentum": 0.0})
    network(namespace.tensor(DATA)).square().mean().backward()
    optimizer.step()
    return numbers(network), repr(optimizer), len(optimizer.state)


def _of(make: Callable[[Any, Any], Any]) -> Program:
    return lambda namespace: repr(make(namespace, model(namespace)))


def _sgd(namespace: Any) -> Any:
    optimizer = namespace.optim.SGD(model(namespace).parameters(), lr=1.0)
    optimizer.step()
    return optimizer


def _asked_schedule(namespace: Any) -> Any:
    schedule = namespace.optim.lr_scheduler.StepLR(_sgd(namespace), 2, 0.5)
    rates = [schedule.get_lr()]
    schedule.step(3)
    return rates, schedule.get_last_lr(), schedule.last_epoch, schedule.state_dict()


def _own_schedule(namespace: Any) -> Any:
    asked: list[Any] = []

    class Own(namespace.optim.lr_scheduler.LRScheduler):  # type: ignore[misc]
        def get_lr(self) -> list[float]:
            asked.append((self._get_lr_called_within_step, self._is_initial))
            return [base * 0.9**self.last_epoch for base in self.base_lrs]

        def _get_closed_form_lr(self) -> list[float]:
            return [7.0 for _ in self.base_lrs]

    schedule = Own(_sgd(namespace))
    schedule.step()
    rates = [schedule.get_last_lr(), schedule.get_lr()]
    schedule.step(5)
    return rates, schedule.get_last_lr(), asked


class _Decay:
    """A function of the epoch that remembers."""

    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, epoch: int) -> float:
        return self.by**epoch


def _functions(namespace: Any) -> Any:
    schedules = namespace.optim.lr_scheduler
    first = schedules.LambdaLR(_sgd(namespace), _Decay(0.5))
    second = schedules.LambdaLR(_sgd(namespace), _Decay(0.1))
    state = first.state_dict()
    second.load_state_dict(state)
    second.step()
    plain_state = schedules.MultiplicativeLR(_sgd(namespace), lambda epoch: 0.9).state_dict()
    return state, second.get_last_lr(), plain_state


def _dense(namespace: Any) -> Any:
    network = model(namespace)
    optimizer = namespace.optim.SparseAdam(network.parameters())
    network(namespace.tensor(DATA)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


PROGRAMS: dict[str, Program] = {
    "trained": lambda n: [numbers(descended(n)[0]), descended(n)[1].state_dict(), repr(descended(n)[1])],
    "its state by parameter": lambda n: descended(n)[1].state,
    "continued": _continued,
    "of another dtype": _other_dtype,
    "copied": _copied,
    "scheduled": _scheduled,
    "hooks of one's own": _hooked(descent),
    "hooks of SGD": _hooked(lambda n: n.optim.SGD),
    "hooks of Adam": _hooked(lambda n: n.optim.Adam),
    "hook with other arguments": _replaced_arguments,
    "groups": _grouped,
    "with names": _of(lambda n, m: descent(n)(m.named_parameters(), lr=1.0)),
    "required option": _of(lambda n, m: descent(n)(m.parameters())),
    "no step": lambda n: n.optim.Optimizer(model(n).parameters(), {}).step(),
    "no parameters": _of(lambda n, m: descent(n)([])),
    "one tensor": _of(lambda n, m: descent(n)(m[0].weight)),
    "no tensors": _of(lambda n, m: descent(n)([3])),
    "no leaf": _of(lambda n, m: descent(n)([m[0].weight * 2], lr=1.0)),
    "twice in a group": _of(lambda n, m: descent(n)([m[0].weight] * 2, lr=1.0)),
    "twice in groups": _of(lambda n, m: descent(n)([{"params": m[0].weight}] * 2, lr=1.0)),
    "a set": _of(lambda n, m: descent(n)([{"params": set(m.parameters())}])),
    "some names": _of(lambda n, m: descent(n)([("a", m[0].weight), m[0].bias], lr=1.0)),
    "names in one group": _of(lambda n, m: descent(n)([{"params": [("a", m[0].weight)]}, {"params": m[0].bias}], lr=1)),
    "no names in one group": _of(
        lambda n, m: descent(n)([{"params": m[0].bias}, {"params": [("a", m[0].weight)]}], lr=1)
    ),
    "other groups": lambda n: descended(n)[1].load_state_dict({"state": {}, "param_groups": []}),
    "a schedule that is asked": _asked_schedule,
    "a schedule of one's own": _own_schedule,
    "schedules of functions": _functions,
    "a schedule that goes on": lambda n: n.optim.lr_scheduler.StepLR(_sgd(n), 2, last_epoch=3),
    "a plateau": lambda n: n.optim.lr_scheduler.ReduceLROnPlateau(_sgd(n)).state_dict(),
    "LBFGS of two groups": _of(lambda n, m: n.optim.LBFGS([{"params": m[0].weight}, {"params": m[0].bias}])),
    "LBFGS rate": _of(lambda n, m: n.optim.LBFGS(m.parameters(), lr=-1)),
    "LBFGS without closure": lambda n: n.optim.LBFGS(model(n).parameters()).step(),
    "LBFGS search": lambda n: minimised(n, {"line_search_fn": "weak"}, 1),
    "Muon of vectors": _of(lambda n, m: n.optim.Muon(m.parameters())),
    "Muon of a strange rate": _of(lambda n, m: n.optim.Muon([m[0].weight], adjust_lr_fn="x")),
    "SparseAdam": _of(lambda n, m: n.optim.SparseAdam(m.parameters())),
    "SparseAdam of dense gradients": _dense,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_an_optimiser_does_as_torch_s(tc: Any, program: Program) -> None:
    assert seen(program, tc) == seen(program, torch)


def test_every_optimiser_and_method_of_torch_is_there(tc: Any) -> None:
    left_out = {"swap_in_optimizer_params_and_state"}  # for tracing with fake tensors, which the client does not do
    assert {name for name in torch.optim.__all__ if not hasattr(tc.optim, name)} == left_out
    schedules = torch.optim.lr_scheduler
    assert {name for name in schedules.__all__ if not hasattr(tc.optim.lr_scheduler, name)} == set()
    methods = {name for name in dir(torch.optim.Optimizer) if not name.startswith("_")}
    assert methods <= set(dir(tc.optim.Optimizer))
    for name in torch.optim.__all__:
        kind = getattr(torch.optim, name)
        if isinstance(kind, type):
            assert issubclass(getattr(tc.optim, name), tc.optim.Optimizer)
