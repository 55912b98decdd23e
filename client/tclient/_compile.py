"""compile: a function of tensors, recorded once, kept on the server, and run there with one small call each time.

The first call with arguments of a kind runs the function as it is and records the operations that it issues. What the
function reads from the outside (other tensors, parameters of modules) becomes an input too. Knows how calls are
encoded; does not know sockets.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, overload

from tclient import _issue
from tclient._codec.operations import USED, Operation
from tclient._codec.values import register
from tclient._exceptions import TensorError, TensorRuntimeError
from tclient._session.current import current
from tclient._session.handles import Handle
from tclient._session.kinds import Meta
from tclient._session.modes import MODES
from tclient._session.refs import RemoteRef
from tclient._session.session import Session
from tclient._tensor import Tensor
from tensorcompute.v1 import tensor_pb2 as pb

P = ParamSpec("P")
R = TypeVar("R")
_F = TypeVar("_F", bound=Callable[..., Any])

# Results whose size depends on the elements: what follows in Python could differ from run to run.
_DATA_DEPENDENT = frozenset(
    f"{prefix}{name}"
    for name in ("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount")
    for prefix in ("", "Tensor.")
)
# The key of what a tensor is: more than this a function cannot tell from Python without reading elements.
_Key = tuple[Any, ...]
# The id and path under which the session knows a thing.
_Name = tuple[int, tuple[int, ...]]


class _Slot:
    """In the place of a tensor: the position of an output, or the number of an input, which counts from 1, negated."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class _Recorder:
    """The operations of one thread while a function is recorded."""

    def __init__(self, function: str, session: Session, inputs: list[Handle]) -> None:
        self.program = pb.Program(context=_context(MODES.stamp))
        self.inputs = inputs
        self.lines: list[str] = []
        self.changes = self.meta_change = False
        self._function = function
        self.session = session
        # Inputs: their slot, by the id and path under which the session knows them; and those ids.
        self._slots: dict[_Name, int] = {}
        self._input_ids: set[int] = set()
        # Calls, each with the id of what it made, if that was not there before; and all those ids.
        self._calls: list[tuple[pb.Call, int | None]] = []
        self._made: set[int] = set()
        # Names stay taken while the recording lasts: a thing that was dropped must not lend its name to another.
        self._alive: list[Any] = []
        for number, handle in enumerate(inputs, 1):
            self._put(_name(handle._ref), number)

    def dispatch(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """Run a call as it is, and record it."""
        if operation.name in _DATA_DEPENDENT or _is_masked(operation, args):
            raise self.refused(operation.name, "gives a result whose size depends on the elements")
        encoded = _issue.encode_call(operation, self.session, args, kwargs)
        MODES.recorder = None
        try:
            result = _issue.dispatch(operation, args, kwargs)
        finally:
            MODES.recorder = self
        if _is_plain(result):
            raise self.refused(operation.name, "reads a value")
        for handle in _handles([args, kwargs or {}]):
            self.input_number(handle)
        made = next((made for made, _ in map(_name, _refs_of(result)) if self._is_new(made)), None)
        if made is not None:
            self._made.add(made)
        self._calls.append((pb.Call.FromString(encoded), made))
        self._alive.append((args, kwargs, result))
        self.changes = (
            self.changes or operation.writes or operation.writes_if or bool(kwargs and kwargs.get("out") is not None)
        )
        self.meta_change = self.meta_change or operation.meta_change
        return result

    def refused(self, name: str, what: str) -> TensorError:
        """The error for what cannot be recorded."""
        return TensorRuntimeError(
            f"compile: `{name}` within {self._function} {what}, which a recorded function cannot do; "
            "return the tensor, and read it outside"
        )

    def input_number(self, handle: Handle) -> int | None:
        """Which input a thing is; what was taken from the outside becomes one. None if it was made within."""
        name = _name(handle._ref)
        if name not in self._slots and name[0] not in self._made:
            self.inputs.append(handle)
            self._put(name, len(self.inputs))
        return self._slots.get(name)

    def _put(self, name: _Name, number: int) -> None:
        self._slots[name] = number
        self._input_ids.add(name[0])

    def _is_new(self, made: int) -> bool:
        return made not in self._made and made not in self._input_ids

    def finish(self, outputs: list[Handle]) -> None:
        """Give everything its slot, now that it is known what is an input."""
        inside: dict[int, int] = {}
        for call, made in self._calls:
            for value in _values(call):
                self._rename(value, inside)
            if made is not None:
                call.id = inside[made] = len(self.inputs) + len(inside) + 1
            self.program.calls.append(call)
            self.lines.append(self._line(call))
        self.program.inputs = len(self.inputs)
        results = [pb.Value() for _ in outputs]
        for value, handle in zip(results, outputs, strict=True):
            name = _name(handle._ref)
            value.ref.id, value.ref.path[:] = name[0], list(name[1])
            self._rename(value, inside)
        if len(results) == 1:
            self.program.result.CopyFrom(results[0])
        elif results:
            self.program.result.tuple.items.extend(results)
        else:
            self.program.result.none.SetInParent()
        self._let_go({value.result or value.ref.id for value in results})

    def _rename(self, value: pb.Value, inside: dict[int, int]) -> None:
        ref = (value.result, ()) if value.result else (value.ref.id, tuple(value.ref.path))
        slot = self._slots.get(ref)
        if slot is not None:
            value.result = slot
        elif ref[1]:
            value.ref.id = inside[ref[0]]
        else:
            value.result = inside[ref[0]]

    def _let_go(self, needed: set[int]) -> None:
        """Empty each slot before the call that follows its last use, as the function itself would."""
        last: dict[int, int] = {}
        for index, call in enumerate(self.program.calls):
            for slot, _ in _refs(call):
                last[slot] = index
            if call.id:
                last.setdefault(call.id, index)
        for slot, index in last.items():
            if slot > len(self.inputs) and slot not in needed and index + 1 < len(self.program.calls):
                self.program.calls[index + 1].frees.append(slot)

    def _line(self, call: pb.Call) -> str:
        name = USED[call.operation]
        args = ", ".join([_text(value) for value in call.args] + [f"{kw.name}={_text(kw.value)}" for kw in call.kwargs])
        return f"{f'%{call.id} = ' if call.id else ''}{name}({args})"


class _Recording:
    """A function for arguments of one kind: the program on the server, and how to put its results back together."""

    def __init__(self, recorder: _Recorder, arguments: int, result: Any, outputs: list[Handle]) -> None:
        self.lines = recorder.lines
        # Inputs behind the arguments: what the function took from the outside.
        self.captured = recorder.inputs[arguments:]
        self._structure = result
        self._count = len(outputs)
        self._metas: list[Meta | None] = [None] * len(outputs)
        self._latest = [weakref.ref(output) for output in outputs]
        with recorder.session.use():
            self._program = _issue.call_builtin("tc.program", _Message(recorder.program))
        name = "tc.run_with_effects" if recorder.changes else "tc.run"
        returns: Any = "none" if not outputs else "tensor" if len(outputs) == 1 else {"count": len(outputs)}
        self._operation = Operation(
            {
                "name": name,
                "returns": returns,
                "writes": ["program"] if recorder.changes else [],
                "meta_change": recorder.meta_change,
            }
        )

    def run(self, arguments: list[Handle]) -> Any:
        """Issue the one call."""
        made = _issue.dispatch(self._operation, (self._program, *arguments, *self.captured), None)
        outputs: list[Any] = [] if not self._count else [made] if self._count == 1 else list(made)
        self._foretell(outputs)
        inputs = arguments + self.captured

        def fill(value: Any) -> Any:
            if not isinstance(value, _Slot):
                return value
            return outputs[value.number] if value.number >= 0 else inputs[-1 - value.number]

        return _mapped(self._structure, fill)

    def _foretell(self, outputs: list[Any]) -> None:
        """Results of the same arguments are described as those before: nobody need wait to learn their shape."""
        for position, output in enumerate(outputs):
            if self._metas[position] is None:
                before = self._latest[position]()
                self._metas[position] = before._ref.meta if before is not None else None
                self._latest[position] = weakref.ref(output)
            ref = output._ref
            if ref.meta is None and ref.call is not None and self._metas[position] is not None:
                ref.meta, ref.epoch = self._metas[position], ref.call.epoch


class Compiled:
    """What `compile` returns: called as the function is."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._recordings: weakref.WeakKeyDictionary[Session, dict[_Key, _Recording]] = weakref.WeakKeyDictionary()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result of the function: recorded at the first call with arguments of a kind, run on the server then.

        Raises: RuntimeError where the function cannot be recorded, and whatever its operations raise.
        """
        if MODES.recorder is not None:
            # A compiled function within another is recorded as part of it.
            return self._function(*args, **kwargs)
        tensors: list[Handle] = []
        kind = (MODES.stamp, self._surroundings(), _key((args, kwargs), tensors))
        session = tensors[0]._ref.session if tensors else current()
        recordings = self._recordings.setdefault(session, {})
        found = recordings.get(kind)
        if found is not None:
            return found.run(tensors)
        recorder = _Recorder(getattr(self._function, "__qualname__", repr(self._function)), session, list(tensors))
        MODES.recorder = recorder
        try:
            result = self._function(*args, **kwargs)
        finally:
            MODES.recorder = None
        outputs: list[Handle] = []
        positions: dict[int, int] = {}

        def place(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if (number := recorder.input_number(value)) is not None:
                return _Slot(-number)
            if id(value) not in positions:
                positions[id(value)] = len(outputs)
                outputs.append(value)
            return _Slot(positions[id(value)])

        structure = _mapped(result, place)
        recorder.finish(outputs)
        recordings[kind] = _Recording(recorder, len(tensors), structure, outputs)
        return result

    def recorded(self) -> str:
        """What was recorded so far, a line for each operation; %1, %2 … are the inputs."""
        texts = ["\n".join(one.lines) for by_kind in self._recordings.values() for one in by_kind.values()]
        return "\n\n".join(texts) or "nothing is recorded yet: call the function"

    def _surroundings(self) -> _Key:
        """Which tensors and modules the function sees in its closure and its globals; others are another recording."""
        function = self._function
        owner = getattr(function, "__self__", function)
        seen: list[Any] = [owner] if hasattr(owner, "named_parameters") else []
        code = getattr(function, "__code__", None)
        if code is not None:
            seen += [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
            names = function.__globals__
            seen += [names[name] for name in code.co_names if name in names]
        return tuple(itertools.chain.from_iterable(map(_identity, seen)))


_MODES = ("default", "lite", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")


@overload
def compile(
    model: Callable[P, R],
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = None,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    name: str | None = None,
    disable: bool = False,
) -> Callable[P, R]: ...
@overload
def compile(
    model: None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = None,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    name: str | None = None,
    disable: bool = False,
) -> Callable[[_F], _F]: ...
def compile(
    model: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = None,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    name: str | None = None,
    disable: bool = False,
) -> Any:
    """A function that runs on the server as one call, whatever its length; also as a decorator.

    The first call with arguments of a kind (shapes, dtypes, devices, requires_grad, sameness, modes, and all that is
    not a tensor by value) runs the function as it is and records its operations; later ones send one small message.
    Python code of the function does not run again, so what it does besides operations happens once. Reading elements
    inside (item(), numpy(), if x:) is refused, as are results whose size depends on elements.

    A module becomes a module around it, with its attributes and its state. It runs as it is, since its Python code may
    do anything; with fullgraph=True, which says that it is operations alone, it is recorded as a function is.

    `compiled.recorded()` shows what was recorded. With disable=True the function stays as it is; what else torch takes
    is taken, and changes nothing. Raises: RuntimeError for a mode that torch does not have, or one with options.

    Example:
        >>> import tclient as torch
        >>> @torch.compile
        ... def step(y, x):
        ...     return torch.tanh(y @ x) + x
    """
    if mode is not None and options is not None:
        raise RuntimeError("Either mode or options can be specified, but both can't be specified at the same time.")
    if mode is not None and mode not in _MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: {', '.join(_MODES)}")
    if model is None:
        return lambda function: compile(function, disable=disable)
    if disable:
        return model
    made: Any = model
    if not callable(model):
        raise AssertionError(f"A callable function is expected, but {type(model)} is provided.")
    if hasattr(model, "named_parameters") and not isinstance(model, type):
        from tclient.nn._compiled import compiled

        return compiled(made, fullgraph)
    return Compiled(model)


# ---- arguments and results -------------------------------------------------------------------------------------------


def _key(value: Any, tensors: list[Handle]) -> Any:
    """What kind of argument it is; tensors are collected, each once."""
    if isinstance(value, Tensor):
        for position, known in enumerate(tensors):
            if known._ref is value._ref:
                return position
        tensors.append(value)
        meta = value._meta(grad=True)
        return (len(tensors), tuple(meta.shape), meta.dtype, str(meta.device), meta.requires_grad)
    if isinstance(value, Handle):
        tensors.append(value)
        return (len(tensors), type(value).__name__)
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *(_key(item, tensors) for item in value))
    if isinstance(value, dict):
        return ("dict", *((name, _key(item, tensors)) for name, item in value.items()))
    if hasattr(value, "named_parameters"):
        return _identity(value)
    try:
        hash(value)
    except TypeError:
        return (type(value).__name__, repr(value))
    return (type(value).__name__, value)


def _identity(seen: Any) -> _Key:
    """Tensors and modules by identity; of a module, its parameters, buffers and modes too."""
    if isinstance(seen, Handle):
        return (id(seen._ref),)
    if hasattr(seen, "named_parameters") and hasattr(seen, "modules") and not isinstance(seen, type):
        tensors = itertools.chain(seen.parameters(), seen.buffers())
        return (id(seen), *(id(one._ref) for one in tensors), *(module.training for module in seen.modules()))
    return ()


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _mapped(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """A result with another thing in the place of each that is no container."""
    if isinstance(value, list):
        return [_mapped(item, leaf) for item in value]
    if isinstance(value, tuple):
        items = [_mapped(item, leaf) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, dict):
        return {name: _mapped(item, leaf) for name, item in value.items()}
    return leaf(value)


def _is_plain(result: Any) -> bool:
    """Whether something in a result is neither a tensor nor None: a value that Python could go on with."""
    if isinstance(result, (list, tuple)):
        return any(map(_is_plain, result))
    return result is not None and not isinstance(result, Handle)


def _is_masked(operation: Operation, args: tuple[Any, ...]) -> bool:
    """x[mask]: as many elements as the mask has True ones."""
    if operation.name != "Tensor.__getitem__" or len(args) < 2:
        return False
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    return any(isinstance(item, Tensor) and str(item.dtype) in ("torch.bool", "torch.uint8") for item in index)


# ---- the encoded calls -----------------------------------------------------------------------------------------------


class _Message:
    """A program on its way into a call."""

    def __init__(self, program: pb.Program) -> None:
        self.value = pb.Value(program=program).SerializeToString()


register(_Message, lambda message, scope: message.value)


def _context(stamp: bytes) -> int:
    return pb.Call.FromString(stamp).context if stamp else 0


def _name(ref: RemoteRef) -> _Name:
    return ref.id, ref.path


def _handles(value: Any) -> Iterator[Handle]:
    if isinstance(value, Handle):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _handles(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _handles(item)
    elif isinstance(value, slice):
        yield from _handles([value.start, value.stop, value.step])


def _refs_of(result: Any) -> list[RemoteRef]:
    return [handle._ref for handle in _handles(result)]


def _values(call: pb.Call) -> Iterator[pb.Value]:
    """Every value of a call that names a thing."""
    pending = [*call.args, *(entry.value for entry in call.kwargs)]
    while pending:
        value = pending.pop()
        kind = value.WhichOneof("kind")
        if kind in ("result", "ref"):
            yield value
        elif kind == "list":
            pending += value.list.items
        elif kind == "tuple":
            pending += value.tuple.items
        elif kind == "mapping":
            pending += [entry.value for entry in value.mapping.entries]
        elif kind == "slice":
            bounds = value.slice
            pending += [getattr(bounds, name) for name in ("start", "stop", "step") if bounds.HasField(name)]


def _refs(call: pb.Call) -> Iterator[tuple[int, tuple[int, ...]]]:
    for value in _values(call):
        yield (value.result, ()) if value.result else (value.ref.id, tuple(value.ref.path))


def _text(value: pb.Value) -> str:
    kind = value.WhichOneof("kind")
    if kind == "result":
        return f"%{value.result}"
    if kind == "ref":
        return f"%{value.ref.id}{''.join(f'[{step}]' for step in value.ref.path)}"
    if kind in ("list", "tuple"):
        return f"({', '.join(map(_text, getattr(value, kind).items))})"
    if kind == "mapping":
        return "{" + ", ".join(f"{entry.name}: {_text(entry.value)}" for entry in value.mapping.entries) + "}"
    if kind == "size":
        return str(tuple(value.size.dims))
    if kind == "slice":
        bounds = (getattr(value.slice, name) for name in ("start", "stop", "step") if value.slice.HasField(name))
        return ":".join(map(_text, bounds)) or ":"
    if kind in ("none", "ellipsis"):
        return "None" if kind == "none" else "..."
    return str(getattr(value, kind or "none")).strip().replace("\n", " ")
