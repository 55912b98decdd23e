"""numpy's arrays and torch's own tensors beside ours: as arguments, as operands, and as what ours become."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch as local

from tests.semantics.harness import Program, Rows, Watch, assert_same

rows = Rows()


@rows.row("arrays")
def tensors_become_arrays(torch: Any, t: Watch) -> None:
    for dtype in (torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64):
        x = torch.tensor([[1, 0, 2], [3, 4, 5]]).to(dtype)
        t.show(x.numpy(), np.asarray(x), np.array(x), np.asarray(x, dtype=np.float64), x.T.numpy().copy(), x[0].numpy())
        t.show(
            np.array(x[1, 2]),
            x[:, ::2].numpy().copy(),
            np.asarray(x[:0]).copy(),
            np.stack([x, x]),
            np.concatenate([x, x]),
        )
    t.tries(
        lambda: torch.ones(2, dtype=torch.bfloat16).numpy(),
        lambda: torch.ones(2, requires_grad=True).numpy(),
        lambda: np.asarray(torch.ones(2, requires_grad=True)),
        lambda: torch.ones(2, requires_grad=True).detach().numpy(),
        lambda: torch.ones(2, requires_grad=True).numpy(force=True),
        lambda: torch.tensor([1j]).conj().numpy(),
        lambda: torch.tensor([1j]).conj().numpy(force=True),
        lambda: np.asarray(torch.tensor(3)).shape,
        lambda: np.array([torch.tensor(1.0), torch.tensor(2.0)]).tolist(),
        lambda: np.float64(torch.tensor(2.5)),
        lambda: np.zeros(3)[torch.tensor(1)].item(),
        lambda: np.arange(5)[torch.tensor([1, 3])],
        lambda: np.arange(6).reshape(2, 3)[torch.tensor(0)],
        lambda: np.array(torch.ones(2), dtype="int8"),
        lambda: np.zeros(torch.tensor(3)),
    )


@rows.row("arrays")
def arrays_become_tensors(torch: Any, t: Watch) -> None:
    base = np.arange(12).reshape(3, 4)
    for kind in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?", "c8", "c16", "u2", "u4", "u8"):
        a = base.astype(kind)
        t.tries(
            lambda: torch.from_numpy(a),
            lambda: torch.tensor(a),
            lambda: torch.as_tensor(a, dtype=torch.float32),
            lambda: torch.asarray(a),
            lambda: torch.tensor(a[0]),
            lambda: torch.from_numpy(a[:0].copy()),
            lambda: torch.tensor(a[1, 1]) if kind != "u8" else None,
        )
    # What a copy of an array that is not contiguous looks like in memory is not compared.
    t.tries(
        lambda: torch.tensor(base.T).contiguous(),
        lambda: torch.tensor(base[:, ::2]).contiguous(),
        lambda: torch.tensor(base[::-1].copy()),
        lambda: torch.tensor(base[::-1]),
        lambda: torch.from_numpy(base[:, ::-1]),
        lambda: torch.from_numpy(np.array("a")),
        lambda: torch.from_numpy(np.array(["a", "b"])),
        lambda: torch.from_numpy(np.array([None])),
        lambda: torch.tensor(np.array([object()])),
        lambda: torch.from_numpy(np.array([1, 2], dtype=">i4")),
        lambda: torch.from_numpy([1, 2]),
        lambda: torch.from_numpy(np.float64(2)),
        lambda: torch.from_numpy(np.datetime64("2020-01-01")),
        lambda: torch.tensor(np.array(3.5)),
        lambda: torch.from_numpy(np.array(3)),
        lambda: torch.Tensor(base),
        lambda: torch.FloatTensor(base.astype("f4")),
        lambda: torch.tensor([base[0], base[1]]),
        lambda: torch.tensor([np.float64(1), 2]),
        lambda: torch.tensor([np.int32(1), np.int32(2)]),
        lambda: torch.tensor([np.bool_(True), False]),
        lambda: torch.tensor(np.ma.array([1.0, 2.0])),
        lambda: torch.cat([torch.ones(2), np.ones(2)]),
        lambda: torch.add(torch.ones(2), np.ones(2)),
        lambda: torch.ones(2).add(np.float32(2)),
        lambda: torch.where(torch.tensor([True, False]), np.float64(1), 2.0),
        lambda: torch.nn.functional.relu(np.ones(2)),
    )


@rows.row("operands")
def arrays_as_operands(torch: Any, t: Watch) -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    i = torch.tensor([1, 2])
    for a in (np.array([[1.0, 0.5], [2.0, 4.0]]), np.array([1, 2]), np.float32(2), np.int64(3), np.array(2.0)):
        for y in (x, i):
            t.tries(
                lambda: y + a,
                lambda: a + y,
                lambda: y - a,
                lambda: a - y,
                lambda: y * a,
                lambda: a * y,
                lambda: y / a,
                lambda: a / y,
                lambda: y**a,
                lambda: a**y,
                lambda: y // a,
                lambda: y % a,
                lambda: y > a,
                lambda: a > y,
                lambda: y == a,
                lambda: a == y,
                lambda: y != a,
            )
    array = np.ones((2, 2))
    t.tries(lambda: x @ array, lambda: array @ x, lambda: np.dot(array, x), lambda: x & np.array([1, 2]))

    def add_to_array() -> Any:
        total = np.zeros((2, 2))
        total += x
        return total

    def add_to_tensor() -> Any:
        y = x.clone()
        y += array
        return y

    def assign_to_array() -> Any:
        target = np.zeros((2, 2))
        target[0] = x[0]
        target[:, 1] = x[:, 0] * 2
        target[1, 0] = x[0, 0]
        return target

    t.tries(add_to_array, add_to_tensor, assign_to_array)


@rows.row("functions")
def functions_of_numpy_and_math(torch: Any, t: Watch) -> None:
    x = torch.tensor([[1.0, 4.0], [9.0, 16.0]])
    t.tries(
        lambda: np.sqrt(x),
        lambda: np.sin(x),
        lambda: np.add(x, x),
        lambda: np.add(x, 1),
        lambda: np.isfinite(x),
        lambda: np.sum(x),
        lambda: np.mean(x),
        lambda: np.max(x),
        lambda: np.argmax(x),
        lambda: np.abs(-x),
        lambda: np.round(x),
        lambda: np.transpose(x).contiguous(),  # type: ignore[attr-defined]  # numpy asks the tensor
        lambda: np.shape(x),
        lambda: np.ndim(x),
        lambda: np.allclose(x, x),
        lambda: np.array_equal(x, x),
        lambda: np.linalg.norm(x).item(),
        lambda: np.linspace(0, x[0, 0].item(), 3),
        lambda: np.linalg.inv(x),
        lambda: np.where(x > 3, 1, 0),
        lambda: np.isclose(x, x),
        lambda: np.vstack([x, x]),
        lambda: np.multiply.reduce(x),
        lambda: np.testing.assert_array_equal(x, x),
        lambda: np.testing.assert_allclose(x, x),
        lambda: np.testing.assert_allclose(x.numpy(), x.tolist()),
        lambda: math.sqrt(x[1, 1]),
        lambda: math.floor(x[0, 0]),
        lambda: sum(x[0]),
        lambda: statistics_mean(x[0]),
    )


def statistics_mean(x: Any) -> Any:
    """Python's own mean, of the elements."""
    return sum(x.tolist()) / len(x)


