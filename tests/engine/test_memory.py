"""What is looked at before memory is taken: the sizes of a result, and nothing that only has numbers in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tserver.engine import memory

LARGE = 1 << 40
DATA: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "value-to-fill-with": ("full", [(2, 3), LARGE], {}),
    "value-by-keyword": ("full", [(2,)], {"fill_value": float(LARGE)}),
    "small-value": ("full", [(2,), 1e-12], {}),
    "value-of-the-like": ("full_like", [torch.ones(2), LARGE], {}),
    "value-of-a-new-one": ("Tensor.new_full", [torch.ones(2), (2,), LARGE], {}),
    "bounds-of-random-integers": ("randint", [-LARGE, LARGE, (2,)], {}),
    "bound-of-random-integers": ("randint", [LARGE], {"size": (2,)}),
    "bounds-of-a-short-range": ("arange", [LARGE, LARGE + 5], {}),
    "wide-range-in-wide-steps": ("arange", [0, LARGE, LARGE // 4], {}),
    "ends-of-steps": ("linspace", [0, LARGE, 5], {}),
    "exponents": ("logspace", [0, LARGE], {"steps": 5}),
    "spacing": ("fft.fftfreq", [8, 1e-12], {}),
}


@pytest.mark.parametrize(("name", "args", "kwargs"), DATA.values(), ids=DATA.keys())
def test_numbers_that_are_no_sizes_cost_no_dry_run(name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    def never(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    memory.check_factory(name, never, args, kwargs)


SIZED: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "size": ("full", [(LARGE,), 1], {}),
    "size-by-keyword": ("full", [], {"size": (LARGE,), "fill_value": 1}),
    "random-integers": ("randint", [0, 9, (LARGE,)], {}),
    "range": ("arange", [LARGE], {}),
    "range-by-keyword": ("arange", [], {"end": LARGE}),
    "range-with-a-start": ("arange", [5], {"end": LARGE}),
    "small-steps": ("arange", [0, 1, 1e-12], {}),
    "small-steps-down": ("arange", [1, 0], {"step": -1e-12}),
    "steps": ("linspace", [0, 1, LARGE], {}),
    "window": ("hann_window", [LARGE], {}),
    "like": ("full_like", [torch.ones(1).expand(LARGE), 0], {}),
}


@pytest.mark.parametrize(("name", "args", "kwargs"), SIZED.values(), ids=SIZED.keys())
def test_sizes_are_still_looked_at(name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    function = getattr(torch, name)
    with pytest.raises(torch.OutOfMemoryError, match="bytes free"):
        memory.check_factory(name, function, args, kwargs)
