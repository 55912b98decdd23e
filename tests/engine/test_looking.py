"""What people are shown of tensors: bounded, true to what is there, and without a trace in it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.serving import wait_until
from tserver.engine import looking
from tserver.engine.engine import Engine
from tserver.engine.object_store import ObjectStore, Parts
from tserver.errors import InvalidArgument, UnknownId

from .apart import Device


@pytest.fixture
def store(engine: Engine) -> ObjectStore:
    """What a session holds: nothing yet."""
    return engine.open_queue().store


def whole(pieces: Generator[None, None, Any]) -> Any:
    """What is worked out in pieces."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value


def numbers(looked: looking.Looked) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The sample and the picture."""
    found = np.frombuffer(looked.data, np.float64)
    return found[: looked.sampled], found[looked.sampled :].reshape(looked.picture)


def test_a_list_has_every_tensor_and_every_part_of_a_result(store: ObjectStore) -> None:
    store.keep(1, torch.zeros(2, 3, dtype=torch.bfloat16))
    store.keep(2, Parts((torch.arange(4), "no tensor", torch.tensor(1.0, requires_grad=True))))
    store.names["weights"], store.named[id(store.objects[1])] = 1, "weights"
    listed = whole(looking.listing(store))
    assert listed.is_whole
    assert listed.lines == [
        looking.Line((1,), "weights", "bfloat16", (2, 3), 12, "cpu", False),
        looking.Line((2, 0), "", "int64", (4,), 32, "cpu", False),
        looking.Line((2, 2), "", "float32", (), 4, "cpu", True),
    ]


def test_a_long_list_is_made_in_pieces_and_ends_somewhere(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "MOST_LISTED", 1000)
    for call_id in range(1, 1201):
        store.keep(call_id, torch.zeros(1))
    pieces = looking.listing(store)
    assert sum(1 for _ in pieces) >= 4
    listed = whole(looking.listing(store))
    assert (len(listed.lines), listed.is_whole) == (1000, False)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.0),
        torch.arange(10).to(torch.int8),
        torch.tensor([True, False]),
        torch.linspace(-1, 1, 12).to(torch.float8_e4m3fn).reshape(3, 4),
        torch.arange(12.0).reshape(3, 4).t(),
        torch.full((2, 2), float("nan")),
        torch.randn(3, 5, requires_grad=True),
    ],
    ids=["a number", "int8", "bool", "float8", "transposed", "NaN", "with gradients"],
)
def test_a_small_tensor_is_shown_as_it_is(store: ObjectStore, tensor: torch.Tensor) -> None:
    store.keep(1, tensor)
    sample, picture = numbers(looking.look(store, (1,), 0))
    expected = tensor.detach().to(torch.float64)
    np.testing.assert_array_equal(sample, expected.reshape(-1).numpy())
    np.testing.assert_array_equal(picture, (expected if tensor.dim() == 2 else expected.reshape(-1)).numpy())


def test_of_complex_numbers_the_magnitudes_are_shown(store: ObjectStore) -> None:
    store.keep(1, torch.tensor([3 + 4j, 0]).conj())
    looked = looking.look(store, (1,), 0)
    assert looked.facts["is_complex"]
    assert numbers(looked)[0].tolist() == [5, 0]


def test_each_matrix_of_many_dimensions_has_a_picture(store: ObjectStore) -> None:
    tensor = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    store.keep(1, tensor)
    for at in range(6):
        looked = looking.look(store, (1,), at)
        assert looked.facts["matrices"] == 6
        assert (numbers(looked)[1] == tensor.reshape(6, 4, 5)[at].numpy()).all()


def test_a_large_tensor_is_shown_by_a_sample_of_all_of_it(store: ObjectStore) -> None:
    store.keep(1, torch.arange(3000.0 * 2000).reshape(3000, 2000))
    looked = looking.look(store, (1,), 0)
    sample, picture = numbers(looked)
    assert 10_000 < looked.sampled <= 1 << 18
    assert abs(sample.mean() / 3e6 - 1) < 0.01
    assert max(picture.shape) <= 128
    # Far more elements than there is memory for.
    store.keep(2, torch.ones(1).expand(1 << 20, 1 << 30))
    assert numbers(looking.look(store, (2,), 0))[0].max() == 1


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(0, 3), torch.zeros(3, device="meta"), torch.eye(3).to_sparse()],
    ids=["empty", "meta", "sparse"],
)
def test_of_what_has_no_elements_in_a_row_the_facts_are_told(store: ObjectStore, tensor: torch.Tensor) -> None:
    store.keep(1, tensor)
    looked = looking.look(store, (1,), 0)
    assert (looked.sampled, looked.picture) == (0, ())
    assert looked.facts["shape"] == list(tensor.shape)


def test_who_looks_leaves_no_trace(store: ObjectStore) -> None:
    base = torch.randn(4, 4, requires_grad=True)
    view = (base * 2)[1:]
    store.keep(1, view)
    before = (view._version, view.grad_fn, torch.get_rng_state(), store.version, store.watched)
    looking.look(store, (1,), 0)
    whole(looking.listing(store))
    assert (view._version, view.grad_fn, store.version, store.watched) == (*before[:2], *before[3:])
    assert torch.equal(torch.get_rng_state(), before[2])
    view.sum().backward()
    assert base.grad is not None


def test_what_is_no_tensor_is_refused(store: ObjectStore) -> None:
    store.keep(1, torch.Generator())
    with pytest.raises(InvalidArgument, match="not a tensor"):
        looking.look(store, (1,), 0)
    with pytest.raises(UnknownId):
        looking.look(store, (7, 1), 0)


def test_what_comes_from_a_device_is_told_when_it_is_there(apart: Engine, device: Device) -> None:
    queue = apart.open_queue()
    queue.run(lambda store: store.keep(1, torch.arange(3.0))).result(5)
    looked = queue.look((1,), 0)
    wait_until(lambda: bool(device.events), 5.0, "the copy has begun")
    assert not looked.done()
    for event in device.events:
        event.passed.set()
    assert numbers(looked.result(5))[0].tolist() == [0, 1, 2]
