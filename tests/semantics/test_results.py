"""Results of every kind: tensors, named tuples, lists, plain values; and which of them make a caller wait."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.semantics.harness import Program, Rows, Watch, assert_same

rows = Rows()


@rows.row("named")
def results_with_named_fields(torch: Any, t: Watch) -> None:
    x = torch.tensor([[3.0, 1.0, 2.0], [9.0, 7.0, 8.0]])
    square = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    t.tries(
        lambda: x.max(dim=0),
        lambda: x.max(dim=0).indices,
        lambda: torch.min(x, 1, keepdim=True).values,
        lambda: x.sort(dim=1, descending=True),
        lambda: torch.topk(x, 2),
        lambda: x.kthvalue(2),
        lambda: x.median(1),
        lambda: x.nanmedian(0),
        lambda: x.mode(1),
        lambda: x.cummax(1),
        lambda: torch.cummin(x, 0),
        lambda: x.aminmax(dim=1),
        lambda: torch.linalg.svd(square),
        lambda: torch.linalg.qr(square).R,
        lambda: torch.linalg.eigh(square),
        lambda: torch.linalg.eig(square).eigenvalues,
        lambda: torch.linalg.slogdet(square),
        lambda: torch.linalg.lu(square),
        lambda: torch.linalg.lu_factor(square),
        lambda: torch.linalg.inv_ex(square),
        lambda: torch.linalg.cholesky_ex(square),
        lambda: (torch.linalg.lstsq(square, x[:, :2]).solution + 1).round(decimals=3).tolist(),
        lambda: torch.frexp(x),
        lambda: torch.histogram(x, 3),
        lambda: torch.triangular_solve(x[:, :2], square),
        lambda: torch.geqrf(square),
        lambda: x.max(dim=0)[1],
        lambda: len(x.max(dim=0)),
        lambda: x.max(dim=0) == 1,
        lambda: isinstance(x.max(dim=0), tuple),
        lambda: x.max(dim=0).nothing,
        lambda: str(x.max(dim=0)),
        lambda: x.max(0)._fields if hasattr(x.max(0), "_fields") else x.max(0).n_fields,
    )
    values, indices = x.max(1)
    (first, second), *rest = x.sort(1)
    t.show(values, indices, first, second, rest)


@rows.row("lists")
def lists_and_tuples_of_tensors(torch: Any, t: Watch) -> None:
    x = torch.arange(12.0).view(3, 4)
    t.tries(
        lambda: x.split(2),
        lambda: x.split([1, 2], 0),
        lambda: x.split([1, 3], dim=1),
        lambda: torch.split(x, 2, 1),
        lambda: x.chunk(2),
        lambda: x.chunk(5, 1),
        lambda: x.unbind(),
        lambda: x.unbind(1),
        lambda: x.tensor_split(2),
        lambda: x.tensor_split((1, 2), 1),
        lambda: x.hsplit(2),
        lambda: x.vsplit([1]),
        lambda: x.nonzero(as_tuple=True),
        lambda: x.nonzero(),
        lambda: torch.where(x > 3),
        lambda: torch.meshgrid(x[0], x[1], indexing="ij"),
        lambda: torch.broadcast_tensors(x, x[0]),
        lambda: torch.unique(torch.tensor([3, 1, 3])),
        lambda: torch.unique(torch.tensor([3, 1, 3]), return_inverse=True, return_counts=True),
        lambda: torch.tensor([1, 1, 2]).unique_consecutive(return_counts=True),
        lambda: torch.var_mean(x, 1),
        lambda: torch.std_mean(x),
        lambda: torch.gradient(x),
        lambda: torch.histc(x, 3),
        lambda: torch.histogramdd(x[:, :2], bins=[2, 2]),
        lambda: torch.atleast_2d(x[0], x),
        lambda: x.split(2)[1].add_(100) is None,
        lambda: x,
        lambda: torch.nn.functional.max_pool1d(x[None], 2, return_indices=True),
    )


@rows.row("plain")
def plain_values(torch: Any, t: Watch) -> None:
    x = torch.arange(6.0).view(2, 3)
    t.tries(
        lambda: torch.equal(x, x.clone()),
        lambda: x.equal(x + 1),
        lambda: torch.allclose(x, x + 1e-9),
        lambda: x.numel(),
        lambda: torch.numel(x),
        lambda: x.nelement(),
        lambda: x.dim(),
        lambda: x.ndim,
        lambda: x.size(),
        lambda: x.size(1),
        lambda: x.size(dim=-1),
        lambda: x.size(2),
        lambda: x.size("a"),
        lambda: x.shape,
        lambda: x.shape[0],
        lambda: x.shape[0:1],
        lambda: x.shape.numel(),
        lambda: x.stride(),
        lambda: x.stride(0),
        lambda: x.t().stride(),
        lambda: x.storage_offset(),
        lambda: x[1].storage_offset(),
        lambda: x.is_contiguous(),
        lambda: x.t().is_contiguous(),
        lambda: x.element_size(),
        lambda: x.itemsize,
        lambda: x.nbytes,
        lambda: x.is_floating_point(),
        lambda: torch.is_floating_point(x),
        lambda: torch.is_complex(x),
        lambda: torch.is_nonzero(x[0, 1]),
        lambda: torch.is_nonzero(x),
        lambda: x.is_signed(),
        lambda: torch.is_tensor(x),
        lambda: torch.is_tensor([1]),
        lambda: torch.is_same_size(x, x.t()),
        lambda: x.is_set_to(x),
        lambda: x.is_set_to(x[0]),
        lambda: x.requires_grad,
        lambda: x.is_leaf,
        lambda: x.grad,
        lambda: x.grad_fn,
        lambda: x.is_inference(),
        lambda: x.is_cuda,
        lambda: x.is_sparse,
        lambda: x.is_quantized,
        lambda: x.get_device(),
        lambda: x.dtype,
        lambda: x.device,
        lambda: x.layout,
        lambda: x.names if hasattr(x, "names") else None,
        lambda: x.item(),
        lambda: x[0, 2].item(),
        lambda: x.tolist(),
        lambda: x.type(),
        lambda: x.is_pinned(),
        lambda: torch.typename(x),
        lambda: torch.get_default_dtype(),
        lambda: torch.is_grad_enabled(),
        lambda: torch.result_type(x, 1),
        lambda: torch.promote_types(torch.int8, torch.uint8),
        lambda: torch.can_cast(torch.float32, torch.int32),
        lambda: torch.broadcast_shapes((2, 1), (3,)),
        lambda: torch.broadcast_shapes((2,), (3,)),
        lambda: torch.finfo(torch.float32).eps,
        lambda: torch.iinfo(torch.int8).max,
        lambda: torch.finfo(torch.int8),
        lambda: torch.finfo(),
        lambda: torch.initial_seed() * 0,
        lambda: (torch.pi, torch.e, torch.inf, torch.newaxis),
        lambda: torch.nan,
        lambda: x.data.shape,
        lambda: x.sum(),
        lambda: x.new_tensor(3).item(),
        lambda: torch.get_default_device(),
        lambda: x.__len__(),
        lambda: x._version >= 0 if hasattr(x, "_version") else True,
        lambda: x.is_neg(),
        lambda: x.dim_order(),
    )


@rows.row("kinds")
def the_same_function_with_results_of_different_kinds(torch: Any, t: Watch) -> None:
    x = torch.tensor([[3.0, 1.0], [2.0, 4.0]])
    t.tries(
        lambda: x.max(),
        lambda: x.max(0),
        lambda: x.max(torch.zeros(2)),
        lambda: torch.max(x, x.t()),
        lambda: x.median(),
        lambda: x.median(0),
        lambda: x.where(x > 2, 0.0),
        lambda: torch.where(x > 2),
        lambda: x.unique(),
        lambda: x.unique(return_counts=True),
        lambda: x.std(),
        lambda: x.any(),
        lambda: x.all(0),
        lambda: x.norm(),
        lambda: x.norm(dim=0, p=1),
        lambda: x.sum(),
        lambda: x.sum(0),
        lambda: x.sum(()),
        lambda: x.stride(),
        lambda: x.stride(1),
        lambda: x.nonzero(as_tuple=False),
        lambda: x.type(),
        lambda: x.type(torch.int8),
        lambda: x.tolist(),
        lambda: x[0].tolist(),
        lambda: x[0, 0].tolist(),
        lambda: x.min(dim=0, keepdim=True),
        lambda: torch.nn.functional.max_pool1d(x[None], 2),
        lambda: torch.nn.functional.max_pool1d(x[None], 2, return_indices=True),
        lambda: torch.nn.functional.embedding_bag(torch.tensor([[0, 1]]), x),
        lambda: torch.diff(x),
        lambda: torch.aminmax(x),
        lambda: torch.cov(x),
        lambda: torch.corrcoef(x),
        lambda: torch.quantile(x, 0.5),
        lambda: torch.quantile(x, torch.tensor([0.25, 0.75]), dim=1),
        lambda: torch.bincount(torch.tensor([0, 2, 2])),
        lambda: torch.searchsorted(torch.tensor([1.0, 2.0, 3.0]), x),
        lambda: torch.bucketize(x, torch.tensor([1.5, 2.5])),
        lambda: torch.count_nonzero(x - 1),
        lambda: torch.trapezoid(x),
        lambda: torch.logsumexp(x, 1),
        lambda: torch.argsort(x),
        lambda: torch.tril_indices(2, 2),
        lambda: torch.vander(x[0]),
        lambda: torch.kron(x, x),
        lambda: torch.nn.functional.one_hot(torch.tensor([0, 2])),
    )


@rows.row("text")
def texts_of_tensors(torch: Any, t: Watch) -> None:
    x = torch.arange(6.0).view(2, 3) / 7
    t.prints(x, x[0, 0], torch.zeros(0), torch.zeros(2, 0, 3), torch.tensor([True]), torch.tensor([1e10, 1e-10]))
    t.prints(torch.arange(2000), torch.zeros(50, 50), torch.tensor([float("nan"), float("inf"), -0.0]))
    t.prints(torch.tensor([1 + 2j]), torch.ones(2, dtype=torch.bfloat16), torch.ones(2, requires_grad=True))
    t.prints(torch.ones(2, requires_grad=True) * 2, [x], {"x": x}, (x.shape, x.dtype, x.device))
    t.prints(f"{x[0, 1]:.3f} {x[0, 1]} {x.sum():10.2e} {torch.tensor(7):05d} {x}")
    t.prints(x.max(0), x.split(1), torch.Size([2]))
    torch.set_printoptions(precision=2, sci_mode=True, linewidth=40, threshold=5, edgeitems=1)
    t.prints(x, torch.arange(100))
    torch.set_printoptions(profile="full")
    t.prints(torch.arange(1100))
    torch.set_printoptions(profile="default")
    t.prints(x)
    t.tries(
        lambda: f"{x:.2f}",
        lambda: f"{x[0, 0]:d}",
        lambda: f"{torch.tensor(True):>8}",
        lambda: format(x[0, 0]),
        lambda: f"{torch.tensor(1 + 2j):.1f}",
        lambda: "%d %.2f" % (torch.tensor(3), torch.tensor(2.5)),
        lambda: str(torch.float32) + repr(torch.device("cpu")),
        lambda: "{:>4}|{!r}".format(torch.tensor(3), torch.tensor(3)),
    )


@rows.parametrize()
def test_results_of_every_kind_are_what_torch_returns(program: Program, synchronous: bool, tc: ModuleType) -> None:
    assert_same(program, tc, synchronous=synchronous)


_NO_WAIT: dict[str, Callable[[Any, Any], Any]] = {
    "creation": lambda tc, x: tc.zeros(3),
    "arithmetic": lambda tc, x: (x + x, x * 2, 2 - x, x @ x, -x, x > 1, x**2, x // 2, ~(x > 1)),
    "in place": lambda tc, x: (x.add_(1), x.t_(), x.zero_()),
    "setting": lambda tc, x: x.__setitem__((0, 1), 5),
    "indexing": lambda tc, x: (x[0], x[:, 1], x[x > 1], x[[0, 1]], x[..., None]),
    "reductions": lambda tc, x: (x.sum(), x.mean(0), x.std(), x.any(), x.argmax(), x.norm()),
    "named tuples": lambda tc, x: (x.max(dim=0).indices, x.sort().values, tc.topk(x, 1), tc.linalg.svd(x).S),
    "overloads": lambda tc, x: (x.max(), x.max(0), x.max(x), tc.where(x > 1, x, 0.0)),
    "concatenation": lambda tc, x: (tc.cat([x, x]), tc.stack((x, x)), tc.einsum("ij,jk", x, x)),
    "conversion": lambda tc, x: (x.to(tc.int64), x.float(), x.type(tc.int8), x.to("cpu")),
    "views": lambda tc, x: (x.view(-1), x.T, x.mT, x.real, x.reshape(4), x.permute(1, 0), x.expand(2, 2, 2), x.data),
    "functions": lambda tc, x: (tc.nn.functional.softmax(x, 0), tc.nn.functional.cross_entropy(x, x), tc.fft.fft(x)),
    "out": lambda tc, x: tc.add(x, x, out=x),
    "random": lambda tc, x: (tc.manual_seed(1), tc.rand(2), tc.randn(2), tc.randperm(3), tc.nn.functional.dropout(x)),
    "generators": lambda tc, x: tc.rand(2, generator=tc.Generator().manual_seed(3)),
    "gradients": lambda tc, x: (x.detach().requires_grad_() * 2).sum().backward(),
    "default dtype": lambda tc, x: tc.set_default_dtype(tc.float32),
    "host data": lambda tc, x: (tc.tensor([1, 2]), tc.from_numpy(np.ones(3)), tc.as_tensor(2.5), tc.full((2,), 3.0)),
    "letting go": lambda tc, x: [tc.zeros(3) for _ in range(3)] and None,
}


@pytest.mark.parametrize("calls", _NO_WAIT.values(), ids=list(_NO_WAIT))
def test_calls_whose_result_is_surely_tensors_or_nothing_do_not_wait(
    tc: Any, server: Any, calls: Callable[[Any, Any], Any]
) -> None:
    with tc.connect(server.address) as session:
        x = tc.ones(2, 2)
        before = session.stats.waits
        kept = calls(tc, x)
        assert session.stats.waits == before
        del kept


_ONE_WAIT: dict[str, Callable[[Any, Any], Any]] = {
    "item": lambda tc, x: x.sum().item(),
    "numpy": lambda tc, x: (x * 2).numpy(),
    "tolist": lambda tc, x: x.tolist(),
    "print": lambda tc, x: repr(x + 1),
    "bool": lambda tc, x: bool(x.sum() > 0),
    "float": lambda tc, x: float(x[0, 0]),
    "int": lambda tc, x: int(x[0, 0]),
    "shape": lambda tc, x: x.view(-1).shape,
    "dtype after shape": lambda tc, x: [(y.shape, y.dtype, y.device, y.ndim, len(y), y.numel()) for y in [x @ x]],
    "equal": lambda tc, x: tc.equal(x, x),
    "allclose": lambda tc, x: tc.allclose(x, x),
    "split": lambda tc, x: x.split(1),
    "unbind": lambda tc, x: x.unbind(),
    "array": lambda tc, x: np.asarray(x),
    "contains": lambda tc, x: 1.0 in x,
    "stride": lambda tc, x: x.stride(),
}


@pytest.mark.parametrize("read", _ONE_WAIT.values(), ids=list(_ONE_WAIT))
def test_a_read_at_the_end_of_a_chain_waits_once(tc: Any, server: Any, read: Callable[[Any, Any], Any]) -> None:
    with tc.connect(server.address) as session:
        x = tc.ones(2, 2)
        for _ in range(20):
            x = x + 1
            x.mul_(0.5)
        before = session.stats.waits
        read(tc, x)
        assert session.stats.waits == before + 1
