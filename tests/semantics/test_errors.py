"""Wrong calls raise torch's own exceptions with torch's own words at the caller's line, and disturb nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.semantics.harness import Program, Rows, Watch, assert_same

rows = Rows()


@rows.row("calls")
def wrong_numbers_of_arguments(torch: Any, t: Watch) -> None:
    x = torch.ones(2, 3)
    t.tries(
        lambda: torch.add(),
        lambda: torch.add(x),
        lambda: torch.add(x, x, x, x),
        lambda: x.add(),
        lambda: x.add(x, x, x),
        lambda: torch.relu(),
        lambda: torch.relu(x, x),
        lambda: x.sum(0, True, 5),
        lambda: torch.zeros(),
        lambda: torch.arange(),
        lambda: torch.cat(),
        lambda: torch.matmul(x),
        lambda: x.transpose(0),
        lambda: x.item(1),
        lambda: x.t(1),
        lambda: x.add_(),
        lambda: torch.nn.functional.linear(x),
        lambda: torch.nn.functional.relu(),
        lambda: torch.linalg.svd(),
        lambda: torch.fft.fft(),
        lambda: torch.where(),
        lambda: torch.eye(),
        lambda: torch.full((2,)),
        lambda: x.masked_fill(x > 0),
        lambda: x.max(0, True, 1),
        lambda: x.view(),
        lambda: x.is_contiguous(1, 2),
    )


@rows.row("calls")
def unknown_and_doubled_keywords(torch: Any, t: Watch) -> None:
    x = torch.ones(2, 3)
    t.tries(
        lambda: torch.add(x, x, beta=1),
        lambda: torch.add(x, other=x, input=x),
        lambda: x.sum(dims=0),
        lambda: x.sum(0, dim=1),
        lambda: torch.zeros(2, type=torch.float32),
        lambda: torch.zeros(2, dtypes=torch.float32),
        lambda: torch.cat([x], axes=0),
        lambda: torch.relu(x, inplace=True),
        lambda: torch.nn.functional.relu(x, in_place=True),
        lambda: torch.nn.functional.softmax(x, axis=1),
        lambda: torch.max(x, dim=0, keepdims=True),
        lambda: torch.tensor([1], dtyp=torch.float32),
        lambda: torch.arange(3, stop=4),
        lambda: torch.randn(2, seed=3),
        lambda: x.view(shape=(6,)),
        lambda: torch.linalg.norm(x, order=2),
        lambda: x.add_(x, alfa=2),
        lambda: x.transpose(dim0=0, dim2=1),
        lambda: x,
    )


@rows.row("calls")
def arguments_of_wrong_types(torch: Any, t: Watch) -> None:
    x = torch.ones(2, 3)
    t.tries(
        lambda: torch.relu(1),
        lambda: torch.relu([1.0]),
        lambda: torch.relu("a"),
        lambda: torch.relu(None),
        lambda: torch.relu((1, 2)),
        lambda: torch.add(x, "a"),
        lambda: torch.add(x, [1, 2, 3]),
        lambda: torch.add(x, (1, 2, 3)),
        lambda: torch.add(x, None),
        lambda: torch.add(x, {}),
        lambda: torch.add(1, 2),
        lambda: torch.add(x, torch.float32),
        lambda: torch.matmul(x, 2),
        lambda: torch.matmul(x, [[1.0], [1.0], [1.0]]),
        lambda: x.sum("a"),
        lambda: x.sum(0.5),
        lambda: x.sum([0.5]),
        lambda: x.sum(x),
        lambda: x.view("a", 2),
        lambda: x.view(None),
        lambda: x.view(2, None),
        lambda: x.to(3.5),
        lambda: x.to(None),
        lambda: x.transpose("a", 0),
        lambda: torch.zeros("a"),
        lambda: torch.zeros(2, "a"),
        lambda: torch.zeros(-2),
        lambda: torch.zeros(2, dtype=3),
        lambda: torch.zeros(2, device=3.5),
        lambda: torch.zeros(2, requires_grad="a"),
        lambda: torch.arange("a"),
        lambda: torch.arange(0, 3, 0),
        lambda: torch.arange(3, 0),
        lambda: torch.arange(0, float("inf")),
        lambda: torch.linspace(0, 1, -1),
        lambda: torch.linspace(0, 1, 2.5),
        lambda: torch.eye(-1),
        lambda: torch.randint(5, 5, (2,)),
        lambda: torch.randint(0, 5, 2),
        lambda: torch.randperm(-1),
        lambda: torch.full(3, 1.0),
        lambda: torch.full((2,), "a"),
        lambda: torch.stack(x, 5),
        lambda: torch.stack([1, 2]),
        lambda: torch.cat([[1], [2]]),
        lambda: torch.cat(1),
        lambda: torch.where(x, x, x),
        lambda: torch.where(1, x, x),
        lambda: x.masked_fill(x, 1),
        lambda: x.clamp(),
        lambda: x.clamp("a"),
        lambda: x.clamp(torch.zeros(3), 1),
        lambda: x.repeat("a"),
        lambda: x.expand("a"),
        lambda: x.type(3),
        lambda: x.fill_("a"),
        lambda: x.fill_([1]),
        lambda: x.fill_(torch.ones(2)),
        lambda: x.copy_(1),
        lambda: x.requires_grad_("a"),
        lambda: torch.nn.functional.linear(x, 2),
        lambda: torch.nn.functional.conv2d(x, x),
        lambda: torch.nn.functional.cross_entropy(x, "a"),
        lambda: torch.nn.functional.dropout(x, 2.0),
        lambda: torch.nn.functional.one_hot(x),
        lambda: torch.nn.functional.embedding(x, x),
        lambda: torch.is_nonzero("a"),
        lambda: torch.is_complex(1),
        lambda: torch.numel([1]),
        lambda: torch.is_floating_point(1.0),
        lambda: torch.equal(x, 1),
        lambda: torch.allclose(x, 1),
        lambda: torch.einsum(3, x),
        lambda: torch.einsum("i?", x),
        lambda: torch.set_default_dtype("a"),
        lambda: torch.set_default_dtype(torch.int64),
        lambda: torch.promote_types(1, 2),
        lambda: x,
        lambda: torch.get_default_dtype(),
    )


@rows.row("values")
def dimensions_out_of_range(torch: Any, t: Watch) -> None:
    x = torch.ones(2, 3)
    t.tries(
        lambda: x.sum(2),
        lambda: x.sum(-3),
        lambda: x.sum((0, 0)),
        lambda: x.max(5),
        lambda: x.argmax(2),
        lambda: x.softmax(3),
        lambda: torch.cat([x, x], 2),
        lambda: torch.stack([x, x], 4),
        lambda: x.unsqueeze(3),
        lambda: x.flip(2),
        lambda: x.roll(1, 2),
        lambda: x.sort(2),
        lambda: x.topk(4),
        lambda: x.topk(-1),
        lambda: x.kthvalue(0),
        lambda: x.unbind(2),
        lambda: x.split(1, 2),
        lambda: x.select(0, 5),
        lambda: x.narrow(1, 2, 5),
        lambda: x.size(3),
        lambda: x.stride(3),
        lambda: x.gather(2, torch.zeros(1, 1, dtype=torch.int64)),
        lambda: x.index_select(0, torch.tensor([2])),
        lambda: x.index_select(0, torch.tensor([[0]])),
        lambda: x.gather(1, torch.tensor([[3]])),
        lambda: x.gather(1, torch.tensor([[0.5]])),
        lambda: x.take(torch.tensor([6])),
        lambda: x.scatter(1, torch.tensor([[3]]), 1.0),
        lambda: x.index_fill_(0, torch.tensor([2]), 1.0),
        lambda: x.index_add_(0, torch.tensor([2]), x[:1]),
        lambda: torch.nn.functional.embedding(torch.tensor([2]), x),
        lambda: torch.nn.functional.nll_loss(x, torch.tensor([0, 3])),
        lambda: torch.nn.functional.cross_entropy(x, torch.tensor([0, 1, 2])),
        lambda: torch.nn.functional.one_hot(torch.tensor([3]), 3),
        lambda: torch.bincount(torch.tensor([-1])),
        lambda: torch.multinomial(torch.ones(3), 5),
        lambda: torch.multinomial(torch.tensor([-1.0, 2.0]), 1),
        lambda: torch.bernoulli(torch.tensor([2.0])),
        lambda: torch.normal(0.0, -1.0, (2,)),
        lambda: x.median(4),
        lambda: x.diagonal(0, 3, 1),
        lambda: x.tril(x),
        lambda: x,
    )


@rows.row("values")
def what_mathematics_refuses(torch: Any, t: Watch) -> None:
    singular, square = torch.tensor([[1.0, 2.0], [2.0, 4.0]]), torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    integers, zero = torch.tensor([1, 2]), torch.tensor([0, 1])
    t.tries(
        lambda: torch.linalg.inv(singular),
        lambda: torch.inverse(torch.zeros(2, 2)),
        lambda: torch.linalg.solve(torch.zeros(2, 2), torch.ones(2)),
        lambda: torch.linalg.cholesky(-square),
        lambda: torch.linalg.cholesky(torch.stack([square, -square])),
        lambda: torch.linalg.inv(torch.ones(2, 3)),
        lambda: torch.linalg.det(torch.ones(2, 3)),
        lambda: torch.linalg.inv(integers.view(1, 2)),
        lambda: torch.linalg.eigh(torch.full((2, 2), float("nan"))),
        lambda: torch.linalg.matrix_power(singular, -1),
        lambda: torch.linalg.svd(torch.ones(2)),
        lambda: torch.linalg.norm(square, "nothing"),
        lambda: torch.linalg.norm(square, ord=2.5),
        lambda: torch.linalg.lstsq(square, torch.ones(3)),
        lambda: torch.cholesky_inverse(torch.ones(2, 3)),
        lambda: torch.linalg.solve_triangular(square, square),
        lambda: torch.linalg.cross(square, square),
        lambda: torch.linalg.multi_dot([square]),
        lambda: torch.fft.fft(torch.zeros(0)),
        lambda: integers // zero,
        lambda: integers % zero,
        lambda: integers // 0,
        lambda: integers % 0,
        lambda: 5 // zero,
        lambda: torch.remainder(integers, zero),
        lambda: torch.fmod(integers, zero),
        lambda: integers / zero,
        lambda: integers.float() // 0,
        lambda: integers.div(zero, rounding_mode="trunc"),
        lambda: integers.floor_divide_(zero),
        lambda: integers**-1,
        lambda: integers ** torch.tensor([-1, 2]),
        lambda: integers.mean(),
        lambda: integers.std(),
        lambda: integers.softmax(0),
        lambda: integers.bool() - integers.bool(),
        lambda: -integers.bool(),
        lambda: integers.float() & 1,
        lambda: integers.float() << 1,
        lambda: ~integers.float(),
        lambda: integers @ integers.float(),
        lambda: torch.gcd(integers.float(), integers.float()),
        lambda: integers.bool().argmax(),
        lambda: integers.view(1, 2).diag(3),
        lambda: integers.add_(1.5),
        lambda: integers.div_(2),
        lambda: integers.sqrt_(),
        lambda: torch.sqrt(torch.tensor(-1.0)),
        lambda: torch.logspace(0, 1, 3, base=-1),
        lambda: torch.polygamma(-1, square),
        lambda: (integers, zero, singular, square),
    )


@rows.row("gradients")
def what_autograd_refuses(torch: Any, t: Watch) -> None:
    x = torch.ones(2, requires_grad=True)
    y = (x * 2).sum()
    y.backward()
    t.tries(
        lambda: y.backward(),
        lambda: x.backward(),
        lambda: torch.ones(2).sum().backward(),
        lambda: (x * 2).backward(),
        lambda: (x * 2).backward(torch.ones(3)),
        lambda: x.add_(1),
        lambda: x.fill_(0),
        lambda: torch.ones(2, dtype=torch.int64, requires_grad=True),
        lambda: torch.ones(2, dtype=torch.int64).requires_grad_(),
        lambda: (x * 2).requires_grad_(False),
        lambda: torch.autograd.grad(x.sum(), torch.ones(2)),
        lambda: torch.autograd.grad(x.sum(), torch.ones(2, requires_grad=True)),
        lambda: torch.autograd.grad((x * 2).sum(), x),
        lambda: x.grad,
        lambda: x.numpy(),
        lambda: (x * 2).detach().numpy(),
        lambda: x.retain_grad(),
        lambda: torch.ones(2).retain_grad(),
        lambda: x.detach().is_leaf,
    )

    def change_what_is_needed() -> None:
        a = torch.ones(2, requires_grad=True)
        b = a.exp()
        b.add_(1)
        b.sum().backward()

    def assign_a_wrong_gradient() -> None:
        x.grad = torch.ones(3)

    def assign_requires_grad() -> None:
        (x * 2).requires_grad = False

    def change_a_view_of_a_leaf() -> None:
        x[0] = 5

    t.tries(change_what_is_needed, assign_a_wrong_gradient, assign_requires_grad, change_a_view_of_a_leaf, lambda: x)
    with torch.inference_mode():
        z = torch.ones(2)
    t.tries(lambda: z.requires_grad_(), lambda: z.add_(1), lambda: z.is_inference(), lambda: (x * z).sum().backward())


@rows.row("attributes")
def attributes_that_are_not_there(torch: Any, t: Watch) -> None:
    x = torch.ones(2)
    t.tries(lambda: x.nothing, lambda: x.summ(), lambda: x.Add, lambda: getattr(x, "a b"))

    def assign_shape() -> None:
        x.shape = (1, 2)

    def assign_grad() -> None:
        x.grad = "a"

    def assign_data() -> None:
        x.data = 3

    t.tries(assign_grad, lambda: x)
    t.refuses(assign_shape, assign_data, lambda: x)


@rows.parametrize()
def test_wrong_calls_raise_what_torch_raises(program: Program, synchronous: bool, tc: ModuleType) -> None:
    assert_same(program, tc, synchronous=synchronous)


_ABSENT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "misspelt function": (lambda tc: tc.relux, "relu"),
    "misspelt factory": (lambda tc: tc.zeroes, "zeros"),
    "misspelt loss": (lambda tc: tc.nn.functional.crossentropy, "cross_entropy"),
    "misspelt decomposition": (lambda tc: tc.linalg.svdd, "svd"),
    "sparse tensors": (lambda tc: tc.sparse_csr_tensor, "sparse_coo"),
    "recorded functions": (lambda tc: tc.cond(print), "no code of a caller"),
}


@pytest.mark.parametrize(("use", "hint"), _ABSENT.values(), ids=list(_ABSENT))
def test_what_is_not_there_is_an_attribute_error_with_the_way_on(tc: Any, use: Callable[[Any], Any], hint: str) -> None:
    x = tc.ones(2)
    with pytest.raises(AttributeError, match=hint):
        use(tc)
    assert (x + 1).tolist() == [2, 2]


_ABSENT_METHODS = {
    "relux": "relu",
    "summ": "sum",
    "apply_": "no code",
    "set_": "memory",
    "to_sparse_csr": "sparse_coo",
}


@pytest.mark.parametrize(("name", "hint"), _ABSENT_METHODS.items(), ids=list(_ABSENT_METHODS))
def test_a_method_that_is_not_there_names_the_nearest_or_the_reason(tc: Any, name: str, hint: str) -> None:
    x = tc.ones(2)
    with pytest.raises(AttributeError) as caught:
        getattr(x, name)
    assert hint in "".join(caught.value.__notes__)
    assert (x + 1).tolist() == [2, 2]


def test_an_operation_that_only_the_client_knows_is_refused_by_the_server_by_name(tc: Any) -> None:
    from tclient._issue import call_builtin

    x = tc.ones(2)
    with pytest.raises(AttributeError, match="does not have the operation `addd`"):
        call_builtin("addd", x, x)
    assert x.tolist() == [1, 1]


def test_errors_name_the_line_of_the_caller(tc: Any) -> None:
    wrong = tc.ones(2, 3) @ tc.ones(2)  # this line
    with pytest.raises(RuntimeError) as caught:
        wrong.tolist()
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    error: Any = caught.value
    assert error.filename == __file__
    assert source[error.lineno - 1].endswith("# this line")
    assert error.operation == "Tensor.__matmul__"


def test_a_hundred_wrong_calls_leave_the_session_as_it_was(tc: Any) -> None:
    x = tc.arange(4)
    for number in range(100):
        wrong = x.view(number + 5)
        with pytest.raises(RuntimeError, match="is invalid for input of size 4"):
            wrong.tolist()
    assert x.tolist() == [0, 1, 2, 3]
