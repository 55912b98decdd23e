"""Pruned parameters, against torch.nn.utils.prune."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .side_by_side import Program, module, seen


def prune(n: Any) -> Any:
    """The module of pruning."""
    return module(n, "nn.utils.prune")


def shown(m: Any) -> Any:
    """What pruning shows of a module."""
    return (
        m,
        m.state_dict(),
        getattr(m, "weight", None),
        [name for name, _ in m.named_parameters()],
        [type(hook).__name__ for hook in m._forward_pre_hooks.values()],
    )


def _by(name: str, *args: Any, **kwargs: Any) -> Program:
    def program(n: Any) -> Any:
        m = n.nn.Linear(4, 3)
        result = getattr(prune(n), name)(m, "weight", *args, **kwargs)
        return result is m, shown(m), prune(n).is_pruned(m), m(n.ones(4))

    return program


def _trained(n: Any) -> Any:
    m = n.nn.Sequential(n.nn.Linear(4, 3), n.nn.ReLU(), n.nn.Linear(3, 1))
    prune(n).l1_unstructured(m[0], "weight", amount=0.5)
    prune(n).random_unstructured(m[2], "bias", 1)
    optimizer = n.optim.SGD(m.parameters(), lr=0.1)
    x = n.linspace(-1, 1, 8).reshape(2, 4)
    for _ in range(3):
        optimizer.zero_grad()
        m(x).square().sum().backward()
        optimizer.step()
    m(x)
    masked = shown(m[0])
    prune(n).remove(m[0], "weight")
    return masked, shown(m[0]), prune(n).is_pruned(m), m(x)


def _chained(n: Any) -> Any:
    m = n.nn.Conv2d(3, 4, 2)
    prune(n).l1_unstructured(m, "weight", amount=10)
    prune(n).ln_structured(m, "weight", amount=0.5, n=2, dim=0)
    prune(n).random_structured(m, "weight", amount=1, dim=1)
    prune(n).random_unstructured(m, "weight", amount=3)
    prune(n).custom_from_mask(m, "weight", n.ones(4, 3, 2, 2).triu())
    (hook,) = m._forward_pre_hooks.values()
    return shown(m), len(hook), [type(method).__name__ for method in hook], type(hook[1]).__name__, hook._tensor_name


def _everywhere(n: Any) -> Any:
    m = n.nn.Sequential(n.nn.Linear(3, 4), n.nn.Linear(4, 2))
    places = [(m[0], "weight"), (m[1], "weight"), (m[1], "bias")]
    prune(n).identity(m[1], "weight")
    prune(n).global_unstructured(places, pruning_method=prune(n).L1Unstructured, amount=0.4)
    prune(n).global_unstructured(places, prune(n).RandomUnstructured, amount=2)
    scores = {(m[0], "weight"): n.arange(12.0).reshape(4, 3)}
    prune(n).global_unstructured(places[:1], prune(n).L1Unstructured, importance_scores=scores, amount=5)
    return shown(m[0]), shown(m[1])


def _own(n: Any) -> Any:
    class EverySecond(prune(n).BasePruningMethod):  # type: ignore[misc]
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t: Any, default_mask: Any) -> Any:
            mask = default_mask.clone()
            mask.view(-1)[::2] = 0
            return mask

    m = n.nn.Linear(4, 3)
    EverySecond.apply(m, "bias")
    EverySecond.apply(m, "bias")
    method = EverySecond()
    return m.bias, m.bias_mask, method.prune(n.arange(1.0, 6.0)), type(EverySecond.apply(m, "weight")).__name__


def _failing(n: Any) -> Any:
    class Failing(prune(n).BasePruningMethod):  # type: ignore[misc]
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t: Any, default_mask: Any) -> Any:
            raise KeyError("no mask")

    m = n.nn.Linear(2, 1)
    try:
        Failing.apply(m, "weight")
    except KeyError:
        return shown(m)
    return None


def _strange_kind(n: Any) -> Any:
    class Strange(prune(n).Identity):  # type: ignore[misc]
        PRUNING_TYPE = "strange"

    m = n.nn.Linear(2, 1)
    Strange.apply(m, "weight")
    Strange.apply(m, "weight")


def _container(n: Any, method: Any) -> Any:
    p = prune(n)
    first = p.RandomUnstructured(1)
    first._tensor_name = "weight"
    container = p.PruningContainer(first)
    other = method(p)
    if isinstance(other, p.BasePruningMethod):
        other._tensor_name = "bias"
    container.add_pruning_method(other)
    return len(container)


def _saved(n: Any) -> Any:
    m, other = n.nn.Linear(3, 2), n.nn.Linear(3, 2)
    for one in (m, other):
        prune(n).l1_unstructured(one, "weight", 2)
    return other.load_state_dict(m.state_dict()), other(n.ones(3)) - m(n.ones(3))


PROGRAMS: dict[str, Program] = {
    "identity": _by("identity"),
    "random": _by("random_unstructured", 0.4),
    "random of a number": _by("random_unstructured", amount=5),
    "none": _by("random_unstructured", 0),
    "all": _by("l1_unstructured", 1.0),
    "smallest": _by("l1_unstructured", amount=0.3),
    "smallest scores": lambda n: _by("l1_unstructured", 0.3, importance_scores=n.arange(12.0).reshape(3, 4))(n),
    "scores of another shape": lambda n: _by("l1_unstructured", 0.3, importance_scores=n.arange(12.0))(n),
    "random rows": _by("random_structured", amount=0.5, dim=0),
    "random columns": _by("random_structured", 2, -1),
    "no columns": _by("random_structured", 0, -1),
    "smallest rows": _by("ln_structured", 0.3, 1, 0),
    "smallest columns": _by("ln_structured", amount=2, n=float("inf"), dim=1),
    "smallest columns of matrices": _by("ln_structured", amount=2, n=2, dim=-1),
    "a mask": lambda n: _by("custom_from_mask", mask=n.tensor([[1, 0, 0, 1]] * 3))(n),
    "a mask of another shape": lambda n: _by("custom_from_mask", mask=n.ones(4))(n),
    "trained": _trained,
    "chained": _chained,
    "everywhere": _everywhere,
    "of one's own": _own,
    "failing": _failing,
    "saved": _saved,
    "a strange kind": _strange_kind,
    "amount that is a text": _by("random_unstructured", "much"),
    "amount below zero": _by("random_unstructured", -0.1),
    "amount above one": _by("l1_unstructured", 1.5),
    "amount of too many": _by("l1_unstructured", 13),
    "rows of too many": _by("random_structured", 4, 0),
    "no such dimension": _by("random_structured", 1, 2),
    "rows of a vector": lambda n: prune(n).ln_structured(n.nn.Linear(2, 2), "bias", 1, 2, 0),
    "nothing to remove": lambda n: prune(n).remove(n.nn.Linear(2, 2), "weight"),
    "not pruned": lambda n: prune(n).is_pruned(n.nn.Sequential(n.nn.Linear(1, 1))),
    "structured everywhere": lambda n: prune(n).global_unstructured(
        [(n.nn.Linear(1, 1), "weight")], prune(n).LnStructured, amount=1, n=1
    ),
    "everywhere of no list": lambda n: prune(n).global_unstructured(3, prune(n).L1Unstructured, amount=1),
    "everywhere with scores of no dict": lambda n: prune(n).global_unstructured(
        [(n.nn.Linear(1, 1), "weight")], prune(n).L1Unstructured, importance_scores=3, amount=1
    ),
    "a container of no methods": lambda n: _container(n, lambda p: 3),
    "a container of another parameter": lambda n: _container(n, lambda p: p.Identity()),
    "a container of none": lambda n: _container(n, lambda p: None),
    "an abstract method": lambda n: prune(n).BasePruningMethod(),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_pruning_does_as_torch_s(tc: Any, program: Program) -> None:
    assert seen(program, tc) == seen(program, torch)
