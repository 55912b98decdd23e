"""Issuing calls: the way from a Python call to bytes in the session's queue. The hot path of the client.

Everything here is counted in nanoseconds: cached bytes are joined, nothing is looked up twice, and no lock is taken.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tclient import _state
from tclient._cell import Call, Cell, whole
from tclient._context import MODES
from tclient._data import buffer_of, encode_data, has_memory, refuse_foreign, warn_if_read_only
from tclient._dtypes import DTYPES
from tclient._exceptions import TensorError, TensorTypeError, attribute
from tclient._handle import Handle, wrap_object
from tclient._operations import TABLE, Operation
from tclient._overloads import resolve, written
from tclient._results import Decoder, return_type, unanswered
from tclient._session import Session
from tclient._values import ASKING, OddArgument, encode, mixed
from tclient._wire import CALL_ID, FREE, SHORT_ARG, arg, field, id_varint, named_value
from tclient._wire import call as call_field

HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_get_frame = sys._getframe
_new_call = Call
_new_cell = Cell

# Operations whose first data argument becomes a tensor.
_DATA_OPERATIONS = {"tensor": 0, "as_tensor": 0, "asarray": 0, "Tensor.new_tensor": 1}
_DATA_NAMES = frozenset({"data", "obj"})
# What numpy's functions give to the methods of what they get, and those of a tensor mostly do not have.
_NUMPY_KEYWORDS = frozenset({"out", "order", "mode", "axis"})
_SEARCH_DEPTH = 8
_SEARCH_WIDTH = 32


class TensorBase(Handle):
    """What the issuing of calls needs to know of a tensor; the rest is in _tensor.py."""

    __slots__ = ("__dict__",)


# The class of results: _tensor.py puts the complete class here.
TENSOR_CLASS: type[TensorBase] = TensorBase


def make_tensor(cell: Cell) -> TensorBase:
    """The object for a cell."""
    tensor = object.__new__(TENSOR_CLASS)
    tensor._cell = cell
    return tensor


def is_tensor_argument(value: Any) -> bool:
    """Whether torch would see a tensor in it."""
    if isinstance(value, TensorBase):
        return True
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def find_session(values: Iterable[Any], kwargs: Mapping[str, Any] | None, depth: int = 0) -> Session | None:
    """The session of the first thing among the arguments that lives in one.

    Looks at the beginning of long lists only: what is behind belongs to the same session, or the call is refused.
    """
    for value in values:
        if isinstance(value, Handle):
            return value._cell.session
        if isinstance(value, (list, tuple, dict)) and depth < _SEARCH_DEPTH:
            inner = value.values() if isinstance(value, dict) else value
            found = find_session(itertools.islice(inner, _SEARCH_WIDTH), None, depth + 1)
            if found is not None:
                return found
    return find_session(kwargs.values(), None) if kwargs else None


def catch_up(values: Iterable[Any]) -> None:
    """Before shapes are asked for one by one: one wait for all of them, in however many batches they come."""
    session = find_session(values, None)
    if session is not None:
        session.catch_up()


def dispatch(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    """Issue one call and return what it returns, waiting only where that cannot be told.

    Raises: NotConnectedError; what torch raises for host data it does not take; if it waits, whatever torch raises.
    """
    if MODES.recorder is not None:
        return MODES.recorder.dispatch(operation, args, kwargs)
    # -- encode
    prefix = operation.prefix
    if prefix is None:
        prefix = operation.intern()
    parts = [prefix]
    tensor_class = TENSOR_CLASS
    if args and args[0].__class__ is tensor_class:
        session = args[0]._cell.session
    else:
        session = find_session(args, kwargs) or _state.current()
    try:
        if operation.name in _DATA_OPERATIONS:
            _encode_with_data(operation, session, args, kwargs, parts)
        else:
            for value in args:
                if value.__class__ is tensor_class:
                    cell = value._cell
                    if cell.session is not session:
                        raise mixed(cell.session, session)
                    parts.append(cell.arg)
                else:
                    encoded = encode(value, session)
                    length = len(encoded)
                    parts.append(SHORT_ARG[length] + encoded if length < 128 else arg(encoded))
            if kwargs:
                for name, value in kwargs.items():
                    parts.append(field(b"\x22", named_value(name, encode(value, session))))
    except OddArgument:
        return _ask(operation, session, args, kwargs)
    except TensorError as error:
        raise _refused(error, operation) from None
    stamp = MODES.stamp
    if stamp:
        parts.append(stamp)
    drops = session.drops
    if drops:
        _drain(session, drops, parts)

    # -- what will it return?
    returns = operation.returns
    if kwargs and not _NUMPY_KEYWORDS.isdisjoint(kwargs) and _is_for_numpy(operation, kwargs):
        returns = "wait"
    elif kwargs and kwargs.get("out") is not None:
        session.epoch += 1
        session.meta_epoch = session.epoch
        returns = "out"
    elif operation.writes or (operation.writes_if and written(operation.entry, args, kwargs or {})):
        session.epoch += 1
        if operation.meta_change:
            session.meta_epoch = session.epoch
    if returns == "by_signature":
        returns = resolve(operation.entry, args, kwargs or {}, is_tensor_argument)

    # -- issue
    call = _new_call()
    call.operation = operation
    call.done = False
    call.result = call.failure = None
    call.epoch = session.epoch
    frame = _get_frame(1)
    while frame.f_code.co_filename.startswith(HERE):
        outer = frame.f_back
        if outer is None:
            break
        frame = outer
    call.code = frame.f_code
    call.lasti = frame.f_lasti

    if returns == "tensor":
        id_bytes = id_varint(session.next_id())
        named = CALL_ID + id_bytes
        parts.append(named)
        cell = _new_cell()
        cell.session = session
        cell.id = id_bytes
        cell.path = ()
        cell.arg = SHORT_ARG[len(named)] + named
        cell.drop = FREE + id_bytes
        cell.call = call
        cell.meta = None
        cell.epoch = -1
        result: Any = object.__new__(tensor_class)
        result._cell = cell
        call.data = call_field(parts)
    elif returns == "self":
        result = args[0] if args else next(iter((kwargs or {}).values()))
        call.data = call_field(parts)
    elif returns == "none":
        result = None
        call.data = call_field(parts)
    elif returns == "out":
        result = _out_result(operation, args, kwargs or {})
        call.data = call_field(parts)
    else:
        return _dispatch_other(operation, returns, session, call, parts)
    if len(call.data) > session.max_light:
        session.hold_heavy(call)
    pending = session.pending
    pending.append(call)
    if session.attention:
        session.attend(call)
    elif len(pending) > session.relief:
        session.relieve()
    return result


def _is_for_numpy(operation: Operation, kwargs: dict[str, Any]) -> bool:
    """Whether one of numpy's functions tries a method in its own way: it has to be told at once if that is refused."""
    name = operation.name
    return name.startswith("Tensor.") and (
        kwargs.get("out", 0) is None or "order" in kwargs or "mode" in kwargs or name == "Tensor.repeat"
    )


