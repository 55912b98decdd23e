"""Running one operation: what comes before the function and after it, for the operations that need something there."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from tserver.engine import cost, sparse, streams
from tserver.engine.extents import check_out, check_sizes_of
from tserver.engine.memory import check_factory
from tserver.engine.new_memory import BACKWARD, on_zeros
from tserver.engine.object_store import ObjectStore
from tserver.engine.operands import call_on_one_device
from tserver.engine.operations import Operation
from tserver.engine.pieces import Pieces, is_in_pieces, whole

_TELLING = frozenset(
    ("tc.read", "tc.numpy", "tc.describe", "tc.storages", "Tensor.item", "Tensor.tolist", "Tensor.__repr__")
)
# Whose calls within are not looked at one by one.
_WHOLE = ("tc.run", "tc.pass")


def apply_operation(store: ObjectStore, operation: Operation, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The result of an operation. New tensors go to the default device, and are within memory and quota.

    Raises: whatever the function raises, torch.OutOfMemoryError, Exhausted.
    """
    if operation.is_factory and store.default_device is not None and kwargs.get("device") is None:
        try:
            return _apply(store, operation, args, {**kwargs, "device": store.default_device})
        except TypeError:
            # To quote the arguments that do not fit is torch's; the device is none of them.
            operation.call(store, args, kwargs)
            raise
    return _apply(store, operation, args, kwargs)


def _apply(store: ObjectStore, operation: Operation, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if store.room.is_full and takes_memory(operation):
        store.room.check(operation.name)
    if operation.allocates:
        check_factory(operation.name, operation.function, args, kwargs)
    out = kwargs.get("out")
    if out is not None:
        check_out(args, kwargs)
    writes = False
    if store.watched:
        # What the calls of a program write is not looked at one by one.
        writes = operation.changes(kwargs) or operation.name.startswith(_WHOLE)
        store.before_call(writes=writes)
    if store.has_giants:
        cost.check(operation.name, args, kwargs)
    if writes and store.borrowers:
        with streams.in_turn(store.state, [borrower.state for borrower in store.borrowers]):
            result = _looked_at(store, operation, args, kwargs)
    elif store.read_only is not None or store.has_sparse:
        result = _looked_at(store, operation, args, kwargs)
    else:
        result = _called(store, operation, args, kwargs)
        if is_in_pieces(result):
            return _in_pieces(store, operation, args, kwargs, result, writes=writes)
    return _looked_after(store, operation, args, kwargs, result, writes=writes)


def _in_pieces(
    store: ObjectStore, operation: Operation, args: list[Any], kwargs: dict[str, Any], pieces: Pieces, *, writes: bool
) -> Pieces:
    return _looked_after(store, operation, args, kwargs, (yield from pieces), writes=writes)


def _looked_after(
    store: ObjectStore, operation: Operation, args: list[Any], kwargs: dict[str, Any], result: Any, *, writes: bool
) -> Any:
    """The result, once it is looked at whether it may be kept."""
    out = kwargs.get("out")
    if out is not None:
        check_sizes_of(out)
    if result is NotImplemented:
        raise unsupported(operation.name, args)
    if operation.stretches and not store.has_giants and cost.is_giant(result):
        store.meet_giant()
    if store.counts:
        elsewhere = writes and (result is None or operation.name.startswith(_WHOLE))
        store.charge(operation.name, result, elsewhere=elsewhere)
    return result


def _looked_at(store: ObjectStore, operation: Operation, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The same, with a look at each kernel where that may meet sparse tensors, or memory of another session."""
    is_backward = operation.name in BACKWARD
    with contextlib.ExitStack() as stack:
        read_only = store.read_only
        if read_only is not None:
            read_only.check([args, kwargs])
            if read_only.concerns(operation.name, args, kwargs, is_backward=is_backward):
                stack.enter_context(read_only)
        if store.has_sparse and sparse.concerns(operation.name, args, kwargs, is_backward=is_backward):
            stack.enter_context(sparse.GUARD)
            # A sparse kernel may take more memory for its result than it writes.
            return whole(on_zeros(_called, (store, operation, args, kwargs), {}))
        result = whole(_called(store, operation, args, kwargs))
        if read_only is not None:
            read_only.check([result])
        return result


def _called(store: ObjectStore, operation: Operation, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if store.has_meta:
        return call_on_one_device(store, operation, args, kwargs)
    return operation.call(store, args, kwargs)


def takes_memory(operation: Operation) -> bool:
    """Whether it makes tensors: not those that write to one in place or tell of one, which are run also where all is
    full.
    """
    name = operation.name.rpartition(".")[2]
    return operation.name not in _TELLING and (not (operation.has_effect and name.endswith("_")) or "resize" in name)


def unsupported(name: str, args: list[Any]) -> TypeError:
    """What Python says when neither operand knows the operator."""
    dunder = name.rpartition(".")[2].strip("_")
    plain = dunder.removeprefix("i").removeprefix("r") if dunder not in _OPERATORS else dunder
    symbol = _OPERATORS.get(plain, plain)
    if dunder != plain and dunder.startswith("i"):
        symbol += "="
    left, right = map(_class_name, args if not dunder.startswith("r") else reversed(args))
    return TypeError(f"unsupported operand type(s) for {symbol}: '{left}' and '{right}'")


def _class_name(argument: Any) -> str:
    """As CPython's messages give it."""
    name = type(argument).__name__
    return (
        f"numpy.{name}"
        if isinstance(argument, np.generic | np.ndarray) and type(argument).__module__ == "numpy"
        else name
    )


_OPERATORS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "div": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "** or pow()",
    "matmul": "@",
    "and": "&",
    "or": "|",
    "xor": "^",
    "lshift": "<<",
    "rshift": ">>",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}
