"""no_grad, inference_mode and autocast belong to the thread that issues a call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch


def test_modes_hold_for_the_thread_that_entered_them(tc: ModuleType) -> None:
    w = tc.ones(2, requires_grad=True)
    seen: dict[str, bool] = {}
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        inside.wait(10)
        seen["other"] = (w * 2).requires_grad
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with tc.no_grad():
        inside.set()
        done.wait(10)
        seen["own"] = (w * 2).requires_grad
    thread.join()
    assert seen == {"other": True, "own": False}


def states(m: Any) -> list[bool]:
    """Whether gradients are recorded, at each step of a nest of modes."""
    seen = [m.is_grad_enabled()]
    with m.no_grad():
        seen.append(m.is_grad_enabled())
        with m.enable_grad():
            seen.append(m.is_grad_enabled())
        with m.set_grad_enabled(True):
            seen.append(m.is_grad_enabled())
        seen.append(m.is_grad_enabled())
    with m.inference_mode():
        seen += [m.is_grad_enabled(), m.is_inference_mode_enabled()]
        with m.inference_mode(False):
            seen += [m.is_grad_enabled(), m.is_inference_mode_enabled()]
    m.set_grad_enabled(False)
    seen.append(m.is_grad_enabled())
    m.set_grad_enabled(True)

    @m.no_grad()  # type: ignore[untyped-decorator]
    def called() -> bool:
        return bool(m.is_grad_enabled())

    @m.no_grad  # type: ignore[untyped-decorator]
    def bare() -> bool:
        return bool(m.is_grad_enabled())

    @m.inference_mode  # type: ignore[untyped-decorator]
    def inferring() -> bool:
        return bool(m.is_inference_mode_enabled())

    @m.no_grad()  # type: ignore[untyped-decorator]
    def generating() -> Iterator[bool]:
        yield bool(m.is_grad_enabled())
        yield bool(m.is_grad_enabled())

    seen += [called(), bare(), inferring()]
    for value in generating():
        seen += [value, m.is_grad_enabled()]
    seen.append(m.is_grad_enabled())
    return seen


def test_modes_nest_and_decorate_as_in_torch(tc: ModuleType) -> None:
    assert states(tc) == states(torch)


def test_inference_tensors_come_of_inference_mode(tc: ModuleType) -> None:
    with tc.inference_mode():
        x = tc.ones(2)
    assert x.is_inference()
    assert not tc.ones(2).is_inference()


def test_autocast_lowers_the_precision(tc: ModuleType) -> None:
    a = tc.ones(2, 2)
    with tc.autocast("cpu", dtype=tc.bfloat16):
        assert tc.is_autocast_enabled("cpu")
        assert (a @ a).dtype is tc.bfloat16
        with tc.autocast("cpu", enabled=False):
            assert (a @ a).dtype is tc.float32
    assert (a @ a).dtype is tc.float32
    with pytest.raises(RuntimeError, match="unsupported autocast device_type"):
        tc.autocast("tpu")


def test_the_default_dtype_is_the_session_s(tc: ModuleType) -> None:
    assert tc.get_default_dtype() is tc.float32
    tc.set_default_dtype(tc.float64)
    assert tc.get_default_dtype() is tc.float64
    assert tc.tensor([1.0]).dtype is tc.float64


def test_the_same_seed_gives_torch_s_numbers(tc: ModuleType) -> None:
    tc.manual_seed(5)
    ours = tc.randn(4)
    torch.manual_seed(5)
    assert ours.tolist() == torch.randn(4).tolist()
    generator = tc.Generator().manual_seed(7)
    assert (
        tc.rand(3, generator=generator).tolist() == torch.rand(3, generator=torch.Generator().manual_seed(7)).tolist()
    )