@rows.parametrize()
def test_numpy_and_tensors_go_together_as_with_torch(program: Program, synchronous: bool, tc: ModuleType) -> None:
    assert_same(program, tc, synchronous=synchronous)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", "complex64", "float16"])
def test_dlpack_hands_out_a_copy(tc: Any, dtype: str) -> None:
    x = tc.tensor([[1, 0], [3, 1]], dtype=getattr(tc, dtype)).t()
    of_numpy, of_torch = np.from_dlpack(x), local.from_dlpack(x)  # type: ignore[attr-defined]
    assert (of_numpy.tolist(), of_numpy.dtype) == (x.tolist(), np.dtype(dtype))
    assert (of_torch.tolist(), of_torch.dtype) == (x.tolist(), getattr(local, dtype))
    of_torch[0, 0] = 0
    assert x[0, 0].item() == 1
    assert tc.from_dlpack(x).tolist() == x.tolist()
    assert x.__dlpack_device__() == local.ones(1).__dlpack_device__()


_REFUSED_COPIES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no copy": (lambda tc: np.from_dlpack(tc.ones(2), copy=False), "without a copy"),
    "a gradient": (
        lambda tc: np.from_dlpack(tc.ones(2, requires_grad=True)),
        "Can't export tensors that require gradient",
    ),
    "a conjugate": (lambda tc: np.from_dlpack(tc.ones(2, dtype=tc.cfloat).conj()), "conjugate bit"),
    "another place": (lambda tc: tc.ones(2).__dlpack__(dl_device=(2, 0)), "memory of this process only"),
    "a dtype": (lambda tc: np.from_dlpack(tc.ones(2, dtype=tc.bfloat16)), "bfloat16"),
}


