"""Packed sequences against torch.nn.utils.rnn, and recurrent layers that take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

DATA = np.random.default_rng(3).standard_normal((5, 3, 4)).astype(np.float32)
SHORT = np.random.default_rng(4).standard_normal((2, 4)).astype(np.float32)

LAYERS: dict[str, Callable[[Any], Any]] = {
    "RNN": lambda nn: nn.RNN(4, 3, 2, nonlinearity="relu"),
    "GRU of both directions": lambda nn: nn.GRU(4, 3, 2, bidirectional=True),
    "LSTM": lambda nn: nn.LSTM(4, 3),
    "LSTM with projections": lambda nn: nn.LSTM(4, 3, 2, proj_size=2, bidirectional=True),
}
LENGTHS = {"sorted": ([5, 3, 1], True), "in any order": ([2, 5, 3], False), "of a tie": ([4, 5, 4], False)}

by_lengths = pytest.mark.parametrize(("lengths", "enforce"), LENGTHS.values(), ids=LENGTHS.keys())
by_batch_first = pytest.mark.parametrize("batch_first", [False, True], ids=["steps first", "batch first"])


def flat(value: Any) -> list[Any]:
    """The arrays of what was returned."""
    if isinstance(value, tuple | list):
        return [array for item in value for array in flat(item)]
    return [] if value is None else [value.detach().numpy()]


def assert_same(ours: Any, theirs: Any) -> None:
    """The same arrays with the same dtypes."""
    got, expected = flat(ours), flat(theirs)
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def packed(namespace: Any, lengths: Any, enforce: bool, batch_first: bool = False) -> Any:
    """The data of this file, packed."""
    data = namespace.tensor(np.ascontiguousarray(DATA.transpose(1, 0, 2)) if batch_first else DATA)
    return namespace.nn.utils.rnn.pack_padded_sequence(data, lengths, batch_first, enforce)


@by_lengths
@by_batch_first
def test_sequences_are_packed_and_padded_as_in_torch(
    tc: Any, lengths: list[int], enforce: bool, batch_first: bool
) -> None:
    ours, theirs = (packed(each, lengths, enforce, batch_first) for each in (tc, torch))
    assert_same(ours, theirs)
    for options in ({}, {"batch_first": True}, {"total_length": 7, "padding_value": -1.5}):
        got = tc.nn.utils.rnn.pad_packed_sequence(ours, **options)
        expected = torch.nn.utils.rnn.pad_packed_sequence(theirs, **options)
        assert_same(got, expected)
        assert got[0].stride() == expected[0].stride()
    assert_same(tc.nn.utils.rnn.unpack_sequence(ours), torch.nn.utils.rnn.unpack_sequence(theirs))


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
@by_lengths
def test_a_recurrent_layer_takes_packed_sequences_as_in_torch(
    tc: Any, make: Callable[[Any], Any], lengths: list[int], enforce: bool
) -> None:
    results = []
    for namespace in (tc, torch):
        namespace.manual_seed(5)
        layer = make(namespace.nn)
        output, last = layer(packed(namespace, lengths, enforce))
        again, _ = layer(packed(namespace, lengths, enforce), last)
        assert isinstance(again, namespace.nn.utils.rnn.PackedSequence)
        padded, _ = namespace.nn.utils.rnn.pad_packed_sequence(again)
        padded.square().sum().backward()
        results.append([output, last, again, padded, [parameter.grad for parameter in layer.parameters()]])
    assert_same(*results)


@pytest.mark.parametrize("enforce", [True, False], ids=["sorted", "in any order"])
def test_a_list_of_sequences_is_packed_as_in_torch(tc: Any, enforce: bool) -> None:
    arrays = [DATA[:, 0], SHORT, SHORT[:1]] if enforce else [SHORT, DATA[:, 0], SHORT[:1]]
    rnn, theirs = tc.nn.utils.rnn, torch.nn.utils.rnn
    assert_same(
        rnn.pack_sequence([tc.tensor(array) for array in arrays], enforce),
        theirs.pack_sequence([torch.tensor(array) for array in arrays], enforce),
    )
    ours, expected = (
        rnn.pad_sequence([tc.tensor(a) for a in arrays]),
        theirs.pad_sequence([torch.tensor(a) for a in arrays]),
    )
    assert_same(ours, expected)
    lengths = [len(array) for array in arrays]
    assert_same(rnn.unpad_sequence(ours, tc.tensor(lengths)), theirs.unpad_sequence(expected, torch.tensor(lengths)))


def test_a_packed_sequence_is_cast_and_printed_as_in_torch(tc: Any) -> None:
    ours, theirs = packed(tc, tc.tensor([2, 5, 3]), False), packed(torch, torch.tensor([2, 5, 3]), False)
    assert repr(ours) == repr(theirs)
    for name in ("double", "half", "long", "int", "short", "char", "cpu"):
        assert_same(getattr(ours, name)(), getattr(theirs, name)())
    assert_same(ours.float(), theirs.float())
    assert ours.is_cuda is theirs.is_cuda
    assert ours.to(dtype=tc.float64).data.dtype == tc.float64


MISUSES: dict[str, Callable[[Any], Any]] = {
    "not sorted": lambda m: packed(m, [1, 2, 3], True),
    "too few": lambda m: packed(m, [3, 2], True),
    "none": lambda m: packed(m, [], True),
    "zero": lambda m: packed(m, [3, 2, 0], True),
    "a number": lambda m: packed(m, 5, True),
    "a matrix": lambda m: packed(m, [[3, 2, 1]], True),
    "an empty list": lambda m: m.nn.utils.rnn.pack_sequence([]),
    "too short": lambda m: m.nn.utils.rnn.pad_packed_sequence(packed(m, [5, 2, 1], True), total_length=3),
    "data alone": lambda m: m.nn.utils.rnn.PackedSequence(m.ones(2)),
    "other features": lambda m: m.nn.RNN(5, 3)(packed(m, [5, 2, 1], True)),
    "a state of another batch": lambda m: m.nn.GRU(4, 3)(packed(m, [5, 2, 1], True), m.zeros(1, 2, 3)),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES.keys())
def test_misuse_of_packed_sequences_is_refused_as_in_torch(tc: Any, misuse: Callable[[Any], Any]) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - torch says which
        misuse(torch)
    with pytest.raises(type(expected.value)) as got:
        misuse(tc)
    assert str(got.value)[:60] == str(expected.value)[:60]


def test_packed_sequences_of_known_lengths_need_no_answer(tc: Any, server: Any) -> None:
    with tc.connect(server.address) as session:
        layer = tc.nn.LSTM(4, 3)
        data = tc.tensor(DATA)
        assert tuple(data.shape) == DATA.shape
        session.synchronize()
        waits = session.stats.waits
        sequence = packed_here = tc.nn.utils.rnn.pack_padded_sequence(data, [5, 3, 1])
        tc.nn.utils.rnn.pad_packed_sequence(packed_here)
        assert session.stats.waits == waits
        output, _ = layer(sequence)
        waits = session.stats.waits
        tc.nn.utils.rnn.pad_packed_sequence(output)
        assert session.stats.waits == waits
