"""Row T6: one element, slices, masks, lists and index tensors, read and assigned."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.document.transcript import Program, Rows, Transcript, assert_same

rows = Rows()


@rows.row("T6")
def one_element_and_one_column(torch: Any, t: Transcript) -> None:
    x = torch.arange(12.0).view(3, 4)
    t.show(x[1, 3], x[1, 3].item(), x[:, 1], x[0], x[-1], x[-1, -1], x[1][3], x[0:2], x[0, 1:3])


@rows.row("T6")
def slices(torch: Any, t: Transcript) -> None:
    x = torch.arange(24).view(4, 6)
    t.show(x[::2], x[:, ::3], x[1:, :-1], x[1:3, 2:4], x[:100], x[4:], x[-2:], x[:0], x[::2, 1::2], x[slice(1, 3)])


@rows.row("T6")
def ellipsis_and_none(torch: Any, t: Transcript) -> None:
    x = torch.arange(24).view(2, 3, 4)
    t.show(
        x[..., 0],
        x[0, ...],
        x[...],
        x[..., 1:3],
        x[None],
        x[:, None].shape,
        x[..., None].shape,
        x[None, 0, None, ..., None].shape,
    )
    t.show(x[()], x[1, ..., 2], x[..., ...])


@rows.row("T6")
def lists_and_index_tensors(torch: Any, t: Transcript) -> None:
    x = torch.arange(12).view(3, 4)
    t.show(x[[0, 2]], x[[0, 2], [1, 3]], x[:, [3, 0]], x[torch.tensor([2, 2, 0])], x[torch.tensor([[0, 1], [2, 0]])])
    t.show(
        x[torch.tensor([0, 1]), torch.tensor([2, 3])],
        x[torch.tensor(1)],
        x[1, torch.tensor([0, -1])],
        x[np.array([0, 1])],
    )
    t.show(x[[[0, 1], [1, 2]]], x[[-1]], x[[]], x[torch.tensor([0, 2], dtype=torch.int32)], x[np.int64(1)], x[(0, 1)])


@rows.row("T6")
def masks(torch: Any, t: Transcript) -> None:
    x = torch.arange(12).view(3, 4)
    t.show(
        x[x > 5], x[x % 2 == 0], x[torch.tensor([True, False, True])], x[:, torch.tensor([True, False, False, True])]
    )
    t.show(x[[True, False, True]], x[x > 100], x[True].shape, x[False].shape, x[np.array([True, False, True])])


@rows.row("T6")
def set_one_element(torch: Any, t: Transcript) -> None:
    x = torch.arange(12.0).view(3, 4)
    x[1, 3] = 100
    t.show(x)
    x[-1, 0] = torch.tensor(7)
    x[0, 0] = True
    t.show(x, x[1, 3])


@rows.row("T6")
def set_many_elements(torch: Any, t: Transcript) -> None:
    x = torch.zeros(3, 4)
    x[0] = 1
    x[:, 1] = torch.arange(3.0)
    x[1:, 2:] = torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    t.show(x)
    x[x > 6] = -1
    x[[0, 2], [3, 3]] = 9
    x[..., 0] = 4
    t.show(x)
    x[torch.tensor([1])] = torch.ones(4)
    x[::2] = 0
    x[2, [0, 1]] = torch.tensor([1.5, 2.5])
    t.show(x)
    x[:] = 3
    x[x == 3] *= 2
    t.show(x)


@rows.row("T6")
def augmented_assignment_through_an_index(torch: Any, t: Transcript) -> None:
    x = torch.zeros(2, 3)
    x[0] += 1
    x[:, 1] *= 5
    x[1, 1] -= 2
    t.show(x)


@rows.row("T6")
def a_slice_shares_storage_and_a_mask_copies(torch: Any, t: Transcript) -> None:
    x = torch.zeros(3, 4)
    row, picked = x[1], x[[0, 2]]
    row[2] = 5
    picked[0] = 9
    t.show(x, row, picked)


@rows.row("T6")
def iterating(torch: Any, t: Transcript) -> None:
    x = torch.arange(6).view(3, 2)
    t.show(list(x), [int(a * b) for a, b in x], [row.sum().item() for row in x], len(list(x.unbind(1))))
    first, second, third = x
    t.show(first, second, third, x.split(2), x.chunk(2), list(reversed(x)))
    t.fails(lambda: list(torch.tensor(1)))


@rows.row("T6")
def indices_that_are_not_there_are_refused(torch: Any, t: Transcript) -> None:
    x = torch.arange(12).view(3, 4)
    t.fails(lambda: x[3])
    t.fails(lambda: x[-4])
    t.fails(lambda: x[0, 4])
    t.fails(lambda: x[0, 0, 0])
    t.fails(lambda: x[torch.tensor([True, False])])
    t.fails(lambda: x[[0, 1], [0, 1, 2]])
    t.fails(lambda: torch.tensor(1)[0])
    t.show(x)


@rows.row("T6")
def index_tensors_out_of_range_are_refused(torch: Any, t: Transcript) -> None:
    # On the CPU: a CUDA kernel that reads such an index ends the process that plays torch's part here.
    x = torch.arange(12.0, device="cpu").view(3, 4)
    wrong = torch.tensor([0, 3], device="cpu")

    def assign() -> None:
        x[wrong] = 1

    t.fails(lambda: x[wrong])
    t.fails(lambda: x[[0, 5]])
    t.fails(lambda: x.gather(1, wrong.view(1, 2) + 3))
    t.fails(lambda: x.index_select(0, wrong))
    t.fails(assign)
    t.show(x)


@rows.row("T6")
def indices_that_make_no_sense_are_refused(torch: Any, t: Transcript) -> None:
    x = torch.arange(12).view(3, 4)
    t.fails(lambda: x["rows"])
    t.fails(lambda: x[1.5])
    t.fails(lambda: x[::-1])
    t.fails(lambda: x[torch.tensor([0.5])])
    t.fails(lambda: x[::0])
    t.fails(lambda: x[{}])


@rows.row("T6")
def assignments_that_do_not_fit_are_refused(torch: Any, t: Transcript) -> None:
    x = torch.arange(12.0).view(3, 4)

    def assign(index: Any, value: Any) -> None:
        x[index] = value

    t.fails(lambda: assign((3, 0), 1))
    t.fails(lambda: assign((0, 9), 1))
    t.fails(lambda: assign(0, torch.ones(3)))
    t.fails(lambda: assign((slice(None), 1), torch.ones(4)))
    t.fails(lambda: assign((1, 3), "hundred"))
    t.fails(lambda: assign(0, np.array([1.0, 2.0, 3.0, 4.0])))
    t.fails(lambda: assign((1, 3), [1, 2]))
    t.fails(lambda: assign((1, 3), torch.ones(2)))
    t.show(x)


@rows.row("T6")
def neighbours_of_indexing(torch: Any, t: Transcript) -> None:
    x = torch.arange(12.0).view(3, 4)
    index = torch.tensor([[0, 1], [2, 3], [1, 0]])
    t.show(
        x.gather(1, index),
        x.index_select(0, torch.tensor([2, 0])),
        x.take(torch.tensor([0, 11])),
        torch.where(x > 5, x, -x),
    )
    t.show(x.masked_fill(x > 5, 0.0), x.narrow(1, 1, 2), x.select(0, 1), (x > 8).nonzero(), torch.where(x > 8))
    t.show(torch.cat([x, x], 1), torch.zeros(3, 4).scatter(1, index, 1.0), x.flip(0), x.roll(1), x.diag())
    t.fails(lambda: torch.cat([x, torch.ones(2, 3)]))


@rows.parametrize()
def test_indexing_does_what_torch_does(program: Program, synchronous: bool, tc: Any) -> None:
    assert_same(program, tc, synchronous=synchronous)
