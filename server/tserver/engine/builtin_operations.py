"""Operations that are not torch's: reads, and the few torch functions that a shared server must run differently.

An operation named `tc.…` is ours alone. The others stand in for torch's function of that name, and do what it does,
except for what their comment says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from tserver.engine import (
    functions,
    gpu_operations,
    initial,
    names,
    networks,
    optimizers,
    profiling,
    reads,
    sampling,
    sparse,
)
from tserver.engine.creation import constructed, from_packed, made_sparse, new_tensor, sent, sent_anew
from tserver.engine.inspect import description
from tserver.engine.models.forwards import FindWithin, forward
from tserver.engine.moving import Parcels
from tserver.engine.new_memory import fill_from, is_zeroed, nbytes
from tserver.engine.object_store import ObjectStore
from tserver.engine.operations import Operation
from tserver.engine.programs import keep_program, run_program
from tserver.engine.storages import storages
from tserver.engine.texts import shown, shown_at_once


def builtin_operations(*, single_owner: bool, find_model: FindWithin, has_gpu: bool = False) -> Iterator[Operation]:
    """All of them. With a single owner, uninitialised memory is left as it is."""

    def model_forward(store: ObjectStore, name: Any, version: Any, *inputs: Any) -> Any:
        return forward(partial(find_model, store.namespace), store.state.pair, name, version, *inputs)

    yield Operation("tc.model_forward", model_forward, needs_store=True)
    yield Operation("tc.read", reads.read_elements, needs_store=True)
    yield Operation("tc.numpy", reads.numpy, needs_store=True)
    yield Operation("tc.describe", description)
    yield Operation("tc.storages", storages, needs_store=True)
    yield Operation("tc.program", keep_program, needs_store=True)
    yield Operation("tc.run", run_program, needs_store=True)
    yield Operation("tc.run_with_effects", run_program, needs_store=True)
    with_stores = {**functions.WITH_STORE, **names.OPERATIONS, **profiling.OPERATIONS}
    for name, with_store in (*with_stores.items(), *Parcels().operations()):
        yield Operation(name, with_store, needs_store=True)
    for name, function in {
        **functions.BUILTIN_OPERATIONS,
        **networks.BUILTIN_OPERATIONS,
        **optimizers.BUILTIN_OPERATIONS,
        **initial.BUILTIN_OPERATIONS,
        **sampling.BUILTIN_OPERATIONS,
        **gpu_operations.BUILTIN_OPERATIONS,
        **profiling.CLOCK,
    }.items():
        yield Operation(name, function)
    for name in ("tensor", "as_tensor", "asarray"):
        create = from_packed(getattr(torch, name))
        yield Operation(name, sent(create) if has_gpu else create, takes_packed=True)
    yield Operation("sparse_coo_tensor", made_sparse(sparse.coo_tensor), needs_store=True, takes_packed=True)
    yield Operation("Tensor.to_sparse", made_sparse(torch.Tensor.to_sparse), needs_store=True)
    for name, apart in sparse.HANDED_OUT.items():
        yield Operation(name, apart(getattr(torch.Tensor, name.removeprefix("Tensor."))))
    yield Operation("tc.constructed", constructed, needs_store=True, takes_packed=True)
    yield Operation("Tensor.tolist", reads.tolist, needs_store=True)
    yield Operation("Tensor.new_tensor", sent_anew(new_tensor) if has_gpu else new_tensor, takes_packed=True)
    yield Operation("set_printoptions", _set_printoptions)
    for name in ("__repr__", "__str__", "__format__"):
        function = getattr(torch.Tensor, name)
        name = f"Tensor.{name}"
        yield Operation(name, shown(function), needs_store=True, at_once=Operation(name, shown_at_once(function)))
    if not single_owner:
        # Freed memory of others would show through.
        for name in ("empty", "empty_like", "empty_strided", "empty_permuted"):
            yield Operation(name, _zeroed(getattr(torch, name)))
        for name in ("new_empty", "new_empty_strided"):
            yield Operation(f"Tensor.{name}", _zeroed(getattr(torch.Tensor, name)))
        for name in ("resize_", "resize_as_"):
            yield Operation(f"Tensor.{name}", _zeroed_growth(getattr(torch.Tensor, name)))
        yield Operation("resize_as_", _zeroed_growth(torch.resize_as_))


def _set_printoptions(*args: Any, **kwargs: Any) -> None:
    """torch's own, within bounds: a text of a million digits would hold up everyone."""
    named = dict(zip(("precision", "threshold", "edgeitems", "linewidth"), args, strict=False)) | kwargs
    for name, most in _MOST_PRINTED.items():
        value = named.get(name)
        if isinstance(value, int) and value > most:
            raise ValueError(f"set_printoptions: {name} is {value}; at most {most} is shown here")
    torch.set_printoptions(*args, **kwargs)


_MOST_PRINTED = {"precision": 100, "edgeitems": 1000}


def _zeroed(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Where the allocator does not do it (new_memory.py)."""

    def create(*args: Any, **kwargs: Any) -> torch.Tensor:
        result = function(*args, **kwargs)
        if not is_zeroed(result.device):
            fill_from(result, 0)
        return result

    return create


def _zeroed_growth(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Where the allocator does not do it (new_memory.py)."""

    def resize(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = args[0] if args else None
        before = nbytes(tensor) if isinstance(tensor, torch.Tensor) else 0
        result = function(*args, **kwargs)
        if not is_zeroed(result.device):
            fill_from(result, before)
        return result

    return resize
