"""What a call means: errors and what depends on them, lost effects, warnings, random state, objects, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.support.raw import RawSession
from tests.support.values import Kept


def test_a_failed_call_fails_those_that_depend_on_it_and_no_other(session: RawSession) -> None:
    x = session.make("ones", 2, 3)
    reply = session.run(
        session.call(10, "matmul", x, x),
        session.call(11, "Tensor.__add__", Kept(10), 1),
        session.call(12, "Tensor.__add__", x, 1),
        session.call(0, "tc.read", Kept(11)),
        session.call(0, "tc.read", Kept(12)),
    )
    with pytest.raises(RuntimeError) as told:
        torch.ones(2, 3) @ torch.ones(2, 3)
    for index in (0, 1, 3):
        error = reply.error(index)
        assert (error.type, error.message) == ("RuntimeError", str(told.value))
        assert (error.operation, error.call_id, error.batch_seq, error.call_index) == ("matmul", 10, 2, 0)
        assert error.reason == "OPERATION_FAILED"
    assert reply.value(4).tolist() == [[2] * 3] * 2
    later = session.run(session.call(0, "tc.read", Kept(11))).error(0)
    assert (later.call_id, later.batch_seq, later.message) == (10, 2, str(told.value))


def test_a_failed_effect_leaves_its_target_and_says_so(session: RawSession) -> None:
    x = session.make("ones", 2)
    reply = session.run(
        session.call(0, "Tensor.add_", x, torch.ones(3)),
        session.call(0, "tc.read", x),
    )
    assert reply.by_index[0].lost_effect
    assert reply.error(0).type == "RuntimeError"
    assert reply.value(1).tolist() == [1, 1]


def test_an_effect_skipped_for_a_failed_argument_says_so(session: RawSession) -> None:
    x = session.make("ones", 2)
    reply = session.run(
        session.call(20, "ones", -1),
        session.call(0, "Tensor.add_", x, Kept(20)),
        session.call(0, "tc.read", x),
    )
    assert not reply.by_index[0].lost_effect
    assert reply.by_index[1].lost_effect
    assert reply.error(1).call_id == 20
    assert reply.value(2).tolist() == [1, 1]


LinAlgError: Any = getattr(torch.linalg, "LinAlgError")  # noqa: B009 - not in torch's own type stubs
EXCEPTIONS: dict[str, tuple[str, list[Any], type[Exception]]] = {
    "RuntimeError": ("Tensor.view", [torch.ones(3), 2], RuntimeError),
    "IndexError": ("Tensor.__getitem__", [torch.ones(3), 5], IndexError),
    "LinAlgError": ("linalg.inv", [torch.zeros(2, 2)], LinAlgError),
}


@pytest.mark.parametrize(("name", "case"), EXCEPTIONS.items(), ids=EXCEPTIONS)
def test_an_error_is_torchs_own_by_class_and_text(
    session: RawSession, name: str, case: tuple[str, list[Any], type[Exception]]
) -> None:
    operation, args, kind = case
    function: Any = torch
    for part in operation.split("."):
        function = getattr(function, part)
    with pytest.raises(kind) as told:
        function(*args)
    error = session.run(session.call(1, operation, *args)).error(0)
    assert error.type.rpartition(".")[2].lstrip("_") == name
    assert error.message == str(told.value)


@pytest.fixture
def warns_always() -> Iterator[None]:
    """torch gives some warnings once a process: whichever test comes first would have this one's."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.usefixtures("warns_always")
def test_warnings_of_torch_are_in_the_reply(session: RawSession) -> None:
    x = torch.ones(2, 3, 4)
    with pytest.warns(UserWarning, match="deprecated") as told:
        _ = x.T
    reply = session.run(session.call(3, "ones", 2), session.call(4, "Tensor.T.__get__", x)).clean()
    (warning,) = reply.message.warnings
    assert (warning.category, warning.call_index) == ("UserWarning", 1)
    assert warning.message.split("(Triggered")[0] == str(told[0].message).split("(Triggered")[0]


def test_a_seed_gives_the_numbers_that_torch_gives(session: RawSession, other: RawSession) -> None:
    session.run(session.call(0, "manual_seed", 3)).clean()
    other.run(other.call(0, "manual_seed", 4)).clean()
    drawn = []
    for step in range(6):
        who = (session, other)[step % 2]
        drawn.append(who.read(who.make("rand", 3)))
    for seed, mine in ((3, drawn[0::2]), (4, drawn[1::2])):
        generator = torch.Generator().manual_seed(seed)
        assert all(torch.equal(numbers, torch.rand(3, generator=generator)) for numbers in mine)


def test_a_default_dtype_is_of_its_session_alone(session: RawSession, other: RawSession) -> None:
    session.run(session.call(0, "set_default_dtype", torch.float64)).clean()
    assert session.read(session.make("ones", 1)).dtype == torch.float64
    assert other.read(other.make("ones", 1)).dtype == torch.float32
    assert session.read(session.make("ones", 1)).dtype == torch.float64


def test_an_object_is_kept_under_its_id(session: RawSession) -> None:
    generator, drawn = Kept(session.id()), Kept(session.id())
    reply = session.run(
        session.call(generator.id, "Generator"),
        session.call(0, "Generator.manual_seed", generator, 5),
        session.call(drawn.id, "rand", 3, generator=generator),
        session.call(0, "tc.read", drawn),
    ).clean()
    assert reply.by_index[0].value.object
    assert torch.equal(reply.value(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))


def test_a_network_is_one_call_and_gradients_reach_its_parameters(session: RawSession) -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(3, 4), torch.randn(3), torch.randn(5, 4)
    w, b = session.make("tensor", weight), session.make("tensor", bias)
    session.run(session.call(0, "Tensor.requires_grad_", w)).clean()
    layers = [{"kind": "linear", "weight": w, "bias": b}, {"kind": "relu"}]
    reply = session.run(
        session.call(30, "tc.network", layers),
        session.call(31, "tc.forward", Kept(30), x),
        session.call(32, "Tensor.sum", Kept(31)),
        session.call(0, "Tensor.backward", Kept(32)),
        session.call(33, "Tensor.grad.__get__", w),
        session.call(0, "tc.read", Kept(31)),
        session.call(0, "tc.read", Kept(33)),
    ).clean()
    local = weight.clone().requires_grad_()
    expected = torch.relu(torch.nn.functional.linear(x, local, bias))
    expected.sum().backward()
    torch.testing.assert_close(reply.value(5), expected.detach())
    torch.testing.assert_close(reply.value(6), local.grad)


def test_gradients_are_the_servers(session: RawSession) -> None:
    reply = session.run(
        session.call(1, "tensor", [1.0, 2.0], requires_grad=True),
        session.call(2, "Tensor.__mul__", Kept(1), Kept(1)),
        session.call(3, "Tensor.sum", Kept(2)),
        session.call(0, "Tensor.backward", Kept(3)),
        session.call(4, "Tensor.grad.__get__", Kept(1)),
        session.call(0, "tc.read", Kept(4)),
    ).clean()
    assert reply.value(5).tolist() == [2, 4]
