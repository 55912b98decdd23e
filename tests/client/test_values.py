"""Arguments and results of every kind: the client gives what torch gives, text and errors included."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch


def outcome(program: Callable[[Any], Any], module: Any) -> str:
    """What a program gives, or raises, as a text that is the same for both."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return repr(program(module))
    except Exception as error:
        kind = type(error).__name__.removeprefix("Tensor")
        return f"{kind}: {str(error).splitlines()[0]}".replace("module 'torch'", "module 'tclient'")


PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "numpy scalars keep their dtypes": lambda m: m.tensor([np.int64(1), np.int64(2)]),
    "numpy scalars among numbers": lambda m: m.tensor([[np.float32(1.5), 2], [3, True]]).dtype,
    "numpy doubles among numbers": lambda m: m.tensor([np.float64(3), 1.0]),
    "a numpy scalar": lambda m: m.tensor(np.float32(3)),
    "a numpy scalar as an operand": lambda m: m.ones(2) * np.float64(3),
    "a long list of ints": lambda m: m.tensor(list(range(100))).sum(),
    "a long list of floats": lambda m: m.tensor([float(i) for i in range(100)]).dtype,
    "a long list of bools": lambda m: m.tensor([[True] * 30] * 2).dtype,
    "a long list of complex": lambda m: m.tensor([1j] * 40).dtype,
    "a long list with a wanted dtype": lambda m: m.tensor([1] * 40, dtype=m.float16).dtype,
    "a long list that does not fit": lambda m: m.tensor([300] * 40, dtype=m.uint8),
    "a long list cut to integers": lambda m: m.tensor([1.5] * 40, dtype=m.int32).sum(),
    "a long list beyond 64 bits": lambda m: m.tensor([2**63] * 40),
    "a deep list": lambda m: m.tensor([[[[1.0, 2.0]] * 5] * 5]).shape,
    "tensors in a list": lambda m: m.tensor([m.tensor(1), m.tensor(2.5)]),
    "a ragged list": lambda m: m.tensor([[1, 2], [3]]),
    "a string": lambda m: m.tensor("a"),
    "a list of strings": lambda m: m.tensor(["a"]),
    "an empty list": lambda m: m.tensor([[], []]),
    "mixed numbers": lambda m: m.tensor([[1.0, 2], [True, 1j]]),
    "strings of numpy": lambda m: m.tensor(np.array(["a"])),
    "objects of numpy": lambda m: m.tensor(np.array([object()])),
    "long doubles": lambda m: m.tensor(np.arange(3, dtype=np.longdouble)),
    "a reversed array": lambda m: m.tensor(np.arange(3)[::-1]),
    "a transposed array": lambda m: m.tensor(np.arange(6).reshape(2, 3).T),
    "a big-endian array": lambda m: m.from_numpy(np.arange(3, dtype=">i4")),
    "from_numpy of a list": lambda m: m.from_numpy([1]),
    "an array of every dtype": lambda m: [
        m.from_numpy(np.ones(2, kind)).dtype
        for kind in ("f2", "f4", "f8", "i1", "i8", "u1", "u2", "u8", "?", "c8", "c16")
    ],
    "a tensor and an array": lambda m: m.ones(3) + np.ones(3),
    "an array and a tensor": lambda m: np.ones(3) * m.ones(3),
    "equal to an array": lambda m: m.ones(3) == np.ones(3),
    "a ufunc of a tensor": lambda m: np.sin(m.zeros(3)),
    "a comparing ufunc": lambda m: np.greater(m.ones(3), 0),
    "an array of a tensor": lambda m: np.asarray(m.ones(3), dtype="f8"),
    "a number too large to add": lambda m: m.ones(3) + 2**64,
    "a number too large for an index": lambda m: m.ones(3)[2**70],
    "a number too large for a tensor": lambda m: m.tensor(2**70),
    "a large unsigned number": lambda m: m.ones(3) + 2**63,
    "equal to a string": lambda m: m.ones(3) == "a",
    "different from None": lambda m: m.ones(3) != None,  # noqa: E711
    "plus a string": lambda m: m.ones(3) + "a",
    "a list plus": lambda m: [1] + m.ones(1),  # noqa: RUF005
    "matmul with a number": lambda m: m.ones(3) @ 2,
    "less than a string": lambda m: m.ones(3) < "a",
    "divmod": lambda m: divmod(m.ones(2), 2),
    "an index array": lambda m: m.arange(5)[np.array([0, 1])],
    "an index range": lambda m: m.arange(5)[range(2)],
    "an index mask": lambda m: m.arange(3)[m.tensor([True, False, True])],
    "an index of every kind": lambda m: m.arange(24).reshape(2, 3, 4)[None, ..., [0, 2], 1:3].shape,
    "a tensor in a slice": lambda m: m.arange(5)[m.tensor(1) : m.tensor(4) : 2],
    "a negative step": lambda m: m.ones(3)[::-1],
    "bfloat16 to numpy": lambda m: m.ones(2).bfloat16().numpy(),
    "bfloat16 to a list": lambda m: m.tensor([1.5, -2.25]).bfloat16().tolist(),
    "float8 to a list": lambda m: m.ones(2).to(m.float8_e5m2).tolist(),
    "a conjugate to numpy": lambda m: m.ones(2).cfloat().conj().numpy(),
    "a negative view to numpy": lambda m: m.ones(2).cfloat().conj().imag.numpy(),
    "a conjugate to a list": lambda m: m.tensor([1 + 2j]).conj().tolist(),
    "gradients to numpy": lambda m: m.ones(2, requires_grad=True).numpy(),
    "gradients to numpy by force": lambda m: m.ones(2, requires_grad=True).numpy(force=True),
    "no dimensions": lambda m: (m.tensor(3).numpy(), m.tensor(True).tolist(), m.tensor(2j).item()),
    "no elements": lambda m: (m.zeros(0, 3).numpy(), m.ones(2, 0).tolist()),
    "format": lambda m: f"{m.ones(1)[0]:.2f} {m.ones(2)}",
    "format of many": lambda m: f"{m.ones(3):.2f}",
    "contains": lambda m: (5 in m.ones(3), 1 in m.ones(3)),
    "contains a string": lambda m: "a" in m.ones(3),
    "length of no dimensions": lambda m: len(m.ones(())),
    "iteration of no dimensions": lambda m: list(m.ones(())),
    "reversed": lambda m: list(reversed(m.arange(3))),
    "bool of many": lambda m: bool(m.ones(2)),
    "float of many": lambda m: float(m.ones(2)),
    "an index": lambda m: [1, 2, 3][m.tensor(1)],
    "named fields": lambda m: m.arange(4.0).reshape(2, 2).max(dim=0),
    "named fields with out": lambda m: m.max(m.eye(2), 0, out=(m.empty(2), m.empty(2, dtype=m.long))),
    "several results": lambda m: m.var_mean(m.ones(3)),
    "a list of results": lambda m: m.meshgrid(m.arange(2), m.arange(2), indexing="ij"),
    "a tuple of results": lambda m: m.split(m.arange(5), 2),
    "an unknown number": lambda m: m.unique(m.tensor([1, 1, 2]), return_counts=True),
    "plain results": lambda m: (m.ones(2, 3).stride(), m.ones(1).is_contiguous(), m.equal(m.ones(1), m.ones(1))),
    "sizes": lambda m: (
        m.ones(2, 3).shape + (1,),  # noqa: RUF005
        m.ones(2, 3).shape[:1],
        m.ones(2, 3).size(-1),
        m.Size([2]).numel(),
    ),
    "a size of floats": lambda m: m.Size([1.5]),
    "a dimension that is not there": lambda m: m.ones(2).size(5),
    "a complex dtype of integers": lambda m: m.int32.to_complex(),
    "a complex dtype of unsigned integers": lambda m: m.uint16.to_complex(),
    "dtypes": lambda m: (m.promote_types(m.int32, m.half), m.float.to_complex(), m.long.is_signed, m.double.itemsize),
    "devices": lambda m: (
        m.device("cuda:1"),
        m.device("cuda", 1).index,
        str(m.device("cpu")),
        m.device("cpu") == "cpu",
    ),
    "an unknown device": lambda m: m.device("foo"),
    "a bad device": lambda m: m.device("cuda:-1"),
    "a device of a float": lambda m: m.device(1.5),
    "finfo": lambda m: [m.finfo(d) for d in (m.half, m.bfloat16, m.float, m.double, m.cfloat, m.float8_e4m3fn)],
    "iinfo": lambda m: [m.iinfo(d) for d in (m.int8, m.uint8, m.int64, m.uint64)],
    "finfo of ints": lambda m: m.finfo(m.int32),
    "iinfo of bools": lambda m: m.iinfo(m.bool),
    "Python's types as dtypes": lambda m: [m.ones(1, dtype=kind).dtype for kind in (float, int, bool)],
    "an old constructor": lambda m: (m.Tensor(2, 3).shape, m.Tensor([1, 2]), m.LongTensor([1, 2])),
    "an unknown keyword": lambda m: m.ones(2).add(1, foo=3),
    "a missing argument": lambda m: m.add(1),
    "a parameter's text": lambda m: m.ones(2, requires_grad=True),
    "no gradient yet": lambda m: m.ones(2).grad,
    "an attribute that is not there": lambda m: m.ones(2).foo,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_the_client_gives_what_torch_gives(tc: ModuleType, program: Callable[[Any], Any]) -> None:
    assert outcome(program, tc) == outcome(program, torch)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "bool", "complex64", "int8", "float8_e4m3fn"])
def test_a_tensor_of_torch_itself_is_taken_as_it_is(tc: ModuleType, name: str) -> None:
    theirs = torch.tensor([[0, 1], [1, 1]]).to(getattr(torch, name)).t()
    ours = tc.as_tensor(theirs)
    assert ours.dtype is getattr(tc, name)
    assert (ours.shape, ours.tolist()) == ((2, 2), theirs.tolist())


def test_a_tensor_of_torch_itself_is_an_operand(tc: ModuleType) -> None:
    assert (tc.ones(2) + torch.ones(2)).tolist() == [2.0, 2.0]


def test_a_list_that_contains_itself_is_refused(tc: ModuleType) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested"):
        tc.tensor(endless)
    with pytest.raises(ValueError, match="nested"):
        tc.cat([tc.ones(1), endless])


def test_nothing_is_lost_of_long_integers_in_lists(tc: ModuleType) -> None:
    numbers = [(1 << 62) + i for i in range(50)]
    assert tc.tensor(numbers).tolist() == numbers
    assert tc.tensor(numbers, dtype=tc.float64).tolist() == [float(number) for number in numbers]
