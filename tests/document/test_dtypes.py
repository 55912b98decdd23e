"""Row T8: every dtype of the document, its names, and how it is changed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.document.transcript import Program, Rows, Transcript, assert_same

rows = Rows()


NAMES = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "complex64",
    "complex128",
    "double",
    "float",
    "half",
    "long",
    "int",
    "short",
    "cfloat",
    "cdouble",
]


@rows.row("T8")
def the_dtype_of_a_tensor(torch: Any, t: Transcript) -> None:
    x = torch.tensor([[1, 2], [3, 4], [5, 10]], dtype=torch.int32)
    t.show(x.dtype, x.dtype == torch.int32, x.dtype is torch.int, x.dtype != torch.int64, x)
    t.prints(x.dtype)


@rows.row("T8")
def ones_of_a_dtype(torch: Any, t: Transcript) -> None:
    t.show(torch.ones([2, 3], dtype=torch.float32))
    for name in NAMES:
        t.show(torch.ones([2, 3], dtype=getattr(torch, name)))


@rows.row("T8")
def every_dtype_has_its_properties(torch: Any, t: Transcript) -> None:
    for name in NAMES:
        dtype = getattr(torch, name)
        t.show(dtype, str(dtype), dtype.is_complex, torch.zeros(1, dtype=dtype).element_size())


@rows.row("T8")
def type_and_double(torch: Any, t: Transcript) -> None:
    a = torch.tensor([1, 2], dtype=torch.int32)
    t.show(a, a.type(torch.float), a.double())
    t.show(a.type(), a.type("torch.DoubleTensor"), a.type(torch.float).type())


@rows.row("T8")
def every_conversion_method(torch: Any, t: Transcript) -> None:
    a = torch.tensor([-1.7, 0.0, 2.5])
    t.show(a.double(), a.float(), a.half(), a.bfloat16(), a.long(), a.int(), a.short(), a.char(), a.bool())
    t.show(a.abs().byte(), a.to(torch.int64), a.to(dtype=torch.float16), a.type_as(torch.zeros(1, dtype=torch.int8)))


@rows.row("T8")
def every_dtype_to_every_dtype(torch: Any, t: Transcript) -> None:
    names = NAMES[:10]
    source = torch.tensor([0.0, 1.0, 2.0])
    for one in names:
        x = source.to(getattr(torch, one))
        for other in names:
            t.show(x.to(getattr(torch, other)))


@rows.row("T8")
def a_conversion_that_has_nothing_to_do_returns_the_same_memory(torch: Any, t: Transcript) -> None:
    a = torch.zeros(3)
    b = a.float()
    b[0] = 5
    c = a.double()
    c[1] = 6
    t.show(a, b, c)


@rows.row("T8")
def tensor_types(torch: Any, t: Transcript) -> None:
    a = torch.tensor([1, 2], dtype=torch.int32, device="cpu")
    for name in ["Float", "Double", "Half", "BFloat16", "Byte", "Char", "Short", "Int", "Long", "Bool"]:
        kind = getattr(torch, f"{name}Tensor")
        t.show(kind([1, 0]), kind([[1, 2], [3, 4]]).dtype, kind(2, 3).shape, kind())
        t.show(
            a.type(kind), a.type(kind).type(), isinstance(a, kind), isinstance(a.type(kind), kind), isinstance(1, kind)
        )


@rows.row("T8")
def promotion(torch: Any, t: Transcript) -> None:
    i, h, f, d = torch.arange(3), torch.ones(3).half(), torch.ones(3), torch.ones(3).double()
    t.show(i + h, i + f, h + f, f + d, i / 2, i // 2, i * 1.5, torch.ones(3, dtype=torch.bool) + i)
    t.show(
        torch.result_type(i, 1.5), torch.promote_types(torch.int8, torch.uint8), torch.can_cast(torch.float, torch.int)
    )


@rows.row("T8")
def limits_of_dtypes(torch: Any, t: Transcript) -> None:
    f, i = torch.finfo(torch.float32), torch.iinfo(torch.int16)
    t.show(f.max, f.min, f.eps, f.tiny, f.bits, i.max, i.min, i.bits, torch.finfo(torch.bfloat16).eps)
    t.fails(lambda: torch.iinfo(torch.float32))
    t.fails(lambda: torch.finfo(torch.int32))


@rows.row("T8")
def default_dtype(torch: Any, t: Transcript) -> None:
    t.show(torch.get_default_dtype())
    torch.set_default_dtype(torch.float64)
    try:
        t.show(torch.get_default_dtype(), torch.ones(2), torch.tensor([1.5]))
    finally:
        torch.set_default_dtype(torch.float32)
    t.show(torch.ones(2))
    t.fails(lambda: torch.set_default_dtype(torch.int32))


@rows.row("T8")
def wrong_dtypes_are_refused(torch: Any, t: Transcript) -> None:
    a = torch.tensor([1, 2])
    t.fails(lambda: a.type("torch.NoTensor"))
    t.fails(lambda: a.to("float32"))
    t.fails(a.mean)
    t.fails(lambda: torch.ones(2, requires_grad=True, dtype=torch.int64))
    t.show(a)


@rows.parametrize()
def test_dtypes_do_what_torch_does(program: Program, synchronous: bool, tc: Any) -> None:
    assert_same(program, tc, synchronous=synchronous)


def test_a_dtype_that_torch_does_not_have_is_no_attribute(tc: Any) -> None:
    with pytest.raises(AttributeError, match="float31"):
        _ = tc.float31
