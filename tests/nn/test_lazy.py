"""Modules that take their shapes from the first input, against torch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from .side_by_side import Program, module, seen

LAYERS: dict[str, tuple[Program, tuple[int, ...]]] = {
    "LazyLinear": (lambda n: n.nn.LazyLinear(3), (2, 4)),
    "LazyLinear without bias": (lambda n: n.nn.LazyLinear(3, bias=False), (4,)),
    "LazyConv1d": (lambda n: n.nn.LazyConv1d(4, 3), (2, 3, 7)),
    "LazyConv2d": (lambda n: n.nn.LazyConv2d(4, (3, 2), 2, padding=1, groups=2), (2, 2, 7, 6)),
    "LazyConv2d of one": (lambda n: n.nn.LazyConv2d(4, 3, bias=False, padding_mode="reflect", padding=1), (2, 7, 6)),
    "LazyConv3d": (lambda n: n.nn.LazyConv3d(4, 2), (1, 2, 3, 3, 3)),
    "LazyConvTranspose1d": (lambda n: n.nn.LazyConvTranspose1d(4, 3), (3, 7)),
    "LazyConvTranspose2d": (lambda n: n.nn.LazyConvTranspose2d(4, 3, stride=2, groups=2), (2, 2, 4, 4)),
    "LazyConvTranspose3d": (lambda n: n.nn.LazyConvTranspose3d(2, 2), (1, 3, 2, 2, 2)),
    "LazyBatchNorm1d": (lambda n: n.nn.LazyBatchNorm1d(), (4, 3)),
    "LazyBatchNorm2d": (lambda n: n.nn.LazyBatchNorm2d(momentum=None), (2, 3, 4, 4)),
    "LazyBatchNorm3d": (lambda n: n.nn.LazyBatchNorm3d(affine=False), (1, 2, 2, 2, 2)),
    "LazyInstanceNorm1d": (lambda n: n.nn.LazyInstanceNorm1d(bias=False), (2, 3, 5)),
    "LazyInstanceNorm2d": (lambda n: n.nn.LazyInstanceNorm2d(track_running_stats=False), (2, 3, 4, 4)),
    "LazyInstanceNorm3d": (lambda n: n.nn.LazyInstanceNorm3d(), (1, 2, 2, 2, 2)),
}


@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS.keys())
def test_a_lazy_layer_becomes_what_torch_s_does(tc: Any, make: Program, shape: tuple[int, ...]) -> None:
    def program(n: Any) -> Any:
        layer = make(n)
        before = [repr(layer), layer.state_dict(), list(layer.parameters()), layer.has_uninitialized_params()]
        n.manual_seed(5)
        output = layer(n.linspace(-1, 1, 2 * 3 * 7).repeat(9)[: _count(shape)].reshape(shape))
        return before, output, layer, type(layer).__name__, layer.state_dict(), len(layer._forward_pre_hooks)

    assert seen(program, tc) == seen(program, torch)


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def net(n: Any) -> Any:
    """A network as courses build it."""
    nn = n.nn
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))


def images(n: Any) -> Any:
    """Some images."""
    return n.arange(2.0 * 36).reshape(2, 1, 6, 6) / 72


def _trained(n: Any) -> Any:
    m = net(n)
    optimizer = n.optim.SGD(m.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        m(images(n)).square().mean().backward()
        optimizer.step()
    return m, m.state_dict()


def _initialised(n: Any) -> Any:
    m = net(n)
    m(images(n))
    m.apply(lambda one: n.nn.init.ones_(one.weight) if isinstance(one, n.nn.Linear) else None)
    return m[4].weight, [type(one).__name__ for one in m]


def _loaded(n: Any) -> Any:
    trained, m = net(n), net(n)
    trained(images(n))
    result = m.load_state_dict(trained.state_dict())
    shapes = [tuple(p.shape) for p in m.parameters()]
    m.eval()
    return result, shapes, m(images(n)), m


def _lazy_state(n: Any) -> Any:
    return net(n).load_state_dict(net(n).state_dict()), list(net(n).state_dict())


def _own(n: Any) -> Any:
    parts = module(n, "nn.parameter")
    mixin = module(n, "nn.modules.lazy").LazyModuleMixin

    class Scale(mixin, n.nn.Module):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.scale = parts.UninitializedParameter()

        def initialize_parameters(self, x: Any, by: Any = 1) -> None:
            self.scale.materialize((x.shape[-1],))
            n.nn.init.constant_(self.scale, by)

        def forward(self, x: Any, by: Any = 1) -> Any:
            return x * self.scale

    m = Scale()
    return repr(m), m(n.ones(2, 3), by=2), m, type(m).__name__, parts.is_lazy(m.scale)


def _unfinished(n: Any, *, defined: bool) -> Any:
    mixin = module(n, "nn.modules.lazy").LazyModuleMixin

    class Own(mixin, n.nn.Module):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.scale = n.nn.UninitializedParameter()

    if defined:
        Own.initialize_parameters = lambda self, x: None
    return Own()(n.ones(1))


def _parameter(n: Any) -> Any:
    made = n.nn.UninitializedParameter(requires_grad=False, dtype=n.float64)
    before = [repr(made), made.dtype, made.device, made.requires_grad, made.is_leaf, isinstance(made, n.nn.Parameter)]
    made.materialize((2, 0))
    buffer = n.nn.UninitializedBuffer()
    buffer.materialize((0,), dtype=n.int64)
    return before, made, type(made).__name__, buffer, type(buffer).__name__


def _used(use: Any) -> Program:
    return lambda n: use(n.nn.LazyLinear(3).weight)


PROGRAMS: dict[str, Program] = {
    "trained": _trained,
    "initialised": _initialised,
    "loaded": _loaded,
    "a lazy state": _lazy_state,
    "a lazy state for a layer": lambda n: n.nn.Linear(2, 3).load_state_dict(n.nn.LazyLinear(3).state_dict()),
    "a module of one's own": _own,
    "one that defines nothing": lambda n: _unfinished(n, defined=False),
    "one that forgets": lambda n: _unfinished(n, defined=True),
    "a parameter": _parameter,
    "a copy": lambda n: [copy.deepcopy(net(n)), copy.deepcopy(net(n))(images(n)).shape],
    "another dtype": lambda n: [net(n).double()(images(n).double()).dtype, net(n).half()[0].weight.dtype],
    "shape": _used(lambda w: w.shape),
    "numel": _used(lambda w: w.numel()),
    "sum of sizes": lambda n: sum(p.numel() for p in net(n).parameters()),
    "length": _used(lambda w: len(w) and 0),
    "dimensions": lambda n: n.nn.LazyConv2d(4, 3)(n.ones(3, 3)),
    "groups": lambda n: n.nn.LazyConv2d(4, 3, groups=2)(n.ones(1, 3, 5, 5)),
    "dimensions of a norm": lambda n: n.nn.LazyBatchNorm1d()(n.ones(2, 3, 4, 5)),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_lazy_modules_do_as_torch_s(tc: Any, program: Program) -> None:
    ours, theirs = seen(program, tc), seen(program, torch)
    if isinstance(theirs[1], str) and "<function" in theirs[1]:  # torch names the function by where it lies
        ours, theirs = (ours[0], "function" in theirs[1]), (theirs[0], True)
    assert ours == theirs
