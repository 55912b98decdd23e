"""Programs from the days of Variable, and those that look for anomalies, run as with torch."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import pytest

from tests.semantics.harness import Watch, assert_same


def old_program(m: Any, t: Watch) -> None:
    Variable = m.autograd.Variable
    x = Variable(m.ones(2, 3), requires_grad=True)
    w = Variable(m.arange(6.0).view(3, 2), requires_grad=True)
    loss = (x.mm(w) ** 2).sum()
    loss.backward()
    w.data -= 0.1 * w.grad.data
    w.grad.data.zero_()
    t.show(x.grad, w, w.grad, loss.data, isinstance(x, Variable), isinstance(3, Variable), type(x) is m.Tensor)
    t.show(Variable.__name__, issubclass(m.nn.Parameter, Variable), isinstance(m.nn.Parameter(m.ones(1)), Variable))


def what_variable_gives(m: Any, t: Watch) -> None:
    Variable = m.autograd.Variable
    x = m.ones(2, requires_grad=True)
    for given in (x, x * 2, m.nn.Parameter(m.ones(2)), m.ones(2, dtype=m.int64)):
        made = Variable(given)
        t.show(made, made.is_leaf, made.requires_grad, made is given, type(made) is m.Tensor)
    shared = m.zeros(2)
    Variable(shared).fill_(3)
    t.show(shared, Variable(), Variable(None), Variable(data=shared, requires_grad=True), x.volatile)
    t.tries(
        lambda: Variable([1, 2]),
        lambda: Variable(3.0),
        lambda: Variable("a"),
        lambda: Variable(x, True, True),
    )
    t.refuses(lambda: Variable(m.ones(2, dtype=m.int64), requires_grad=True).sum())


def jacobians(m: Any, t: Watch) -> None:
    F = m.autograd.functional
    x, y = m.tensor([1.0, 2.0]), m.tensor([[0.5], [3.0]])
    t.show(
        F.jacobian(lambda a: a**2, x),
        F.jacobian(lambda a: a.sum(), y),
        F.jacobian(lambda a: m.ones(2), x),
        F.jacobian(lambda a, b: (a * 2, b @ a[None]), (x, y)),
        F.jacobian(lambda a: a * 2, x, create_graph=True),
        F.jacobian(lambda a: a * 2, x, vectorize=True),
        F.hessian(lambda a: (a**3).sum(), x),
        F.hessian(lambda a: a.sum(), x),
        F.hessian(lambda a, b: (a**3 * b).sum(), (x, y)),
    )
    z = x.clone().requires_grad_()
    through = F.jacobian(lambda a: a**3, z, create_graph=True)
    t.show(through, m.autograd.grad(through.sum(), z))
    t.tries(
        lambda: F.jacobian(lambda a: 3, x),
        lambda: F.jacobian(lambda a: (a * 2, 3), x),
        lambda: F.jacobian(lambda a: a * 2, [x, x]),
        lambda: F.jacobian(lambda a: a * 2, 3),
        lambda: F.jacobian(lambda a: m.ones(2), x, strict=True),
        lambda: F.jacobian(lambda a, b: a * 2, (x, x), strict=True),
        lambda: F.jacobian(lambda a: a * 2, x, strategy="forward-mode"),
        lambda: F.jacobian(lambda a: a * 2, x, strategy="other"),
        lambda: F.jacobian(lambda a: a * 2, m.zeros(0)),
        lambda: F.hessian(lambda a: a, x),
        lambda: F.hessian(lambda a: (a.sum(),), x),
    )


def products(m: Any, t: Watch) -> None:
    F = m.autograd.functional
    x, v = m.tensor([1.0, 2.0]), m.tensor([0.5, -1.0])
    t.show(
        F.vjp(lambda a: a**3, x, v),
        F.vjp(lambda a: a.sum(), x),
        F.vjp(lambda a: m.ones(2), x, v),
        F.vjp(lambda a, b: (a * 3, b * a), (x, v), (v, x)),
        F.vjp(lambda a: a * 3, x, v, create_graph=True),
        F.jvp(lambda a: a**3, x, v),
        F.jvp(lambda a: a.sin().sum(), x[0]),
        F.jvp(lambda a: m.ones(2), x, v),
        F.jvp(lambda a, b: (a * b, b), (x, v), (v, x)),
        F.hvp(lambda a: (a**3).sum(), x, v),
        F.hvp(lambda a: a.sum(), x, v),
        F.hvp(lambda a, b: (a**2 * b).sum(), (x, v), (v, x)),
        F.vhp(lambda a: (a**3).prod(), x, v),
        F.vhp(lambda a: (a**3).sum(), x[:1]),
    )
    t.tries(
        lambda: F.vjp(lambda a: a * 3, x),
        lambda: F.vjp(lambda a: a * 3, x, m.ones(3)),
        lambda: F.vjp(lambda a: a * 3, x, (v, v)),
        lambda: F.vjp(lambda a: a * 3, x, 3),
        lambda: F.jvp(lambda a: a * 3, x),
        lambda: F.jvp(lambda a: a * 3, x, m.ones(3)),
        lambda: F.jvp(lambda a: m.ones(2), x, v, strict=True),
        lambda: F.hvp(lambda a: a, x, v),
        lambda: F.hvp(lambda a: a.sum(), x, v, strict=True),
        lambda: F.vhp(lambda a: (a**3).sum(), x),
    )


@pytest.mark.parametrize("program", [old_program, what_variable_gives, jacobians, products], ids=lambda p: p.__name__)
def test_autograd_is_torch_s(tc: ModuleType, program: Any) -> None:
    assert_same(program, tc, synchronous=False)


def test_volatile_warns_as_torch_does(tc: ModuleType) -> None:
    with pytest.warns(UserWarning, match="volatile was removed and now has no effect") as said:
        tc.autograd.Variable(tc.ones(1), volatile=True)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tc.autograd.Variable(tc.ones(1), volatile=False)


def test_a_program_notes_its_search_for_anomalies_and_is_told_that_the_server_does_not_search(tc: ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tc.autograd.set_detect_anomaly(False)
    assert not tc.is_anomaly_enabled()
    with pytest.warns(UserWarning, match="setting of the whole server") as said, tc.autograd.detect_anomaly():
        assert tc.is_anomaly_enabled()
    assert said[0].filename == __file__
    assert not tc.is_anomaly_enabled()
    with pytest.warns(UserWarning, match="setting of the whole server") as said:
        tc.autograd.set_detect_anomaly(True, check_nan=False)
    assert said[0].filename == __file__
    assert (tc.is_anomaly_enabled(), tc.is_anomaly_check_nan_enabled()) == (True, False)
    tc.autograd.set_detect_anomaly(False)
    with pytest.warns(UserWarning, match="setting of the whole server"), tc.autograd.set_detect_anomaly(True):
        assert tc.is_anomaly_enabled()
    assert (tc.is_anomaly_enabled(), tc.is_anomaly_check_nan_enabled()) == (False, True)
