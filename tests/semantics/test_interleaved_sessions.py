"""Random state, default dtype, print options and grad mode belong to a session: interleaving changes nothing.

Two programs are drawn; each runs alone in a session of its own, and then both in two sessions, in an order that is
drawn too. What each notes must be the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.serving import ServerProcess

Notes = list[Any]
Step = tuple[str, int]

_KINDS = [
    "seed",
    "rand",
    "randn",
    "randperm",
    "dropout",
    "in place",
    "default dtype",
    "data",
    "generator",
    "own generator",
    "print options",
    "print",
    "no grad",
    "inference",
    "state",
]


class Program:
    """Some steps in one session. Tensors are read at the end, so that calls of both sessions are under way at once."""

    def __init__(self, tc: Any, address: str, steps: list[Step]) -> None:
        self._tc = tc
        self._session = tc.connect(address)
        self._generator: Any = None
        self._state: Any = None
        self._kept: Notes = []
        self._steps = iter([("seed", 0), *steps])

    def advance(self) -> bool:
        """Issue the next step; False when there is none."""
        step = next(self._steps, None)
        if step is None:
            return False
        with self._session.use():
            self._kept.append(self._run(*step))
        return True

    def notes(self) -> Notes:
        """Run what is left, and read all results."""
        while self.advance():
            pass
        with self._session.use():
            found = [
                (str(item.dtype), item.requires_grad, item.tolist()) if isinstance(item, self._tc.Tensor) else item
                for item in self._kept
            ]
        self._session.close()
        return found

    def _run(self, kind: str, number: int) -> Any:
        tc = self._tc
        if kind == "seed":
            tc.manual_seed(number)
        elif kind == "rand":
            return tc.rand(number + 1)
        elif kind == "randn":
            return tc.randn(2, number)
        elif kind == "randperm":
            return tc.randperm(number + 3)
        elif kind == "dropout":
            return tc.nn.functional.dropout(tc.ones(8), 0.5)
        elif kind == "in place":
            return tc.zeros(4).normal_().add_(tc.zeros(4).bernoulli_(0.5))
        elif kind == "default dtype":
            tc.set_default_dtype([tc.float32, tc.float64, tc.bfloat16][number % 3])
        elif kind == "data":
            return tc.tensor([0.1, number]) / 3
        elif kind == "generator":
            self._generator = tc.Generator().manual_seed(number)
        elif kind == "own generator":
            return tc.rand(3, generator=self._generator)
        elif kind == "print options":
            tc.set_printoptions(precision=number + 1, sci_mode=number % 2 == 0)
        elif kind == "print":
            return str(tc.tensor([1 / 3, 1000.0])) + str(tc.get_default_dtype())
        elif kind == "no grad":
            x = tc.ones(2, requires_grad=True)
            with tc.no_grad():
                inner = x * number
            return inner if number % 2 else x * number
        elif kind == "inference":
            with tc.inference_mode():
                return tc.rand(2)
        elif self._state is None:
            self._state = tc.get_rng_state()
        else:
            tc.set_rng_state(self._state)
        return None


def _alone(tc: Any, address: str, steps: list[Step]) -> Notes:
    return Program(tc, address, steps).notes()


_STEPS = st.lists(st.tuples(st.sampled_from(_KINDS), st.integers(0, 5)), min_size=1, max_size=12)


def _check(address: str, one: list[Step], other: list[Step], order: list[bool]) -> None:
    import tclient

    expected = (_alone(tclient, address, one), _alone(tclient, address, other))
    programs = (Program(tclient, address, one), Program(tclient, address, other))
    for first in order:
        programs[first].advance()
    assert (programs[0].notes(), programs[1].notes()) == expected


_SETTINGS = settings(
    deadline=None, database=None, suppress_health_check=[*HealthCheck], phases=[Phase.generate, Phase.shrink]
)


@settings(_SETTINGS, max_examples=60, derandomize=True)
@given(one=_STEPS, other=_STEPS, order=st.lists(st.booleans(), max_size=26))
def test_two_sessions_interleaved_in_any_way_give_what_each_alone_gives(
    server: ServerProcess, one: list[Step], other: list[Step], order: list[bool]
) -> None:
    _check(server.address, one, other, order)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(_SETTINGS, max_examples=2000)
@given(one=_STEPS, other=_STEPS, order=st.lists(st.booleans(), max_size=26))
def test_two_thousand_interleavings_give_what_each_session_alone_gives(
    server: ServerProcess, one: list[Step], other: list[Step], order: list[bool]
) -> None:
    _check(server.address, one, other, order)


def _in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    found: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        try:
            found[number] = work(number)
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_grad_mode_belongs_to_the_thread_also_within_one_session(tc: Any) -> None:
    x = tc.ones(2, requires_grad=True)

    def work(number: int) -> list[bool]:
        results = []
        for _ in range(50):
            if number % 2:
                with tc.no_grad():
                    results.append(x * number)
            else:
                results.append(x * number)
        return [result.requires_grad for result in results]

    assert _in_threads(4, work) == [[True] * 50, [False] * 50, [True] * 50, [False] * 50]
    assert tc.is_grad_enabled()


def test_decorators_set_the_grad_mode_for_their_function_alone(tc: Any) -> None:
    x = tc.ones(2, requires_grad=True)

    def double() -> Any:
        return x * 2

    without, within, inference = tc.no_grad()(double), tc.enable_grad()(double), tc.inference_mode()(double)
    assert not without().requires_grad
    assert inference().is_inference()
    with tc.no_grad():
        assert within().requires_grad
        assert not double().requires_grad
    with tc.set_grad_enabled(False):
        assert not double().requires_grad
    assert double().requires_grad


def test_random_numbers_of_threads_in_sessions_of_their_own_are_those_of_each_seed(server: ServerProcess) -> None:
    import tclient

    sessions = [tclient.connect(server.address) for _ in range(3)]
    bases = []
    for number, session in enumerate(sessions):
        with session.use():
            tclient.manual_seed(number)
            bases.append(tclient.zeros(3))

    def work(number: int) -> list[Any]:
        return [base.tolist() for base in [bases[number].clone().normal_() for _ in range(30)]]

    together = _in_threads(3, work)
    for number, session in enumerate(sessions):
        with session.use():
            tclient.manual_seed(number)
            assert work(number) == together[number]
        session.close()
