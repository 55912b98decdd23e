"""Issuing calls: the way from a Python call to bytes in the session's queue. The hot path of the client.

Everything here is counted in nanoseconds: cached bytes are joined, nothing is looked up twice, and no parameter of what
every call passes is for keywords only, which costs CPython half a call more.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tclient._caller import HERE, caller
from tclient._codec.data import buffer_of, encode_data, has_memory, refuse_foreign, warn_if_read_only
from tclient._codec.dtypes import DTYPES
from tclient._codec.operations import DATA_OPERATIONS, TABLE, Operation
from tclient._codec.overloads import Returns, resolve, written
from tclient._codec.values import WHOLE, OddArgument, Scope, encode, register
from tclient._codec.wire import CALL_ID, KWARG, arg, id_varint, named_value
from tclient._codec.wire import call as encoded
from tclient._exceptions import TensorError, TensorTypeError, TensorValueError, attribute
from tclient._native import bare, quick_dispatch
from tclient._session.call_queue import Writes
from tclient._session.calls import GENERAL_CALL, Call
from tclient._session.current import current
from tclient._session.handles import Handle, wrap_object
from tclient._session.kinds import Kind
from tclient._session.modes import MODES
from tclient._session.refs import RemoteRef, ref_value, whole
from tclient._session.results import Decoder, as_before, learn, return_type, unanswered
from tclient._session.session import Session
from tclient._shapes import is_replaced_by_its_like, kind_of
from tensorcompute.wire.packed import INTEGER_LIMIT, MAX_COUNT, NUMBER, bits_of, integer
from tensorcompute.wire.varint import field

_get_frame = sys._getframe
_new_call = Call
_new_ref = RemoteRef

# Of a packed call: its head, its id, and what fits behind them.
_MOST_WORDS = 2 + MAX_COUNT
_SET_DATA = TABLE["Tensor.data.__set__"]
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


class MixedSessions(TensorValueError):
    """Tensors of two sessions in one call."""


def _mixed(one: str, other: str) -> MixedSessions:
    return MixedSessions(
        f"a call takes tensors of one session, but got tensors of two ({one} and {other}); "
        "bring one over with x.to(session=…)"
    )


def _encode_handle(value: Handle, scope: Scope) -> bytes:
    """Something that the session holds: a tensor, a generator, a model."""
    ref = value._ref
    if ref.session.queue is not scope.owner:
        raise _mixed(ref.session.address, scope.owner.address)
    return ref_value(ref)


register(Handle, _encode_handle, derived=True)


def make_tensor(ref: RemoteRef) -> TensorBase:
    """The object for a reference."""
    tensor = bare(TENSOR_CLASS)
    tensor._ref = ref
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
            return value._ref.session
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


def dispatch_any(
    operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None, may_be_odd: bool = False
) -> Any:
    """Issue one call and return what it returns, waiting only where that cannot be told.

    `may_be_odd` lets arguments pass that torch hardly takes: the caller waits for the refusal. Raises:
    NotConnectedError; what torch raises for host data it does not take; if it waits, whatever torch raises.
    """
    state = MODES.state
    if state.recorder is not None:
        return state.recorder.dispatch(operation, args, kwargs)
    # -- encode
    tensor_class = TENSOR_CLASS
    if args and args[0].__class__ is tensor_class:
        session = args[0]._ref.session
    else:
        session = find_session(args, kwargs) or current()
    queue = session.queue
    words: list[int] | None = None
    parts: list[bytes] = []
    if not kwargs and not operation.takes_data:
        words = [0, 0]
        for value in args:
            given = value.__class__
            if given is tensor_class or isinstance(value, TensorBase):
                ref = value._ref
                if ref.path or ref.session is not session:
                    words = None
                    break
                words.append(ref.id)
            elif given is int and -INTEGER_LIMIT <= value < INTEGER_LIMIT:
                words.append(integer(value))
            elif given is float:
                words += (NUMBER, bits_of(value))
            else:
                words = None
                break
    if words is not None and len(words) <= _MOST_WORDS:
        count = len(words) - 2
        words[0] = operation.heads.get(count | state.context << 8) or operation.head(count, state.context)
    else:
        words = None
        try:
            scope = Scope(queue, session.channel.max_inline, may_be_odd=may_be_odd)
            parts = _encode(operation, session, scope, args, kwargs)
        except OddArgument:
            return _ask(operation, session, args, kwargs)
        except TensorError as error:
            raise _refused(error, operation) from None

    # -- what will it return, and what does it change?
    returns = operation.returns
    writes = Writes.NOTHING
    if kwargs and not _NUMPY_KEYWORDS.isdisjoint(kwargs) and _is_for_numpy(operation, kwargs):
        returns = "wait"
    elif kwargs and kwargs.get("out") is not None:
        writes = Writes.METADATA
        returns = "out"
    elif operation.writes or (operation.writes_if and written(operation.entry, args, kwargs or {})):
        writes = Writes.METADATA if operation.meta_change else Writes.ELEMENTS
        if operation is _SET_DATA and is_replaced_by_its_like(session, args):
            writes = Writes.ELEMENTS
    if returns == "by_signature":
        returns = resolve(operation.entry, args, kwargs or {}, is_tensor_argument)

    # -- what is known of it already? (Before the call is put: what changes later is not missed.)
    since = queue.epoch
    kind = kind_of(session, operation, args, kwargs) if operation.tensors else None

    # -- issue
    call = _new_call()
    call.operation = operation
    call.done = False
    call.result = call.failure = None
    frame = _get_frame(1)
    # Who calls this is never the caller that is meant.
    frame = frame.f_back or frame
    while frame.f_code.co_filename.startswith(HERE):
        outer = frame.f_back
        if outer is None:
            break
        frame = outer
    call.code = frame.f_code
    call.lasti = frame.f_lasti

    if returns == "tensor":
        number = queue.next_id()
        ref = _new_ref()
        ref.session = session
        ref.id = number
        ref.path = ()
        ref.call = call
        ref.meta = None
        ref.epoch = -1
        ref.kind = kind
        ref.since = since
        result: Any = bare(tensor_class)
        result._ref = ref
    elif returns == "self":
        number = 0
        result = args[0] if args else next(iter((kwargs or {}).values()))
    elif returns == "none":
        number = 0
        result = None
    elif returns == "out":
        number = 0
        result = _out_result(operation, args, kwargs or {})
    else:
        number = queue.next_id()
        _write(call, words, parts, number)
        return _dispatch_other(operation, returns, session, call, number, writes, kind, since)
    if words is not None:
        words[1] = number
        call.words = words
        call.data = b""
    else:
        _write(call, None, parts, number)
    queue.put(call, writes)
    return result


dispatch = quick_dispatch(dispatch_any)


def _write(call: Call, words: list[int] | None, parts: list[bytes], number: int) -> None:
    """Give a call its words, or its encoded fields, with the id of its result; 0 keeps none."""
    if words is not None:
        words[1] = number
        call.words, call.data = words, b""
    else:
        if number:
            parts.append(CALL_ID + id_varint(number))
        call.words, call.data = GENERAL_CALL, encoded(parts)


def _encode(
    operation: Operation, session: Session, scope: Scope, args: tuple[Any, ...], kwargs: dict[str, Any] | None
) -> list[bytes]:
    """The fields of a call that is not packed, but for its id. Raises: OddArgument, TensorError."""
    parts = [operation.prefix or operation.intern()]
    if operation.takes_data:
        _encode_with_data(operation, session, scope, args, kwargs, parts)
    else:
        parts += [arg(encode(value, scope)) for value in args]
        parts += [field(KWARG, named_value(name, encode(value, scope))) for name, value in (kwargs or {}).items()]
    for each in scope.apart:
        session.transfers.upload(*each)
    parts.append(MODES.state.stamp)
    return parts


def _is_for_numpy(operation: Operation, kwargs: dict[str, Any]) -> bool:
    """Whether one of numpy's functions tries a method in its own way: it has to be told at once if that is refused."""
    name = operation.name
    return name.startswith("Tensor.") and (
        kwargs.get("out", 0) is None or "order" in kwargs or "mode" in kwargs or name == "Tensor.repeat"
    )


