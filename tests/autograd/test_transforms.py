"""The transformations of torch.func give what torch's give."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.semantics.harness import Program, Watch, assert_same


def gradients(m: Any, t: Watch) -> None:
    f = m.func
    x, y = m.tensor([1.0, 2.0]), m.tensor([0.5, -1.0])
    t.show(
        f.grad(lambda a: (a**3).sum())(x),
        f.grad(lambda a, b: (a * b).sum(), argnums=1)(x, y),
        f.grad(lambda a, b: (a * b).sum(), argnums=(0, 1))(x, y),
        f.grad_and_value(lambda a: a.sin().sum())(x),
        f.grad(lambda a: (a.sum(), a * 2), has_aux=True)(x),
        f.grad(f.grad(lambda a: a**4))(m.tensor(2.0)),
        f.grad(lambda p: (p["w"] * x).sum() + p["b"].sum())({"w": y, "b": x}),
    )
    z = x.clone().requires_grad_()
    found = f.grad(lambda a: (a**3).sum())(z)
    t.show(found.requires_grad, m.autograd.grad(found.sum(), z))
    t.tries(lambda: f.grad(lambda a: a)(x))


def products(m: Any, t: Watch) -> None:
    f = m.func
    x, v = m.tensor([1.0, 2.0]), m.tensor([0.5, -1.0])
    out, product = f.vjp(lambda a: a**3, x)
    t.show(out, product(v))
    out, product = f.vjp(lambda a, b: (a * b, a.sum()), x, v)
    t.show(out, product((v, m.tensor(1.0))))
    t.show(f.jvp(lambda a: a**3, (x,), (v,)), f.jvp(lambda a, b: a * b, (x, v), (v, x)))
    t.show(
        f.jacrev(lambda a: a**2)(x),
        f.jacrev(lambda a, b: (a * b, a.sum()), argnums=(0, 1))(x, x + 1),
        # How they lie in memory is torch's own affair.
        f.jacfwd(lambda a: a.outer(a))(x).contiguous(),
        f.hessian(lambda a: (a**3).prod())(x).contiguous(),
    )


def many_samples(m: Any, t: Watch) -> None:
    m.manual_seed(0)
    vmap = m.vmap
    a, b = m.rand(3, 4), m.rand(3, 4)
    t.show(
        vmap(m.dot)(a, b),
        vmap(lambda x, y: x * y.sum(), in_dims=(0, None))(a, b[0]),
        vmap(lambda x: (x.sum(), x + 1), in_dims=1, out_dims=(0, 1))(a),
        vmap(vmap(lambda x: x * 2))(a),
        vmap(lambda d: d["x"] + d["y"])({"x": a, "y": b}),
        m.func.vmap(lambda x, k: x * k, in_dims=(0, None))(a, 2.0),
    )
    net = m.nn.Linear(4, 1)
    params = {name: value.detach() for name, value in net.named_parameters()}

    def loss(params: Any, x: Any, y: Any) -> Any:
        return ((m.func.functional_call(net, params, (x,)) - y) ** 2).mean()

    each = vmap(m.func.grad(loss), in_dims=(None, 0, 0))(params, a, b[:, :1])
    t.form(*each.values())
    t.show({name: value.sum(0).mul(1000).round() for name, value in each.items()})
    models = [m.nn.Linear(2, 2) for _ in range(3)]
    stacked, buffers = m.func.stack_module_state(models)
    t.show({name: tuple(value.shape) for name, value in stacked.items()}, buffers)
    x = m.rand(5, 2)
    outputs = vmap(lambda p, v: m.func.functional_call(models[0], p, (v,)), in_dims=(0, None))(stacked, x)
    t.show(tuple(outputs.shape), bool(m.allclose(outputs[2], models[2](x))))
    t.refuses(lambda: vmap(m.dot)(a, b[:2]), lambda: vmap(m.dot, in_dims=None)(a, b), lambda: vmap(m.dot)(a, 3))


@pytest.mark.parametrize("program", [gradients, products, many_samples], ids=lambda program: program.__name__)
def test_a_transformation_is_torch_s(tc: ModuleType, program: Program) -> None:
    assert_same(program, tc, synchronous=False)
