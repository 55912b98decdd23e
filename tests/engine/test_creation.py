"""What a caller sends to a GPU goes by way of pinned memory, and comes out as torch makes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tserver.engine import streams, transfers
from tserver.engine.apply import apply_operation
from tserver.engine.creation import from_packed, new_tensor, sent, sent_anew
from tserver.engine.engine import Engine
from tserver.engine.transfers import send
from tserver.engine.values import Packed, tensor_from_bytes

CPU = torch.device("cpu")


@pytest.fixture
def sendings(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What is sent to the device; the CPU stands in for it."""
    found: list[torch.Tensor] = []

    def noted(host: torch.Tensor, device: torch.device) -> torch.Tensor:
        found.append(host)
        return host.clone()

    monkeypatch.setattr(streams, "apart", lambda device: None if device is None else torch.device(device))
    monkeypatch.setattr(transfers, "send", noted)
    return found


SOURCES = [
    pytest.param(np.arange(6.0).reshape(2, 3), {}, id="an array"),
    pytest.param(np.array(3, np.int32), {}, id="an array of one"),
    pytest.param(np.arange(3.0), {"dtype": torch.float16}, id="another dtype"),
    pytest.param(np.arange(3.0), {"requires_grad": True}, id="with gradients"),
    pytest.param([1, 2.5], {}, id="a list"),
    pytest.param(2.5, {"dtype": torch.float64}, id="a number"),
    pytest.param(True, {}, id="a truth"),
    pytest.param([], {}, id="nothing"),
]


@pytest.mark.parametrize("name", ["tensor", "as_tensor", "asarray"])
@pytest.mark.parametrize(("source", "kwargs"), SOURCES)
def test_it_is_what_torch_makes(sendings: list[Any], name: str, source: Any, kwargs: dict[str, Any]) -> None:
    if name == "as_tensor" and "requires_grad" in kwargs:
        pytest.skip("as_tensor has no requires_grad")
    function = getattr(torch, name)
    expected = function(source, **kwargs)
    made = sent(from_packed(function))(source, device="cpu", **kwargs)
    assert (made.dtype, made.shape, made.requires_grad) == (expected.dtype, expected.shape, expected.requires_grad)
    assert made.is_leaf
    assert torch.equal(made, expected)
    assert len(sendings) == 1


def test_an_array_is_not_copied_before_it_is_sent(sendings: list[torch.Tensor]) -> None:
    array = np.arange(3.0)
    sent(torch.tensor)(array, device="cpu")
    assert sendings[0].data_ptr() == array.ctypes.data


def test_a_packed_list_gets_the_default_dtype(sendings: list[torch.Tensor]) -> None:
    made = sent(from_packed(torch.tensor))(Packed(np.array([0.1, 0.2])), device="cpu")
    assert torch.equal(made, torch.tensor([0.1, 0.2]))
    assert len(sendings) == 1


@pytest.mark.parametrize("kwargs", [{}, {"dtype": torch.int32}, {"requires_grad": True}], ids=str)
def test_a_new_tensor_is_like_the_other(sendings: list[torch.Tensor], kwargs: dict[str, Any]) -> None:
    like = torch.ones(2, dtype=torch.float64)
    expected = like.new_tensor([1, 2], **kwargs)
    made = sent_anew(new_tensor)(like, [1, 2], **kwargs)
    assert (made.dtype, made.requires_grad) == (expected.dtype, expected.requires_grad)
    assert torch.equal(made, expected)
    assert len(sendings) == 1


def test_a_tensor_that_the_session_holds_is_left_to_torch(sendings: list[torch.Tensor]) -> None:
    held = torch.ones(2)
    assert sent(torch.as_tensor)(held, device="cpu") is held
    assert not sendings


def test_what_stays_on_the_host_is_made_by_torch_itself() -> None:
    array = np.arange(3.0)
    made = sent(torch.as_tensor)(array, device="cpu")
    assert made.data_ptr() == array.ctypes.data
    assert streams.apart("cuda:1") == torch.device("cuda", 1)


def test_a_refusal_is_in_the_words_of_torch(sendings: list[torch.Tensor]) -> None:
    with pytest.raises(RuntimeError) as expected:
        torch.tensor([1, 2], requires_grad=True)
    with pytest.raises(RuntimeError) as refused:
        sent(torch.tensor)([1, 2], requires_grad=True, device="cpu")
    assert str(refused.value) == str(expected.value)


def test_what_is_not_pinned_is_copied_into_pinned_memory_first(monkeypatch: pytest.MonkeyPatch) -> None:
    staged: list[torch.Tensor] = []

    def pinned(like: torch.Tensor) -> torch.Tensor:
        staged.append(torch.empty_like(like))
        return staged[-1]

    monkeypatch.setattr(transfers, "pinned", pinned)
    host = torch.arange(4.0)
    assert torch.equal(send(host, CPU), host)
    assert torch.equal(staged[0], host)


def test_bytes_may_come_as_a_tensor() -> None:
    data = torch.tensor([1.5, 2.0]).view(torch.uint8)
    made = tensor_from_bytes(torch.float32, [1, 2], data, copy=False)
    assert made.tolist() == [[1.5, 2.0]]
    assert made.data_ptr() == data.data_ptr()
    assert tensor_from_bytes(torch.bool, [2], torch.tensor([0, 7], dtype=torch.uint8)).tolist() == [False, True]


@pytest.mark.parametrize("arguments", [("3",), (2.5,), (), (0, 10)], ids=str)
@pytest.mark.parametrize("name", ["ones", "randint"])
def test_a_default_device_is_in_no_message(name: str, arguments: tuple[Any, ...], engine: Engine) -> None:
    store = engine.open_queue().store
    store.default_device = torch.device("meta")
    operation = engine.operations.get(name)
    with torch.device("meta"):
        try:
            expected: Any = operation.function(*arguments).shape
        except TypeError as error:
            expected = str(error)
    try:
        got: Any = apply_operation(store, operation, list(arguments), {})
        assert got.is_meta
        got = got.shape
    except TypeError as error:
        got = str(error)
    assert got == expected
