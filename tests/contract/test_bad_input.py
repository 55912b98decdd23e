"""Bad calls: each is answered with what is wrong and its value; the session and all others go on, and nothing leaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tests.support.raw import RawSession
from tests.support.refusals import refused
from tests.support.values import Kept, encode, tensor_data

Code = grpc.StatusCode
Calls = Callable[[RawSession], pb.Call]


def array(dtype: int = 1, shape: tuple[int, ...] = (2,), data: bytes = bytes(8), kind: int = 2) -> pb.Value:
    """An array argument as no client would send it."""
    content = pb.TensorData(shape=shape, data=data)
    content.dtype = dtype  # type: ignore[assignment]
    host = pb.HostArray(data=content)
    host.kind = kind  # type: ignore[assignment]
    return pb.Value(array=host)


def nested(depth: int, inner: pb.Value | None = None) -> pb.Value:
    value = inner or encode(1)
    for _ in range(depth):
        value = pb.Value(list=pb.Sequence(items=[value]))
    return value


def repeated_keyword(session: RawSession) -> pb.Call:
    call = session.call(5, "ones", 2, dtype=torch.int8)
    call.kwargs.append(pb.NamedValue(name="dtype", value=encode(torch.int16)))
    return call


def foreign(**fields: Any) -> pb.Value:
    """An object of the caller's program, as no client would send it."""
    return pb.Value(foreign=pb.Foreign(**{"type": "Odd", **fields}))


def memory(**fields: Any) -> pb.Value:
    return foreign(type="numpy.ndarray", memory=pb.Memory(**{"dtype": "S1", "shape": [1], "strides": [1], **fields}))


def laid_out(shape: list[int], strides: list[int], size: int = 2) -> pb.Value:
    value = array(shape=(size,), data=bytes(4 * size))
    value.array.view.CopyFrom(pb.View(shape=shape, strides=strides))
    return value


def made_of(value: pb.Value) -> Calls:
    return lambda session: session.call(5, "tensor", value)


