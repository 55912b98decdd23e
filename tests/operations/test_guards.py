"""Calls that would end or block the server's process are refused, and no call that torch takes is refused with them.

The refusals are asked of the guards alone: a guard that failed must not take the test's process with it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from typing import Any

import pytest
import torch
from operations.generate import SIGNATURES
from operations.lists import words

from tests.operations.calls import from_torch, from_us, operators, table, targets
from tests.operations.samples import SAMPLES
from tserver.engine.guards import GUARDS, guarded

# Samples of one operator are tried on its namesakes, which take other arguments.
_MADE_FOR_ANOTHER = (TypeError, AttributeError)
_MIN = -(2**63)
_EYE = torch.eye(3)
_LOG_PROBS = torch.zeros(4, 1, 3)
_LEAF = torch.ones(4, requires_grad=True)
_LENGTHS = (torch.tensor([4]), torch.tensor([2]))


def _lstm(hidden: tuple[int, ...] = (1, 2, 4), count: int = 4, features: int = 3, batch_first: bool = False) -> Any:
    weights = [torch.ones(16, 3), torch.ones(16, 4), torch.ones(16), torch.ones(16)][:count]
    states = [torch.ones(hidden)] * 2
    return torch.ones(5, 2, features), states, weights, True, 1, 0.0, False, False, batch_first


_REFUSED = [
    ("linalg.eigvals", (torch.full((3, 3), torch.nan),), {}, "infs or NaNs"),
    ("linalg.eigvals", (torch.full((3, 3), torch.inf, dtype=torch.complex64),), {}, "infs or NaNs"),
    ("pdist", (torch.ones(0, 2, requires_grad=True),), {}, "no gradient without rows"),
    ("ctc_loss", (_LOG_PROBS, torch.tensor([[1, 10**8]]), *_LENGTHS), {}, "100000000"),
    ("nn.functional.ctc_loss", (_LOG_PROBS, torch.tensor([1, -5]), *_LENGTHS), {}, "-5"),
    ("nn.functional.ctc_loss", (_LOG_PROBS, torch.tensor([[1, 3]]), (4,), (2,)), {}, "got 3"),
    (
        "nn.functional.ctc_loss",
        (_LOG_PROBS, torch.tensor([[1, 448]]).to(torch.float8_e4m3fn), (4,), (2,)),
        {},
        "got 448",
    ),
    ("div", (torch.tensor([_MIN]), torch.tensor([-1])), {"rounding_mode": "trunc"}, "does not fit"),
    ("Tensor.div_", (torch.tensor([_MIN]), -1), {"rounding_mode": "trunc"}, "does not fit"),
    ("divide", (), {"input": torch.tensor([_MIN]), "other": -1, "rounding_mode": "trunc"}, "does not fit"),
    ("divide", (), {"x1": torch.tensor([_MIN]), "x2": -1, "rounding_mode": "trunc"}, "does not fit"),
    ("Tensor.lcm", (torch.tensor([5]), torch.tensor([_MIN])), {}, "no absolute value"),
    ("lcm_", (torch.tensor([_MIN]), torch.tensor([5])), {}, "no absolute value"),
    ("linalg.matrix_power", (_EYE, _MIN), {}, "above -2"),
    ("matrix_power", (), {"x": _EYE, "n": _MIN}, "above -2"),
    ("special.legendre_polynomial_p", (torch.ones(2), 1e12), {}, "at most"),
    ("special.laguerre_polynomial_l", (torch.ones(2), torch.tensor([1, 2**40])), {}, "at most"),
    ("lu_unpack", (torch.ones(2, 5, 5), torch.ones(3, 5, dtype=torch.int32)), {}, "needs LU_pivots"),
    ("lu_unpack", (_EYE, torch.tensor([], dtype=torch.int32)), {}, "needs LU_pivots"),
    ("linalg.ldl_solve", (_EYE, torch.tensor([9, 1, 1], dtype=torch.int32), torch.ones(3, 1)), {}, "pivots must be in"),
    (
        "linalg.ldl_solve",
        (_EYE, torch.tensor([-2, -2, -2], dtype=torch.int32), torch.ones(3, 1)),
        {},
        "without its pair",
    ),
    ("linalg.ldl_solve", (_EYE, torch.arange(1, 4), torch.ones(2, 3, 1)), {}, "too few for a batch"),
    ("linalg.lstsq", (_EYE, torch.ones(3, 0)), {"driver": "gelss"}, "right-hand side"),
    ("embedding_bag", (torch.ones(4, 2), torch.tensor([1, 2]), torch.tensor([])), {}, "begin with 0"),
    ("nn.functional.embedding_bag", (torch.tensor([1, 2]), torch.ones(4, 2), torch.tensor([])), {}, "begin with 0"),
    ("nn.functional.embedding_bag", (torch.ones(4, 2), torch.tensor([1, 2]), torch.tensor([])), {}, "begin with 0"),
    ("nn.functional.embedding_bag", (torch.tensor([1, 2]), torch.ones(4, 2), torch.tensor([0, -9])), {}, "not fall"),
    ("embedding_bag", (torch.ones(4, 2), torch.tensor([1, 2]), torch.tensor([0, 2, 1])), {}, "not fall"),
    ("embedding_bag", (torch.ones(4, 2), torch.tensor([1, 2]), torch.tensor([0, 3, 2])), {}, "got \\[0, 3, 2\\]"),
    *(
        (name, (one, other, torch.tensor([0])), {"include_last_offset": True}, "the end of the 2 indices")
        for name, one, other in (
            ("embedding_bag", torch.ones(4, 2), torch.tensor([1, 2])),
            ("nn.functional.embedding_bag", torch.tensor([1, 2]), torch.ones(4, 2)),
        )
    ),
    ("nn.functional.lp_pool1d", (torch.ones(1, 1, 4), 2.0, 2**62), {}, "below 2"),
    ("binomial", (torch.full((2,), torch.nan), torch.ones(2)), {}, "finite"),
    ("nn.functional.max_pool1d", (torch.ones(1, 1, 4),), {"kernel_size": 2**40}, "below 2"),
    ("nn.functional.fractional_max_pool2d", (torch.ones(1, 1, 8, 8), -(2**31), 4), {}, "positive"),
    ("as_strided_", (torch.ones(4), (2,), (2**61,)), {}, "out of bounds for storage of size 16"),
    ("Tensor.as_strided_", (torch.ones(4), (2,), (1,), 2**62), {}, "out of bounds for storage of size 16"),
    ("embedding", (torch.ones(3, 2, requires_grad=True), torch.tensor([1]), -1, False, True), {}, "sparse=False"),
    ("gather", (_LEAF, 0, torch.tensor([0])), {"sparse_grad": True}, "sparse_grad=False"),
    ("grid_sampler_2d", (torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 1, 2), -2, 0, False), {}, "got -2 and 0"),
    ("grid_sampler_3d", (torch.ones(1, 1, 2, 2, 2), torch.zeros(1, 1, 1, 1, 3), 0, 3, False), {}, "got 0 and 3"),
    ("grid_sampler", (torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 1, 2), 0, -1, False), {}, "got 0 and -1"),
    ("nn.functional.pad", (torch.ones(1, 1, 3), (-3, 2), "circular"), {}, "wrapping around more than once"),
    ("nn.functional.pad", (torch.ones(1, 1, 3), (2, -2), "circular"), {}, "wrapping around more than once"),
    ("lstm", _lstm(hidden=(1, 1, 4)), {}, "Expected hidden size"),
    ("lstm", _lstm(batch_first=True), {}, "Expected hidden size"),
    ("lstm", _lstm(count=2), {}, "weights and biases"),
    ("lstm", _lstm(features=7), {}, "must have shape"),
]


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "message"),
    [pytest.param(*case, id=f"{index}-{case[0]}") for index, case in enumerate(_REFUSED)],
)
def test_arguments_that_would_end_the_process_are_refused(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    never_called: list[Any] = []
    with pytest.raises(RuntimeError, match=message):
        guarded(name, lambda *_, **__: never_called.append(name))(*args, **kwargs)
    assert never_called == []


_KEYWORDS = {
    "ctc_loss": "log_probs targets input_lengths target_lengths",
    "nn.functional.ctc_loss": "log_probs targets input_lengths target_lengths",
    "lu_unpack": "LU_data LU_pivots",
    "linalg.ldl_solve": "LD pivots B",
    "binomial": "count prob",
    "nn.functional.fractional_max_pool2d": "input kernel_size output_size",
    "lstm": "input hx params has_biases num_layers dropout train bidirectional batch_first",
    "linalg.lstsq": "input b",
    "embedding_bag": "weight indices offsets",
    "nn.functional.embedding_bag": "input weight offsets",
    "nn.functional.lp_pool1d": "input norm_type kernel_size",
    "as_strided_": "input size stride storage_offset",
    "embedding": "weight indices padding_idx scale_grad_by_freq sparse",
    "gather": "input dim index",
    **dict.fromkeys(
        ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"),
        "input grid interpolation_mode padding_mode align_corners",
    ),
    "nn.functional.pad": "input pad mode",
    "div": "input other",
    "divide": "input other",
    "lcm_": "input other",
}


def test_what_a_guard_cannot_look_at_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(input: torch.Tensor) -> str | None:
        return "too small" if bool((input.to(torch.float8_e4m3fn) < 0).any()) else None

    monkeypatch.setitem(GUARDS, "abs", compare)
    with pytest.raises(RuntimeError, match=r"abs: an argument cannot be checked.*another dtype"):
        guarded("abs", torch.abs)(torch.ones(2))


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [pytest.param(*case[:3], id=f"{i}-{case[0]}") for i, case in enumerate(_REFUSED) if "Tensor." not in case[0]],
)
def test_keywords_are_no_way_around_a_guard(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    names = words(_KEYWORDS.get(name, "input n"))
    for by_position in range(len(args)):
        named = {**dict(zip(names[by_position:], args[by_position:], strict=False)), **kwargs}
        with pytest.raises(RuntimeError):
            guarded(name, lambda *_, **__: None)(*args[:by_position], **named)


def test_every_guard_stands_before_an_operation_of_the_table() -> None:
    assert set(GUARDS) <= set(table())


@pytest.mark.parametrize("name", sorted(GUARDS))
def test_a_guard_lets_every_sample_pass(name: str) -> None:
    calls = list(from_us(name)) if name in SAMPLES else []
    for operator, (_, names) in operators().items():
        if name in names:
            calls.extend(call for call in from_torch(operator, 20) if call.entry["name"] == name)
    assert calls
    for call in calls:
        with contextlib.suppress(*_MADE_FOR_ANOTHER):
            assert GUARDS[name](*call.args, **call.kwargs) is None


def test_every_operation_whose_gradient_may_be_sparse_is_guarded() -> None:
    signatures = json.loads(SIGNATURES.read_text(encoding="utf-8"))
    asked = {name for name, texts in signatures.items() if any(re.search(r"\bsparse(_grad)?: bool", t) for t in texts)}
    weight, index = torch.ones(3, requires_grad=True), torch.tensor([1])
    assert asked == {name for name in asked if GUARDS[name](weight, 0, index, sparse=True, sparse_grad=True)}


def test_circular_padding_of_what_a_crop_leaves_is_torchs() -> None:
    row = torch.arange(6.0).reshape(1, 1, 6)
    for pad in itertools.product(range(-6, 7), repeat=2):
        with contextlib.suppress(RuntimeError):
            padded = guarded("nn.functional.pad", torch.nn.functional.pad)(row, pad, mode="circular")
            kept = row[..., max(0, -pad[0]) : 6 - max(0, -pad[1])]
            left = kept[..., kept.shape[-1] - max(0, pad[0]) :] if pad[0] > 0 else kept[..., :0]
            assert torch.equal(padded, torch.cat([left, kept, kept[..., : max(0, pad[1])]], -1)), pad


def test_a_packed_sequence_passes_the_guard_of_recurrent_networks() -> None:
    network = torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(5, 3), torch.ones(2, 3)])
    states = [torch.zeros(4, 2, 2), torch.zeros(4, 2, 4)]
    args = (packed.data, packed.batch_sizes, states, list(network._flat_weights), True, 2, 0.0, False, True)
    assert GUARDS["lstm"](*args) is None
    assert torch.equal(targets()["lstm"](*args)[0], network(packed)[0].data)
    args[2].reverse()
    assert GUARDS["lstm"](*args) is not None


def test_wrong_arguments_get_torchs_own_error() -> None:
    for name in sorted(GUARDS):
        with pytest.raises(TypeError) as ours:
            guarded(name, targets()[name])(colour=1)
        with pytest.raises(TypeError) as torchs:
            targets()[name](colour=1)
        assert str(ours.value) == str(torchs.value)
