"""The table tells the truth: torch's own calls return, change and draw what their entries say.

The calls come from the samples that torch ships for its operators, and from ours where it has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tclient._codec.overloads import resolve, written
from tests.operations.calls import Invocation, from_torch, from_us, is_tensor, operators, table, targets, tensors
from tests.operations.samples import SAMPLES

_DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
# They need a CUDA device or a tensor that is not strided; torch refuses any other.
_NOT_CALLED = {
    "Generator.get_offset",
    "Generator.set_offset",
    "Tensor.__delitem__",
    "Tensor.cuda",
    "Tensor.crow_indices",
    "Tensor.col_indices",
    "Tensor.ccol_indices",
    "Tensor.row_indices",
    *(f"{name}_copy" for name in ("indices", "values", "crow_indices", "col_indices", "ccol_indices", "row_indices")),
}
_REFUSED = (RuntimeError, TypeError, ValueError, IndexError, AttributeError, NotImplementedError, AssertionError)


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """A seed and one thread for each test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(7)
    yield
    torch.set_num_threads(threads)


def _run(call: Invocation) -> tuple[bool, Any]:
    """Whether torch took the call, and what it returned. Some samples are made for another operation."""
    try:
        result = call.run()
    except _REFUSED:
        return False, None
    return result is not NotImplemented, result


def _kind(result: Any) -> Any:
    if result is None:
        return "none"
    if is_tensor(result):
        return "tensor"
    if isinstance(result, torch.Generator):
        return "object"
    if isinstance(result, tuple) and not isinstance(result, torch.Size) and all(is_tensor(item) for item in result):
        if type(result) is tuple:
            return {"count": len(result)}
        kind: Any = type(result)
        return {"fields": list(kind.__match_args__), "type": f"torch.return_types.{kind.__name__}"}
    return "wait"


def _check(call: Invocation) -> bool:
    """Run a call and hold it against its entry. Returns whether torch took it."""
    entry, name = call.entry, call.entry["name"]
    said = resolve(entry, call.args, call.kwargs, is_tensor)
    targets_said = list(tensors(written(entry, call.args, call.kwargs)))
    given = list(tensors([*call.args, call.kwargs]))
    versions = [tensor._version for tensor in given]
    shapes = [(tensor.shape, tensor.stride(), tensor.dtype) for tensor in given]
    random_state = torch.get_rng_state()

    taken, result = _run(call)

    if not torch.equal(random_state, torch.get_rng_state()):
        assert entry.get("random"), f"{name} drew random numbers"
    if not taken:
        return False
    if said == "self":
        assert result is call.args[0], f"{name} returned something else than its first argument"
    elif said != "wait":
        assert _kind(result) == said, name
    for tensor, version, shape in zip(given, versions, shapes, strict=True):
        if tensor._version != version:
            known = any(tensor is target for target in targets_said)
            assert known, f"{name} wrote to an argument that the table does not name"
        if (tensor.shape, tensor.stride(), tensor.dtype) != shape:
            assert entry.get("meta_change"), f"{name} changed the shape of an argument"
    return True


@pytest.mark.parametrize("operator", operators())
def test_an_operation_returns_changes_and_draws_what_its_entry_says(operator: str) -> None:
    for call in from_torch(operator, 2):
        _check(call)


@pytest.mark.parametrize("name", SAMPLES)
def test_an_operation_without_samples_of_torch_keeps_to_its_entry(name: str) -> None:
    for call in from_us(name):
        assert _check(call), f"torch refuses our sample of {name}"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize("operator", operators())
def test_the_table_holds_for_every_sample_and_dtype(operator: str, dtype: torch.dtype) -> None:
    for call in from_torch(operator, 1000, dtype):
        _check(call)


def test_every_operation_has_a_sample() -> None:
    sampled = set(SAMPLES).union(*(names for _, names in operators().values()))
    assert set(targets()) - sampled == _NOT_CALLED


@pytest.mark.slow
def test_torch_takes_a_sample_of_every_operation() -> None:
    called = set(SAMPLES)
    for operator, (_, names) in operators().items():
        if not called.issuperset(names):
            called.update(call.entry["name"] for call in from_torch(operator, 20) if _run(call)[0])
    assert set(targets()) - called == _NOT_CALLED


@pytest.mark.parametrize("name", sorted(name for name in targets() if table()[name].get("random")))
def test_what_the_table_calls_random_draws(name: str) -> None:
    if name in {"get_rng_state", "set_rng_state"}:
        pytest.skip("reads or restores the random state and draws nothing")
    calls = list(from_us(name)) if name in SAMPLES else []
    for operator, (_, names) in operators().items():
        if name in names:
            calls.extend(call for call in from_torch(operator, 2) if call.entry["name"] == name)
    for call in calls:
        before = torch.get_rng_state()
        if _run(call)[0] and not torch.equal(before, torch.get_rng_state()):
            return
    pytest.fail(f"none of {len(calls)} calls of {name} drew a random number")
