"""A backward notices what was changed since the forward, on whatever way; and weights are updated as in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from tests.operations.calls import Invocation, copied, from_torch, from_us, operators, tensors
from tests.operations.samples import SAMPLES
from tserver.engine.operations import Operations
from tserver.engine.versions import COUNTED

Do = Callable[..., Any]
_CHANGED = "modified by an inplace operation"
_FAR = 10**11


@pytest.fixture(scope="module")
def do() -> Do:
    """Runs an operation of the server by its name."""
    known = Operations([])
    return lambda name, *args, **kwargs: known.get(name).call(SimpleNamespace(graphs_on_zeros=False), args, kwargs)


def _torchs(name: str, *args: Any, **kwargs: Any) -> Any:
    match name:
        case "Tensor.data.__get__":
            return args[0].data
        case "Tensor.data.__set__":
            args[0].data = args[1]
            return None
        case _:
            target = torch
            for part in name.split("."):
                target = getattr(target, part)
            return target(*args, **kwargs)  # type: ignore[operator]


def _weights() -> Tensor:
    return torch.linspace(-1, 1, 3).requires_grad_()


def _written_through_data(do: Do) -> Tensor:
    image = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4).requires_grad_()
    made, where = torch.nn.functional.max_pool2d(image, 2, return_indices=True)
    do("Tensor.data.__get__", where).fill_(_FAR)
    return made


def _written_through_data_taken_before(do: Do) -> Tensor:
    where = torch.tensor([0, 2])
    data = do("Tensor.data.__get__", where)
    made = _weights().index_select(0, where)
    data.fill_(_FAR)
    return made


def _written_within_no_grad(do: Do) -> Tensor:
    where = torch.tensor([0, 2])
    made = _weights()[where]
    with torch.no_grad():
        do("Tensor.data.__get__", where)[0] = _FAR
    return made


def _written_within_inference(do: Do) -> Tensor:
    where = torch.tensor([0, 2])
    made = _weights()[where]
    with torch.inference_mode():
        do("Tensor.data.__get__", where)[0] = _FAR
    return made


def _a_mask_written(do: Do) -> Tensor:
    mask = torch.tensor([True, False, True])
    made = _weights().masked_scatter(mask, _weights())
    do("Tensor.data.__get__", mask).fill_(True)
    return made


def _another_shape(do: Do) -> Tensor:
    made, mean, _ = torch.native_layer_norm(torch.ones(2, 3, requires_grad=True), [3], None, None, 1e-5)
    do("Tensor.data.__set__", mean, torch.zeros(0))
    return made


def _other_strides(do: Do) -> Tensor:
    made, mean, _ = torch.native_layer_norm(torch.ones(2, 3, requires_grad=True), [3], None, None, 1e-5)
    do("Tensor.data.__set__", mean, torch.zeros(1, 1).expand(2, 1))
    return made


def _another_dtype(do: Do) -> Tensor:
    factor = torch.ones(3)
    made = _weights() * factor
    do("Tensor.data.__set__", factor, torch.ones(3, dtype=torch.float64))
    return made


def _other_indices(do: Do) -> Tensor:
    where = torch.tensor([0, 2])
    made = _weights()[where]
    do("Tensor.data.__set__", where, torch.tensor([_FAR, 0]))
    return made


def _a_part_written(do: Do) -> Tensor:
    where = torch.tensor([0, 2, 1, 1])
    made = _weights()[do("unsafe_chunk", where, 2)[0]]
    where.fill_(_FAR)
    return made


def _parts_by_keyword_written(do: Do) -> Tensor:
    where = torch.tensor([0, 2, 1, 1])
    made = _weights()[do("unsafe_split_with_sizes", split_sizes=[2, 2], dim=0, input=where)[0]]
    where.fill_(_FAR)
    return made


def _floats_seen_as_indices_written(do: Do) -> Tensor:
    floats = torch.zeros(2, dtype=torch.float64)
    made = _weights()[do("Tensor.view", floats, torch.int64)]
    do("Tensor.data.__get__", floats).fill_(3.5)
    return made


@pytest.mark.parametrize(
    "forward",
    [
        _written_through_data,
        _written_through_data_taken_before,
        _written_within_no_grad,
        _written_within_inference,
        _a_mask_written,
        _another_shape,
        _other_strides,
        _another_dtype,
        _other_indices,
        _a_part_written,
        _parts_by_keyword_written,
        _floats_seen_as_indices_written,
    ],
    ids=lambda forward: forward.__name__.strip("_"),
)
def test_a_backward_refuses_what_was_changed_since_the_forward(do: Do, forward: Callable[[Do], Tensor]) -> None:
    made = forward(do)
    with pytest.raises(RuntimeError, match=_CHANGED):
        made.sum().backward()


def test_indices_that_were_set_are_not_changed_by_what_they_were_set_to(do: Do) -> None:
    where, other, weights = torch.tensor([0, 0]), torch.tensor([1, 2]), _weights()
    do("Tensor.data.__set__", where, other)
    made = weights[where]
    other.fill_(_FAR)
    made.sum().backward()
    assert where.tolist() == [1, 2]
    assert weights.grad is not None
    assert weights.grad.tolist() == [0, 1, 1]


@pytest.mark.parametrize("use", [["Tensor.data.__get__"], ["Tensor.unsafe_chunk", 2]], ids=lambda use: use[0])
def test_bits_of_floats_that_may_change_uncounted_can_be_read_and_not_kept(do: Do, use: list[Any]) -> None:
    floats = torch.tensor([0.0, 1.0], dtype=torch.float64)
    name, *args = use
    do(name, floats, *args)
    bits = do("Tensor.view", floats, dtype=torch.int64)
    assert torch.equal(bits, floats.view(torch.int64))
    assert bits.data_ptr() == floats.data_ptr()
    with pytest.raises(RuntimeError, match="cannot be saved for backward"):
        _weights()[bits]


def _descent(do: Do) -> Iterator[Tensor]:
    weights = _weights()
    for _ in range(3):
        loss = (weights * weights.exp()).sum()
        loss.backward()
        data = do("Tensor.data.__get__", weights)
        data -= 0.1 * weights.grad  # type: ignore[operator]
        do("Tensor.data.__get__", weights.grad).zero_()
        yield weights


def _updates_before_a_backward(do: Do) -> Iterator[Tensor]:
    weights = _weights()
    for write in (
        lambda data: data.fill_(2.0),
        lambda data: data.clamp_(-0.5, 0.5),
        lambda data: data.copy_(torch.ones(3)),
        lambda data: data.mul_(0.9).add_(1),
        lambda data: data.uniform_(-1, 1),
    ):
        loss = (weights * weights).sum()
        write(do("Tensor.data.__get__", weights))
        loss.backward()
        yield weights.grad  # type: ignore[misc]
        yield weights


def _set_anew(do: Do) -> Iterator[Tensor]:
    weights = _weights()
    loss = (weights * weights).sum()
    do("Tensor.data.__set__", weights, do("Tensor.data.__get__", weights) * 0.9)
    loss.backward()
    yield weights.grad  # type: ignore[misc]
    do("Tensor.data.__set__", weights, torch.linspace(0, 1, 8))
    (weights * weights).sum()
    yield weights


def _an_average_kept_beside(do: Do) -> Iterator[Tensor]:
    weights, average = _weights(), _weights()
    for _ in range(2):
        (weights * average.detach()).sum().backward()
        do("Tensor.data.__get__", average).mul_(0.9).add_(0.1 * do("Tensor.data.__get__", weights))
        yield average


def _from_a_vector(do: Do) -> Iterator[Tensor]:
    vector, weights = torch.arange(5.0), [_weights(), torch.zeros(2)]
    do("nn.utils.vector_to_parameters", vector, weights)
    vector.mul_(2)  # the parameters are parts of it
    yield from weights


def _indices_without_a_graph(do: Do) -> Iterator[Tensor]:
    where = torch.tensor([[0, 1], [2, 0]])
    data = do("Tensor.data.__get__", where)
    data += 1
    yield where
    yield data
    do("Tensor.data.__set__", where, data.t())
    yield where
    yield from do("unsafe_chunk", where, 2)
    data.resize_(5)
    yield data[:4]


def _bits_changed(do: Do) -> Iterator[Tensor]:
    floats = torch.tensor([1.5, -2.0])
    bits = do("Tensor.view", floats, torch.int32)
    bits ^= -(2**31)
    yield floats
    yield do("Tensor.view", do("Tensor.view", floats, 1, 2), -1)


@pytest.mark.parametrize(
    "use",
    [
        _descent,
        _updates_before_a_backward,
        _set_anew,
        _an_average_kept_beside,
        _from_a_vector,
        _indices_without_a_graph,
        _bits_changed,
    ],
    ids=lambda use: use.__name__.strip("_"),
)
def test_what_data_is_for_goes_on_as_in_torch(do: Do, use: Callable[[Do], Iterator[Tensor]]) -> None:
    seen = []
    for run in (do, _torchs):
        torch.manual_seed(3)
        seen.append([(one.detach().clone(), one.shape, one.stride()) for one in use(run)])
    ours, torchs = seen
    for mine, theirs in zip(ours, torchs, strict=True):
        assert mine[1:] == theirs[1:]
        assert torch.equal(mine[0], theirs[0])


def _calls(dtype: torch.dtype) -> Iterator[Invocation]:
    for name in SAMPLES:
        yield from from_us(name)
    for operator in operators():
        yield from from_torch(operator, 1, dtype)


def _shares_memory(one: Tensor, other: Tensor) -> bool:
    if one.layout is not torch.strided or other.layout is not torch.strided:
        return False
    mine, theirs = one.untyped_storage(), other.untyped_storage()
    return mine.nbytes() > 0 and mine.data_ptr() == theirs.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64], ids=str)
def test_all_other_operations_share_the_count_of_the_memory_they_hand_out(dtype: torch.dtype) -> None:
    apart = set()
    for call in _calls(dtype):
        if call.entry["name"] in COUNTED:
            continue
        call = Invocation(call.entry, call.target, copied(call.args), copied(call.kwargs))
        try:
            result = call.run()
        except Exception:
            continue  # a sample that was made for another operation
        for made in tensors(result):
            for given in tensors([list(call.args), call.kwargs]):
                if made is given or not _shares_memory(made, given):
                    continue
                version = made._version
                increment_version(given)
                as_before = given.is_floating_point() or given.is_complex()
                if made._version == version or as_before != (made.is_floating_point() or made.is_complex()):
                    apart.add(call.entry["name"])
    assert apart == set()
