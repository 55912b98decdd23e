"""A backward that stops for code of its caller: what a raw client may do with it, and what becomes of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.support.in_memory import serving_in_memory
from tests.support.raw import RawSession
from tests.support.serving import ServerProcess
from tests.support.values import Kept
from tserver.config import Config


class Graph:
    """A session with y = f(x), and z = y.sum(): y is held as part 0 of call 2."""

    def __init__(self, session: RawSession, key: int = 7) -> None:
        self.session = session
        session.run(
            session.call(1, "ones", 3, requires_grad=True),
            session.call(2, "ones", 3),
            session.call(3, "tc.function", "Mine", key, [Kept(1)], [Kept(2)], [Kept(1)], [], [], True),
            session.call(4, "Tensor.sum", Kept(3, (0,))),
        ).clean()

    def begin(self, id: int = 10) -> Any:
        return self.session.run(self.session.call(id, "tc.pass_begin", "Tensor.backward", [Kept(4)], {}))


@pytest.fixture
def session(server: ServerProcess) -> Iterator[RawSession]:
    with RawSession(server.address) as opened:
        yield opened


def error_of(session: RawSession, name: str, *args: Any) -> tuple[str, str]:
    reply = session.run(session.call(session.id() + 1000, name, *args))
    (error,) = reply.errors.values()
    return error.reason, error.message


def test_a_pass_stops_at_a_function_and_goes_on_with_its_gradients(session: RawSession) -> None:
    graph = Graph(session)
    told = graph.begin().clean().message.results[0].value.mapping
    assert [entry.name for entry in told.entries] == [
        *("key", "given", "saved", "refusal", "needed", "grad_enabled", "pass", "gone")
    ]
    # Paths are positions: the gradient is the first of what is given, and the pass stands at the end.
    assert torch.equal(session.get(Kept(10, (1, 0))), torch.ones(3))
    session.run(
        session.call(11, "mul", Kept(10, (1, 0)), 5.0),
        session.call(12, "tc.pass_resume", Kept(10, (6,)), [Kept(11)]),
        session.call(13, "Tensor.grad.__get__", Kept(1)),
    ).clean()
    assert torch.equal(session.get(Kept(13)), torch.full((3,), 5.0))


def test_a_pass_is_resumed_once_and_by_what_it_is(session: RawSession) -> None:
    graph = Graph(session)
    graph.begin().clean()
    suspended = Kept(10, (6,))
    assert error_of(session, "tc.pass_resume", Kept(4), []) == (
        "INVALID_ARGUMENT",
        "tc.pass_resume takes a suspended pass, not a Tensor",
    )
    assert error_of(session, "tc.pass_resume", suspended, 3) == (
        "INVALID_ARGUMENT",
        "tc.pass_resume: the gradients of a function are a list",
    )
    session.run(session.call(0, "tc.pass_resume", suspended, [Kept(2)])).clean()
    for name, rest in (("tc.pass_resume", [[None]]), ("tc.pass_abort", [])):
        reason, message = error_of(session, name, suspended, *rest)
        assert (reason, "has gone on since" in message) == ("INVALID_ARGUMENT", True)


@pytest.mark.parametrize(
    ("gradients", "said"),
    [
        ([], "function MineBackward returned an incorrect number of gradients (expected 1, got 0)"),
        ([None, 1], "function MineBackward returned an incorrect number of gradients (expected 1, got 2)"),
        ([torch.ones(4)], "Function MineBackward returned an invalid gradient at index 0 - got [4] but expected shape"),
        (["text"], "expected Variable or None (got str)"),
        ([[1.0]], "expected Variable or None (got list)"),
    ],
    ids=["none", "too many", "a wrong shape", "a text", "a list"],
)
def test_wrong_gradients_are_refused_as_torch_does(session: RawSession, gradients: list[Any], said: str) -> None:
    Graph(session).begin().clean()
    reason, message = error_of(session, "tc.pass_resume", Kept(10, (6,)), gradients)
    assert (reason, message[: len(said)]) == ("OPERATION_FAILED", said)


def test_a_gradient_that_changed_its_form_meanwhile_is_noticed(session: RawSession) -> None:
    graph = Graph(session)
    session.run(
        session.call(20, "mul", Kept(1), Kept(1)),
        session.call(0, "tc.hook", Kept(20), "gradient", 8, "mine"),
        session.call(21, "Tensor.sum", Kept(20)),
        session.call(10, "tc.pass_begin", "Tensor.backward", [Kept(21)], {}),
        session.call(0, "Tensor.resize_", Kept(10, (1, 0)), 1),
    ).clean()
    reason, message = error_of(session, "tc.pass_resume", Kept(10, (3,)), None)
    assert (reason, "another shape" in message) == ("OPERATION_FAILED", True)
    assert graph.begin(30).clean()


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("tc.function", ["not a name", 1, [], [], [], [], [], True], "an identifier"),
        ("tc.function", ["x" * 300, 1, [], [], [], [], [], True], "an identifier"),
        ("tc.function", ["F", -1, [], [], [], [], [], True], "a key is"),
        ("tc.function", ["F", True, [], [], [], [], [], True], "a key is"),
        ("tc.function", ["F", 1, [3], [], [], [], [], True], "inputs is a list of tensors"),
        ("tc.function", ["F", 1, [Kept(1)], 5, [], [], [], True], "outputs is a list of tensors"),
        ("tc.function", ["F", 1, [Kept(1)], [Kept(2)], [], [None], [], True], "is a list of tensors"),
        ("tc.hook", [Kept(1), "nothing", 1, "f"], "no kind of hook"),
        ("tc.hook", [Kept(1), "node", 1, "f"], "no kind of hook"),
        ("tc.hook", [3, "gradient", 1, "f"], "no kind of hook"),
        ("tc.hook", [Kept(1), "gradient", 1, 5], "a name is a text"),
        ("tc.hook", [Kept(1), "node_of", 1, "f"], "from no node"),
        ("tc.unhook", ["a"], "a key is"),
        ("tc.pass_begin", ["Tensor.add", [Kept(1), 1], {}], "takes one of"),
        ("tc.pass_begin", ["Tensor.backward", 1, {}], "takes one of"),
        ("tc.pass_begin", ["Tensor.backward", [Kept(1)], 1], "are a mapping"),
        ("tc.pass_abort", [Kept(1)], "a suspended pass"),
        ("tc.node", [Kept(1)], "a node of a graph"),
        ("tc.saved", [Kept(1)], "a node of a graph"),
        ("tc.edge", [1], "takes a tensor"),
        ("tc.identity", [1], "takes tensors"),
        ("tc.differentiated_once", [1], "a list of tensors"),
    ],
)
def test_what_makes_no_sense_is_said(session: RawSession, name: str, args: list[Any], said: str) -> None:
    Graph(session)
    reason, message = error_of(session, name, *args)
    assert (reason, said in message) == ("INVALID_ARGUMENT", True), message


def test_a_backward_that_nobody_waits_for_says_that_it_meets_a_function(session: RawSession) -> None:
    Graph(session)
    reason, message = error_of(session, "Tensor.backward", Kept(4))
    assert (reason, "a pass that is waited for" in message) == ("OPERATION_FAILED", True)


def test_passes_are_apart_and_not_without_number(session: RawSession) -> None:
    Graph(session)
    begin = [
        session.call(number, "tc.pass_begin", "Tensor.backward", [Kept(4)], {"retain_graph": True})
        for number in range(100, 165)
    ]
    reply = session.run(*begin)
    assert {error.reason for error in reply.errors.values()} == {"TOO_MANY_PASSES"}
    assert list(reply.errors) == [64]
    # In any order, and only this one has gone on.
    session.run(session.call(0, "tc.pass_resume", Kept(130, (6,)), [Kept(2)])).clean()
    session.run(session.call(170, "Tensor.grad.__get__", Kept(1))).clean()
    assert torch.equal(session.get(Kept(170)), torch.ones(3))


def test_the_end_of_a_function_is_told(session: RawSession) -> None:
    Graph(session, key=41)
    assert session.run(session.call(50, "tc.gone")).clean().value() == []
    frees = session.call(51, "tc.gone")
    frees.frees.extend([2, 3, 4])
    assert session.run(frees).clean().value() == [41]
    # Where nobody wants a gradient there is no node.
    session.run(session.call(0, "tc.function", "F", 42, [None], [Kept(1)], [], [], [], True)).clean()
    assert session.run(session.call(52, "tc.gone")).clean().value() == [42]


def passes() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "backward pass"]


def test_no_thread_is_left_by_a_session_or_a_server() -> None:
    before = len(passes())
    with serving_in_memory(Config(device="cpu", threads=1)) as channel:
        for _ in range(2):
            with _on(channel) as session:
                graph = Graph(session)
                for number in range(10, 13):
                    session.run(
                        session.call(number, "tc.pass_begin", "Tensor.backward", [Kept(4)], {"retain_graph": True})
                    ).clean()
                session.run(session.call(0, "tc.pass_abort", Kept(11, (6,)))).clean()
                dropped = session.call(0, "tc.gone")
                dropped.frees.append(12)
                session.run(dropped).clean()
                assert graph.begin(20).clean()
            # Kept for the next passes, of any session.
            assert len(passes()) - before <= 4
        with _on(channel) as session:
            Graph(session).begin().clean()
            assert len(passes()) > before
    assert len(passes()) == before


def _on(channel: Any) -> RawSession:
    from tests.support.raw import Raw

    return RawSession("", raw=Raw("", channel=channel))