def encode_call(operation: Operation, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> bytes:
    """A call as `dispatch` encodes it, without an id: for what is recorded besides being issued."""
    return b"".join(_encode(operation, session, Scope(session.queue, WHOLE), args, kwargs))


def _dispatch_other(
    operation: Operation,
    returns: Returns,
    session: Session,
    call: Call,
    number: int,
    writes: Writes,
    kind: Kind | None,
    since: int,
) -> Any:
    """Results that are not one tensor: several, an object, or whatever the answer will say."""
    if isinstance(returns, dict):
        result: Any = unanswered(returns, session, number, call, make_tensor, kind, since)
    elif returns == "object":
        # "Generator.clone_state" makes a Generator, "tc.network" a network.
        result = wrap_object(operation.name.removeprefix("tc.").partition(".")[0], whole(session, number, call))
    elif kind is not None and kind.items is not None:
        result = as_before(kind, session, number, call, make_tensor, since)
    else:
        session.queue.put(call, writes, is_awaited=True)
        return finish(session, call, number, kind)
    session.queue.put(call, writes)
    return result


def finish(session: Session, call: Call, number: int, kind: Kind | None = None) -> Any:
    """Wait for a call and return what it returned; such as it are of a kind."""
    try:
        value = session.wait(call)
    except BaseException:
        # Whatever the call may have left under its id is of no use to anyone.
        session.queue.drops.append(number)
        raise
    if value is None:
        return None
    if kind is not None:
        learn(kind, value)
    return Decoder(session, number, call.epoch, make_tensor).decode(value)


def prepare(operation: Operation, ref: RemoteRef, kwargs: bytes = b"") -> tuple[Call, int]:
    """A call on one tensor, with encoded keyword arguments; for callers that wait for its answer in their own way."""
    queue = ref.session.queue
    number = queue.next_id()
    call = _call_of(operation)
    if kwargs or ref.path:
        parts = [operation.prefix or operation.intern(), arg(ref_value(ref)), kwargs, MODES.state.stamp]
        _write(call, None, parts, number)
    else:
        _write(call, [operation.head(1, MODES.state.context), 0, ref.id], [], number)
    queue.put(call, is_awaited=True)
    return call, number


def _call_of(operation: Operation) -> Call:
    """A call of an operation, from the caller's line."""
    # The frames of this function, and of that which needs the call.
    frame = caller(2)
    call = _new_call()
    call.operation = operation
    call.done = False
    call.result = call.failure = None
    call.code = frame.f_code
    call.lasti = frame.f_lasti
    return call


def _refused(error: TensorError, operation: Operation) -> TensorError:
    """An argument that does not travel: the error says where it was given."""
    return error if error.operation else attribute(error, operation=operation.name, site=_call_of(operation).site())


def _ask(operation: Operation, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    """Issue a call with an argument that torch hardly takes, and wait for it: it is refused here, and not later."""
    try:
        result = dispatch(operation, args, kwargs, may_be_odd=True)
        if isinstance(result, TensorBase) and result._ref.call is not None:
            session.wait(result._ref.call)
        session.synchronize()
    except TensorError as refusal:
        if any(map(callable, (*args, *(kwargs or {}).values()))):
            refusal.add_note("a callable cannot be sent to the server: no code of a caller runs there")
        raise
    return result


def _encode_with_data(
    operation: Operation,
    session: Session,
    scope: Scope,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
    parts: list[bytes],
) -> None:
    position = DATA_OPERATIONS[operation.name]
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
        encoded, inferred = encode_data(value, scope, wanted, lambda: _default_dtype(session))
        return encoded

    for index, value in enumerate(args):
        parts.append(arg(data(value) if index == position else encode(value, scope)))
    for name, value in (kwargs or {}).items():
        if inferred is None or name != "dtype":
            encoded = data(value) if name in _DATA_NAMES else encode(value, scope)
            parts.append(field(KWARG, named_value(name, encoded)))
    if inferred is not None:
        parts.append(field(KWARG, named_value("dtype", inferred.value)))


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


def issue_backward(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    """Issue a backward pass: one that may meet code of the caller's comes in pieces, between which that runs here."""
    session = find_session(args, kwargs)
    if session is None or session.callers is None or MODES.recorder is not None:
        return dispatch(operation, args, kwargs)
    return session.callers.run(operation, args, kwargs)


def operation_named(name: str) -> Operation:
    """The operation of the table; our own ones also where the table does not list them."""
    found = TABLE.get(name)
    if found is None:
        found = TABLE[name] = Operation({"name": name, "kind": "builtin", "returns": "wait"})
    return found


def issue_effect(operation: Operation, args: tuple[Any, ...]) -> None:
    """Issue a call for its effect alone; whatever it returns is not kept."""
    if MODES.recorder is not None:
        MODES.recorder.check(operation, args, None)
    session = find_session(args, None) or current()
    scope = Scope(session.queue, WHOLE)
    parts = [operation.prefix or operation.intern(), *[arg(encode(value, scope)) for value in args]]
    call = _call_of(operation)
    _write(call, None, parts, 0)
    session.queue.put(call, Writes.ELEMENTS)


def call_builtin(name: str, *args: Any, **kwargs: Any) -> Any:
    """Issue one of the operations of the table by its name: call_builtin("tc.forward", network, x)."""
    return dispatch(operation_named(name), args, kwargs)
