"""Parameters that are computed of others, against torch.nn.utils.parametrize and parametrizations."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from .side_by_side import Program, module, seen


def utils(n: Any) -> Any:
    """The module of parametrizing."""
    return module(n, "nn.utils.parametrize")


def made(n: Any, forward: Callable[..., Any], right_inverse: Callable[[Any], Any] | None = None) -> Any:
    """A parametrization of functions."""

    class Made(n.nn.Module):  # type: ignore[misc]
        def forward(self, *values: Any) -> Any:
            return forward(*values)

    if right_inverse is not None:
        Made.right_inverse = lambda self, value: right_inverse(value)
    return Made()


def symmetric(n: Any) -> Any:
    """The upper triangle, mirrored."""
    return made(n, lambda x: x.triu() + x.triu(1).mT)


def layer(n: Any, *parametrizations: Any, **options: Any) -> Any:
    """A layer with a parametrized weight."""
    linear = n.nn.Linear(3, 3)
    for one in parametrizations:
        utils(n).register_parametrization(linear, "weight", one, **options)
    return linear


def _trained(n: Any) -> Any:
    m = n.nn.Sequential(layer(n, symmetric(n)), n.nn.ReLU())
    optimizer = n.optim.Adam(m.parameters(), lr=0.1)
    x = n.linspace(-1, 1, 6).reshape(2, 3)
    outputs = []
    for _ in range(3):
        optimizer.zero_grad()
        outputs.append(m(x))
        outputs[-1].sum().backward()
        optimizer.step()
    with n.no_grad():
        m[0].parametrizations.weight.original.zero_()
    return outputs, m, m(x), m.state_dict(), [name for name, _ in m.named_parameters()]


def _chained(n: Any) -> Any:
    double, exp = made(n, lambda x: 2 * x, lambda x: x / 2), made(n, lambda x: x.exp(), lambda x: x.log())
    m = n.nn.Linear(3, 3)
    n.nn.init.constant_(m.weight, 0.5)
    for one in (exp, double):
        utils(n).register_parametrization(m, "weight", one, unsafe=True)
    before = m.weight
    m.weight = n.full((3, 3), 4.0)
    return before, m, m.weight, m.state_dict(), len(m.parametrizations.weight), m.parametrizations["weight"][1]


def _several(n: Any) -> Any:
    m = layer(n, made(n, lambda x, y: x @ y, lambda x: (x, n.eye(3))))
    m.weight = n.ones(3, 3)
    return m, m.weight, m.state_dict()


def _of_a_buffer(n: Any) -> Any:
    m = n.nn.BatchNorm1d(2)
    utils(n).register_parametrization(m, "running_var", made(n, lambda x: x + 1))
    return m, m.running_var, m.state_dict(), utils(n).is_parametrized(m, "running_var"), utils(n).is_parametrized(m)


def _removed(n: Any, leave: bool) -> Any:
    m = layer(n, symmetric(n))
    utils(n).register_parametrization(m, "bias", made(n, lambda x: x * 2))
    first = utils(n).type_before_parametrizations(m).__name__
    weight = m.parametrizations.weight.original
    utils(n).remove_parametrizations(m, "weight", leave_parametrized=leave)
    kinds = [type(m).__name__]
    utils(n).remove_parametrizations(m, "bias")
    kinds.append(type(m).__name__)
    return first, kinds, m, m.state_dict(), m.weight is weight, hasattr(m, "parametrizations"), m(n.ones(3))


def _removed_several(n: Any, leave: bool) -> Any:
    m = layer(n, made(n, lambda x, y: x @ y, lambda x: (x, n.eye(3))))
    return utils(n).remove_parametrizations(m, "weight", leave_parametrized=leave).state_dict()


def _cached(n: Any) -> Any:
    calls: list[int] = []

    def counted(x: Any) -> Any:
        calls.append(1)
        return x * 2

    m = layer(n, made(n, counted))
    calls.clear()
    with utils(n).cached():
        same = m.weight is m.weight
        with utils(n).cached():
            same = same and m.weight is m.weight
        inside = len(calls)
    return same, inside, m.weight is m.weight, len(calls)


def _copied(n: Any) -> Any:
    m = n.nn.Sequential(layer(n, symmetric(n)))
    twin = copy.deepcopy(m)
    with n.no_grad():
        m[0].parametrizations.weight.original.zero_()
    twin.load_state_dict(twin.state_dict())
    return m[0].weight, twin[0].weight, twin, type(twin[0]).__name__, twin(n.ones(3))


def _transferred(n: Any) -> Any:
    m, other = layer(n, symmetric(n)), n.nn.Linear(3, 3)
    utils(n).transfer_parametrizations_and_params(m, other)
    return other, other.weight - m.weight, other.state_dict(), other.parametrizations.weight.original.is_leaf


def _assigned(n: Any, right_inverse: Any) -> Any:
    m = layer(n, made(n, lambda x: x, lambda x: x))
    type(m.parametrizations.weight[0]).right_inverse = lambda self, value: right_inverse(value)
    m.weight = n.zeros(3, 3)
    return m.weight


def _refusals() -> dict[str, Program]:
    pairs: dict[str, tuple[Any, Any]] = {
        "no tensor": (lambda x: 3, None),
        "another dtype": (lambda x: x.double(), None),
        "another shape": (lambda x: x[0], None),
        "an inverse that is no tensor": (lambda x: x, lambda x: 3),
        "an inverse of another dtype": (lambda x: x, lambda x: x.double()),
        "an inverse of tensors and others": (lambda x: x, lambda x: (x, 3)),
        "an inverse of another shape": (lambda x: x, lambda x: x[0]),
    }

    def registered(forward: Any, inverse: Any, behind: bool) -> Program:
        return lambda n: layer(n, *([symmetric(n)] if behind else []), made(n, forward, inverse))

    programs: dict[str, Program] = {}
    for name, pair in pairs.items():
        programs[name] = registered(*pair, False)
        programs[f"{name}, behind another"] = registered(*pair, True)
        if pair[1] is not None:
            programs[f"{name}, assigned"] = functools.partial(_assigned, right_inverse=pair[1])
    return programs


PROGRAMS: dict[str, Program] = {
    "trained": _trained,
    "chained": _chained,
    "of several tensors": _several,
    "of a buffer": _of_a_buffer,
    "removed": lambda n: _removed(n, True),
    "removed with the original": lambda n: _removed(n, False),
    "removed of several": lambda n: _removed_several(n, True),
    "removed of several with the originals": lambda n: _removed_several(n, False),
    "cached": _cached,
    "copied": _copied,
    "transferred": _transferred,
    "another shape that may be": lambda n: layer(n, made(n, lambda x: x[0]), unsafe=True).weight,
    "no such tensor": lambda n: utils(n).register_parametrization(n.nn.Linear(1, 1), "x", symmetric(n)),
    "nothing to remove": lambda n: utils(n).remove_parametrizations(n.nn.Linear(1, 1), "weight"),
    "no parametrizations": lambda n: utils(n).ParametrizationList([], n.ones(1)),
    "assigned without an inverse": lambda n: setattr(layer(n, symmetric(n)), "weight", n.ones(3, 3)),
    "assigned a parameter": lambda n: setattr(layer(n, symmetric(n)), "weight", n.nn.Parameter(n.ones(3, 3))),
    "pickled": lambda n: pickle.dumps(layer(n, symmetric(n))),
    **_refusals(),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_parametrizing_does_as_torch_s(tc: Any, program: Program) -> None:
    assert seen(program, tc) == seen(program, torch)


def of_torch(n: Any) -> Any:
    """The parametrizations that torch has."""
    return module(n, "nn.utils.parametrizations")


def _run(register: Callable[[Any, Any], Any], make: Program, shape: tuple[int, ...]) -> Program:
    def program(n: Any) -> Any:
        m = make(n)
        text = repr(register(n, m))
        x = n.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)
        optimizer = n.optim.SGD(m.parameters(), lr=0.1)
        weights = []
        for _ in range(2):
            optimizer.zero_grad()
            (m(x) * x.mean()).square().sum().backward()
            optimizer.step()
            weights.append(m.weight)
        m.eval()
        return text, weights, m.weight, list(m.state_dict()), [p.grad for p in m.parameters()]

    return program


def _linear(rows: int, columns: int) -> Program:
    return lambda n: n.nn.Linear(columns, rows)


def _old_names(n: Any) -> Any:
    m = of_torch(n).weight_norm(n.nn.Linear(2, 1))
    result = m.load_state_dict({"weight_g": n.full((1, 1), 5.0), "weight_v": n.tensor([[3.0, 4.0]]), "bias": n.ones(1)})
    return result, m.weight


def _orthogonal_assigned(n: Any, matrix: list[list[float]], **options: Any) -> Any:
    m = of_torch(n).orthogonal(n.nn.Linear(2, 2), **options)
    m.weight = n.tensor(matrix)
    return m.weight, m.weight @ m.weight.T


FORMULAS: dict[str, Program] = {
    "weight_norm": _run(lambda n, m: of_torch(n).weight_norm(m), _linear(3, 4), (2, 4)),
    "weight_norm of all": _run(lambda n, m: of_torch(n).weight_norm(m, dim=None), _linear(3, 4), (2, 4)),
    "weight_norm of columns": _run(
        lambda n, m: of_torch(n).weight_norm(m, "weight", 1), lambda n: n.nn.Conv1d(2, 3, 2), (1, 2, 4)
    ),
    "weight_norm of old names": _old_names,
    "spectral_norm": _run(lambda n, m: of_torch(n).spectral_norm(m), _linear(3, 4), (2, 4)),
    "spectral_norm, transposed": _run(
        lambda n, m: of_torch(n).spectral_norm(m, n_power_iterations=3),
        lambda n: n.nn.ConvTranspose1d(2, 3, 2),
        (1, 2, 4),
    ),
    "spectral_norm of a vector": lambda n: of_torch(n).spectral_norm(n.nn.Linear(2, 3), "bias").bias,
    "orthogonal": _run(lambda n, m: of_torch(n).orthogonal(m), _linear(3, 3), (2, 3)),
    "orthogonal, tall": _run(lambda n, m: of_torch(n).orthogonal(m), _linear(4, 2), (3, 2)),
    "orthogonal, wide": _run(
        lambda n, m: of_torch(n).orthogonal(m, orthogonal_map="matrix_exp"), _linear(2, 4), (3, 4)
    ),
    "orthogonal by Cayley": _run(
        lambda n, m: of_torch(n).orthogonal(m, orthogonal_map="cayley"), _linear(4, 3), (3, 3)
    ),
    "orthogonal, plain": _run(
        lambda n, m: of_torch(n).orthogonal(m, orthogonal_map="cayley", use_trivialization=False),
        _linear(3, 3),
        (2, 3),
    ),
    "orthogonal, plain reflections": _run(
        lambda n, m: of_torch(n).orthogonal(m, use_trivialization=False), _linear(2, 3), (2, 3)
    ),
    "orthogonal, assigned": lambda n: _orthogonal_assigned(n, [[0.0, 1.0], [-1.0, 0.0]]),
    "orthogonal, assigned another": lambda n: _orthogonal_assigned(n, [[2.0, 1.0], [-1.0, 3.0]]),
    "orthogonal, assigned a shape": lambda n: _orthogonal_assigned(n, [[2.0, 1.0]]),
    "orthogonal, assigned in vain": lambda n: _orthogonal_assigned(
        n, [[1.0, 0.0], [0.0, 1.0]], use_trivialization=False
    ),
    "orthogonal of a vector": lambda n: of_torch(n).orthogonal(n.nn.Linear(1, 1), "bias"),
    "orthogonal by nothing": lambda n: of_torch(n).orthogonal(n.nn.Linear(1, 1), orthogonal_map="x"),
    "orthogonal of nothing": lambda n: of_torch(n).orthogonal(n.nn.Linear(1, 1), "x"),
    "spectral_norm of nothing": lambda n: of_torch(n).spectral_norm(n.nn.Linear(1, 1), "x"),
    "spectral_norm, dimension": lambda n: of_torch(n).spectral_norm(n.nn.Linear(1, 1), dim=2),
    "spectral_norm, iterations": lambda n: of_torch(n).spectral_norm(n.nn.Linear(1, 1), n_power_iterations=0),
}


@pytest.mark.parametrize("program", FORMULAS.values(), ids=FORMULAS.keys())
def test_parametrizations_compute_what_torch_s_do(tc: Any, program: Program) -> None:
    assert seen(program, tc) == seen(program, torch)


@pytest.mark.parametrize("path", ["nn.utils.parametrize", "nn.utils.parametrizations", "nn.utils.prune"])
def test_every_name_is_there(tc: Any, path: str) -> None:
    theirs, ours = module(torch, path), module(tc, path)
    public = {name for name, value in vars(theirs).items() if getattr(value, "__module__", "") == theirs.__name__}
    assert not {name for name in public if not name.startswith("_") and not hasattr(ours, name)}