UNKNOWN_ENUM = pb.Value()
UNKNOWN_ENUM.dtype = 999  # type: ignore[assignment]
BAD_CALLS: dict[str, tuple[Calls, str, str]] = {
    "an unknown operation": (lambda s: s.call(5, "os.system", "true"), "UNKNOWN_OPERATION", "os.system"),
    "an operation of torch that is not in the table": (lambda s: s.call(5, "load", "x"), "UNKNOWN_OPERATION", "load"),
    "an operation with a dunder in its path": (
        lambda s: s.call(5, "ones.__globals__"),
        "UNKNOWN_OPERATION",
        "ones.__globals__",
    ),
    "an operation without a name": (lambda s: s.call(5, ""), "UNKNOWN_OPERATION", "''"),
    "an operation of a very long name": (lambda s: s.call(5, "o" * 100_000), "UNKNOWN_OPERATION", "ooo"),
    "an operation of a name with a null": (lambda s: s.call(5, "ones\0"), "UNKNOWN_OPERATION", "ones"),
    "an operation index out of range": (lambda s: pb.Call(id=5, operation=12_345), "INVALID_ARGUMENT", "12345"),
    "the last operation index of all": (
        lambda s: pb.Call(id=5, operation=2**32 - 1),
        "INVALID_ARGUMENT",
        str(2**32 - 1),
    ),
    "a context index out of range": (lambda s: s.call(5, "ones", 2, context=77), "INVALID_ARGUMENT", "77"),
    "an unknown id": (lambda s: s.call(5, "Tensor.__add__", Kept(777_777), 1), "UNKNOWN_ID", "777777"),
    "an id of zero as an argument": (lambda s: s.call(5, "Tensor.__add__", Kept(0), 1), "UNKNOWN_ID", "0"),
    "the last id of all": (lambda s: s.call(5, "Tensor.__add__", Kept(2**64 - 1), 1), "UNKNOWN_ID", str(2**64 - 1)),
    "an unknown part": (lambda s: s.call(5, "Tensor.__add__", Kept(777_777, (3, 4)), 1), "UNKNOWN_ID", "777777"),
    "an id of 2^48": (lambda s: s.call(2**48, "ones", 2), "INVALID_ARGUMENT", str(2**48)),
    "an id of 2^64 - 1": (lambda s: s.call(2**64 - 1, "ones", 2), "INVALID_ARGUMENT", str(2**64 - 1)),
    "a dtype that is not one": (lambda s: s.call(5, "ones", 2, dtype=UNKNOWN_ENUM), "INVALID_ARGUMENT", "999"),
    "a dtype that is unspecified": (
        lambda s: s.call(5, "ones", 2, dtype=pb.Value(dtype=pb.D_TYPE_UNSPECIFIED)),
        "INVALID_ARGUMENT",
        "0",
    ),
    "data of a dtype that is not one": (lambda s: s.call(5, "tensor", array(dtype=999)), "INVALID_ARGUMENT", "999"),
    "data with a negative size": (lambda s: s.call(5, "tensor", array(shape=(-2,))), "INVALID_ARGUMENT", "-2"),
    "data with two negative sizes": (lambda s: s.call(5, "tensor", array(shape=(-2, -1))), "INVALID_ARGUMENT", "-2"),
    "data whose sizes overflow": (
        lambda s: s.call(5, "tensor", array(shape=(2**32, 2**32, 2))),
        "INVALID_ARGUMENT",
        str(2**32),
    ),
    "data whose sizes overflow to the right number": (
        lambda s: s.call(5, "tensor", array(shape=(2**63 - 1, 2), data=bytes(8))),
        "INVALID_ARGUMENT",
        str(2**63 - 1),
    ),
    "data whose bytes overflow": (
        lambda s: s.call(5, "tensor", array(shape=(2**62,), data=b"")),
        "INVALID_ARGUMENT",
        str(2**62),
    ),
    "data shorter than its shape": (lambda s: s.call(5, "tensor", array(data=bytes(7))), "INVALID_ARGUMENT", "7"),
    "data longer than its shape": (lambda s: s.call(5, "tensor", array(data=bytes(9))), "INVALID_ARGUMENT", "9"),
    "no data for its shape": (lambda s: s.call(5, "tensor", array(data=b"")), "INVALID_ARGUMENT", "0"),
    "data where the shape has no elements": (
        lambda s: s.call(5, "tensor", array(shape=(0, 2**62), data=bytes(4))),
        "INVALID_ARGUMENT",
        "4",
    ),
    "data of a hundred dimensions": (
        lambda s: s.call(5, "tensor", array(shape=(1,) * 100, data=bytes(4))),
        "INVALID_ARGUMENT",
        "100",
    ),
    "an array without content": (
        lambda s: s.call(5, "tensor", pb.Value(array=pb.HostArray(kind=pb.HostArray.KIND_NDARRAY))),
        "INVALID_ARGUMENT",
        "array",
    ),
    "an array of no kind": (lambda s: s.call(5, "tensor", array(kind=0)), "INVALID_ARGUMENT", "0"),
    "an array of an unknown kind": (lambda s: s.call(5, "tensor", array(kind=44)), "INVALID_ARGUMENT", "44"),
    "an upload that does not exist": (
        lambda s: s.call(5, "tensor", pb.Value(array=pb.HostArray(kind=pb.HostArray.KIND_TENSOR, upload=4711))),
        "UNKNOWN_ID",
        "4711",
    ),
    "a value with nothing set": (lambda s: s.call(5, "ones", pb.Value()), "INVALID_ARGUMENT", "kind"),
    "a keyword with nothing set": (lambda s: s.call(5, "ones", 2, dtype=pb.Value()), "INVALID_ARGUMENT", "kind"),
    "a value that is for results": (
        lambda s: s.call(5, "ones", pb.Value(data=tensor_data(torch.ones(1)))),
        "INVALID_ARGUMENT",
        "data",
    ),
    "an object out of thin air": (
        lambda s: s.call(5, "ones", pb.Value(object="network")),
        "INVALID_ARGUMENT",
        "object",
    ),
    "a keyword given twice": (repeated_keyword, "INVALID_ARGUMENT", "dtype"),
    "a slice with garbage": (
        lambda s: s.call(5, "Tensor.__getitem__", torch.ones(3), pb.Value(slice=pb.Slice(start=pb.Value()))),
        "INVALID_ARGUMENT",
        "kind",
    ),
    "a memory format that is not one": (
        lambda s: s.call(5, "ones", 2, memory_format=pb.Value(memory_format=88)),  # type: ignore[arg-type]
        "INVALID_ARGUMENT",
        "88",
    ),
    "a layout that is not one": (
        lambda s: s.call(5, "ones", 2, layout=pb.Value(layout=88)),  # type: ignore[arg-type]
        "INVALID_ARGUMENT",
        "88",
    ),
    **{
        f"{what} of an array in memory": (made_of(value), "INVALID_ARGUMENT", naming)
        for what, value, naming in (
            ("a shape beyond the end", laid_out([3], [1]), "3"),
            ("strides beyond the end", laid_out([2], [2]), "2"),
            ("strides far beyond the end", laid_out([2], [2**62]), str(2**62)),
            ("strides that overflow", laid_out([2**31, 2**31], [2**62, 2**62]), ""),
            ("a stride below zero", laid_out([2], [-1]), "-1"),
            ("a size below zero", laid_out([-2], [1]), "-2"),
            ("too few strides", laid_out([2, 1], [1]), "1"),
            ("endless repetition", laid_out([2**40], [0]), str(2**40)),
            ("a hundred dimensions", laid_out([1] * 100, [0] * 100), "100"),
        )
    },
    **{
        f"an object {what}": (made_of(value), "INVALID_ARGUMENT", naming)
        for what, value, naming in (
            ("of a class without a name", foreign(type=""), "''"),
            ("of a class with a long name", foreign(type="o" * 100_000), "ooo"),
            ("of a class with a null", foreign(type="a\0b"), "a"),
            (
                "with a method of another name",
                foreign(answers=[pb.Answer(method="__class__", value=encode(1))]),
                "__class__",
            ),
            (
                "whose methods raise by another name",
                foreign(answers=[pb.Answer(method="__del__", raised="OSError")]),
                "__del__",
            ),
            ("derived from a slice", foreign(base=encode(slice(1))), "slice"),
            ("derived from nothing", foreign(base=pb.Value()), "kind"),
            ("with an item of nothing", foreign(items=pb.Sequence(items=[pb.Value()])), "kind"),
            ("of a dtype that is a program", memory(dtype="(1,)i4,O"), "(1,)i4,O"),
            ("of a dtype of huge elements", memory(dtype="S99999999999"), "S999"),
            ("of a dtype that is none", memory(dtype="Z9"), "Z9"),
            ("of a shape below zero", memory(shape=[-1]), "-1"),
            ("of more elements than are gone through", memory(shape=[2**40]), str(2**40)),
            ("of a hundred dimensions", memory(shape=[1] * 100), "1"),
            ("whose memory ends too early", memory(shape=[9], data=b"ab"), "2 bytes"),
            ("whose memory begins too late", memory(offset=2**63, data=b"ab"), "2 bytes"),
            ("whose strides lead out of its memory", memory(shape=[2], strides=[2**62], data=b"ab"), "2 bytes"),
            ("with fewer strides than sizes", memory(shape=[1, 1], data=b"a"), "1 bytes"),
            ("that is several scalars", memory(shape=[2], strides=[1], data=b"ab", is_scalar=True), "[2]"),
            ("that is no scalar", memory(dtype="O", shape=[], strides=[], is_scalar=True), "O"),
        )
    },
    "an integer of a megabyte": (
        lambda s: s.call(5, "tensor", pb.Value(big_integer=bytes(1 << 20))),
        "INVALID_ARGUMENT",
        str(1 << 20),
    ),
    "a number of several elements": (lambda s: s.call(5, "tensor", array(kind=4)), "INVALID_ARGUMENT", "[2]"),
    "a number of a dtype that numpy lacks": (
        lambda s: s.call(5, "tensor", array(dtype=4, shape=(), data=bytes(2), kind=4)),
        "INVALID_ARGUMENT",
        "2",
    ),
}


