"""Views share storage, in-place changes reach every alias, and indexing reads and writes what torch does."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from tests.semantics.harness import Program, Rows, Watch, assert_same

rows = Rows()


@rows.row("views")
def every_view_shares_storage_with_its_base(torch: Any, t: Watch) -> None:
    makers = [
        lambda x: x.view(4, 6),
        lambda x: x.view(-1),
        lambda x: x.reshape(6, 4),
        lambda x: x.t() if x.dim() == 2 else x.transpose(0, 2),
        lambda x: x.T if x.dim() == 2 else x.mT,
        lambda x: x.permute(2, 0, 1),
        lambda x: x.movedim(0, -1),
        lambda x: x.swapaxes(0, 1),
        lambda x: x[1],
        lambda x: x[:, 1:, ::2],
        lambda x: x[..., None, 0],
        lambda x: x.select(1, 2),
        lambda x: x.narrow(2, 1, 2),
        lambda x: x.unsqueeze(0).squeeze(0),
        lambda x: x.expand(2, 2, 3, 4)[0],
        lambda x: x.diagonal(0, 1, 2),
        lambda x: x.unfold(2, 2, 1)[..., 0],
        lambda x: x.flatten(),
        lambda x: x.ravel(),
        lambda x: x.unflatten(2, (2, 2)),
        lambda x: x.as_strided((2, 2), (1, 3), 1),
        lambda x: x.split(1)[1],
        lambda x: x.chunk(2, 2)[0],
        lambda x: x.tensor_split(2, dim=1)[1],
        lambda x: x.unbind(1)[2],
        lambda x: x.hsplit(3)[0],
        lambda x: x.detach(),
        lambda x: x.data,
        lambda x: x.view_as(x),
        lambda x: x.expand_as(x),
        lambda x: x.contiguous(),
        lambda x: x.to(x.dtype),
        lambda x: x.float(),
        lambda x: x.real,
        lambda x: x.resolve_conj(),
        lambda x: x.view(torch.int32),
        lambda x: x.view(torch.int16),
        lambda x: torch.atleast_3d(x),
        lambda x: torch.broadcast_to(x, (2, 2, 3, 4))[1],
        lambda x: list(x)[0],
    ]
    copies = [
        lambda x: x.clone(),
        lambda x: x.transpose(0, 2).contiguous(),
        lambda x: x.transpose(0, 2).reshape(-1),
        lambda x: x.transpose(0, 2).flatten(),
        lambda x: x.double(),
        lambda x: x[[0, 1]],
        lambda x: x[x > -1],
        lambda x: x.flip(0),
        lambda x: x.to(x.dtype, copy=True),
        lambda x: torch.tensor(x),
        lambda x: +x,
        lambda x: x.repeat(1, 1, 1),
        lambda x: x.index_select(0, torch.tensor([0])),
    ]
    for make in [*makers, *copies]:
        base = torch.arange(24.0).view(2, 3, 4)
        view = make(base)
        view.mul_(-2)
        t.show(view, base)
        base.add_(100)
        t.show(view, view.storage_offset(), view._is_view() and view.is_leaf)


@rows.row("views")
def views_that_cannot_be_are_refused(torch: Any, t: Watch) -> None:
    x = torch.arange(6.0).view(2, 3)
    t.tries(
        lambda: x.t().view(-1),
        lambda: x.view(4),
        lambda: x.expand(3, 3),
        lambda: x.expand(2),
        lambda: x.as_strided((4, 4), (3, 1)),
        lambda: x.as_strided((2,), (-1,)),
        lambda: x.narrow(0, 1, 2),
        lambda: x.select(0, 2),
        lambda: x.unfold(1, 4, 1),
        lambda: x.transpose(0, 2),
        lambda: x.permute(0, 0),
        lambda: x.squeeze(5),
        lambda: x.unsqueeze(4),
        lambda: x.view(torch.float64),
        lambda: x.T.T.T,
        lambda: x[0].T,
        lambda: x[0].mT,
        lambda: x[0].H,
        lambda: x[None].T,
        lambda: x[None].t(),
        lambda: x[None].H,
        lambda: x.expand(2, 2, 3).add_(1),
        lambda: x.split(0),
        lambda: x.split([1, 2]),
        lambda: x.chunk(0),
        lambda: x.imag,
        lambda: x.unflatten(1, (2, 2)),
        lambda: x.diagonal(0, 0, 0),
        lambda: x,
    )


@rows.row("views")
def in_place_operations_that_change_the_shape(torch: Any, t: Watch) -> None:
    x = torch.arange(6.0).view(2, 3)
    before = x.shape
    t.show(before, x.t_() is x, x, x.shape, x.unsqueeze_(0), x.shape, x.squeeze_(), x.transpose_(0, 1))
    t.show(x.swapaxes_(0, 1), x.shape, x.resize_(2, 2), x.shape, x.as_strided_((2,), (1,)), x.shape, x.ndim, len(x))
    y = torch.zeros(3)
    y.data = torch.arange(4)
    t.show(y, y.dtype, y.shape, y.numel(), y.nbytes)
    z = torch.zeros(2, 2)
    t.show(z.resize_as_(torch.ones(3)).shape, z.requires_grad_(), z.requires_grad, z.detach_(), z.requires_grad)


@rows.row("in place")
def in_place_operations_keep_the_object_and_its_dtype(torch: Any, t: Watch) -> None:
    for dtype in (torch.float32, torch.int64, torch.bool, torch.complex64, torch.bfloat16, torch.uint8):
        x = torch.tensor([[1, 2, 3], [4, 5, 6]]).to(dtype)
        alias = x.view(-1)
        t.tries(
            lambda: x.add_(1),
            lambda: x.sub_(1, alpha=2),
            lambda: x.mul_(2),
            lambda: x.div_(2),
            lambda: x.pow_(2),
            lambda: x.neg_(),
            lambda: x.abs_(),
            lambda: x.clamp_(0, 3),
            lambda: x.copy_(torch.ones(3)),
            lambda: x.fill_(2.7),
            lambda: x.zero_(),
            lambda: x.masked_fill_(x == 0, 5),
            lambda: x.sigmoid_(),
            lambda: x.add_(0.5),
            lambda: x.add_(1j),
            lambda: x.logical_not_(),
            lambda: x.floor_divide_(2),
            lambda: x.remainder_(3),
            lambda: x.bitwise_or_(1),
            lambda: x.eq_(1),
            lambda: x.index_add_(0, torch.tensor([1]), x[:1].clone()),
            lambda: x.index_fill_(1, torch.tensor([0, 2]), 1),
            lambda: x.scatter_(1, torch.tensor([[0]]), 1),
            lambda: x.cumsum_(1),
            lambda: x.addmm_(x[:, :2], x[:2]),
            lambda: x.lerp_(x, 0.5),
            lambda: x.fill_diagonal_(1),
            lambda: x.put_(torch.tensor([0, 5]), x[0, :2].clone()),
            lambda: x.add_(torch.ones(2, 2)),
            lambda: x.add_(torch.ones(2, 2, 3)),
            lambda: (x, alias),
        )


@rows.row("in place")
def augmented_assignment(torch: Any, t: Watch) -> None:
    x = torch.arange(6).view(2, 3)
    y = x
    x += 1
    x -= torch.tensor([1, 0, 1])
    x *= 2
    x //= 3
    x **= 2
    x %= 5
    x <<= 1
    x >>= 1
    x |= 4
    x &= 6
    x ^= 1
    t.show(x, y, x is y)
    f = torch.ones(2)
    g = f
    f /= 3
    f @= torch.eye(2)
    t.show(f, g, f is g)
    x[0] += 10
    x[:, 1] *= -1
    x[x > 5] -= 3
    x[..., 0] **= 2
    t.show(x, y)

    def divide() -> None:
        nonlocal x
        x /= 2

    def add_float() -> None:
        nonlocal x
        x += 0.5

    t.tries(divide, add_float, lambda: x)


@rows.row("in place")
def functions_that_change_their_argument(torch: Any, t: Watch) -> None:
    functional = torch.nn.functional
    x = torch.tensor([-1.0, 2.0, 0.5])
    t.show(torch.relu_(x) is x, x, functional.relu(x.sub_(1), inplace=True), x)
    t.show(functional.leaky_relu_(x.sub_(1)) is x, x, functional.hardtanh(x, -0.1, 0.1, inplace=True), x)
    t.show(torch.abs_(x) is x, torch.neg_(x), torch.exp_(x), torch.sigmoid_(x), x)
    weight = torch.arange(6.0).view(3, 2)
    t.show(functional.embedding(torch.tensor([1, 2]), weight, max_norm=1.0), weight)
    mean, variance = torch.zeros(2), torch.ones(2)
    t.show(functional.batch_norm(weight, mean, variance, training=True), mean, variance)
    torch.nn.init.constant_(x, 3.0)
    t.show(x, torch.fill_(x, 2), x)


@rows.row("in place")
def values_that_were_read_do_not_change(torch: Any, t: Watch) -> None:
    x = torch.arange(4.0)
    y = x + 1
    item, listed, text = x[1], x.tolist(), str(x)
    number = x[2].item()
    x.mul_(10)
    t.show(y, item, listed, text, number, x)
    total = x.sum()
    x.zero_()
    t.show(total, x.sum())
    del y
    z = x
    x = x + 1
    t.show(z, x)


@rows.row("reading")
def every_kind_of_index_is_read(torch: Any, t: Watch) -> None:
    x = torch.arange(60).view(3, 4, 5)
    mask = x[:, :, 0] % 2 == 0
    t.tries(
        *[
            lambda index=index: x[index]
            for index in [
                0,
                -1,
                (1, 2),
                (1, 2, 3),
                slice(None),
                slice(2, 0),
                slice(-2, None),
                slice(None, None, 3),
                slice(1, 100),
                slice(-100, 2),
                (slice(None), slice(1, 3), slice(None, None, 2)),
                ...,
                (..., 1),
                (1, ...),
                (0, ..., 0),
                None,
                (None, 0, None),
                (slice(None), None, 2),
                (..., None),
                True,
                False,
                (True, 0),
                (0, True),
                (None, True),
                [0, 2],
                [-1, -3],
                [[0, 1], [1, 2]],
                ([0, 1], [2, 3]),
                ([0, 1], slice(None), [2, 3]),
                (slice(None), [0, 3]),
                (0, slice(None), [1, 1]),
                ([[0], [1]], [0, 1, 2]),
                [],
                ([], []),
                [True, False, True],
                (slice(None), [True, False, True, False]),
                torch.tensor(1),
                torch.tensor([0, 2, 2]),
                torch.tensor([[0, 1], [2, 0]]),
                (torch.tensor([0, 1]), torch.tensor([3, 0]), torch.tensor([4, 4])),
                (torch.tensor([[0], [1]]), torch.tensor([3, 0])),
                (..., torch.tensor([1, 0])),
                (None, torch.tensor([1, 0])),
                (torch.tensor([1, 0]), None, torch.tensor([2, 2])),
                torch.tensor([], dtype=torch.int64),
                torch.tensor([1, 0], dtype=torch.uint8),
                torch.tensor([1, 0, 1], dtype=torch.uint8),
                torch.tensor([1, 0], dtype=torch.int32),
                torch.tensor([-1, -2]),
                mask,
                (mask, 0),
                (mask, slice(1, 3)),
                (slice(None), torch.tensor([True, False, True, True])),
                x > 30,
                x > 1000,
                torch.tensor(True),
                torch.tensor(False),
                (torch.tensor(True), 1),
                (torch.tensor(1), torch.tensor(2), torch.tensor(3)),
                np.int64(2),
                np.array([0, 1]),
                np.array(1),
                (np.array([0, 1]), 2),
                np.array([True, False, True]),
                range(2),
                (range(2), range(2)),
                (),
                ((),),
                ((0, 1),),
                ((0, 1), (1, 2)),
                [slice(0, 1), slice(0, 2)],
                [0, slice(None)],
                [torch.tensor(0), torch.tensor(1)],
                [None, 0],
                (slice(torch.tensor(1), torch.tensor(3)), 0),
                slice(np.int64(1), np.int32(2)),
            ]
        ]
    )


@rows.row("reading")
def indices_that_are_refused(torch: Any, t: Watch) -> None:
    x = torch.arange(12).view(3, 4)
    one = torch.tensor(3)
    t.tries(
        *[
            lambda index=index: x[index]
            for index in [
                3,
                -4,
                (0, 4),
                (0, -5),
                (0, 0, 0),
                (..., 0, 0, 0),
                (..., ...),
                1.0,
                1j,
                "a",
                (0, "a"),
                {},
                slice(None, None, -1),
                slice(None, None, 0),
                slice(1.5, None),
                slice("a", None),
                [0, 3],
                [-4],
                ([0, 1], [0, 1, 2]),
                [0.5],
                [True, False],
                torch.tensor([3]),
                torch.tensor([-4]),
                torch.tensor([1.0]),
                torch.tensor([True, False]),
                torch.tensor([[True, False]]),
                (torch.tensor([0, 1]), torch.tensor([0, 1, 2])),
                torch.tensor([0], dtype=torch.complex64),
                np.array([3]),
                np.array([0.5]),
                [[0, 1], [2]],
                [None, 0, 9],
            ]
        ]
    )
    t.tries(lambda: one[0], lambda: one[...], lambda: one[None], lambda: one[()], lambda: one[True], lambda: one[[0]])
    t.tries(lambda: x, lambda: x[0].item(), lambda: one.item())


@rows.row("writing")
def every_kind_of_index_is_written(torch: Any, t: Watch) -> None:
    indices: list[Any] = [
        0,
        (1, 2),
        slice(None),
        slice(0, 0),
        (slice(None), 1),
        (slice(None, None, 2), slice(1, 3)),
        ...,
        (..., -1),
        None,
        True,
        False,
        [0, 2],
        [1, 1],
        ([0, 1], [3, 2]),
        (slice(None), [0, 3]),
        [],
        [True, False, True],
        torch.tensor(2),
        torch.tensor([2, 0]),
        torch.tensor([0, 2], dtype=torch.int32),
        (torch.tensor([[0], [1]]), torch.tensor([3, 0])),
        torch.arange(12).view(3, 4) % 3 == 0,
        (slice(None), torch.tensor([True, False, True, True])),
        torch.tensor(True),
        np.array([0, 1]),
        np.int64(1),
        (),
    ]
    for index in indices:
        for value in (7, -1.5, True, torch.tensor(9), torch.tensor([5.0])):
            x = torch.arange(12.0).view(3, 4)

            def write(x: Any = x, index: Any = index, value: Any = value) -> Any:
                x[index] = value
                return x

            t.tries(write)


@rows.row("writing")
def values_that_are_written(torch: Any, t: Watch) -> None:
    values: list[Any] = [
        torch.ones(4),
        torch.ones(3),
        torch.ones(1, 4),
        torch.ones(2, 4),
        torch.ones(1, 1, 2, 4),
        torch.ones(2, 2, 4),
        torch.ones(2, 1),
        torch.tensor([1, 2, 3, 4]),
        torch.tensor([True, False, True, False]),
        torch.tensor([1j, 2, 3, 4]),
        torch.tensor([], dtype=torch.float32),
        np.float64(2.5),
        np.int64(2),
        2**40,
        1e300,
        float("nan"),
        1j,
        "a",
        None,
        [1, 2, 3, 4],
        np.ones(4),
    ]
    for dtype in (torch.float32, torch.int32, torch.bool, torch.complex64):
        for value in values:
            x = torch.zeros(3, 4, dtype=dtype)

            def write(x: Any = x, value: Any = value) -> Any:
                x[1:] = value
                return x

            def write_by_index(x: Any = x, value: Any = value) -> Any:
                x[torch.tensor([0, 2])] = value
                return x

            t.tries(write, write_by_index, lambda x=x: x)


@rows.row("writing")
def writes_that_are_refused_change_nothing(torch: Any, t: Watch) -> None:
    x = torch.arange(12.0).view(3, 4)

    def write(index: Any, value: Any) -> None:
        x[index] = value

    def remove() -> None:
        del x[0]

    t.tries(
        lambda: write(3, 1),
        lambda: write((0, 4), 1),
        lambda: write((0, 0, 0), 1),
        lambda: write(slice(None, None, -1), 1),
        lambda: write([0, 5], 1),
        lambda: write(torch.tensor([5]), 1),
        lambda: write(torch.tensor([True, False]), 1),
        lambda: write(x > 3, torch.ones(2)),
        lambda: write("a", 1),
        lambda: write(1.5, 1),
        lambda: write(0, torch.ones(5)),
        lambda: write((0, 0), torch.ones(2)),
        remove,
        lambda: x,
    )


@rows.row("writing")
def writes_through_overlapping_views(torch: Any, t: Watch) -> None:
    x = torch.arange(8.0)
    x[1:] = x[:-1].clone()
    t.show(x)
    x[:4] = x[4:]
    t.show(x)
    y = torch.zeros(4)
    y[torch.tensor([0, 0, 1])] += 1
    t.show(y, y.index_put_((torch.tensor([0, 0]),), torch.tensor(1.0), accumulate=True))
    t.show(y.scatter_add_(0, torch.tensor([2, 2]), torch.ones(2)))
    t.tries(lambda: x.expand(3, 8)[0].copy_(torch.ones(8)), lambda: x, lambda: x[1:].copy_(x[1:]))
    z = torch.arange(6).view(2, 3)
    z[0], z[1] = z[1].clone(), z[0].clone()
    t.show(z)
    z.T[0] = 9
    z.view(-1)[::2] = torch.tensor([1, 2, 3])
    z[:, 1:][z[:, 1:] > 2] = 0
    t.show(z)


@rows.row("complex")
def conjugate_and_complex_views(torch: Any, t: Watch) -> None:
    z = torch.tensor([[1 + 2j, 3 - 1j], [0.5j, 2 + 0j]])
    t.show(
        z.conj(), z.H, z.mH, z.real, z.imag, z.adjoint(), z.conj().conj(), z.conj().resolve_conj(), z.abs(), z.angle()
    )
    t.show(
        z.conj() * z,
        z.conj() @ z,
        z.H @ z,
        z.conj().T,
        z.conj().imag.resolve_neg(),
        z.conj().imag.is_neg(),
        z.conj().real,
        z.conj()[0],
        z.conj().sum(),
    )
    t.show(torch.view_as_real(z), torch.view_as_complex(torch.ones(2, 2)), torch.complex(z.real, z.imag), z.sgn())
    t.show(z.conj().tolist(), z.conj()[0, 0].item(), complex(z[0, 0].conj()), z.conj().clone())
    z.real = torch.zeros(2, 2)
    t.show(z)
    z.imag = z.imag * 2
    t.show(z)
    z.real[0] = 7
    z.imag += 1
    t.show(z)
    view = z.conj()
    view[0, 0] = 1 + 1j
    view.mul_(2)
    t.show(view, z, view.imag.is_neg(), str(view.imag), view.imag.tolist(), view.imag.resolve_neg())
    t.tries(lambda: view.imag.numpy(), lambda: view.numpy(), lambda: view.imag.numpy(force=True))
    x = torch.ones(2)
    t.tries(
        lambda: x.imag,
        lambda: x.conj().is_conj(),
        lambda: torch.view_as_real(z.conj()),
        lambda: torch.view_as_real(x),
        lambda: float(z[0, 0]),
        lambda: int(torch.tensor(1 + 0j)),
        lambda: z < z,
        lambda: z.max(),
        lambda: z // 2,
        lambda: z.sort(),
        lambda: z.to(torch.float32),
        lambda: x.to(torch.complex64),
        lambda: z == z.conj(),
        lambda: (-z.imag).is_neg(),
    )

    def assign_imag() -> None:
        x.imag = torch.ones(2)

    t.tries(assign_imag, lambda: x)
    x.real = torch.tensor([5.0, 6.0])
    t.show(x)


@rows.parametrize()
def test_views_and_indexing_read_and_change_what_torch_does(
    program: Program, synchronous: bool, tc: ModuleType
) -> None:
    assert_same(program, tc, synchronous=synchronous)
