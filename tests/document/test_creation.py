"""Rows T1, T2 and T7: tensors from data, from factories, and from numpy and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.document.transcript import Program, Rows, Transcript, assert_same

rows = Rows()

# ---------------------------------------------------------------- T1: torch.tensor


@rows.row("T1")
def nested_lists(torch: Any, t: Transcript) -> None:
    t.show(torch.tensor([[1.0, -1.0], [1.0, -1.0]]))
    t.show(torch.tensor([[1, -1], [1, -1]]))
    t.show(torch.tensor([[[1], [2]], [[3], [4]]]))


@rows.row("T1")
def numpy_array(torch: Any, t: Transcript) -> None:
    t.show(torch.tensor(np.array([[1, 2, 3], [4, 5, 6]])))
    t.show(torch.tensor(np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int32)))
    t.show(torch.tensor(np.array([1.5, 2.5])), torch.tensor(np.array([1.5, 2.5], dtype=np.float32)))


@rows.row("T1")
def sequences(torch: Any, t: Transcript) -> None:
    t.show(torch.tensor((1, 2, 3)), torch.tensor(range(4)), torch.tensor([(1, 2), (3, 4)]))
    t.show(torch.tensor([range(2), range(2)]), torch.tensor([1, 2.5]), torch.tensor([True, 2]))
    t.show(torch.tensor([True, False]), torch.tensor([1, 2j]), torch.tensor([]), torch.tensor([[], []]))


@rows.row("T1")
def one_number(torch: Any, t: Transcript) -> None:
    t.show(torch.tensor(3), torch.tensor(3.14159), torch.tensor(True), torch.tensor(1 + 2j))
    t.show(torch.tensor(np.float64(0.1)), torch.tensor(np.int16(7)), torch.tensor(np.array(5)))
    t.show(torch.tensor(float("nan")), torch.tensor([float("inf"), -float("inf"), float("nan"), 1.0]))


@rows.row("T1")
def a_dtype_of_choice(torch: Any, t: Transcript) -> None:
    t.show(torch.tensor([[1, 2], [3, 4]], dtype=torch.float64), torch.tensor([0, 1, 2], dtype=torch.bool))
    t.show(torch.tensor([1.7, -1.7], dtype=torch.int32), torch.tensor([1, 2], dtype=torch.bfloat16))
    t.show(torch.tensor(np.array([1.5, 2.5]), dtype=torch.float16), torch.tensor([1.0], requires_grad=True))


@rows.row("T1")
def numpy_numbers_in_a_list(torch: Any, t: Transcript) -> None:
    t.show(torch.tensor([np.int64(1), np.int64(2)]), torch.tensor([np.float32(1.5), np.float32(2.5)]))
    t.show(torch.tensor([np.float64(1.5), np.float64(2.5)]))


@rows.row("T1")
def arrays_in_any_memory_order(torch: Any, t: Transcript) -> None:
    a = np.arange(12).reshape(3, 4)
    t.show(torch.tensor(a.T), torch.tensor(np.asfortranarray(a)), torch.tensor(a[:, ::2]), torch.tensor(a[1:2]))


@rows.row("T1")
def the_data_is_copied(torch: Any, t: Transcript) -> None:
    a = np.zeros(3)
    x = torch.tensor(a)
    a[0] = 9
    t.show(x)
    values = [1, 2, 3]
    y = torch.tensor(values)
    values[0] = 9
    t.show(y)


@rows.row("T1")
def a_tensor_of_tensors(torch: Any, t: Transcript) -> None:
    x = torch.tensor([1.0, 2.0])
    t.show(torch.tensor([x[0], x[1]]), torch.stack([x, x]))
    t.warns(lambda: torch.tensor(x))


@rows.row("T1")
def ragged_lists_are_refused(torch: Any, t: Transcript) -> None:
    t.fails(lambda: torch.tensor([[1, 2], [3]]))
    t.fails(lambda: torch.tensor([[1, 2], 3]))
    t.fails(lambda: torch.tensor([1, [2]]))


@rows.row("T1")
def what_is_no_number_is_refused(torch: Any, t: Transcript) -> None:
    t.fails(lambda: torch.tensor("text"))
    t.fails(lambda: torch.tensor(["a", "b"]))
    t.fails(lambda: torch.tensor(None))
    t.fails(lambda: torch.tensor([1, None]))
    t.fails(torch.tensor)
    t.fails(lambda: torch.tensor({"a": 1}))


@rows.row("T1")
def arrays_that_torch_has_no_dtype_for_are_refused(torch: Any, t: Transcript) -> None:
    t.fails(lambda: torch.tensor(np.array(["a", "b"])))
    t.fails(lambda: torch.tensor(np.array([None, 1], dtype=object)))


@rows.row("T1")
def numbers_that_do_not_fit_are_refused(torch: Any, t: Transcript) -> None:
    t.fails(lambda: torch.tensor([2**63]))
    t.fails(lambda: torch.tensor(2**70))
    t.fails(lambda: torch.tensor([300], dtype=torch.uint8))
    t.fails(lambda: torch.tensor([1j], dtype=torch.float32))


# ---------------------------------------------------------------- T2: factories


@rows.row("T2")
def empty_ones_and_zeros_in_both_spellings(torch: Any, t: Transcript) -> None:
    t.form(torch.empty(3, 4), torch.empty([3, 4]), torch.empty((3, 4)), torch.empty(0), torch.empty(()))
    t.show(torch.ones([3, 4]), torch.ones(3, 4), torch.ones((3, 4)), torch.ones(torch.Size([3, 4])))
    t.show(torch.zeros([3, 4]), torch.zeros(3, 4), torch.zeros(2, 0), torch.zeros(()))
    t.show(torch.ones(2, 3, dtype=torch.int64), torch.zeros(size=(2, 2), dtype=torch.bool))


@rows.row("T2")
def rand(torch: Any, t: Transcript) -> None:
    torch.manual_seed(0)
    t.show(torch.rand([3, 4]), torch.rand(2, 3), torch.rand((2,), dtype=torch.float64), torch.rand(()))


@rows.row("T2")
def randn(torch: Any, t: Transcript) -> None:
    torch.manual_seed(1)
    t.show(torch.randn([3, 4]), torch.randn(2, 3, 5), torch.randn(20, dtype=torch.float64))


@rows.row("T2")
def randint(torch: Any, t: Transcript) -> None:
    torch.manual_seed(2)
    t.show(torch.randint(low=0, high=10, size=[3, 4]), torch.randint(3, 10, (2, 2)), torch.randint(10, (5,)))
    t.show(torch.randint(3, 10, (2, 2), dtype=torch.int32))


@rows.row("T2")
def other_random_factories(torch: Any, t: Transcript) -> None:
    torch.manual_seed(3)
    x = torch.zeros(2, 3)
    t.show(torch.randperm(8), torch.rand_like(x), torch.randn_like(x), torch.randint_like(x, 10))
    t.show(torch.normal(0.0, 1.0, (3,)), torch.bernoulli(torch.full((6,), 0.5)), torch.multinomial(torch.ones(4), 2))
    t.show(x.uniform_(-1, 1), x.normal_())


@rows.row("T2")
def the_same_seed_gives_the_same_numbers_again(torch: Any, t: Transcript) -> None:
    torch.manual_seed(42)
    first = torch.rand(4)
    torch.manual_seed(42)
    t.show(first, torch.equal(first, torch.rand(4)), torch.equal(first, torch.rand(4)), torch.initial_seed())


@rows.row("T2")
def arange(torch: Any, t: Transcript) -> None:
    t.show(torch.arange(12), torch.arange(2, 12), torch.arange(0, 12, 3), torch.arange(5, 0, -1), torch.arange(0))
    t.show(torch.arange(1.5), torch.arange(0, 1, 0.25), torch.arange(3, dtype=torch.float64))
    t.show(torch.arange(start=1, end=4, step=2), torch.arange(end=3))


@rows.row("T2")
def other_factories(torch: Any, t: Transcript) -> None:
    t.show(torch.eye(3), torch.eye(2, 3, dtype=torch.int64), torch.linspace(0, 1, 5), torch.linspace(-1, 1, steps=4))
    t.show(torch.full((2, 2), 7), torch.full((2, 2), 7.0), torch.full([2], True), torch.logspace(0, 2, 3))
    x = torch.tensor([[1, 2], [3, 4]])
    t.show(torch.zeros_like(x), torch.ones_like(x, dtype=torch.float32), torch.full_like(x, 5))
    t.form(torch.empty_like(x))


@rows.row("T2")
def sizes_that_cannot_be_are_refused(torch: Any, t: Transcript) -> None:
    t.fails(lambda: torch.ones([-1, 2]))
    t.fails(lambda: torch.zeros(2, -3))
    t.fails(lambda: torch.empty(-1))
    t.fails(lambda: torch.ones("3"))
    t.fails(lambda: torch.ones(2.5))
    t.fails(lambda: torch.ones([1, "a"]))
    t.fails(torch.ones)
    t.fails(lambda: torch.eye(-1))


@rows.row("T2")
def wrong_ranges_are_refused(torch: Any, t: Transcript) -> None:
    t.fails(lambda: torch.randint(10, 3, (2, 2)))
    t.fails(lambda: torch.randint(0, 10))
    t.fails(lambda: torch.arange(0, 5, -1))
    t.fails(lambda: torch.arange(0, 5, 0))
    t.fails(lambda: torch.rand(2, dtype=torch.int64))
    t.fails(lambda: torch.full((2,)))
    t.fails(lambda: torch.linspace(0, 1, -2))


@rows.row("T2")
def unknown_arguments_are_refused(torch: Any, t: Transcript) -> None:
    t.fails(lambda: torch.ones(2, colour="red"))
    t.fails(lambda: torch.zeros(2, dtype="float32"))
    t.fails(lambda: torch.rand(2, device="nowhere"))


# ---------------------------------------------------------------- T7: numpy in and out


@rows.row("T7")
def to_numpy(torch: Any, t: Transcript) -> None:
    a = torch.ones(5)
    b = a.numpy()
    t.show(b, repr(b), type(b).__name__, torch.arange(6).reshape(2, 3).numpy(), torch.tensor(3).numpy())
    t.show(torch.arange(6).reshape(2, 3).t().numpy(), torch.ones(0, 3).numpy(), np.asarray(a), np.array(a + 1))


@rows.row("T7")
def a_column_as_numpy(torch: Any, t: Transcript) -> None:
    z = torch.tensor([[-2.5871205], [7.3690367], [-2.4918075]])
    t.show(z.numpy(), repr(z.numpy()))


@rows.row("T7")
def from_numpy(torch: Any, t: Transcript) -> None:
    a = np.ones(5)
    b = torch.from_numpy(a)
    t.show(b)
    t.prints(b)


@rows.row("T7")
def from_numpy_keeps_the_dtype(torch: Any, t: Transcript) -> None:
    for name in ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"):
        t.show(torch.from_numpy(np.array([0, 1, 2], dtype=name)))


@rows.row("T7")
def there_and_back(torch: Any, t: Transcript) -> None:
    a = np.random.default_rng(0).standard_normal((3, 4))
    back = torch.from_numpy(a).numpy()
    t.show(
        back, bool((back == a).all()), torch.from_numpy(a.T), torch.from_numpy(a[:, 1]), torch.from_numpy(np.array(2.0))
    )
    t.show(torch.as_tensor(a), torch.as_tensor([1, 2]))


@rows.row("T7")
def numpy_and_tensors_mixed(torch: Any, t: Transcript) -> None:
    # Arrays are in the memory of a host, and so are their partners.
    x, i = torch.tensor([1.0, 2.5, -3.0], device="cpu"), torch.arange(4, device="cpu")
    t.show(np.sin(x), np.stack([x, x]), np.concatenate([x, x]), np.array([x, x]).shape)
    t.show(x + np.ones(3), x * np.ones(3, dtype=np.float32), np.float64(2) * x, np.int64(2) - i)
    t.fails(lambda: np.mean(x))
    t.fails(lambda: np.ones(3) * x)
    t.show(x == np.ones(3), x[np.int64(1)], x[np.array([0, 2])], x[np.array([True, False, True])])


@rows.row("T7")
def what_from_numpy_refuses(torch: Any, t: Transcript) -> None:
    t.fails(lambda: torch.from_numpy([1, 2, 3]))
    t.fails(lambda: torch.from_numpy(np.array(["a"])))
    t.fails(lambda: torch.from_numpy(np.array([None], dtype=object)))
    t.fails(lambda: torch.from_numpy(np.arange(4)[::-1]))
    t.fails(lambda: torch.from_numpy(np.arange(4, dtype=">i4")))


@rows.row("T7")
def what_numpy_refuses(torch: Any, t: Transcript) -> None:
    t.fails(lambda: torch.ones(2, requires_grad=True).numpy())
    t.fails(lambda: torch.ones(2, dtype=torch.bfloat16).numpy())
    t.show(torch.ones(2, requires_grad=True).detach().numpy())


@rows.parametrize()
def test_creating_tensors_does_what_torch_does(program: Program, synchronous: bool, tc: Any) -> None:
    assert_same(program, tc, synchronous=synchronous)