@pytest.mark.parametrize(("bad", "reason", "naming"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_bad_call_is_answered_with_its_value_and_the_others_go_on(
    nothing_leaks: RawSession, bad: Calls, reason: str, naming: str
) -> None:
    session = nothing_leaks
    reply = session.run(session.call(3, "ones", 2), bad(session), session.call(0, "tc.read", Kept(3)), frees=[3, 5])
    error = reply.error(1)
    assert error.reason == reason, error
    assert naming in error.message, error
    assert reply.value(2).tolist() == [1, 1]


TORCH_REFUSES: dict[str, tuple[Calls, str]] = {
    "a negative size": (lambda s: s.call(5, "ones", -2), "-2"),
    "sizes whose product overflows": (lambda s: s.call(5, "zeros", 2**32, 2**32), ""),
    "sizes whose bytes overflow": (lambda s: s.call(5, "zeros", 2**62), ""),
    "a size beyond 64 bits": (lambda s: s.call(5, "ones", encode(2**64 - 1)), ""),
    "a device that is not there": (lambda s: s.call(5, "ones", 2, device=torch.device("cuda:99")), ""),
    "a device that is not one": (lambda s: s.call(5, "ones", 2, device=pb.Value(device="toaster")), "toaster"),
    "a device with a null": (lambda s: s.call(5, "ones", 2, device=pb.Value(device="cpu\0")), ""),
    "a slice of texts": (
        lambda s: s.call(5, "Tensor.__getitem__", torch.ones(3), pb.Value(slice=pb.Slice(start=encode("a")))),
        "",
    ),
    "a slice with a step of zero": (lambda s: s.call(5, "Tensor.__getitem__", torch.ones(3), slice(None, None, 0)), ""),
    "a text with nulls as a mode": (lambda s: s.call(5, "div", torch.ones(2), 2, rounding_mode="a\0b"), ""),
    "a huge text as a mode": (lambda s: s.call(5, "div", torch.ones(2), 2, rounding_mode="m" * 500_000), ""),
    "a keyword that does not exist": (lambda s: s.call(5, "ones", 2, sausage=1), "sausage"),
    "no arguments at all": (lambda s: s.call(5, "add"), ""),
    "far too many arguments": (lambda s: s.call(5, "add", *range(5000)), ""),
    "an index out of range": (lambda s: s.call(5, "Tensor.__getitem__", torch.ones(3), 2**40), ""),
    "an index tensor out of range": (lambda s: s.call(5, "gather", torch.ones(3), 0, torch.tensor([2**40])), ""),
    "an expansion without end": (lambda s: s.call(5, "Tensor.expand", torch.ones(1), 2**62), ""),
    "strides beyond the storage": (lambda s: s.call(5, "as_strided", torch.ones(3), (5, 5), (2**40, 1)), ""),
    "a tensor as a flag": (
        lambda s: s.call(5, "nn.functional.relu", torch.ones(3), inplace=torch.ones(2), sausage=1),
        "",
    ),
    "a ragged list": (lambda s: s.call(5, "tensor", [[1, 2], [3]]), ""),
    "a list of texts": (lambda s: s.call(5, "tensor", ["a", "b"]), ""),
    "sizes that no message can say": (
        lambda s: s.call(5, "broadcast_shapes", [2**63, 1], [3]),
        "Overflow when unpacking long long",
    ),
}


@pytest.mark.parametrize(("bad", "naming"), TORCH_REFUSES.values(), ids=TORCH_REFUSES)
def test_what_torch_refuses_is_an_error_of_the_call_alone(nothing_leaks: RawSession, bad: Calls, naming: str) -> None:
    session = nothing_leaks
    reply = session.run(session.call(3, "ones", 2), bad(session), session.call(0, "tc.read", Kept(3)), frees=[3, 5])
    if reply.errors:
        assert naming in reply.error(1).message
        assert len(reply.error(1).message) < 10_000
    else:
        assert bad is TORCH_REFUSES["an expansion without end"][0], "a view may be that long, and takes no memory"
    assert reply.value(2).tolist() == [1, 1]


def test_a_freed_id_is_unknown(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    kept = session.make("ones", 2)
    session.run(frees=[kept.id]).clean()
    error = session.run(session.call(0, "tc.read", kept)).error(0)
    assert error.reason == "UNKNOWN_ID"
    assert str(kept.id) in error.message
    with refused(Code.NOT_FOUND, naming=str(kept.id)):
        session.ask("GetTensor", tensor=kept)


def test_a_duplicate_id_is_refused_and_the_first_result_stays(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    reply = session.run(session.call(8, "ones", 2), session.call(8, "zeros", 3), session.call(0, "tc.read", Kept(8)))
    assert reply.error(1).reason == "DUPLICATE_ID"
    assert "8" in reply.error(1).message
    assert reply.value(2).tolist() == [1, 1]
    assert session.run(session.call(8, "zeros", 3), frees=[8]).error(0).reason == "DUPLICATE_ID"


def test_a_duplicate_id_of_an_effect_writes_nothing(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    reply = session.run(
        session.call(8, "ones", 2),
        session.call(8, "Tensor.add_", Kept(8), 1),
        session.call(0, "tc.read", Kept(8)),
        frees=[8],
    )
    assert reply.error(1).reason == "DUPLICATE_ID"
    assert reply.by_index[1].lost_effect
    assert reply.value(2).tolist() == [1, 1]


def test_ids_of_another_session_are_unknown(nothing_leaks: RawSession, other: RawSession) -> None:
    session = nothing_leaks
    mine = other.create(ones={}, shape=[2]).id
    kept = Kept(400)
    other.run(other.call(kept.id, "ones", 2)).clean()
    reply = session.run(
        session.call(0, "Tensor.zero_", kept), session.call(0, "Tensor.zero_", Kept(mine.id)), frees=[kept.id, mine.id]
    )
    assert [reply.error(index).reason for index in (0, 1)] == ["UNKNOWN_ID"] * 2
    for method, fields in (
        ("GetTensor", {"tensor": kept}),
        ("Reshape", {"input": mine}),
        ("Download", {"tensor": mine}),
    ):
        with refused(Code.NOT_FOUND):
            session.send_stream(method, [session.request(method, **fields).SerializeToString()])
    with refused(Code.NOT_FOUND):
        session.ask("FreeTensors", tensors=[mine])
    assert other.get(mine).tolist() == other.read(kept).tolist() == [1, 1]


def test_a_hundred_thousand_frees_of_unknown_ids_are_harmless(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    session.run(frees=range(10**6, 10**6 + 100_000))
    session.run(session.call(0, "ones", 2, frees=range(10**6, 10**6 + 100_000)))
    session.run(free_parts=[Kept(10**6 + n, (n,)) for n in range(10_000)])


def test_inline_data_beyond_the_limit_is_refused_with_the_remedy(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    data = tensor_data(torch.zeros(session.limits.max_inline_bytes // 4 + 1))
    with refused(Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED, naming="Upload"):
        session.create(data=data)
    argument = pb.Value(array=pb.HostArray(kind=pb.HostArray.KIND_NDARRAY, data=data))
    error = session.run(session.call(6, "tensor", argument), frees=[6]).error(0)
    assert "Upload" in error.message
    assert str(session.limits.max_inline_bytes) in error.message


def test_a_message_beyond_the_limit_is_refused(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    with pytest.raises(grpc.RpcError) as told:
        session.send("CreateTensor", bytes(session.limits.max_message_bytes + 1))
    assert isinstance(told.value, grpc.Call)
    assert told.value.code() == Code.RESOURCE_EXHAUSTED


def test_a_list_may_be_nested_as_deep_as_the_limit_says(nothing_leaks: RawSession) -> None:
    session = nothing_leaks
    depth = min(session.limits.max_nesting, 40)
    reply = session.run(session.call(5, "tensor", nested(depth)), session.call(0, "tc.read", Kept(5)), frees=[5])
    assert reply.value(1).shape == (1,) * depth
