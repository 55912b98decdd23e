"""Functions with a gradient of their own, and hooks, do what they do with torch."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest

from tclient._session.current import current
from tests.autograd.programs import PROGRAMS
from tests.semantics.harness import Program, assert_same
from tests.support.raw import Raw
from tests.support.serving import ServerProcess


@pytest.mark.parametrize("synchronous", [False, True], ids=["pipelined", "synchronous"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_with_code_in_its_backward_is_torch_s(tc: ModuleType, program: Program, synchronous: bool) -> None:
    assert_same(program, tc, synchronous=synchronous)


def _doubling(tc: Any) -> Any:
    class Double(tc.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (_,) = ctx.saved_tensors
            return g * 2

    return Double


def _tensors_of(address: str, session: Any) -> tuple[int, int]:
    raw = Raw(address)
    raw.secret = session.secret
    with raw:
        return raw.held()


def _held(session: Any) -> int:
    session.synchronize()
    total: int = len(session.callers.code)
    return total


def test_functions_and_hooks_are_let_go_with_their_graphs(tc: ModuleType, server: ServerProcess) -> None:
    double, session = _doubling(tc), current()
    w = tc.ones(3, requires_grad=True)
    held = []
    for step in range(120):
        y = double.apply(double.apply(w) * w)
        y.register_hook(lambda g: g * 1)
        y.sum().backward()
        w.grad = None
        if step % 40 == 39:
            held.append((_held(session), _tensors_of(server.address, session)))
    assert held[0] == held[1] == held[2]
    for _ in range(600):
        double.apply(w)
    assert _held(session) <= 300
    for _ in range(600):
        double.apply(tc.ones(3))
    assert _held(session) <= 300


def test_an_exception_of_a_backward_comes_out_as_it_is(tc: ModuleType) -> None:
    class Mine(BaseException):
        pass

    error = Mine("said")

    def fails(_: Any) -> Any:
        raise error

    x = tc.ones(2, requires_grad=True)
    y = _doubling(tc).apply(x)
    y.register_hook(fails)
    with pytest.raises(Mine) as caught:
        y.sum().backward()
    assert caught.value is error
    assert x.grad is None
    assert (x * 2).tolist() == [2.0, 2.0]


def test_what_is_compiled_says_that_it_cannot_hold_a_function(tc: ModuleType) -> None:
    double = _doubling(tc)
    x = tc.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"`Double.apply` within .* has a backward that runs in your process"):
        tc.compile(double.apply)(x)

    def step(x: Any) -> Any:
        (x * x).sum().backward()
        return x.detach()

    compiled = tc.compile(step)
    compiled(x)
    x.register_hook(lambda g: g)
    with pytest.raises(RuntimeError, match="a pass that is waited for"):
        compiled(x).tolist()


def test_threads_have_passes_of_their_own(tc: ModuleType) -> None:
    double = _doubling(tc)
    both = threading.Barrier(2, timeout=30.0)
    session = current()

    def work(number: int, found: dict[int, Any]) -> None:
        with session.use():
            x = tc.full((2,), float(number), requires_grad=True)
            y = double.apply(x) * x

            def meet(g: Any) -> Any:
                # Both are suspended now, whichever goes on first.
                both.wait()
                return g

            y.register_hook(meet)
            y.sum().backward()
            found[number] = x.grad.tolist()

    found: dict[int, Any] = {}
    threads = [threading.Thread(target=work, args=(number, found)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert found == {1: [4.0, 4.0], 2: [8.0, 8.0]}
