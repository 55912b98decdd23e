"""Operators, promotion, broadcasting, and Python's own protocols on tensors."""

from __future__ import annotations

import copy
import math
import operator
from types import ModuleType
from typing import Any

from tests.semantics.harness import Program, Rows, Watch, assert_same

rows = Rows()

_BINARY = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.pow,
    operator.and_,
    operator.or_,
    operator.xor,
    operator.lshift,
    operator.rshift,
    operator.eq,
    operator.ne,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.matmul,
]
_IN_PLACE = [
    operator.iadd,
    operator.isub,
    operator.imul,
    operator.itruediv,
    operator.ifloordiv,
    operator.imod,
    operator.ipow,
    operator.iand,
    operator.ior,
    operator.ixor,
    operator.ilshift,
    operator.irshift,
    operator.imatmul,
]
_UNARY = [operator.neg, operator.pos, operator.abs, operator.invert]


@rows.row("operators")
def every_operator_between_tensors_of_all_dtypes(torch: Any, t: Watch) -> None:
    dtypes = [torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16, torch.complex64]
    tensors = [torch.tensor([[1, 2], [3, 1]]).to(dtype) for dtype in dtypes]
    other = [torch.tensor([2, 1]).to(dtype) for dtype in dtypes]
    for function in _BINARY:
        for x in tensors:
            results: list[Any] = []
            for y in other:
                try:
                    z = function(x, y)
                    results.append((z.dtype, z.shape, z.tolist()))
                except Exception as error:
                    results.append(str(error))
            t.show(results)


@rows.row("operators")
def every_operator_with_numbers_left_and_right(torch: Any, t: Watch) -> None:
    for dtype in (torch.bool, torch.int32, torch.float32, torch.complex64, torch.float16):
        x = torch.tensor([3, 1]).to(dtype)
        for function in _BINARY:
            results = []
            for number in (2, 2.5, True, 1j, -1):
                for left in (True, False):
                    try:
                        z = function(number, x) if left else function(x, number)
                        results.append((z.dtype, z.tolist()) if isinstance(z, torch.Tensor) else z)
                    except Exception as error:
                        results.append((type(error).__mro__[-3].__name__, str(error)))
            t.show(repr(results))


@rows.row("operators")
def every_operator_in_place(torch: Any, t: Watch) -> None:
    for dtype in (torch.bool, torch.int64, torch.float32, torch.complex64):
        for function in _IN_PLACE:
            for value in (2, 0.5, torch.tensor([[1, 0], [2, 1]]), torch.ones(2, 2), torch.ones(3)):
                x = torch.tensor([[3, 1], [2, 5]]).to(dtype)
                alias = x[0]
                t.tries(lambda function=function, x=x, value=value: function(x, value), lambda: (x, alias))


@rows.row("operators")
def unary_operators(torch: Any, t: Watch) -> None:
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float32, torch.complex64):
        x = torch.tensor([3, 0, 1]).to(dtype)
        t.tries(*[lambda function=function, x=x: function(x) for function in _UNARY])
        t.tries(lambda: round(x), lambda: math.floor(x[0]), lambda: math.sqrt(x[0]), lambda: divmod(x, 2))


@rows.row("operators")
def operands_that_are_no_numbers(torch: Any, t: Watch) -> None:
    x = torch.arange(3)
    t.tries(
        lambda: x + "a",
        lambda: "a" + x,
        lambda: x + None,
        lambda: x + [1, 2, 3],
        lambda: [1, 2, 3] + x,
        lambda: (1,) * x,
        lambda: x * [1],
        lambda: x == "a",
        lambda: x == None,  # noqa: E711
        lambda: x != None,  # noqa: E711
        lambda: x == [0, 1, 2],
        lambda: x < "a",
        lambda: x @ 2,
        lambda: 2 @ x,
        lambda: x - {},
        lambda: x & 1.5,
        lambda: x << 1.5,
        lambda: x + object(),
        lambda: x ** "a",
        lambda: None == x,  # noqa: E711
        lambda: x is None,
        lambda: x in [x],
        lambda: x[0] in [0, 1],
    )


@rows.row("promotion")
def results_have_the_dtypes_of_torch(torch: Any, t: Watch) -> None:
    names = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128".split()
    dtypes = [getattr(torch, name) for name in names]
    for a in dtypes:
        for b in dtypes:
            t.show(torch.promote_types(a, b), torch.result_type(torch.ones(1, dtype=a), torch.ones((), dtype=b)))
    for a in dtypes[::2]:
        x = torch.ones(2, dtype=a)
        t.tries(*[lambda b=b, x=x: (x + torch.ones((), dtype=b)).dtype for b in dtypes])
        t.tries(*[lambda b=b, x=x: (x * torch.ones(2, dtype=b)).dtype for b in dtypes[1::2]])
        t.tries(lambda: x.sum(), lambda: x.prod().dtype, lambda: x.mean(), lambda: (x / x).dtype, lambda: x.exp().dtype)
        t.tries(lambda: x.argmax().dtype, lambda: torch.cat([x, torch.ones(1)]).dtype, lambda: x.cumsum(0).dtype)