def encode_call(operation: Operation, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> bytes:
    """A call as `dispatch` encodes it, without an id: for what is recorded besides being issued."""
    parts = [operation.intern()]
    if operation.name in _DATA_OPERATIONS:
        _encode_with_data(operation, session, args, kwargs, parts)
    else:
        parts += [arg(encode(value, session)) for value in args]
        parts += [field(b"\x22", named_value(name, encode(value, session))) for name, value in (kwargs or {}).items()]
    return b"".join([*parts, MODES.stamp])


def _dispatch_other(operation: Operation, returns: Any, session: Session, call: Call, parts: list[bytes]) -> Any:
    """Results that are not one tensor: several, an object, or whatever the answer will say."""
    id_bytes = id_varint(session.next_id())
    parts.append(CALL_ID + id_bytes)
    call.data = call_field(parts)
    result: Any = None
    if returns == "object":
        # "Generator.clone_state" makes a Generator, "tc.network" a network.
        result = wrap_object(operation.name.removeprefix("tc.").partition(".")[0], whole(session, id_bytes, call))
    elif returns != "wait":
        result = unanswered(returns, session, id_bytes, call, make_tensor)
    if returns == "wait":
        session.expect(call)
        return finish(session, call, id_bytes)
    submit(session, call)
    return result


def _drain(session: Session, drops: deque[bytes], parts: list[bytes]) -> None:
    """Results dropped by now are let go before the call: their place in the sequence keeps memory low."""
    for _ in range(min(len(drops), session.max_drain)):
        try:
            parts.append(drops.popleft())
        except IndexError:  # another thread was quicker
            return


def submit(session: Session, call: Call) -> None:
    """Put an encoded call on its way."""
    if len(call.data) > session.max_light:
        session.hold_heavy(call)
    session.pending.append(call)
    if session.attention:
        session.attend(call)
    elif len(session.pending) > session.relief:
        session.relieve()


def finish(session: Session, call: Call, id_bytes: bytes) -> Any:
    """Wait for a call and return what it returned."""
    try:
        value = session.wait(call)
    except BaseException:
        # Whatever the call may have left under its id is of no use to anyone.
        session.drops.append(FREE + id_bytes)
        raise
    if value is None:
        return None
    return Decoder(session, id_bytes, call.epoch, make_tensor).decode(value)


def prepare(operation: Operation, cell: Cell, kwargs: bytes = b"") -> tuple[Call, bytes]:
    """A call on one tensor, with encoded keyword arguments; for callers that wait for its answer in their own way."""
    session = cell.session
    id_bytes = id_varint(session.next_id())
    parts = [operation.prefix or operation.intern(), CALL_ID + id_bytes, cell.arg]
    if kwargs:
        parts.append(kwargs)
    if MODES.stamp:
        parts.append(MODES.stamp)
    if session.drops:
        _drain(session, session.drops, parts)
    call = _caller()
    call.operation = operation
    call.done = False
    call.result = call.failure = None
    call.epoch = session.epoch
    call.data = call_field(parts)
    session.expect(call)
    return call, id_bytes


def _caller() -> Call:
    """A call that knows only the caller's line."""
    frame = _get_frame(1)
    while frame.f_code.co_filename.startswith(HERE) and frame.f_back is not None:
        frame = frame.f_back
    call = _new_call()
    call.code = frame.f_code
    call.lasti = frame.f_lasti
    return call


def _refused(error: TensorError, operation: Operation) -> TensorError:
    """An argument that does not travel: the error says where it was given."""
    return error if error.operation else attribute(error, operation=operation.name, site=_caller().site())


def _ask(operation: Operation, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    """Issue a call with an argument that torch hardly takes, and wait for it: it is refused here, and not later."""
    ASKING.waits = True
    try:
        result = dispatch(operation, args, kwargs)
        if isinstance(result, TensorBase) and result._cell.call is not None:
            session.wait(result._cell.call)
        session.synchronize()
    except TensorError as refusal:
        if any(map(callable, (*args, *(kwargs or {}).values()))):
            refusal.add_note("a callable cannot be sent to the server: no code of a caller runs there")
        raise
    finally:
        ASKING.waits = False
    return result


def _encode_with_data(
    operation: Operation, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any] | None, parts: list[bytes]
) -> None:
    position = _DATA_OPERATIONS[operation.name]
    wanted: Any = kwargs.get("dtype") if kwargs else None
    if wanted is None and operation.name == "as_tensor" and len(args) > 1:
        wanted = args[1]
    if wanted is None and position:
        # new_tensor: the dtype is that of its tensor.
        wanted = lambda: args[0].dtype  # noqa: E731
    inferred: Any = None

    def data(value: Any) -> bytes:
        nonlocal inferred
        if operation.name == "as_tensor" or (operation.name == "asarray" and wanted is None):
            warn_if_read_only(value)
        if operation.name == "asarray":
            if isinstance(value, np.generic) and (kwargs or {}).get("copy") is not False:
                refuse_foreign(value)
            value = buffer_of(value, wanted, lambda: _default_dtype(session))
            if (kwargs or {}).get("copy") is False and not has_memory(value):
                # Whatever it holds: torch says that it has no memory.
                value = []
        encoded, inferred = encode_data(value, session, wanted, lambda: _default_dtype(session))
        return encoded

    for index, value in enumerate(args):
        parts.append(arg(data(value) if index == position else encode(value, session)))
    for name, value in (kwargs or {}).items():
        if inferred is None or name != "dtype":
            encoded = data(value) if name in _DATA_NAMES else encode(value, session)
            parts.append(field(b"\x22", named_value(name, encoded)))
    if inferred is not None:
        parts.append(field(b"\x22", named_value("dtype", inferred.value)))


def _default_dtype(session: Session) -> Any:
    if session.default_dtype_known:
        return DTYPES["float32"]
    return dispatch(TABLE["get_default_dtype"], (), None)


def _out_result(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`out=` calls return the caller's own tensors."""
    out = kwargs["out"]
    if isinstance(out, (tuple, list)):
        others = {name: value for name, value in kwargs.items() if name != "out"}
        returns = resolve(operation.entry, args, others, is_tensor_argument)
        if isinstance(returns, dict) and "fields" in returns and len(returns["fields"]) == len(out):
            return return_type(returns["type"] + "_out", tuple(returns["fields"]))(out)
        return tuple(out)
    if not isinstance(out, TensorBase):
        raise TensorTypeError(f"{operation.name}(): argument 'out' must be Tensor, not {type(out).__name__}")
    return out


def operation_named(name: str) -> Operation:
    """The operation of the table; our own ones also where the table does not list them."""
    found = TABLE.get(name)
    if found is None:
        found = TABLE[name] = Operation({"name": name, "kind": "own", "returns": "wait"})
    return found


def issue_effect(operation: Operation, args: tuple[Any, ...]) -> None:
    """Issue a call for its effect alone; whatever it returns is not kept."""
    session = find_session(args, None) or _state.current()
    parts = [operation.prefix or operation.intern(), *[arg(encode(value, session)) for value in args]]
    call = _caller()
    call.operation = operation
    call.done = False
    call.result = call.failure = None
    session.epoch += 1
    call.epoch = session.epoch
    call.data = call_field(parts)
    submit(session, call)


def own(name: str, *args: Any, **kwargs: Any) -> Any:
    """Issue one of the operations of the table by its name: own("tc.forward", network, x)."""
    return dispatch(operation_named(name), args, kwargs)
