"""Rows T3 to T5: asking a tensor, giving it another shape, and turning it."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from tests.document.transcript import Program, Rows, Transcript, assert_same

rows = Rows()

# ---------------------------------------------------------------- T3: asking


@rows.row("T3")
def item_of_one(torch: Any, t: Transcript) -> None:
    a = torch.tensor(np.arange(1))
    t.show(a, a.item())
    t.show(torch.tensor([[2.5]]).item(), torch.tensor(True).item(), torch.tensor(1 + 2j).item())
    t.show(
        torch.tensor(0.1).item(),
        torch.tensor(0.1, dtype=torch.float64).item(),
        torch.tensor([7], dtype=torch.int8).item(),
    )
    t.show(torch.tensor(float("nan")).item(), torch.tensor(2**62).item(), torch.tensor(1.5).bfloat16().item())


@rows.row("T3")
def item_of_many(torch: Any, t: Transcript) -> None:
    a = torch.tensor(np.arange(6))
    t.fails(a.item)
    t.fails(lambda: torch.ones(2, 3).item())
    t.fails(lambda: torch.ones(0).item())
    t.show(a)


@rows.row("T3")
def python_numbers(torch: Any, t: Transcript) -> None:
    x = torch.tensor([2.75])
    t.show(float(x), int(x), bool(x), complex(x), len(torch.ones(3, 2)), [10, 20, 30][torch.tensor(1)])
    t.show(torch.tensor([[1, 2], [3, 4]]).tolist(), torch.tensor(5).tolist(), 3 in torch.arange(5))
    t.fails(lambda: bool(torch.ones(2)))
    t.fails(lambda: float(torch.ones(2)))
    t.fails(lambda: len(torch.tensor(1)))
    t.fails(lambda: [1, 2][torch.tensor(1.5)])


@rows.row("T3")
def python_functions(torch: Any, t: Transcript) -> None:
    x = torch.tensor([1.0, 2.5, -3.0])
    t.show(sum(x), max(x), min(x), sorted(x), list(map(float, x)), math.sqrt(x[1]), math.floor(x[2]), abs(x))
    t.fails(lambda: round(x[1]))
    t.show(hash(x) == hash(x), {x: 1}[x], type(x).__name__, isinstance(x, torch.Tensor), torch.is_tensor(x))
    t.show(copy.copy(x), copy.deepcopy(x), x.shape + torch.Size([1]), (1, *x.shape), x.shape * 2, torch.zeros(x.shape))


@rows.row("T3")
def numpy(torch: Any, t: Transcript) -> None:
    z = torch.tensor([[-2.5871205], [7.3690367], [-2.4918075]])
    t.show(z.numpy(), z.numpy().dtype.name)


@rows.row("T3")
def shape_and_size(torch: Any, t: Transcript) -> None:
    x = torch.tensor([[1, 2], [3, 4], [5, 10]], dtype=torch.int32)
    t.show(x, x.shape, x.size(), x.size(1), x.size(dim=1), x.size(-2), x.shape[0], len(x.shape), x.shape == (3, 2))
    t.show(
        x.shape[:1],
        x.numel(),
        x.nelement(),
        x.size().numel(),
        x.stride(),
        tuple(x.shape),
        torch.Size([3, 2]) == x.size(),
    )
    t.prints(x.shape, x.size())
    rows, columns = x.shape
    t.show(rows, columns, torch.tensor(1.0).shape, torch.ones(2, 0).shape)


@rows.row("T3")
def size_of_a_dimension_that_is_not_there(torch: Any, t: Transcript) -> None:
    x = torch.zeros(3, 2)
    t.fails(lambda: x.size(2))
    t.fails(lambda: x.size(-3))
    t.fails(lambda: x.size("rows"))
    t.fails(lambda: x.shape[2])


@rows.row("T3")
def dim_and_max(torch: Any, t: Transcript) -> None:
    x = torch.tensor([[1, 2], [3, 4], [5, 10]], dtype=torch.int32)
    t.show(x.dim(), x.ndim, x.ndimension(), torch.tensor(3).dim(), x.max(), x.max().item(), torch.max(x), x.min())


@rows.row("T3")
def max_along_a_dimension(torch: Any, t: Transcript) -> None:
    x = torch.tensor([[1.0, 9.0], [7.0, 4.0]])
    t.show(
        x.max(0), x.max(dim=1, keepdim=True), torch.max(x, 1), x.argmax(), x.argmax(1), torch.max(x, torch.zeros(2, 2))
    )
    values, indices = x.max(1)
    t.show(values, indices, x.max(0).values, x.max(0).indices, x.max(0)[1])
    t.fails(lambda: x.max(2))
    t.fails(lambda: torch.ones(0).max())
    t.fails(lambda: x.max("rows"))


@rows.row("T3")
def other_reductions(torch: Any, t: Transcript) -> None:
    x = torch.tensor([[1.0, 9.0], [7.0, 4.0]])
    t.show(x.sum(), x.mean(), x.sum(0), x.mean(1, keepdim=True), x.std(), x.prod(), x.cumsum(0), x.all(), (x > 3).any())
    t.show(x.sort(), x.topk(1), x.median(), x.norm(), x.unique(), torch.tensor([1, 2]).sum())


# ---------------------------------------------------------------- T4: another shape


@rows.row("T4")
def view(torch: Any, t: Transcript) -> None:
    x = torch.tensor([[1, 2], [3, 4], [5, 10]], dtype=torch.int32)
    t.show(x.view(2, 3), x.view((2, 3)), torch.arange(12).view((3, 4)), x.view([6]), x.view(torch.Size([6, 1])))


@rows.row("T4")
def view_with_a_size_to_be_inferred(torch: Any, t: Transcript) -> None:
    x = torch.arange(16)
    z = x.view(-1, 8)
    t.show(z.size(), z, x.view(-1), x.view(4, -1), x.view(-1, 1).shape)


@rows.row("T4")
def reshape(torch: Any, t: Transcript) -> None:
    x = torch.arange(12)
    X = x.reshape(3, 4)
    t.show(
        X,
        x.reshape(-1, 4),
        x.reshape(3, -1),
        x.reshape((2, 6)),
        torch.reshape(x, (4, 3)),
        X.reshape(-1),
        x.reshape(2, 2, 3),
    )
    t.show(X.flatten(), x.unflatten(0, (3, 4)), X.unsqueeze(0).shape, X.squeeze().shape, X.ravel(), x.reshape_as(X))


@rows.row("T4")
def a_view_shares_storage(torch: Any, t: Transcript) -> None:
    x = torch.arange(6)
    z = x.view(2, 3)
    z[0, 0] = 100
    t.show(x, z)
    x[5] = -1
    t.show(z)
    z.add_(1)
    t.show(x, x.reshape(3, 2))
    t.show(z._is_view(), z.is_contiguous())


@rows.row("T4")
def a_view_of_a_view_shares_storage(torch: Any, t: Transcript) -> None:
    x = torch.zeros(2, 6)
    column = x.view(4, 3).view(2, 2, 3)[1, :, 2]
    column.fill_(7)
    t.show(x, column)
    x.view(-1)[::2] += 1
    t.show(x, column)


@rows.row("T4")
def reshape_copies_where_a_view_cannot_be(torch: Any, t: Transcript) -> None:
    x = torch.arange(6).view(2, 3)
    y = x.t().reshape(6)
    y[0] = 50
    t.show(x, y)
    z = x.reshape(6)
    z[0] = 60
    t.show(x, z)


@rows.row("T4")
def shapes_that_do_not_fit_are_refused(torch: Any, t: Transcript) -> None:
    x = torch.arange(6)
    t.fails(lambda: x.view(4, 2))
    t.fails(lambda: x.view(-1, 4))
    t.fails(lambda: x.view(-1, -1))
    t.fails(lambda: x.reshape(4, 2))
    t.fails(lambda: x.reshape(-1, 0))
    t.fails(lambda: x.reshape(-2, 3))
    t.fails(x.view)
    t.fails(lambda: x.view("2, 3"))
    t.fails(lambda: x.reshape(2.0, 3.0))
    t.show(x)


@rows.row("T4")
def a_view_of_turned_memory_is_refused(torch: Any, t: Transcript) -> None:
    x = torch.arange(6).view(2, 3).t()
    t.fails(lambda: x.view(6))
    t.show(x.contiguous().view(6), x.is_contiguous())


# ---------------------------------------------------------------- T5: turning


@rows.row("T5")
def transposed_by_t(torch: Any, t: Transcript) -> None:
    x = torch.tensor([[1, 2], [3, 4], [5, 10]], dtype=torch.int32)
    t.show(x.t(), torch.t(x), x.T, x.mT, torch.arange(3).t(), torch.tensor(1).t(), x.t().stride())


@rows.row("T5")
def t_of_three_dimensions_is_refused(torch: Any, t: Transcript) -> None:
    x = torch.zeros(2, 3, 4)
    t.fails(x.t)
    t.fails(lambda: torch.t(x))


@rows.row("T5")
def transpose(torch: Any, t: Transcript) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3)
    t.show(x, torch.transpose(x, 0, 1), x.transpose(0, 1), x.transpose(-1, -2), x.transpose(dim0=1, dim1=0))
    y = torch.arange(24).view(2, 3, 4)
    t.show(
        y.transpose(0, 2), torch.transpose(y, 1, 2), y.transpose(1, 1), y.transpose(0, 2).shape, y.swapaxes(0, 1).shape
    )


@rows.row("T5")
def permute(torch: Any, t: Transcript) -> None:
    x = torch.arange(30).view(2, 3, 5)
    t.show(x.size(), torch.permute(x, (2, 0, 1)).size(), torch.permute(x, (2, 0, 1)), torch.permute(x, dims=(0, 2, 1)))
    t.show(x.permute(2, 0, 1), x.permute((2, 0, 1)), x.permute([-1, 0, 1]), x.permute(0, 1, 2).is_contiguous())
    t.show(x.permute(2, 0, 1).stride(), x.movedim(0, -1).shape)


@rows.row("T5")
def a_turned_tensor_shares_storage(torch: Any, t: Transcript) -> None:
    x = torch.zeros(2, 3)
    x.t()[2, 0] = 5
    x.transpose(0, 1)[0].fill_(7)
    x.permute(1, 0)[1, 1] = 9
    t.show(x)


@rows.row("T5")
def dimensions_that_are_not_there_are_refused(torch: Any, t: Transcript) -> None:
    x = torch.zeros(2, 3, 5)
    t.fails(lambda: x.transpose(0, 3))
    t.fails(lambda: torch.transpose(x, -4, 0))
    t.fails(lambda: x.transpose(0))
    t.fails(lambda: x.permute(0, 1))
    t.fails(lambda: x.permute(0, 0, 1))
    t.fails(lambda: torch.permute(x, (0, 1, 3)))
    t.fails(lambda: torch.permute(x, 0, 1, 2))


@rows.parametrize()
def test_asking_and_reshaping_do_what_torch_does(program: Program, synchronous: bool, tc: Any) -> None:
    assert_same(program, tc, synchronous=synchronous)
