"""The differences from local torch that docs/torch.md lists are these, and no more than it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize("make", ["tensor", "from_numpy", "as_tensor"])
def test_data_is_taken_as_it_is_at_the_call(tc: Any, make: str) -> None:
    a = np.zeros(4)
    x = getattr(tc, make)(a)
    a[0] = 9
    assert x.tolist() == [0, 0, 0, 0]


def test_large_data_is_taken_as_it_is_at_the_call(tc: Any) -> None:
    a = np.zeros(1 << 19)
    x = tc.from_numpy(a)
    a[:] = 9
    assert x.max().item() == 0


def test_numpy_copies(tc: Any) -> None:
    x = tc.zeros(3)
    a = x.numpy()
    a[0] = 9
    x[1] = 5
    assert x.tolist() == [0, 5, 0]
    assert a.tolist() == [9, 0, 0]


@pytest.mark.cuda
def test_numpy_works_on_cuda_tensors(tc: Any) -> None:
    if not tc.cuda.is_available():
        pytest.skip("the server has no CUDA device")
    assert tc.ones(2, device="cuda").numpy().tolist() == [1.0, 1.0]


def test_a_call_that_does_not_wait_raises_when_its_value_is_read(tc: Any) -> None:
    wrong = tc.ones(2, 3) + tc.ones(4)
    with pytest.raises(RuntimeError, match="must match the size"):
        wrong.tolist()


def test_an_effect_that_failed_is_raised_once_by_the_next_call_that_waits(tc: Any) -> None:
    x = tc.ones(2, 3)
    x.add_(tc.ones(4))
    with pytest.raises(RuntimeError, match="must match the size"):
        tc.synchronize()
    tc.synchronize()
    assert x.sum().item() == 6


def test_in_the_synchronous_mode_a_call_raises_where_it_stands(tc: Any) -> None:
    with tc.synchronous(), pytest.raises(RuntimeError, match="must match the size"):
        tc.ones(2, 3) + tc.ones(4)


def test_an_operation_that_returns_its_argument_gives_the_same_tensor(tc: Any) -> None:
    x = tc.zeros(3)
    same = x.to(x.dtype).contiguous()
    same[0] = 5
    assert x.tolist() == [5, 0, 0]


def test_in_place_operations_and_out_return_the_very_object(tc: Any) -> None:
    x, out = tc.zeros(3), tc.zeros(3)
    assert x.add_(1) is x
    assert x.mul_(2).sub_(1) is x
    assert tc.add(x, 1, out=out) is out


@pytest.mark.parametrize("name", ["Tensor.set_", "Tensor.apply_", "Tensor.map_", "cond", "from_file"])
def test_what_would_touch_the_process_or_its_files_is_no_operation(tc: Any, name: str) -> None:
    owner = tc.Tensor if name.startswith("Tensor.") else tc
    assert not hasattr(owner, name.removeprefix("Tensor."))


def test_empty_is_filled_with_zeros(tc: Any) -> None:
    assert not tc.empty(100_000).any().item()


def test_a_chain_and_its_read_wait_once(tc: Any, server: Any) -> None:
    with tc.connect(server.address) as session:
        y = x = tc.ones(4)
        for _ in range(500):
            y = y + x
        assert y.sum().item() == 2004
        assert session.stats.waits == 1
