"""A tensor lies within its storage, on the device of what it meets, and is strided; also after a call that failed.

What goes wrong here ends the server or shows memory of others, so it has a server of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tests.support.raw import RawSession
from tests.support.serving import ServerProcess, serving
from tests.support.values import Kept, encode

X, Y, Z = Kept(1), Kept(2), Kept(3)
_META = torch.device("meta")
_HUGE = 2**50


@pytest.fixture(scope="module")
def server_apart() -> Iterator[ServerProcess]:
    """A server of their own: should one of these go wrong, no other test suffers."""
    with serving() as server:
        yield server


@pytest.fixture
def session(server_apart: ServerProcess) -> Iterator[RawSession]:
    """A session that holds four ones as X."""
    with RawSession(server_apart.address) as session:
        session.run(session.call(X.id, "ones", 4)).clean()
        yield session


def _torchs_words(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(RuntimeError) as refusal:
        call()
    return type(refusal.value).__name__, str(refusal.value)


def _setstorage(sizes: list[int], strides: list[int], offset: int, needed: int) -> str:
    return (
        f"setStorage: sizes {sizes}, strides {strides}, storage offset {offset}, and itemsize 4 requiring a storage "
        f"size of {needed} are out of bounds for storage of size 16"
    )


_WRAPPING = [
    pytest.param((2,), (2**61,), None, id="a stride whose bytes pass 2^63"),
    pytest.param((2,), (2**62 - 8,), None, id="a stride that comes round to just before the storage"),
    pytest.param((3,), (2**61 + 1,), None, id="three steps that come round"),
    pytest.param((2,), (1,), 2**62, id="an offset that comes round to the beginning"),
    pytest.param((2,), (1,), 2**61, id="an offset whose bytes pass 2^63"),
    pytest.param((2, 2), (2**62, 2**62), None, id="two strides that make up for each other"),
]


@pytest.mark.parametrize(("size", "stride", "offset"), _WRAPPING)
@pytest.mark.parametrize("name", ["Tensor.as_strided_", "as_strided_"])
def test_a_tensor_is_not_laid_beyond_its_storage_in_place(
    session: RawSession, name: str, size: tuple[int, ...], stride: tuple[int, ...], offset: int | None
) -> None:
    reply = session.run(
        session.call(0, name, X, size, stride, offset),
        session.call(0, "Tensor.fill_", X, 2.0),
        session.call(0, "Tensor.tolist", X),
    )
    first = offset or 0
    last = first + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    assert reply.error(0).type == "RuntimeError"
    assert reply.error(0).message == _setstorage(list(size), list(stride), first, (last + 1) * 4)
    assert reply.value(2) == [2.0] * 4


@pytest.mark.parametrize(("size", "stride", "offset"), _WRAPPING)
@pytest.mark.parametrize("name", ["as_strided", "as_strided_copy", "as_strided_scatter"])
def test_no_view_beyond_its_storage_is_read(
    session: RawSession, name: str, size: tuple[int, ...], stride: tuple[int, ...], offset: int | None
) -> None:
    part = [torch.ones(size)] if name == "as_strided_scatter" else []
    error = session.run(session.call(Y.id, name, X, *part, size, stride, offset)).error()
    expected = _torchs_words(lambda: getattr(torch, name)(torch.ones(4), *part, size, stride, offset))
    assert (error.type, error.message) == expected
    assert session.held() == (1, 16)


@pytest.mark.parametrize("name", ["as_strided", "as_strided_", "as_strided_copy", "as_strided_scatter"])
@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((2,), (5,), None), ((5,), (1,), None), ((2,), (1,), 3), ((2,), (-1,), None), ((2,), (1,), -1), ((2,), (1, 1), 0)],
)
def test_the_words_for_a_view_beyond_its_storage_are_torchs(
    session: RawSession, name: str, size: tuple[int, ...], stride: tuple[int, ...], offset: int | None
) -> None:
    part = [torch.ones(size)] if name == "as_strided_scatter" else []
    error = session.run(session.call(Y.id, name, X, *part, size, stride, offset)).error()
    expected = _torchs_words(lambda: getattr(torch, name)(torch.ones(4), *part, size, stride, offset))
    assert (error.type, error.message) == expected


def test_strides_that_no_element_is_reached_by_are_legal(session: RawSession) -> None:
    reply = session.run(
        session.call(Y.id, "as_strided", X, (1, 0), (2**62, 2**62), 2**62),
        session.call(0, "Tensor.as_strided_", X, (1,), (2**62,)),
        session.call(0, "Tensor.tolist", Y),
        session.call(0, "Tensor.tolist", X),
        session.call(0, "Tensor.stride", Y),
    )
    assert [reply.value(index) for index in (2, 3, 4)] == [[[]], [1.0], (2**62, 2**62)]


@pytest.mark.parametrize("where", ["cpu", "meta"])
@pytest.mark.parametrize("name", ["empty_strided", "Tensor.new_empty_strided"])
def test_no_tensor_is_made_whose_strides_come_round(session: RawSession, name: str, where: str) -> None:
    like = [X] if name.startswith("Tensor") else []
    call = session.call(Y.id, name, *like, (2,), (2**62 - 8,), device=torch.device(where))
    assert session.run(call).error().type == "RuntimeError"


_GROWING: dict[str, Callable[[RawSession, Kept], pb.Call]] = {
    "resize_": lambda s, target: s.call(0, "Tensor.resize_", target, _HUGE),
    "resize_ by a tuple": lambda s, target: s.call(0, "Tensor.resize_", target, (2**40, 2**40)),
    "resize_ by a negative size": lambda s, target: s.call(0, "Tensor.resize_", target, (2, -3)),
    "resize_as_": lambda s, target: s.call(0, "Tensor.resize_as_", target, Z),
    "the function resize_as_": lambda s, target: s.call(0, "resize_as_", target, Z),
    "as_strided_": lambda s, target: s.call(0, "Tensor.as_strided_", target, (2**40, 2**40), (0, 0)),
    "out= of an addition": lambda s, target: s.call(0, "add", Z, 1, out=target),
    "out= of a concatenation": lambda s, target: s.call(0, "cat", [Z, Z], out=target),
    "out= of two results": lambda s, target: s.call(0, "max", Z, 0, True, out=(target, target)),
}


@pytest.mark.parametrize("grow", _GROWING.values(), ids=_GROWING)
@pytest.mark.parametrize("view", [False, True], ids=["whole", "view"])
def test_a_call_that_cannot_grow_its_target_leaves_it_within_its_storage(
    session: RawSession, grow: Callable[[RawSession, Kept], pb.Call], view: bool
) -> None:
    target = Y if view else X
    session.run(
        session.call(Y.id, "Tensor.__getitem__", X, slice(2, 4)),
        session.call(Z.id, "Tensor.expand", encode(torch.ones(1)), _HUGE),
    ).clean()
    session.run(grow(session, target))
    reply = session.run(
        session.call(0, "Tensor.fill_", target, 3.0),
        session.call(0, "Tensor.numel", target),
        session.call(0, "Tensor.tolist", target),
        session.call(0, "Tensor.tolist", X),
    ).clean()
    assert reply.value(1) <= 4
    assert reply.value(2) == [3.0] * reply.value(1)


# Without elements, and with sizes whose strides cannot be computed or that wrap when they are added up.
_NOTHING: dict[str, Callable[[RawSession], pb.Call]] = {
    "resize_ by a negative size": lambda s: s.call(0, "Tensor.resize_", X, (0, -1)),
    "resize_ without strides": lambda s: s.call(0, "Tensor.resize_", X, (0, 2**61 + 1, 4)),
    "as_strided_ by a negative size": lambda s: s.call(0, "Tensor.as_strided_", X, (0, -(2**62) - 7), (1, 1)),
    "out= of zeros without strides": lambda s: s.call(0, "zeros", 0, 2**61 + 1, 4, out=X),
    "out= of ones of a negative size": lambda s: s.call(0, "ones", 0, -1, out=X),
    "out= of an addition without strides": lambda s: s.call(0, "add", Y, 1, out=X),
    "out= of a concatenation that wraps": lambda s: s.call(0, "cat", [Z, Z], 1, out=X),
}


@pytest.mark.parametrize("spoil", _NOTHING.values(), ids=_NOTHING)
def test_sizes_that_no_tensor_has_are_refused_where_there_are_no_elements_too(
    session: RawSession, spoil: Callable[[RawSession], pb.Call]
) -> None:
    session.run(
        session.call(Y.id, "as_strided", X, (0, 2**61, 3), (1, 1, 1)),
        session.call(Z.id, "as_strided", X, (0, 2**62 + 5), (1, 1)),
    )
    reply = session.run(
        spoil(session),
        session.call(0, "Tensor.stride", X),
        session.call(4, "Tensor.__add__", X, 1),
        session.call(0, "Tensor.tolist", X),
        frees=[4],
    )
    assert (sorted(reply.errors), reply.error(0).type) == ([0], "RuntimeError")
    assert reply.value(1) == (1,)
    assert reply.value(3) in ([], [1.0] * 4)


@pytest.mark.parametrize("name", ["Tensor.expand", "broadcast_to"])
def test_nothing_is_not_expanded_to_a_negative_size(session: RawSession, name: str) -> None:
    error = session.run(session.call(Z.id, name, encode(torch.empty(0)), (-2, 0))).error()
    assert (error.type, error.message) == (
        "RuntimeError",
        "Trying to create tensor with negative dimension -2: [-2, 0]",
    )


def test_resize_that_fails_changes_nothing(session: RawSession) -> None:
    reply = session.run(session.call(0, "Tensor.resize_", X, _HUGE), session.call(0, "Tensor.tolist", X))
    assert (reply.error(0).type, reply.value(1)) == ("OutOfMemoryError", [1.0] * 4)


_LOOKUPS: dict[str, Callable[[RawSession, bool], pb.Call]] = {
    "embedding": lambda s, wish: s.call(Y.id, "embedding", X, Z, -1, False, wish),
    "embedding by keyword": lambda s, wish: s.call(Y.id, "embedding", X, Z, sparse=wish),
    "nn.functional.embedding": lambda s, wish: s.call(Y.id, "nn.functional.embedding", Z, X, sparse=wish),
    "nn.functional.embedding by position": lambda s, wish: s.call(
        Y.id, "nn.functional.embedding", Z, X, None, None, 2.0, False, wish
    ),
    "nn.functional.embedding_bag": lambda s, wish: s.call(
        Y.id, "nn.functional.embedding_bag", Z, X, torch.tensor([0]), mode="sum", sparse=wish
    ),
    "gather": lambda s, wish: s.call(Y.id, "gather", X, 0, torch.tensor([[1, 0]]), sparse_grad=wish),
    "Tensor.gather": lambda s, wish: s.call(Y.id, "Tensor.gather", X, 0, torch.tensor([[1, 0]]), sparse_grad=wish),
}


@pytest.mark.parametrize("look_up", _LOOKUPS.values(), ids=_LOOKUPS)
def test_a_gradient_that_would_be_sparse_is_refused_and_nothing_of_it_is_held(
    session: RawSession, look_up: Callable[[RawSession, bool], pb.Call]
) -> None:
    def learn(wish: bool) -> Any:
        return session.run(
            session.call(X.id, "ones", 3, 2, requires_grad=True, frees=[X.id]),
            session.call(Z.id, "tensor", [1, 0]),
            look_up(session, wish),
            session.call(4, "Tensor.sum", Y),
            session.call(5, "autograd.grad", Kept(4), [X]),
            session.call(6, "Tensor.to_dense", Kept(5, (0,))),
            session.call(0, "Tensor.backward", Kept(4)),
            session.call(7, "Tensor.grad.__get__", X),
            frees=[Y.id, Z.id, 4, 5, 6, 7],
        )

    sparse = learn(True)
    assert sorted(sparse.errors) == [2, 3, 4, 5, 6]
    assert {error.type for error in sparse.errors.values()} == {"RuntimeError"}
    assert "=False" in sparse.error(2).message
    assert sorted(learn(False).errors) == [6], "the graph is used up"


def test_what_looks_up_without_gradients_may_say_sparse(session: RawSession) -> None:
    rows, found = (
        encode(torch.ones(3, 2)),
        session.call(Y.id, "nn.functional.embedding", torch.tensor([1]), X, sparse=True),
    )
    session.run(session.call(X.id, "Tensor.clone", rows, frees=[X.id]), found).clean()


_MIXED: dict[str, Callable[[RawSession], pb.Call]] = {
    "matmul": lambda s: s.call(Z.id, "matmul", encode(torch.ones(2, 4)), Y),
    "the operator @": lambda s: s.call(Z.id, "Tensor.__matmul__", encode(torch.ones(2, 4)), Y),
    "the other way round": lambda s: s.call(Z.id, "matmul", Y, encode(torch.ones(4, 2))),
    "linear": lambda s: s.call(Z.id, "nn.functional.linear", encode(torch.ones(2, 4)), Y),
    "addmm": lambda s: s.call(Z.id, "addmm", encode(torch.ones(4)), encode(torch.ones(2, 4)), Y),
    "an index": lambda s: s.call(Z.id, "Tensor.__getitem__", X, Kept(8)),
    "embedding": lambda s: s.call(Z.id, "embedding", encode(torch.ones(4, 2)), Kept(8)),
    "into a target": lambda s: s.call(0, "matmul", Y, Y, out=X),
    "in place": lambda s: s.call(0, "Tensor.index_put_", X, [torch.tensor([0])], Kept(9)),
    "in a list": lambda s: s.call(Z.id, "cat", [X, Kept(8)]),
    "a number": lambda s: s.call(Z.id, "where", encode(torch.ones(4, dtype=torch.bool)), X, Kept(9)),
    "a number that is the target": lambda s: s.call(Z.id, "Tensor.eq_", encode(torch.tensor(3.0)), Y),
    "a number that is the output": lambda s: s.call(Z.id, "eq", Y, Y, out=encode(torch.tensor(True))),
    "a network": lambda s: s.call(Z.id, "tc.forward", Kept(10), encode(torch.ones(2, 4))),
}


@pytest.mark.parametrize("mix", _MIXED.values(), ids=_MIXED)
@pytest.mark.parametrize("device", [_META, "meta", "meta:0"], ids=str)
def test_what_has_no_elements_does_not_meet_what_has(
    session: RawSession, mix: Callable[[RawSession], pb.Call], device: Any
) -> None:
    reply = session.run(
        session.call(Y.id, "ones", 4, 4, device=device),
        session.call(8, "Tensor.to", encode(torch.tensor([1])), device),
        session.call(9, "ones", (), device=device),
        session.call(10, "tc.network", [{"kind": "linear", "weight": Y, "bias": None}]),
        mix(session),
        session.call(0, "Tensor.tolist", X),
    )
    words = "Expected all tensors to be on the same device, but found at least two devices, meta and cpu!"
    assert (reply.error(4).type, reply.error(4).message) == ("RuntimeError", words)
    assert reply.value(5) == [1.0] * 4


def test_a_program_does_not_mix_devices_either(session: RawSession) -> None:
    calls = [session.call(2, "ones", 4, 4, device=_META), session.call(3, "matmul", Kept(1), Kept(2))]
    program = pb.Program(inputs=1, calls=calls, result=pb.Value(result=3))
    reply = session.run(
        session.call(5, "tc.program", pb.Value(program=program)),
        session.call(6, "tc.run", Kept(5), encode(torch.ones(2, 4))),
    )
    assert "Expected all tensors to be on the same device" in reply.error(1).message


def test_shapes_are_computed_on_meta_as_before(session: RawSession) -> None:
    reply = session.run(
        session.call(2, "ones", 3, 4, device=_META, requires_grad=True),
        session.call(3, "Tensor.__mul__", Kept(2), encode(torch.tensor(2.0))),
        session.call(4, "matmul", Kept(3), session_row(session)),
        session.call(0, "Tensor.backward", Kept(4), encode(pb.Value(result=12))),
        session.call(6, "Tensor.copy_", Kept(13), X),
        session.call(7, "Tensor.view_as", X, Kept(14)),
        session.call(8, "Tensor.__getitem__", Kept(13), encode(torch.tensor([0, 1]))),
        session.call(9, "zeros_like", Kept(2), device=torch.device("cpu")),
        session.call(0, "Tensor.tolist", Kept(9)),
        session.call(0, "Tensor.tolist", Kept(7)),
    )
    assert reply.value(8) == [[0.0] * 4] * 3
    assert reply.value(9) == [[1.0, 1.0], [1.0, 1.0]]


def session_row(session: RawSession) -> Kept:
    """A row on meta, a gradient for its product, and two more shapes, made in a batch of their own."""
    session.run(
        session.call(11, "ones", 4, device=_META),
        session.call(12, "ones", 3, device=_META),
        session.call(13, "ones", 4, device=_META),
        session.call(14, "ones", 2, 2, device=_META),
    ).clean()
    return Kept(11)
