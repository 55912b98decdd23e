"""Rows T9 and T10: adding, in place and out of place; devices; and the text that `print` shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.document.transcript import Program, Rows, Transcript, assert_same

rows = Rows()

# ---------------------------------------------------------------- T9: arithmetic


@rows.row("T9")
def new_ones(torch: Any, t: Transcript) -> None:
    x = torch.tensor([1, 2])
    x = x.new_ones(5, 3, dtype=torch.float)
    t.show(x, x.new_zeros(2, 2), x.new_full((2,), 3.0), x.new_tensor([1, 2]), torch.tensor([1]).new_ones([2, 2]))
    t.form(x.new_empty(4))
    t.fails(lambda: x.new_ones(-1))
    t.fails(lambda: x.new_ones("5"))


@rows.row("T9")
def the_three_ways_to_add(torch: Any, t: Transcript) -> None:
    torch.manual_seed(0)
    x = torch.zeros(1).new_ones(5, 3, dtype=torch.float)
    y = torch.rand(5, 3)
    t.show(x + y, torch.add(x, y), x.add(y), y + x)
    t.show(torch.add(x, y, alpha=10), x.add(y, alpha=-0.5), torch.add(input=x, other=y))
    t.show(x, y)


@rows.row("T9")
def add_in_place(torch: Any, t: Transcript) -> None:
    torch.manual_seed(0)
    x, y = torch.ones(5, 3), torch.rand(5, 3)
    t.show(x.add_(y), x, x.add_(y) is x)


@rows.row("T9")
def add_in_place_is_seen_by_every_holder(torch: Any, t: Transcript) -> None:
    x = torch.ones(2, 2)
    alias, held, row, turned = x, {"x": x}, x[0], x.t()
    x.add_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    x += 10
    t.show(alias is x, alias, held["x"], row, turned)

    def change(argument: Any) -> None:
        argument.mul_(2)

    change(x)
    t.show(x, alias, row)


@rows.row("T9")
def add_out_of_place_leaves_the_tensor_alone(torch: Any, t: Transcript) -> None:
    x = torch.ones(2)
    alias = x
    x = x + 1
    t.show(x, alias)


@rows.row("T9")
def numbers(torch: Any, t: Transcript) -> None:
    x = torch.zeros(1).new_ones(5, 3, dtype=torch.float)
    t.show(
        x + 10, 10 + x, x - 3, 3 - x, x * 4, x / 3, 1 / (x + 1), x // 2, x % 2, x**3, 2**x, -x, +x, abs(-x), x + True
    )
    i = torch.arange(4)
    t.show(
        i + 10, i + 0.5, i / 2, i // 2, i % 3, i**2, i * True, 7 - i, ~i, i & 1, i | 4, i ^ 1, i << 1, i >> 1, i + 1j
    )
    t.show(x + np.float32(2), i + np.int64(3), x.add(10), torch.add(x, 10), torch.add(i, 10, alpha=2))


@rows.row("T9")
def broadcasting(torch: Any, t: Transcript) -> None:
    x = torch.arange(6.0).view(2, 3)
    t.show(
        x + torch.arange(3), x + torch.tensor([[1.0], [2.0]]), torch.ones(3, 1) + torch.ones(1, 2), x + torch.tensor(1)
    )
    t.show(torch.ones(0, 3) + torch.ones(3), x.expand(2, 2, 3), torch.broadcast_to(torch.arange(3), (2, 3)))


@rows.row("T9")
def comparisons(torch: Any, t: Transcript) -> None:
    x = torch.arange(4)
    t.show(
        x == 2,
        x != 2,
        x < 2,
        x <= 2,
        x > 2,
        x >= 2,
        x == torch.tensor([0, 9, 2, 9]),
        torch.equal(x, x),
        (x == "a"),
        x is None,
    )
    t.show((x > 0) & (x < 3), ~(x > 0), torch.allclose(x.float(), x + 1e-9), torch.isclose(x.float(), x.float()))


@rows.row("T9")
def other_operators(torch: Any, t: Transcript) -> None:
    a, b = torch.arange(6.0).view(2, 3), torch.arange(6.0).view(3, 2)
    t.show(
        a @ b,
        torch.matmul(a, b),
        a.mm(b),
        torch.dot(a[0], a[1]),
        a[0] @ a[1],
        a.pow(2).sum().sqrt(),
        a.exp(),
        torch.sin(a),
    )
    t.show(
        a.clamp(1, 3),
        a.clone().mul_(2),
        torch.sub(a, 1),
        torch.mul(a, a),
        torch.div(a, 2, rounding_mode="floor"),
        a.sigmoid(),
    )


@rows.row("T9")
def ones_like_on_a_device(torch: Any, t: Transcript) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.zeros(2, 3)
    y = torch.ones_like(x, device=device)
    t.show(y, y.device, y.device == device or y.is_cuda, x.to(device) + y)


@rows.row("T9")
def out_argument(torch: Any, t: Transcript) -> None:
    x, y = torch.ones(3), torch.arange(3.0)
    out = torch.zeros(3)
    t.show(torch.add(x, y, out=out) is out, out)


@rows.row("T9")
def shapes_that_do_not_broadcast_are_refused(torch: Any, t: Transcript) -> None:
    x, y = torch.ones(5, 3), torch.ones(4)
    t.fails(lambda: x + y)
    t.fails(lambda: torch.add(x, y))
    t.fails(lambda: x.add_(y))
    t.fails(lambda: torch.ones(3).add_(x))
    t.fails(lambda: x @ y)
    t.show(x)


@rows.row("T9")
def what_cannot_be_added_is_refused(torch: Any, t: Transcript) -> None:
    x, i = torch.ones(3), torch.arange(3)
    t.fails(lambda: x + "a")
    t.fails(lambda: "a" + x)
    t.fails(lambda: x + None)
    t.fails(lambda: x + [1, 2, 3])  # noqa: RUF005 -- the operator is the subject
    t.fails(lambda: torch.add(x))
    t.fails(lambda: torch.add(x, x, x))
    t.fails(lambda: torch.add(x, "a"))
    t.fails(lambda: torch.add([1], [2]))
    t.fails(lambda: i.add_(0.5))
    t.fails(lambda: i.add_(x))
    t.fails(lambda: torch.add(i, i, alpha=0.5))
    t.fails(lambda: x & 1)
    t.fails(lambda: torch.ones(2, dtype=torch.bool) - torch.ones(2, dtype=torch.bool))
    t.show(x, i)


@rows.row("T9")
def division_by_zero(torch: Any, t: Transcript) -> None:
    x = torch.tensor([1.0, -1.0, 0.0])
    t.show(x / 0, x // 0, x % 0)
    if not x.is_cuda:  # integers: torch on CUDA does not say
        t.fails(lambda: torch.arange(3) // 0)


@rows.row("T9")
def methods_that_are_not_there(torch: Any, t: Transcript) -> None:
    x = torch.ones(2)
    t.fails(lambda: x.add__(1))
    t.fails(lambda: x.no_such_thing)


# ---------------------------------------------------------------- T10: devices, and printed text


@rows.row("T10")
def the_device_of_the_document(torch: Any, t: Transcript) -> None:
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    x = torch.tensor([0.9806])
    x = x.to(device)
    y = torch.ones_like(x, device=device)
    z = x + y
    t.show(device, x.device, z.to("cpu", torch.double), z.to(torch.double), z.to("cpu"))
    t.prints(z)
    t.prints(z.to("cpu", torch.double))


@rows.row("T10")
def device_objects(torch: Any, t: Transcript) -> None:
    t.show(
        torch.device("cpu"),
        torch.device("cuda"),
        torch.device("cuda:1"),
        torch.device("cuda", 1),
        torch.device(type="cpu"),
    )
    t.show(
        torch.device("cpu") == torch.device("cpu"),
        torch.device("cuda:0") == torch.device("cuda"),
        torch.device("cuda", 0).index,
    )
    t.show(len({torch.device("cpu"), torch.device("cpu")}), torch.cuda.is_available(), torch.cuda.device_count())
    t.fails(lambda: torch.device("nowhere"))
    t.fails(lambda: torch.device("cpu:x"))


@rows.row("T10")
def to(torch: Any, t: Transcript) -> None:
    x = torch.arange(3)
    t.show(x.to(torch.float64), x.to("cpu"), x.to("cpu", torch.double), x.to(device="cpu", dtype=torch.half), x.cpu())
    t.show(
        x.to(torch.zeros(1, dtype=torch.int8)), x.is_cuda, x.device == torch.device("cpu"), x.to("cpu").device, x.to()
    )
    y = x.to(x.dtype)
    y[0] = 5
    z = x.to(x.dtype, copy=True)
    z[1] = 6
    t.show(x, y, z)


@rows.row("T10")
def devices_that_are_not_there_are_refused(torch: Any, t: Transcript) -> None:
    x = torch.ones(2)
    t.fails(lambda: x.to("nowhere"))
    t.fails(lambda: x.to("cpu", "double"))
    t.show(x)


@rows.row("T10")
def printed_numbers(torch: Any, t: Transcript) -> None:
    for x in (
        torch.tensor([1.9806]),
        torch.tensor(1.9806),
        torch.tensor([[1.0, -1.0], [1.0, -1.0]]),
        torch.tensor([1e-8, 1.0, 1e8]),
        torch.tensor([1.0, 100000.0]),
        torch.tensor([float("nan"), float("inf"), -float("inf")]),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j, -1.5j]),
        torch.tensor([1, -200, 30000]),
        torch.tensor([0.5, 1.5], dtype=torch.float16),
        torch.tensor([0.5, 1.5], dtype=torch.bfloat16),
        torch.tensor([0.1], dtype=torch.float64),
        torch.tensor(7, dtype=torch.uint8),
    ):
        t.prints(x)
        t.show(repr(x), str(x), f"{x}")


@rows.row("T10")
def printed_shapes(torch: Any, t: Transcript) -> None:
    for x in (
        torch.zeros(0),
        torch.zeros(2, 0, 3),
        torch.zeros(2, 2, 2),
        torch.arange(24).view(2, 3, 2, 2),
        torch.ones(1, 1, 1),
    ):
        t.prints(x)


@rows.row("T10")
def long_tensors_are_shortened(torch: Any, t: Transcript) -> None:
    t.prints(torch.arange(1001), torch.arange(1000.0), torch.zeros(50, 50), torch.ones(2, 600, 3))


@rows.row("T10")
def printed_gradients(torch: Any, t: Transcript) -> None:
    x = torch.ones(2, requires_grad=True)
    t.prints(x, x * 2, (x * 2).sum(), x.detach(), x.view(2, 1))


@rows.row("T10")
def several_things_at_once(torch: Any, t: Transcript) -> None:
    x = torch.tensor([1.0, 2.0])
    t.prints("x =", x, "sum", x.sum(), x.shape, x.dtype, x.device, [x, x], {"x": x}, (x,))
    t.show(f"{x.sum()}", f"{x.sum():.3f}", f"{x[0].item():.1f}", f"{x!r}")
    t.fails(lambda: f"{x:.2f}")


@rows.row("T10")
def print_options(torch: Any, t: Transcript) -> None:
    torch.set_printoptions(precision=2, sci_mode=False, threshold=5, edgeitems=1)
    try:
        t.prints(torch.tensor([1.23456, 1e-5]), torch.arange(10))
    finally:
        torch.set_printoptions(profile="default")
    t.prints(torch.tensor([1.23456, 1e-5]))


@rows.parametrize()
def test_arithmetic_devices_and_printing_do_what_torch_does(program: Program, synchronous: bool, tc: Any) -> None:
    assert_same(program, tc, synchronous=synchronous)
