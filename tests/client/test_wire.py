"""What the client writes by hand is what the generated parser reads."""

from __future__ import annotations

import collections
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tclient._codec import foreign as _foreign
from tclient._codec import wire as _wire
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tensorcompute.wire.varint import field, varint

_INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
_UINT64 = st.integers(0, (1 << 64) - 1)
_IDS = st.integers(_wire.FIRST_ID, (1 << 48) - 1)
_PATHS = st.lists(st.integers(0, (1 << 32) - 1), max_size=3)


def _leaf() -> st.SearchStrategy[tuple[bytes, pb.Value]]:
    return st.one_of(
        _INT64.map(lambda n: (_wire.integer_value(n), pb.Value(integer=n))),
        st.integers(1 << 63, (1 << 64) - 1).map(lambda n: (_wire.integer_value(n), pb.Value(unsigned=n))),
        st.floats(allow_nan=False).map(lambda x: (_wire.number_value(x), pb.Value(number=x))),
        st.complex_numbers(allow_nan=False).map(
            lambda z: (_wire.complex_value(z), pb.Value(complex=pb.Complex(real=z.real, imag=z.imag)))
        ),
        st.booleans().map(lambda b: (_wire.TRUE if b else _wire.FALSE, pb.Value(boolean=b))),
        st.text().map(lambda t: (_wire.text_value(t), pb.Value(text=t))),
        st.lists(_INT64, max_size=6).map(lambda d: (_wire.size_value(d), pb.Value(size=pb.Size(dims=d)))),
        st.tuples(st.integers(1, 18), st.lists(st.integers(0, 9), max_size=3), st.binary(max_size=300)).map(
            lambda d: (
                _wire.array_value(1, _wire.tensor_data(*d), uploaded=False),
                pb.Value(
                    array=pb.HostArray(
                        kind=pb.HostArray.KIND_TENSOR,
                        data=pb.TensorData(dtype=pb.DType.Name(pb.DType.ValueType(d[0])), shape=d[1], data=d[2]),
                    )
                ),
            )
        ),
        _IDS.map(
            lambda n: (
                _wire.array_value(2, _wire.id_varint(n), uploaded=True),
                pb.Value(array=pb.HostArray(kind=pb.HostArray.KIND_NDARRAY, upload=n)),
            )
        ),
        st.tuples(st.lists(st.integers(0, 1 << 62), max_size=3), st.lists(st.integers(0, 1 << 62), max_size=3)).map(
            lambda view: (
                _wire.array_value(2, _wire.id_varint(20_000), uploaded=True, view=_wire.view(*view)),
                pb.Value(
                    array=pb.HostArray(
                        kind=pb.HostArray.KIND_NDARRAY, upload=20_000, view=pb.View(shape=view[0], strides=view[1])
                    )
                ),
            )
        ),
        st.integers(-(1 << 200), 1 << 200).map(
            lambda n: (
                _wire.big_integer_value(n),
                pb.Value(big_integer=n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)),
            )
        ),
        st.just((_wire.NONE, _empty("none"))),
        st.just((_wire.ELLIPSIS, _empty("ellipsis"))),
    )


def _empty(name: str) -> pb.Value:
    value = pb.Value()
    getattr(value, name).SetInParent()
    return value


def _nest(children: st.SearchStrategy[tuple[bytes, pb.Value]]) -> st.SearchStrategy[tuple[bytes, pb.Value]]:
    def sequence(items: list[tuple[bytes, pb.Value]], is_tuple: bool) -> tuple[bytes, pb.Value]:
        expected = pb.Sequence(items=[item[1] for item in items])
        value = pb.Value(tuple=expected) if is_tuple else pb.Value(list=expected)
        return _wire.sequence_value([item[0] for item in items], is_tuple=is_tuple), value

    def a_slice(parts: tuple[Any, Any, Any]) -> tuple[bytes, pb.Value]:
        names = ("start", "stop", "step")
        expected = pb.Slice(**{name: part[1] for name, part in zip(names, parts, strict=True) if part is not None})
        return _wire.slice_value(*[None if part is None else part[0] for part in parts]), pb.Value(slice=expected)

    def mapping(entries: dict[str, tuple[bytes, pb.Value]]) -> tuple[bytes, pb.Value]:
        expected = pb.Mapping(entries=[pb.NamedValue(name=name, value=item[1]) for name, item in entries.items()])
        return _wire.mapping_value([(name, item[0]) for name, item in entries.items()]), pb.Value(mapping=expected)

    optional = st.none() | children
    return st.one_of(
        st.builds(sequence, st.lists(children, max_size=4), st.booleans()),
        st.tuples(optional, optional, optional).map(a_slice),
        st.dictionaries(st.text(max_size=5), children, max_size=3).map(mapping),
    )


_VALUES = st.recursive(_leaf(), _nest, max_leaves=12)


@given(_VALUES)
def test_a_value_written_by_hand_is_the_value_that_is_parsed(pair: tuple[bytes, pb.Value]) -> None:
    written, expected = pair
    assert pb.Value.FromString(written) == expected