@rows.row("broadcasting")
def shapes_that_do_and_do_not_fit(torch: Any, t: Watch) -> None:
    shapes = [(), (1,), (3,), (2, 1), (2, 3), (1, 2, 3), (0,), (2, 0), (4,)]
    for one in shapes:
        for other in shapes:
            t.tries(lambda one=one, other=other: torch.ones(one) + torch.ones(other))
            t.tries(lambda one=one, other=other: torch.ones(one).add_(torch.ones(other)))
            t.tries(lambda one=one, other=other: torch.ones(one) @ torch.ones(other))
    x = torch.ones(2, 3)
    t.tries(
        lambda: torch.where(x > 0, x, torch.ones(2)),
        lambda: x.masked_fill(torch.ones(4, dtype=torch.bool), 1),
        lambda: torch.addmm(x, x, x),
        lambda: torch.bmm(x, x),
        lambda: torch.mm(x, x.T, out=torch.zeros(2, 2)),
        lambda: torch.dot(x[0], x[0]),
        lambda: torch.dot(x, x),
        lambda: torch.outer(x[0], x[1]),
        lambda: torch.cross(x[0], x[1], dim=0),
        lambda: torch.nn.functional.linear(x, x),
        lambda: torch.nn.functional.linear(x, torch.ones(2)),
        lambda: torch.nn.functional.linear(x, torch.ones(4, 4)),
        lambda: torch.maximum(x, torch.ones(2)),
        lambda: torch.stack([x, x[0]]),
    )


@rows.row("protocols")
def conversions_to_python(torch: Any, t: Watch) -> None:
    values = [
        torch.tensor(2.5),
        torch.tensor(3),
        torch.tensor(True),
        torch.tensor(1 + 2j),
        torch.tensor([4.0]),
        torch.tensor([[5]]),
        torch.tensor([1, 2]),
        torch.tensor([]),
        torch.zeros(2, 0),
        torch.tensor(float("nan")),
        torch.tensor(float("inf")),
        torch.tensor(2**62),
        torch.tensor(0.1, dtype=torch.bfloat16),
        torch.tensor(-0.0),
        torch.tensor(0.1, dtype=torch.float64, requires_grad=True),
    ]
    for x in values:
        t.tries(
            lambda: bool(x),
            lambda: int(x),
            lambda: float(x),
            lambda: complex(x),
            lambda: operator.index(x),
            lambda: [10, 11, 12, 13, 14, 15][x],
            lambda: x.item(),
            lambda: x.tolist(),
            lambda: len(x),
            lambda: list(x),
            lambda: 1 if x else 0,
            lambda: not x,
            lambda: x.any(),
            lambda: x.__index__(),
            lambda: range(x) if x.dim() == 0 and x < 10 else None,
            lambda: math.exp(x),
            lambda: round(float(x), 2),
            lambda: int(x.long()) if x.numel() == 1 else None,
            lambda: "ab" * x,
            lambda: x == x,
        )


@rows.row("protocols")
def iteration_membership_and_unpacking(torch: Any, t: Watch) -> None:
    x = torch.arange(6).view(3, 2)
    t.show([row for row in x], list(reversed(x)), list(enumerate(x)), list(zip(x, x.T, strict=False)), tuple(x[0]))
    a, b, c = x
    first, *rest = x
    t.show(a, b, c, first, rest, sum(x), max(x[0]), min(x[:, 1]), sorted(x[0], reverse=True), any(x[0]), all(x[1]))
    t.tries(
        lambda: 3 in x,
        lambda: 9 in x,
        lambda: torch.tensor(3) in x,
        lambda: x[0] in x,
        lambda: "a" in x,
        lambda: None in x,
        lambda: [1] in x,
        lambda: list(torch.tensor(1)),
        lambda: len(torch.tensor(1)),
        lambda: next(iter(x)),
        lambda: list(torch.zeros(0, 3)),
        lambda: list(torch.zeros(2, 0)),
        lambda: max(x),
        lambda: sorted(x),
        lambda: (lambda p, q: p)(*x[0]),
        lambda: (lambda p, q: p)(*x),
        lambda: dict(enumerate(x.tolist())),
        lambda: [p + q for p, q in x],
        lambda: list(map(int, x.view(-1))),
    )
    for row in x:
        row += 1
    t.show(x)


