"""Sparse tensors of coordinates are torch's: what makes them, what is computed with them, and what refuses them."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch as local

from tests.semantics.harness import Program, Rows, Watch, assert_same

rows = Rows()

_INDICES = [[0, 1, 1, 1], [2, 0, 2, 2]]
_VALUES = [3.0, 4.0, 5.0, 0.5]


def _sparse(torch: Any, **kwargs: Any) -> Any:
    return torch.sparse_coo_tensor(_INDICES, _VALUES, (2, 3), **kwargs)


def _said(value: Any) -> Any:
    """What is compared of a result: all that a text shows of it, and what it does not."""
    if type(value).__name__ in ("tuple", "list"):
        return [_said(item) for item in value]
    if not hasattr(value, "layout"):
        return value
    parts = (value._nnz(), value.is_coalesced(), value.sparse_dim(), value.dense_dim()) if value.is_sparse else ()
    return repr(value), str(value.layout), tuple(value.shape), str(value.dtype), value.requires_grad, parts


def _each(t: Watch, *actions: Any) -> None:
    for action in actions:
        try:
            t.show(_said(action()))
        except Exception as error:
            builtin = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
            # torch goes on for pages about which backends there are.
            t.show(builtin, str(error)[:1000])


@rows.row("sparse")
def they_are_made_of_indices_and_values(torch: Any, t: Watch) -> None:
    indices, values = torch.tensor(_INDICES), torch.tensor(_VALUES)
    checked = {"check_invariants": True}
    _each(
        t,
        lambda: torch.sparse_coo_tensor(indices, values, (2, 3)),
        lambda: torch.sparse_coo_tensor(indices, values),
        lambda: torch.sparse_coo_tensor(_INDICES, _VALUES, [4, 5], dtype=torch.float64),
        lambda: torch.sparse_coo_tensor(np.array(_INDICES), np.array(_VALUES), (2, 3)),
        lambda: torch.sparse_coo_tensor(np.array(_INDICES, dtype=np.int32), [1, 2, 3, 4]),
        lambda: torch.sparse_coo_tensor(indices=indices, values=values, size=(2, 3), requires_grad=True),
        lambda: torch.sparse_coo_tensor(indices[:1], torch.ones(4, 2), (2, 2)),
        lambda: torch.sparse_coo_tensor((2, 3)),
        lambda: torch.sparse_coo_tensor(size=(2, 3), dtype=torch.int64),
        lambda: torch.sparse_coo_tensor([[0, 1], [2, 0]], [1.0, 2.0], (2, 3), is_coalesced=True),
        lambda: torch.sparse_coo_tensor([[5]], [1.0], (3,), **checked),
        lambda: torch.sparse_coo_tensor([[-1]], [1.0], (3,), **checked),
        lambda: torch.sparse_coo_tensor([[1, 1]], [1.0, 2.0], (3,), is_coalesced=True, **checked),
        lambda: torch.sparse_coo_tensor(indices, values[:2], (2, 3)),
        lambda: torch.sparse_coo_tensor(indices, values, (2,)),
        lambda: torch.sparse_coo_tensor(indices, values, (2**62, 2**62)),
        lambda: torch.sparse.FloatTensor(indices, values, torch.Size([2, 3])),
        lambda: torch.sparse.FloatTensor(indices, values, [2, 3]),
        lambda: torch.sparse.FloatTensor(indices, values),
        lambda: torch.sparse.FloatTensor(2, 3),
        lambda: torch.sparse.DoubleTensor(indices, values, [2, 3]),
        lambda: torch.sparse.LongTensor(indices, torch.tensor([1, 2, 3, 4]), [2, 3]),
        lambda: torch.zeros(2, 3, layout=torch.sparse_coo),
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3).to_sparse_coo(),
        lambda: torch.ones(2, 2, 2).to_sparse(1),
        lambda: torch.ones(2, 2).to_sparse(layout=torch.sparse_coo),
        lambda: torch.ones(2, 2).sparse_mask(torch.eye(2).to_sparse()),
    )


@rows.row("sparse")
def they_say_what_they_are(torch: Any, t: Watch) -> None:
    s, c = _sparse(torch), _sparse(torch).coalesce()
    t.show(s.is_sparse, torch.ones(2).is_sparse, str(s.layout), str(torch.strided), str(torch.sparse_coo))
    t.show(s.layout == torch.sparse_coo, s.type(), s.numel(), s.dim(), s.size(0), len(s), s.element_size())
    t.show(isinstance(s, torch.sparse.FloatTensor), isinstance(s, torch.sparse.DoubleTensor))
    t.show(isinstance(s, torch.FloatTensor), isinstance(torch.ones(2), torch.sparse.FloatTensor))
    t.show(torch.sparse.check_sparse_tensor_invariants.is_enabled())
    _each(
        t,
        lambda: s,
        lambda: f"{s}",
        lambda: s._indices(),
        lambda: s._values(),
        s.coalesce,
        s.indices,
        s.values,
        c.indices,
        c.values,
        lambda: c.coalesce(),
        lambda: s.to_dense(),
        lambda: copy.deepcopy(s),
        lambda: s.numpy(),
        lambda: np.asarray(s),
        lambda: s.tolist(),
        lambda: s.item(),
        lambda: s.nbytes,
        lambda: s.stride(),
        lambda: s.storage_offset(),
        lambda: s.is_contiguous(),
        lambda: torch.ones(2).coalesce(),
        lambda: torch.ones(2)._nnz(),
        lambda: torch.sparse_coo_tensor(torch.arange(2000).repeat(2, 1), torch.ones(2000)),
    )


@rows.row("sparse")
def they_are_computed_with(torch: Any, t: Watch) -> None:
    s, c = _sparse(torch), _sparse(torch).coalesce()
    dense, wide = torch.arange(12.0).reshape(3, 4), torch.ones(2, 3)
    batch = torch.stack([c, c])
    _each(
        t,
        lambda: torch.sparse.mm(s, dense),
        lambda: torch.sparse.mm(c, c.t()),
        lambda: torch.spmm(s, dense),
        lambda: torch.mm(s, dense),
        lambda: s @ dense,
        lambda: wide.t() @ s,
        lambda: s.matmul(dense),
        lambda: s @ torch.ones(3),
        lambda: torch.mv(s, torch.ones(3)),
        lambda: torch.bmm(batch, torch.ones(2, 3, 2)),
        lambda: torch.sparse.addmm(torch.ones(2, 4), s, dense, beta=2.0, alpha=0.5),
        lambda: torch.addmm(torch.ones(2, 4), s, dense),
        lambda: torch.nn.functional.linear(s, wide),
        lambda: torch.sparse.sum(s),
        lambda: torch.sparse.sum(s, dim=0),
        lambda: torch.sparse.sum(s, [0, 1]),
        lambda: torch.sparse.sum(s, dim=1, dtype=torch.float64),
        lambda: torch.sparse.softmax(s, dim=1),
        lambda: torch.sparse.softmax(c, 0, dtype=torch.float64),
        lambda: torch.sparse.log_softmax(c, dim=1),
        lambda: s.sum(),
        lambda: s.sum(1),
        lambda: s.norm(),
        lambda: s.any(),
        lambda: s.t(),
        lambda: s.T,
        lambda: s.transpose(0, 1),
        lambda: batch.permute(2, 0, 1).to_dense(),
        lambda: s.unsqueeze(0),
        lambda: s[1],
        lambda: s[:, 2],
        lambda: s[0, 2],
        lambda: list(s),
        lambda: s.index_select(0, torch.tensor([1, 1])),
        lambda: s.narrow(1, 1, 2),
        lambda: torch.cat([s, s]),
        lambda: s * 2,
        lambda: 2 * s,
        lambda: s / 4,
        lambda: -s,
        lambda: s + s,
        lambda: c - c,
        lambda: c * c,
        lambda: c * wide,
        lambda: wide + s,
        lambda: c.abs(),
        lambda: c**2,
        lambda: c.sqrt(),
        lambda: torch.relu(-c),
        lambda: s.double(),
        lambda: s.to(torch.int64),
        lambda: s.to("cpu"),
        lambda: s.clone(),
        lambda: torch.zeros_like(s),
        lambda: s.detach().mul_(2),
        lambda: s.clone().add_(s),
        lambda: wide.clone().add_(s),
    )


@rows.row("sparse")
def what_torch_cannot_do_with_them_is_refused_in_its_words(torch: Any, t: Watch) -> None:
    s, dense = _sparse(torch), torch.ones(2, 3)
    _each(
        t,
        lambda: torch.exp(s),
        lambda: s + 1,
        lambda: s + dense,
        lambda: s == s,
        lambda: s > 0,
        lambda: s.mean(),
        lambda: s.max(),
        lambda: s.view(3, 2),
        lambda: s.reshape(3, 2),
        lambda: s.flatten(),
        lambda: s.expand(2, 2, 3),
        lambda: s.contiguous(),
        lambda: s[:1],
        lambda: s[torch.tensor([0])],
        lambda: s.squeeze(),
        lambda: s.sort(),
        lambda: s.cumsum(0),
        lambda: s.std(),
        lambda: s.fill_(1),
        lambda: s.resize_(3, 3),
        lambda: torch.sigmoid(s),
        lambda: torch.equal(s, s),
        lambda: torch.where(s, s, s),
        lambda: torch.nonzero(s),
        lambda: torch.linalg.norm(s),
        lambda: torch.sparse.mm(s, torch.ones(2, 3)),
        lambda: torch.sparse.sum(dense),
        lambda: torch.sparse.softmax(dense, 0),
        lambda: torch.nn.functional.dropout(s, 0.5),
        lambda: bool(s),
    )


@rows.row("sparse")
def gradients_go_through_them(torch: Any, t: Watch) -> None:
    weight = torch.arange(12.0).reshape(3, 4).requires_grad_()
    torch.sparse.mm(_sparse(torch), weight).square().sum().backward()
    t.show(weight.grad)
    values = torch.tensor(_VALUES, requires_grad=True)
    graph = torch.sparse_coo_tensor(_INDICES, values, (2, 3))
    (graph @ weight.detach()).sum().backward()
    t.show(values.grad)
    leaf = _sparse(torch).coalesce().requires_grad_()
    torch.sparse.mm(leaf, weight.detach()).sum().backward()
    torch.sparse.sum(leaf * 2).backward()
    # Whether it is in order depends on who else holds it.
    _each(t, lambda: leaf.grad.coalesce(), lambda: leaf.grad.to_dense())
    dense = torch.eye(3, requires_grad=True)
    (dense.to_sparse() * 3).to_dense().sum().backward()
    t.show(dense.grad)
    again = torch.tensor(_VALUES, requires_grad=True)
    made = torch.sparse_coo_tensor(_INDICES, again, (2, 3)).coalesce()
    torch.sparse.softmax(made, 1).to_dense()[0, 2].backward()
    t.show(again.grad)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        torch.sparse.mm(_sparse(torch), weight).square().sum().backward()
        optimizer.step()
    t.show(weight)


@rows.parametrize()
def test_sparse_tensors_are_those_of_torch(program: Program, synchronous: bool, tc: ModuleType) -> None:
    assert_same(program, tc, synchronous=synchronous)


def test_what_others_hold_cannot_change_the_indices(tc: ModuleType) -> None:
    indices, values = tc.tensor(_INDICES), tc.tensor(_VALUES)
    s = tc.sparse_coo_tensor(indices, values, (2, 3))
    before = s.to_dense().tolist()
    indices.fill_(10**9)
    s._indices().fill_(-1)
    s.coalesce().indices().zero_()
    s._values().resize_(0)
    values.resize_(0)
    assert s.to_dense().tolist() == before
    assert s._nnz() == 4


@pytest.mark.parametrize("change", ["t_", "squeeze_", "neg_"])
def test_a_change_in_place_that_is_not_known_to_be_safe_is_refused(tc: ModuleType, change: str) -> None:
    s = _sparse(tc)
    with pytest.raises(NotImplementedError, match="is not run on sparse tensors here"):
        getattr(s, change)().to_dense().tolist()
    assert s.to_dense().shape == (2, 3)


@pytest.mark.filterwarnings("ignore:torch.sparse.SparseTensor")
def test_indices_are_looked_at_without_being_asked(tc: ModuleType) -> None:
    message = "size is inconsistent with indices: for dim 0, size is 3 but found index 5"
    for make in (tc.sparse_coo_tensor, tc.sparse.FloatTensor):
        with pytest.raises(RuntimeError, match=message):
            make(tc.tensor([[5]]), tc.tensor([1.0]), [3]).to_dense().tolist()


def test_a_sparse_tensor_takes_its_share_of_memory(tc: ModuleType) -> None:
    s = tc.sparse_coo_tensor(tc.zeros(2, 1000, dtype=tc.int64), tc.ones(1000), (5, 5))
    assert s._nnz() == 1000
    large = tc.sparse_coo_tensor(tc.zeros(2, 1, dtype=tc.int64), tc.ones(1), (2**31 - 1, 2**31 - 1))
    with pytest.raises(RuntimeError, match="bytes free"):
        large.to_dense().sum().item()
    with pytest.raises(RuntimeError, match="below 2\\^31"):
        tc.sparse_coo_tensor([[0]], [1.0], (2**31,)).to_dense().sum().item()


@pytest.mark.parametrize("name", ["sparse_csr_tensor", "sparse.sampled_addmm", "sparse.spdiags"])
def test_what_is_left_out_says_so(tc: ModuleType, name: str) -> None:
    owner, _, leaf = name.rpartition(".")
    with pytest.raises(AttributeError, match=r"torch\.sparse_coo"):
        getattr(getattr(tc, owner) if owner else tc, leaf)
    with pytest.raises(AttributeError):
        _sparse(tc).to_sparse_csr()
    with pytest.raises(ValueError, match="sparse_csr is not held"):
        tc.zeros(2, 2, layout=tc.sparse_csr).tolist()


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_files_hold_them(tc: ModuleType, tmp_path: Path) -> None:
    state = {"graph": _sparse(tc), "coalesced": _sparse(tc).coalesce(), "weight": tc.ones(2)}
    tc.save(state, tmp_path / "ours")
    with open(tmp_path / "theirs", "wb") as file:
        local.save({"graph": _sparse(local), "coalesced": _sparse(local).coalesce(), "weight": local.ones(2)}, file)
    for name in ("ours", "theirs"):
        found = tc.load(tmp_path / name)
        assert [repr(found[key]) for key in state] == [repr(value) for value in state.values()]
        assert found["coalesced"].is_coalesced()
    alone = io.BytesIO()
    tc.save(_sparse(tc), alone)
    alone.seek(0)
    assert tc.load(alone).to_dense().tolist() == _sparse(tc).to_dense().tolist()


def test_pickles_hold_them(tc: ModuleType) -> None:
    for s in (_sparse(tc), _sparse(tc).coalesce().requires_grad_()):
        found = pickle.loads(pickle.dumps(s))  # noqa: S301  of the line before
        assert (repr(found), found.is_coalesced()) == (repr(s), s.is_coalesced())


def test_testing_compares_them(tc: ModuleType) -> None:
    tc.testing.assert_close(_sparse(tc), _sparse(tc).coalesce())
    with pytest.raises(AssertionError, match="Mismatched elements"):
        tc.testing.assert_close(_sparse(tc), _sparse(tc) * 2)
    with pytest.raises(AssertionError, match="layout"):
        tc.testing.assert_close(_sparse(tc), _sparse(tc).to_dense())