@given(
    call_id=_IDS,
    operation=st.integers(0, 5000),
    args=st.lists(_VALUES, max_size=4),
    kwargs=st.dictionaries(st.text(max_size=8), _VALUES, max_size=3),
    context=st.integers(0, 300),
)
def test_a_call_written_by_hand_is_the_call_that_is_parsed(
    call_id: int,
    operation: int,
    args: list[tuple[bytes, pb.Value]],
    kwargs: dict[str, tuple[bytes, pb.Value]],
    context: int,
) -> None:
    pieces = [b"\x10" + varint(operation)]
    pieces += [_wire.arg(value[0]) for value in args]
    pieces += [field(_wire.KWARG, _wire.named_value(name, value[0])) for name, value in kwargs.items()]
    pieces += [_wire.CONTEXT + varint(context)]
    pieces += [_wire.CALL_ID + _wire.id_varint(call_id)]
    batch = pb.Batch.FromString(_wire.call(pieces))
    assert list(batch.calls) == [
        pb.Call(
            id=call_id,
            operation=operation,
            args=[value[1] for value in args],
            kwargs=[pb.NamedValue(name=name, value=value[1]) for name, value in kwargs.items()],
            context=context,
        )
    ]


@given(
    seq=_UINT64,
    acked=_UINT64,
    session=st.binary(max_size=40),
    names=st.lists(st.text(max_size=9), max_size=3),
    words=st.binary(max_size=40),
)
def test_a_message_written_by_hand_is_the_message_that_is_parsed(
    seq: int, acked: int, session: bytes, names: list[str], words: bytes
) -> None:
    contexts: list[tuple[bool, bool, list[tuple[str, int, bool, bool]], int | None]] = [
        (True, False, [("cuda", 4, True, True)], None),
        (False, True, [], 0),
        (False, False, [("cpu", 0, False, False)], 300),
    ]
    written = field(b"\x0a", session) + _wire.stream_message(
        seq=seq,
        acked=acked,
        operations=names,
        contexts=[_wire.context(*each) for each in contexts],
        calls=[_wire.call([b"\x10\x01"])],
        packed=words,
    )
    expected = rpc.ExecuteStreamRequest(
        session=session,
        batch=pb.Batch(
            seq=seq,
            acked=acked,
            define_operations=names,
            define_contexts=[
                pb.Context(
                    no_grad=True,
                    autocast=[
                        pb.Autocast(device_type="cuda", dtype="D_TYPE_BFLOAT16", enabled=True, cache_enabled=True)
                    ],
                ),
                pb.Context(inference=True, cuda_device=0),
                pb.Context(autocast=[pb.Autocast(device_type="cpu")], cuda_device=300),
            ],
            calls=[pb.Call(operation=1)],
            packed=words,
        ),
    )
    assert rpc.ExecuteStreamRequest.FromString(written) == expected


@given(_UINT64)
def test_a_varint_is_protobuf_s(number: int) -> None:
    assert pb.Value.FromString(b"\xc0\x01" + varint(number)).unsigned == number


def test_not_a_number_keeps_its_bits() -> None:
    parsed = pb.Value.FromString(_wire.number_value(math.nan))
    assert struct.pack("<d", parsed.number) == struct.pack("<d", math.nan)


@pytest.mark.parametrize("number", [1 << 64, -(1 << 63) - 1], ids=["above", "below"])
def test_an_integer_beyond_64_bits_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        _wire.integer_value(number)
    with pytest.raises(OverflowError):
        _wire.big_integer_value(number << 40_000)


class _Real:
    def __float__(self) -> float:
        return 1.5

    def __index__(self) -> int:
        raise ArithmeticError("none")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (_Real(), {"type": "_Real", "answers": [("__index__", "ArithmeticError"), ("__float__", "")]}),
        (
            collections.deque([1, 2]),
            {"type": "collections.deque", "items": 2, "iterated": 2, "answers": [("__len__", "")]},
        ),
        (np.zeros((2, 3), ">f4").T, {"type": "numpy.ndarray", "memory": (">f4", [3, 2], [4, 12], 24)}),
        (np.zeros(3, "S2")[::-1], {"type": "numpy.ndarray", "memory": ("|S2", [3], [-2], 6)}),
        (np.zeros(10**6, "U9"), {"type": "numpy.ndarray", "memory": ("<U9", [1], [36], 36)}),
        (np.datetime64(1, "s"), {"type": "numpy.datetime64", "memory": ("<M8[s]", [], [], 8)}),
        (b"ab", {"type": "bytes", "memory": ("|u1", [2], [1], 2)}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_object_is_told_by_what_torch_would_see_in_it(value: Any, expected: dict[str, Any]) -> None:
    written = _foreign.foreign(value, 0, lambda item, levels: _wire.integer_value(item) if item != 1.5 else _wire.NONE)
    found = pb.Value.FromString(written).foreign
    assert found.type == expected["type"]
    known = [(answer.method, answer.raised) for answer in found.answers]
    # Behind the last item there is an IndexError.
    assert [answer for answer in known if answer[0] != "__getitem__"] == expected.get("answers", [])
    assert (len(found.items.items), len(found.iterated.items)) == (
        expected.get("items", 0),
        expected.get("iterated", 0),
    )
    memory = found.memory
    if "memory" in expected:
        dtype, shape, strides, size = expected["memory"]
        assert (memory.dtype, list(memory.shape), list(memory.strides), len(memory.data)) == (
            dtype,
            shape,
            strides,
            size,
        )
    assert found.HasField("memory") == ("memory" in expected)