@pytest.mark.parametrize("name", _REFUSED_COPIES)
def test_dlpack_refuses_what_it_cannot_copy(tc: Any, name: str) -> None:
    program, why = _REFUSED_COPIES[name]
    with pytest.raises(BufferError, match=why):
        program(tc)


def test_numpy_is_told_that_there_is_no_way_without_a_copy(tc: Any) -> None:
    with pytest.raises(ValueError, match="Unable to avoid copy"):
        np.asarray(tc.ones(2), copy=False)


def test_what_hands_out_its_memory_by_dlpack_becomes_a_tensor(tc: Any) -> None:
    for given in (np.ones(2), np.arange(6.0).reshape(2, 3).T, local.arange(3), np.array([True, False])):
        ours, theirs = tc.from_dlpack(given), local.from_dlpack(given)  # type: ignore[attr-defined]
        assert (ours.tolist(), ours.stride(), str(ours.dtype)) == (theirs.tolist(), theirs.stride(), str(theirs.dtype))
    for module in (tc, local):
        with pytest.raises(RuntimeError, match="invalid capsule"):
            module.from_dlpack([1.0])
        with pytest.raises(BufferError, match="DLPack only supports"):
            module.from_dlpack(np.array(["a"]))


_TENSORS = {
    "float": local.arange(6.0).view(2, 3),
    "transposed": local.arange(6.0).view(2, 3).t(),
    "strided": local.arange(12.0)[::2],
    "int": local.arange(3),
    "bool": local.tensor([True, False]),
    "bfloat16": local.ones(2, dtype=local.bfloat16),
    "complex conjugate": local.tensor([1 + 2j]).conj(),
    "negative bit": local.tensor([1 + 2j]).conj().imag,
    "scalar": local.tensor(2.5),
    "empty": local.zeros(0, 3),
    "with gradients": local.ones(2, requires_grad=True),
}


@pytest.mark.parametrize("given", _TENSORS.values(), ids=list(_TENSORS))
def test_tensors_of_torch_are_taken_as_input(tc: Any, given: local.Tensor) -> None:
    taken = [tc.as_tensor(given), tc.zeros_like(given) + given, tc.clone(given)]
    for ours in taken:
        assert str(ours.dtype) == str(given.dtype)
        assert tuple(ours.shape) == tuple(given.shape)
        assert ours.tolist() == given.tolist()


def test_tensors_of_torch_are_operands_on_both_sides(tc: Any) -> None:
    ours, theirs = tc.tensor([1.0, 2.0]), local.tensor([10.0, 20.0])
    assert (ours + theirs).tolist() == [11, 22]
    assert (ours @ theirs).item() == 50
    assert ours.add(theirs).tolist() == [11, 22]
    assert ours[local.tensor([1])].tolist() == [2]
    assert tc.cat([ours, theirs]).tolist() == [1, 2, 10, 20]
    assert ours.to(local.float64).dtype is tc.float64
    assert tc.zeros(2, dtype=local.int32, device=local.device("cpu")).dtype is tc.int32
    ours[0] = theirs[1]
    assert ours.tolist() == [20, 2]
    assert local.tensor(ours.numpy()).tolist() == [20, 2]
    assert local.as_tensor(np.asarray(ours)).tolist() == [20, 2]


def test_a_sequence_of_any_class_is_data(tc: Any) -> None:
    from array import array
    from collections import UserList, deque

    for data in (array("d", [1, 2]), deque([1.0, 2.0]), UserList([1.0, 2.0]), memoryview(array("d", [1, 2]))):
        assert tc.tensor(data).tolist() == local.tensor(data).tolist()
        assert str(tc.tensor(data).dtype) == str(local.tensor(data).dtype)
