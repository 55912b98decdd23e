"""Nobody sees memory that was not written for him. New memory is marked here, so that it shows."""

from __future__ import annotations

import contextlib
import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.operations.calls import copied, from_torch, from_us, operators, tensors
from tests.operations.samples import SAMPLES
from tserver.engine import new_memory
from tserver.engine.builtin_operations import builtin_operations
from tserver.engine.new_memory import fills
from tserver.engine.operations import Operation, Operations

_MARK = (0x7FEDBEEF).to_bytes(4, "little") * 2
_SIZE = 4096


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> Iterator[memoryview]:
    """Within the test, new memory is marked; but where the engine asks for zeros, it gets them."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    byte = (ctypes.c_ubyte * 1).in_dll(library, "FLAGS_caffe2_cpu_allocator_do_junk_fill")
    junk = memoryview(byte).cast("B")
    switched = new_memory._switched

    def switch(*call: Any) -> Any:
        # torch takes it for a mistake when both are asked for.
        junk[0] = 0
        try:
            return switched(*call)
        finally:
            junk[0] = 1

    monkeypatch.setattr(new_memory, "_switched", switch)
    junk[0] = 1
    yield junk
    junk[0] = 0


def _store() -> Any:
    return SimpleNamespace(graphs_on_zeros=False)


def no_model(namespace: str, name: str, version: int) -> Any:
    raise LookupError(name)


def _operations(*, single_owner: bool = False) -> Operations:
    return Operations(builtin_operations(single_owner=single_owner, find_model=no_model), single_owner=single_owner)


@pytest.fixture(scope="module")
def known() -> Operations:
    """The operations of a server."""
    return _operations()


def _is_marked(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.is_meta:
        return False
    size = new_memory.nbytes(tensor)
    return size >= len(_MARK) and _MARK in ctypes.string_at(tensor.untyped_storage().data_ptr(), size)


def _empty(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(0, dtype=dtype)


def _ints(value: int) -> Tensor:
    return torch.full((_SIZE,), value)


_FAILING: dict[str, Callable[[Tensor, Callable[..., Any]], Any]] = {
    "gather": lambda out, run: run(torch.ones(4), 0, _ints(10**9), out=out),
    "index_select": lambda out, run: run(torch.ones(4), 0, _ints(10**9), out=out),
    "take": lambda out, run: run(torch.ones(4), _ints(10**9), out=out),
    "linalg.inv": lambda out, run: run(torch.zeros(64, 64), out=out),
    "linalg.cholesky": lambda out, run: run(-torch.eye(64), out=out),
}


@pytest.mark.parametrize("name", _FAILING)
@pytest.mark.parametrize("by", ["switch", "hand"])
def test_what_a_failed_call_has_grown_is_zeros(
    known: Operations, marks: memoryview, monkeypatch: pytest.MonkeyPatch, name: str, by: str
) -> None:
    operation = known.get(name)
    with pytest.raises((RuntimeError, IndexError)):
        _FAILING[name](shown := _empty(), operation.function)
    if by == "hand":
        monkeypatch.setattr(new_memory, "_switch", None)
    with pytest.raises((RuntimeError, IndexError)):
        _FAILING[name](out := _empty(), lambda *args, **kwargs: operation.call(_store(), args, kwargs))
    if new_memory.nbytes(shown):
        assert _is_marked(shown) or shown.count_nonzero()
    assert not _is_marked(out)
    assert new_memory.nbytes(out) == new_memory.nbytes(shown)


def test_integers_that_are_divided_by_zero_leave_zeros(known: Operations, marks: memoryview) -> None:
    for name in ("floor_divide", "remainder", "fmod"):
        operation = known.get(name)
        out = _empty(torch.int64)
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            operation.call(_store(), (_ints(1), _ints(0)), {"out": out})
        assert not _is_marked(out)
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            operation.function(_ints(1), _ints(0), out=(shown := _empty(torch.int64)))
        assert _is_marked(shown)


def test_memory_that_torch_leaves_unwritten_is_zeros(known: Operations, marks: memoryview) -> None:
    x = torch.ones(2)
    for name, args in (
        ("empty", (_SIZE,)),
        ("empty_strided", ((2, 2), (_SIZE, 1))),
        ("empty_like", (torch.ones(_SIZE),)),
        ("Tensor.new_empty", (x, (_SIZE,))),
        ("Tensor.resize_", (x, _SIZE)),
        ("Tensor.resize_", (known.get("Tensor.data.__get__").call(_store(), (torch.ones(2),), {}), _SIZE)),
        ("resize_as_", (torch.ones(3), torch.ones(_SIZE))),
    ):
        assert not _is_marked(known.get(name).call(_store(), args, {})), name
    assert x[:2].tolist() == [1, 1]


def test_a_single_owner_gets_memory_as_it_is(marks: memoryview) -> None:
    alone = _operations(single_owner=True)
    assert _is_marked(alone.get("empty").call(_store(), (_SIZE,), {}))
    with pytest.raises((RuntimeError, IndexError)):
        _FAILING["gather"](out := _empty(), lambda *args, **kwargs: alone.get("gather").call(_store(), args, kwargs))
    assert _is_marked(out)


def _calls(wanted: Callable[[str], bool]) -> Iterator[tuple[Operation, Any, Any]]:
    known = _operations()
    found = [call for name in SAMPLES for call in from_us(name)]
    found += [call for operator in operators() for call in from_torch(operator, 3)]
    for call in found:
        if wanted(call.entry["name"]):
            yield known.get(call.entry["name"]), copied(call.args), copied(call.kwargs)


def test_operations_that_are_not_given_zeros_write_all_of_their_result(marks: memoryview) -> None:
    marked = set()
    count = 0
    for operation, args, kwargs in _calls(fills):
        with contextlib.suppress(Exception):  # a sample that was made for another operation
            result = operation.call(_store(), args, kwargs)
            count += 1
            marked |= {operation.name for made in tensors(result) if _is_marked(made)}
    assert marked == set()
    assert count > 500


def test_a_backward_writes_all_of_its_gradients_or_has_zeros(marks: memoryview, known: Operations) -> None:
    marked = set()
    on_zeros = Counter[bool]()
    for operation, args, kwargs in _calls(lambda name: not name.startswith("tc.") and "backward" not in name):
        leaves = [tensor for tensor in tensors([list(args), kwargs]) if tensor.is_floating_point()]
        store = _store()
        with contextlib.suppress(Exception):
            for leaf in leaves:
                leaf.requires_grad_()
            result = [made for made in tensors(operation.call(store, args, kwargs)) if made.requires_grad]
            gradients = [torch.ones_like(made) for made in result]
            known.get("autograd.backward").call(store, (result, gradients), {})
            on_zeros[store.graphs_on_zeros] += 1
            marked |= {operation.name for leaf in leaves if leaf.grad is not None and _is_marked(leaf.grad)}
    assert marked == set()
    assert min(on_zeros[True], on_zeros[False]) > 200
