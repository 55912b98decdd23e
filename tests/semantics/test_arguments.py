"""Arguments of every kind reach the server as they are: numbers, names, nested tensors, slices, generators."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.semantics.harness import Program, Rows, Watch, assert_same

rows = Rows()


@rows.row("numbers")
def integers_up_to_64_bits(torch: Any, t: Watch) -> None:
    x = torch.tensor([1, 2])
    t.tries(
        lambda: torch.tensor(2**63 - 1),
        lambda: torch.tensor([-(2**63), 0]),
        lambda: torch.full((2,), 2**63 - 1),
        lambda: x + (2**63 - 1),
        lambda: torch.tensor(2**62) * 2,
        lambda: x.fill_(-(2**63)),
        lambda: torch.arange(2**62, 2**62 + 2),
        lambda: torch.tensor([2**40], dtype=torch.float32),
    )


@rows.row("numbers")
def integers_beyond_64_bits_are_refused(torch: Any, t: Watch) -> None:
    x = torch.ones(2, 3)
    t.tries(
        lambda: torch.tensor(2**70),
        lambda: torch.tensor([1, 2**70]),
        lambda: x + 2**70,
        lambda: 2**70 * x,
        lambda: x.sum(2**70),
        lambda: torch.full((2,), 2**70),
        lambda: x[2**70],
        lambda: x[: 2**70],
        lambda: x.fill_(2**70),
        lambda: x,
    )


@rows.row("numbers")
def floats_of_every_kind(torch: Any, t: Watch) -> None:
    x = torch.tensor([1.0, -2.0])
    for number in (0.1, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"), np.float32(0.1), np.float64(3)):
        t.tries(
            lambda: x + number,
            lambda: number * x,
            lambda: torch.full((2,), number),
            lambda: torch.tensor(number),
            lambda: torch.tensor([number], dtype=torch.float64),
            lambda: x.clamp(max=number),
        )


@rows.row("numbers")
def bools_and_complex_numbers(torch: Any, t: Watch) -> None:
    x, i, b = torch.tensor([1.0, -2.0]), torch.tensor([1, 2]), torch.tensor([True, False])
    for number in (True, False, 1j, 2 - 3j, complex(0, float("nan")), np.int8(3), np.complex128(1j)):
        t.tries(
            lambda: x + number,
            lambda: i * number,
            lambda: b + number,
            lambda: torch.full((2,), number),
            lambda: torch.tensor(number),
            lambda: torch.tensor([number]),
            lambda: torch.add(x, x, alpha=number),
            lambda: x.pow(number),
            lambda: x == number,
        )


@rows.row("numbers")
def scalars_of_numpy_as_operands(torch: Any, t: Watch) -> None:
    # torch takes a bool of numpy for a float, and of a small complex number the real part.
    x, i, b = torch.tensor([1.0, -2.0]), torch.tensor([1, 2]), torch.tensor([True, False])
    kinds = [
        np.bool_(True),
        np.int8(3),
        np.uint64(3),
        np.float16(0.1),
        np.float32(0.1),
        np.float64(2),
        np.complex64(1j),
    ]
    for number in [*kinds, np.complex128(2 - 1j)]:
        t.tries(
            *[lambda x=x: (x + number, x * number, x == number, x - number) for x in (x, i, b)][
                : 1 + (number.dtype.kind != "b") * 2
            ]
        )
        t.tries(lambda: number + x, lambda: number * i, lambda: number == x)


class _Index:
    """What Python takes for an integer."""

    def __index__(self) -> int:
        return 1


@rows.row("numbers")
def what_counts_as_a_number(torch: Any, t: Watch) -> None:
    x = torch.arange(6.0).view(2, 3)
    one = torch.tensor(1)
    t.tries(
        lambda: x.sum(np.int64(1)),
        lambda: x.sum(one),
        lambda: x[_Index()],
        lambda: x[one, np.int32(2)],
        lambda: x[one:],
        lambda: x[: one + 1],
        lambda: x.view(torch.tensor(3), 2),
        lambda: x.reshape([torch.tensor(3), torch.tensor(2)]),
        lambda: torch.zeros(torch.tensor(2), 3),
        lambda: torch.full((2,), torch.tensor(2.5)),
        lambda: x.add(x, alpha=torch.tensor(2.0)),
        lambda: torch.arange(torch.tensor(3)),
        lambda: torch.linspace(torch.tensor(0.0), 1, torch.tensor(3)),
        lambda: x.sum(True),
        lambda: x.sum(1.0),
        lambda: x.view(2.0, 3.0),
        lambda: torch.ones(2.0),
        lambda: torch.ones(True),
        lambda: x.expand(True, 2, 3),
        lambda: x.roll(np.int64(1), np.int16(0)),
    )


@rows.row("names")
def strings(torch: Any, t: Watch) -> None:
    a, b = torch.arange(4.0).view(2, 2), torch.ones(2, 2)
    t.tries(
        lambda: torch.einsum("ij,jk->ik", a, b),
        lambda: torch.einsum("ij,jk", [a, b]),
        lambda: torch.einsum("...ij->...ji", a),
        lambda: torch.einsum(a, [0, 1], b, [1, 2], [0, 2]),
        lambda: torch.einsum("ij,j", a, b[0]),
        lambda: torch.div(a, 0.7, rounding_mode="floor"),
        lambda: torch.div(a, 0.7, rounding_mode="trunc"),
        lambda: torch.div(a, 0.7, rounding_mode="up"),
        lambda: torch.meshgrid(torch.arange(2), torch.arange(3), indexing="xy"),
        lambda: torch.linalg.norm(a, "fro"),
        lambda: torch.linalg.norm(a, "größe"),
        lambda: torch.nn.functional.gelu(a, approximate="tanh"),
        lambda: torch.nn.functional.pad(a, (1, 1), mode="circular"),
        lambda: a.scatter_reduce(0, torch.zeros(1, 2, dtype=torch.int64), b, reduce="amax"),
        lambda: a.type("torch.DoubleTensor"),
        lambda: a.to("cpu"),
        lambda: a.to("here"),
        lambda: torch.zeros(2, device="gpu"),
    )


@rows.row("names")
def dtypes_and_python_types(torch: Any, t: Watch) -> None:
    x = torch.tensor([1.5, -2.0])
    for kind in (torch.int8, torch.uint8, torch.half, torch.bfloat16, torch.double, torch.bool, torch.complex64):
        t.tries(
            lambda: x.to(kind),
            lambda: x.type(kind),
            lambda: torch.zeros(2, dtype=kind),
            lambda: x.sum(dtype=kind),
            lambda: torch.ones_like(x, dtype=kind),
            lambda: torch.tensor([1, 0], dtype=kind),
            lambda: x.to(x.to(kind)),
            lambda: torch.promote_types(kind, torch.int16),
            lambda: torch.can_cast(kind, torch.int16),
        )
    t.tries(
        lambda: x.to(int),
        lambda: torch.zeros(2, dtype=float),
        lambda: torch.zeros(2, dtype=bool),
        lambda: x.to(torch.int32, copy=True),
        lambda: x.to("cpu", torch.int64),
        lambda: x.to(torch.device("cpu"), dtype=torch.float64, non_blocking=True),
        lambda: x.type(float),
        lambda: x.type(int),
        lambda: x.type("float"),
        lambda: x.type(torch.LongTensor),
        lambda: x.type(),
        lambda: x.to(complex),
        lambda: torch.zeros(2, dtype="float32"),
        lambda: torch.result_type(x, 1j),
        lambda: x.type(str),
        lambda: x.dtype,
        lambda: torch.zeros(2, dtype=None),
    )


@rows.row("names")
def memory_formats_and_layouts(torch: Any, t: Watch) -> None:
    x = torch.arange(24.0).view(1, 2, 3, 4)
    t.tries(
        lambda: x.to(memory_format=torch.channels_last),
        lambda: x.contiguous(memory_format=torch.channels_last).is_contiguous(memory_format=torch.channels_last),
        lambda: x.clone(memory_format=torch.preserve_format),
        lambda: torch.empty_like(x, memory_format=torch.channels_last).stride(),
        lambda: torch.zeros(2, 2, layout=torch.strided),
        lambda: x.layout,
        lambda: x.contiguous(memory_format=torch.channels_last_3d),
        lambda: x.permute(0, 2, 3, 1).contiguous(),
    )


@rows.row("sizes")
def sizes_in_all_their_spellings(torch: Any, t: Watch) -> None:
    x = torch.arange(6.0)
    t.tries(
        lambda: x.view(2, 3),
        lambda: x.view((2, 3)),
        lambda: x.view([2, -1]),
        lambda: x.view(torch.Size([3, 2])),
        lambda: x.view(size=(3, 2)),
        lambda: torch.zeros(2, 3),
        lambda: torch.zeros((2, 3)),
        lambda: torch.zeros([2, 3]),
        lambda: torch.zeros(size=(2, 3)),
        lambda: torch.zeros(x.view(2, 3).shape),
        lambda: torch.zeros(()),
        lambda: torch.zeros([]),
        lambda: torch.ones(*x.view(2, 3).shape),
        lambda: x.view(2, 3).permute(1, 0),
        lambda: x.view(2, 3).permute((1, 0)),
        lambda: x.view(2, 3).permute(dims=(1, 0)),
        lambda: x.expand(2, -1),
        lambda: x.repeat(2, 1),
        lambda: x.repeat((2, 1)),
        lambda: x.view(2, 3).sum((0, 1)),
        lambda: x.view(2, 3).sum([1], keepdim=True),
        lambda: x.view(2, 3).sum(axis=1, keepdims=True),
        lambda: x.view(()),
        lambda: x.view(4, 2),
        lambda: x.view(-1, -1),
        lambda: x.view("2"),
        lambda: x.view(2, 3).movedim((0, 1), (1, 0)),
        lambda: torch.Size([2, 3]) + torch.Size([1]),
        lambda: torch.Size([2, 3])[1:],
        lambda: torch.Size([2, 3]).numel(),
        lambda: (x.view(2, 3).shape == (2, 3), x.view(2, 3).shape == [2, 3], list(x.shape)),
    )


@rows.row("tensors")
def lists_and_tuples_of_tensors(torch: Any, t: Watch) -> None:
    a, b = torch.arange(4.0).view(2, 2), torch.ones(2, 2)
    t.tries(
        lambda: torch.cat([a, b]),
        lambda: torch.cat((a, b), dim=1),
        lambda: torch.cat(tensors=[a, b], axis=1),
        lambda: torch.cat([a, torch.tensor([])]),
        lambda: torch.cat([a, b.int()]),
        lambda: torch.cat(a.unbind()),
        lambda: torch.cat([]),
        lambda: torch.cat(a),
        lambda: torch.cat([a, 1]),
        lambda: torch.cat([a, None]),
        lambda: torch.cat([a, [b]]),
        lambda: torch.stack([a, b], dim=-1),
        lambda: torch.stack([a, b[0]]),
        lambda: torch.hstack((a, b)),
        lambda: torch.vstack([a, b[0]]),
        lambda: torch.dstack([a, b]),
        lambda: torch.column_stack([a[0], b]),
        lambda: torch.block_diag(a, b, torch.tensor([7.0])),
        lambda: torch.meshgrid(a[0], b[1], indexing="ij"),
        lambda: torch.meshgrid([a[0], b[1]], indexing="ij"),
        lambda: torch.cartesian_prod(a[0], b[0]),
        lambda: torch.broadcast_tensors(a, b[0]),
        lambda: torch.linalg.multi_dot([a, b, a]),
        lambda: torch.chain_matmul(a, b, a),
        lambda: torch.atleast_2d(a[0], torch.tensor(1.0)),
        lambda: torch.atleast_1d([torch.tensor(1.0), a]),
        lambda: torch.where(a > 1, a, b),
        lambda: torch.tensordot(a, b, dims=([0], [1])),
        lambda: torch.index_put(a, (torch.tensor([0]), torch.tensor([1])), torch.tensor(9.0)),
        lambda: torch.nn.utils.clip_grad_norm_([], 1.0),
        lambda: torch.cdist(a, b),
        lambda: torch.lerp(a, b, 0.5),
        lambda: torch.combinations(a[0]),
        lambda: torch.nn.functional.scaled_dot_product_attention(a[None], b[None], a[None]),
    )


@rows.row("tensors")
def data_of_nested_lists(torch: Any, t: Watch) -> None:
    a = torch.tensor(2.5)
    t.tries(
        lambda: torch.tensor([[1, 2], [3, 4]]),
        lambda: torch.tensor([[1, 2.0], [True, 4]]),
        lambda: torch.tensor([a, a]),
        lambda: torch.tensor([a, 1, True]),
        lambda: torch.tensor([[a], [1]], dtype=torch.int8),
        lambda: torch.tensor([torch.tensor([1.0])]),
        lambda: torch.tensor([torch.tensor([1.0, 2.0])]),
        lambda: torch.tensor([[1, 2], [3]]),
        lambda: torch.tensor([[1, 2], 3]),
        lambda: torch.tensor([[], []]),
        lambda: torch.tensor([]),
        lambda: torch.tensor(()),
        lambda: torch.tensor([None]),
        lambda: torch.tensor(None),
        lambda: torch.tensor("a"),
        lambda: torch.tensor(["a"]),
        lambda: torch.tensor({}),
        lambda: torch.tensor(range(4)),
        lambda: torch.tensor([1j, 2]),
        lambda: torch.tensor([np.float32(1), np.float32(2)]),
        lambda: torch.tensor([np.arange(2), np.arange(2)]),
        lambda: torch.tensor([1.7, -1.7], dtype=torch.int64),
        lambda: torch.tensor([300], dtype=torch.uint8),
        lambda: torch.tensor([-1], dtype=torch.uint8),
        lambda: torch.tensor([2, 0], dtype=torch.bool),
        lambda: torch.tensor([1j], dtype=torch.float32),
        lambda: torch.tensor([[float(i * j) for i in range(8)] for j in range(8)]),
        lambda: torch.tensor([list(range(8)), [0.5] * 8]),
        lambda: torch.tensor(memoryview(b"abc")),
        lambda: torch.tensor([1, 2], requires_grad=True),
        lambda: torch.tensor([1.0, 2], requires_grad=True),
        lambda: torch.tensor([1.0], device="cpu", dtype=torch.float64),
        lambda: torch.tensor(a),
        lambda: torch.as_tensor([1, 2]),
        lambda: torch.as_tensor(np.ones(2)),
        lambda: torch.asarray([1.5, 2]),
        lambda: torch.scalar_tensor(3),
        lambda: torch.tensor(),
        lambda: torch.tensor([1], [2]),
        lambda: torch.tensor(data=[1, 2]),
    )


_Pair = namedtuple("_Pair", "first second")


@rows.row("tensors")
def subclasses_of_python_types(torch: Any, t: Watch) -> None:
    class Whole(int):
        pass

    class Row(list[Any]):
        pass

    x = torch.arange(6.0).view(2, 3)
    t.tries(
        lambda: x.sum(Whole(1)),
        lambda: x + Whole(3),
        lambda: torch.tensor(Row([1, 2])),
        lambda: torch.cat(Row([x, x])),
        lambda: x.view(_Pair(3, 2)),
        lambda: torch.cat(_Pair(x, x)),
        lambda: torch.cat(list(OrderedDict(a=x, b=x).values())),
        lambda: torch.cat({"a": x}),
        lambda: torch.stack(list(x)),
    )


@rows.row("generators")
def generators(torch: Any, t: Watch) -> None:
    g = torch.Generator()
    g.manual_seed(3)
    h = torch.Generator().manual_seed(3)
    t.show(torch.rand(3, generator=g), torch.rand(3, generator=h), torch.randn(2, generator=g))
    state = g.get_state()
    one = torch.randperm(5, generator=g)
    g.set_state(state)
    t.show(one, torch.randperm(5, generator=g), g.initial_seed(), h.initial_seed(), state.shape)
    x = torch.zeros(4)
    t.show(x.normal_(generator=g), x.uniform_(-1, 1, generator=g), x.bernoulli_(0.5, generator=g))
    t.show(torch.bernoulli(torch.full((4,), 0.5), generator=h), torch.multinomial(torch.ones(4), 2, generator=h))
    t.show(torch.normal(0.0, 1.0, (2,), generator=h), torch.randint(0, 10, (5,), generator=h))
    t.tries(
        lambda: torch.rand(2, generator=3),
        lambda: g.manual_seed("a"),
        lambda: g.device,
        lambda: torch.nn.functional.dropout(torch.ones(4), 0.5).shape,
        lambda: torch.rand(2, generator=None).shape,
    )


@rows.row("seeds")
def manual_seed_returns_the_generator_that_it_set(torch: Any, t: Watch) -> None:
    g = torch.manual_seed(5)
    first = torch.rand(3)
    t.show(g.initial_seed(), torch.initial_seed(), first)
    g.manual_seed(5)
    t.show(torch.rand(3), torch.rand(3, generator=g), torch.rand(3))
    state = torch.get_rng_state()
    again = torch.randn(3)
    torch.set_rng_state(state)
    t.show(again, torch.randn(3), torch.default_generator.initial_seed())
    torch.random.manual_seed(11)
    t.show(torch.rand(2), torch.random.initial_seed())
    t.tries(
        lambda: torch.manual_seed("a"),
        lambda: torch.manual_seed(-1).initial_seed(),
        lambda: torch.manual_seed(2**64 - 1).initial_seed(),
        lambda: torch.manual_seed(2.7).initial_seed(),
        lambda: torch.rand(2),
    )


@rows.row("out")
def out_arguments(torch: Any, t: Watch) -> None:
    x, y = torch.arange(6.0).view(2, 3), torch.ones(2, 3)
    out = torch.zeros(2, 3)
    view = out[0]
    t.show(torch.add(x, y, out=out) is out, out, view)
    t.show(torch.mul(x, 3, out=out[0]), out)
    values, indices = torch.zeros(2), torch.zeros(2, dtype=torch.int64)
    found = torch.max(x, 1, out=(values, indices))
    t.show(found.values is values, found.indices is indices, values, indices, found)
    empty = torch.empty(0)
    torch.cat([x, y], out=empty)
    t.show(empty, torch.matmul(x, y.T, out=torch.zeros(2, 2)))
    whole = torch.zeros(2, 3, dtype=torch.int64)
    t.tries(
        lambda: torch.add(x, y, out=whole),
        lambda: torch.add(x, y, out=torch.zeros(2, 3, dtype=torch.float64)),
        lambda: torch.add(x, y, out=[out]),
        lambda: torch.max(x, 1, out=values),
        lambda: torch.max(x, 1, out=(values,)),
        lambda: torch.add(x, y, out=None),
        lambda: torch.add(x, y, out=torch.zeros(1, 3).expand(2, 3)),
        lambda: torch.sum(x, 0, out=torch.zeros(3)),
        lambda: torch.arange(3, out=torch.zeros(3)),
        lambda: torch.zeros(2, out=torch.ones(2)),
        lambda: torch.add(x, y, out=torch.zeros(2, 3, requires_grad=True)),
        lambda: torch.add(x[0], x[0], out=x[0]),
        lambda: x,
        lambda: torch.linalg.qr(x, out=(torch.empty(0), torch.empty(0))),
        lambda: x.sort(out=(values, indices)),
        lambda: torch.sort(x, out=(torch.empty(0), torch.empty(0, dtype=torch.int64))),
    )


@rows.parametrize()
def test_arguments_of_every_kind_mean_what_they_mean_to_torch(
    program: Program, synchronous: bool, tc: ModuleType
) -> None:
    assert_same(program, tc, synchronous=synchronous)


@pytest.mark.parametrize(
    "argument", [lambda: 1, print, object(), {1, 2}, b"bytes"], ids=["lambda", "builtin", "object", "set", "bytes"]
)
def test_what_cannot_travel_is_refused_at_the_call_and_disturbs_nothing(tc: Any, argument: Any) -> None:
    x = tc.ones(2)
    with pytest.raises(TypeError):
        tc.add(x, argument)
    assert x.tolist() == [1, 1]


def test_an_argument_that_contains_itself_is_refused(tc: Any) -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="contains itself"):
        tc.tensor(loop)
    with pytest.raises(ValueError, match="contains itself"):
        tc.cat(loop)
