"""Sparse tensors in the engine: which kernels see them, and what they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tserver.engine.ledger import Ledger, Totals
from tserver.engine.sparse import GUARD, RULES, coo_tensor, old_constructor

_INDICES = torch.tensor([[0, 1, 1], [2, 0, 2]])


def _sparse(**named: Any) -> Tensor:
    return coo_tensor(_INDICES, torch.ones(3), (2, 3), **named)


REFUSED: dict[str, Callable[[], Any]] = {
    "in place": lambda: _sparse().t_(),
    "within another": lambda: torch.relu_(_sparse()),
    "out=": lambda: torch.mm(_sparse(), torch.ones(3, 2), out=torch.empty(2, 2)),
    "compressed": lambda: _sparse().to_sparse_csr(),
    "to meta": lambda: _sparse().to("meta"),
    "a copy in place": lambda: torch.zeros(2, 3).copy_(_sparse()),
    "without gradients": torch.no_grad()(lambda: _sparse().unsqueeze_(0)),
    "without a graph": torch.inference_mode()(lambda: _sparse().squeeze_()),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_a_kernel_that_is_not_reviewed_does_not_see_a_sparse_tensor(call: Callable[[], Any]) -> None:
    with GUARD, pytest.raises(NotImplementedError, match=r"sparse tensors (here|on the meta device)"):
        call()


def test_a_kernel_that_torch_does_not_have_is_left_to_torch() -> None:
    with GUARD, pytest.raises(NotImplementedError, match="Could not run 'aten::exp' with arguments from the 'Sparse"):
        torch.exp(_sparse())


def test_a_backward_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.ones(3, 2, requires_grad=True)
    with GUARD:
        result = torch.sparse.mm(_sparse(), weight).sum()
        monkeypatch.delitem(RULES, "mm")
        with pytest.raises(NotImplementedError, match="mm is not run on sparse tensors here"):
            result.backward()


def test_an_order_that_a_kernel_did_not_keep_is_not_claimed() -> None:
    with GUARD:
        batch = torch.stack([_sparse(), _sparse()]).coalesce()
        turned = batch.permute(0, 2, 1)
        assert not turned.is_coalesced()
        assert torch.equal(turned.to_dense(), batch.to_dense().permute(0, 2, 1))


def test_a_size_beyond_32_bits_is_refused_before_a_kernel_divides_by_it() -> None:
    with pytest.raises(RuntimeError, match=r"sizes must be below 2\^31"):
        coo_tensor([[1], [7]], [1.0], (4, 2**40))
    with pytest.raises(RuntimeError, match="is not changed in place by"), GUARD:
        _sparse().mul_(torch.ones(2, 2, 3))


@pytest.mark.filterwarnings("ignore:torch.sparse.SparseTensor")
@pytest.mark.parametrize("make", [coo_tensor, old_constructor(torch.sparse.__dict__["FloatTensor"])])
def test_what_a_sparse_tensor_is_made_of_is_nobody_elses(make: Callable[..., Tensor]) -> None:
    indices = _INDICES.clone()
    made = make(indices, torch.ones(3), (2, 3))
    indices.fill_(10**12)
    assert made._indices().max() == 2


def test_a_product_is_refused_whose_result_has_no_place() -> None:
    tall = coo_tensor([[0], [0]], [1.0], (2**31 - 1, 2**31 - 1))
    with GUARD:
        for call in (lambda: tall @ torch.ones(2**31 - 1, 1).expand(-1, 2**12), tall.to_dense):
            with pytest.raises(torch.OutOfMemoryError, match="bytes free"):
                call()


def test_the_memory_of_both_parts_is_counted_once() -> None:
    made, totals, ledger = _sparse(), Totals(), Ledger()
    for _ in range(2):
        totals.add(made)
        ledger.add_tensor(made)
    assert totals.held_bytes == 2 * 3 * 8 + 3 * 4 == ledger.totals()[None]