@rows.row("protocols")
def identity_hashing_and_copying(torch: Any, t: Watch) -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = copy.copy(x)
    z = copy.deepcopy(x)
    t.show(y is x, z is x, y, z, y.requires_grad, z.is_leaf, {x: 1}[x], x in {x, z}, hash(x) == hash(x), len({x, y, z}))
    with torch.no_grad():
        y[0] = 9
        z[1] = 7
    t.show(x, y, z, x == z, x.equal(z))
    shared = copy.deepcopy([x, x])
    t.show(shared[0] is shared[1], copy.deepcopy({"a": x})["a"])
    t.tries(lambda: copy.deepcopy(x * 2), lambda: copy.copy(x * 2))
    x.note = "mine"
    t.show(x.note, hasattr(x, "other"), isinstance(x, torch.Tensor), type(x).__name__, callable(x))
    t.tries(lambda: x(), lambda: x.nothing, lambda: torch.tensor([1]) or 0, lambda: torch.tensor([1, 2]) and 0)


@rows.row("constructors")
def constructors_of_typed_tensors(torch: Any, t: Watch) -> None:
    t.tries(
        lambda: torch.Tensor([1, 2]),
        lambda: torch.Tensor([[1, 2], [3, 4]]),
        lambda: torch.Tensor(2, 3).shape,
        lambda: torch.Tensor(3).shape,
        lambda: torch.Tensor(),
        lambda: torch.Tensor(torch.Size([2])).shape,
        lambda: torch.Tensor((1, 2)),
        lambda: torch.Tensor(torch.tensor([1.0])),
        lambda: torch.Tensor("a"),
        lambda: torch.Tensor(2.5),
        lambda: torch.Tensor(None),
        lambda: torch.FloatTensor([1, 2]),
        lambda: torch.LongTensor([1, 2]),
        lambda: torch.LongTensor([1.5, 2.5]),
        lambda: torch.DoubleTensor(2).shape,
        lambda: torch.BoolTensor([1, 0]),
        lambda: torch.ByteTensor([255]),
        lambda: torch.HalfTensor([0.1]),
        lambda: torch.IntTensor(2, 2).dtype,
        lambda: torch.LongTensor("a"),
        lambda: isinstance(torch.zeros(2), torch.FloatTensor),
        lambda: isinstance(torch.zeros(2), torch.LongTensor),
        lambda: torch.FloatTensor,
        lambda: torch.FloatTensor.dtype,
        lambda: torch.zeros(2).type(torch.LongTensor),
        lambda: torch.Tensor([1]).type(),
    )


@rows.row("shapes")
def empty_scalar_and_strange_shapes(torch: Any, t: Watch) -> None:
    empty, scalar, thin = torch.zeros(0), torch.tensor(5.0), torch.zeros(3, 0, 2)
    for x in (empty, scalar, thin, torch.zeros(0, dtype=torch.int64), torch.ones(1, 1, 1)):
        t.tries(
            lambda: x.sum(),
            lambda: x.mean(),
            lambda: x.max(),
            lambda: x.prod(),
            lambda: x.argmax(),
            lambda: x.std(),
            lambda: x.median(),
            lambda: x.any(),
            lambda: x.all(),
            lambda: x.sort(),
            lambda: x.norm(),
            lambda: x.view(-1),
            lambda: x.reshape(0, 5),
            lambda: x.t(),
            lambda: x.T,
            lambda: x.squeeze(),
            lambda: x.unsqueeze(-1),
            lambda: x.flatten(),
            lambda: x.cumsum(0),
            lambda: x.softmax(0),
            lambda: x.sum(0),
            lambda: x.sum(1),
            lambda: x.max(0),
            lambda: x[0],
            lambda: x[...],
            lambda: x[None],
            lambda: torch.cat([x, x]),
            lambda: torch.stack([x, x]),
            lambda: x.split(1),
            lambda: x.chunk(2),
            lambda: x.unbind(),
            lambda: x.nonzero(),
            lambda: x.unique(),
            lambda: x.flip(0),
            lambda: x.numpy(),
            lambda: x.tolist(),
            lambda: x.repeat(2),
            lambda: x.expand(3, *x.shape),
            lambda: x @ x,
            lambda: torch.linalg.norm(x),
            lambda: x.sum(-1),
            lambda: x.argsort(),
            lambda: x.diag(),
            lambda: x.var(),
            lambda: x.min(),
            lambda: x.index_select(0, torch.tensor([0])),
            lambda: x.fill_(1),
            lambda: x.item(),
        )


@rows.parametrize()
def test_operators_and_protocols_do_what_they_do_in_torch(program: Program, synchronous: bool, tc: ModuleType) -> None:
    assert_same(program, tc, synchronous=synchronous)
