"""The windows of torch.signal are torch's."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from tests.semantics.harness import Watch, assert_same

_NEEDED: dict[str, dict[str, Any]] = {"general_cosine": {"a": [0.46, 0.23, 0.31]}}
_OTHER: dict[str, dict[str, Any]] = {
    "exponential": {"tau": 2.5, "center": 1.0, "sym": False},
    "gaussian": {"std": 0.7},
    "kaiser": {"beta": 3.5},
    "general_hamming": {"alpha": 0.6},
}


def windows(m: Any, t: Watch, name: str) -> None:
    window = getattr(m.signal.windows, name)
    given = _NEEDED.get(name, {})
    for count in (0, 1, 2, 7, 10):
        for sym in (True, False):
            made = window(count, sym=sym, dtype=m.float64, **given)
            t.show(made.dtype, made.shape, (made * 1e8).round().to(m.int64))
    made = window(5, **{**given, **_OTHER.get(name, {})}, requires_grad=True)
    t.show(made.dtype, made.requires_grad, (made * 1e4).round().to(m.int64))
    t.tries(
        lambda: window(-1, **given),
        lambda: window(3, dtype=m.int64, **given),
        lambda: window(3, layout=m.sparse_coo, **given),
    )
    if name == "exponential":
        t.tries(lambda: window(3, tau=0), lambda: window(3, center=1))
    if name == "gaussian":
        t.tries(lambda: window(3, std=0))
    if name == "kaiser":
        t.tries(lambda: window(3, beta=-1))
    if name == "general_cosine":
        t.tries(lambda: window(3, a=[]), lambda: window(3, a=1))


@pytest.mark.parametrize("name", torch.signal.windows.__all__)
def test_a_window_is_torch_s(tc: ModuleType, name: str) -> None:
    assert_same(lambda m, t: windows(m, t, name), tc, synchronous=False)
