"""Recording: the operations that a thread issues while a function runs, as a program of the contract.

The function runs as it is, and each of its calls is issued and noted. What it reads from the outside (other tensors,
parameters of modules) becomes an input behind those that it is given. Knows how calls are encoded; does not know what
becomes of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

from tclient import _issue
from tclient._codec.operations import USED, Operation
from tclient._codec.values import register
from tclient._exceptions import TensorError
from tclient._session.handles import Handle
from tclient._session.modes import MODES
from tclient._session.refs import RemoteRef
from tclient._session.session import Session
from tclient._tensor import Tensor
from tensorcompute.v1 import tensor_pb2 as pb

R = TypeVar("R")

# Results whose size depends on the elements: what follows in Python could differ from run to run.
_DATA_DEPENDENT = frozenset(
    f"{prefix}{name}"
    for name in ("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount")
    for prefix in ("", "Tensor.")
)
# The id and path under which the session knows a thing.
Name = tuple[int, tuple[int, ...]]


class Recorder:
    """The operations of one thread while a function is recorded."""

    # Operations that answer with something of Python's, which the function may go on with.
    allowed_reads: ClassVar[frozenset[str]] = frozenset()
    # Whether gradients are recorded besides: what runs in this process in a backward is refused then.
    has_gradients: ClassVar[bool] = True
    # Whether modules may stand for calls as networks that the session keeps.
    has_networks: ClassVar[bool] = True

    def __init__(self, session: Session, inputs: list[Handle]) -> None:
        self.program = pb.Program(context=context_of(MODES.stamp))
        self.inputs = inputs
        self.lines: list[str] = []
        self.changes = self.meta_change = False
        self.session = session
        # Inputs: their slot, by the id and path under which the session knows them; and those ids.
        self._slots: dict[Name, int] = {}
        self._input_ids: set[int] = set()
        # Calls, each with the id of what it made, if that was not there before; and all those ids.
        self._calls: list[tuple[pb.Call, int | None]] = []
        self._made: set[int] = set()
        # Names stay taken while the recording lasts: a thing that was dropped must not lend its name to another.
        self._alive: list[Any] = []
        for number, handle in enumerate(inputs, 1):
            self._put(name_of(handle._ref), number)

    def dispatch(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """Run a call as it is, and record it. Raises: what `refused` gives, for what cannot be recorded."""
        self.check(operation, args, kwargs)
        encoded = _issue.encode_call(operation, self.session, args, kwargs)
        MODES.recorder = None
        try:
            result = _issue.dispatch(operation, args, kwargs)
        finally:
            MODES.recorder = self
        if is_plain(result):
            if operation.name in self.allowed_reads:
                return result
            raise self.refused(operation.name, "reads a value")
        for handle in handles_in([args, kwargs or {}]):
            self.input_number(handle)
        made = next((made for made, _ in map(name_of, _refs_of(result)) if self._is_new(made)), None)
        if made is not None:
            self._made.add(made)
        self._calls.append((pb.Call.FromString(encoded), made))
        self._alive.append((args, kwargs, result))
        self.changes = (
            self.changes or operation.writes or operation.writes_if or bool(kwargs and kwargs.get("out") is not None)
        )
        self.meta_change = self.meta_change or operation.meta_change
        return result

    def check(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> None:
        """Looks at a call before it is issued. Raises: what `refused` gives."""
        if depends_on_elements(operation, args, kwargs or {}):
            raise self.refused(operation.name, "gives a result whose size depends on the elements")

    def refused(self, name: str, what: str) -> TensorError:
        """The error for what cannot be recorded."""
        raise NotImplementedError

    def run(self, function: Callable[[], R]) -> R:
        """What the function returns; its calls are recorded."""
        before, MODES.recorder = MODES.recorder, self
        try:
            return function()
        finally:
            MODES.recorder = before

    def input_number(self, handle: Handle) -> int | None:
        """Which input a thing is; what was taken from the outside becomes one. None if it was made within."""
        name = name_of(handle._ref)
        if name not in self._slots and name[0] not in self._made:
            self.inputs.append(handle)
            self._put(name, len(self.inputs))
        return self._slots.get(name)

    def _put(self, name: Name, number: int) -> None:
        self._slots[name] = number
        self._input_ids.add(name[0])

    def _is_new(self, made: int) -> bool:
        return made not in self._made and made not in self._input_ids

    def finish(self, outputs: list[Handle]) -> None:
        """Give everything its slot, now that it is known what is an input."""
        inside: dict[int, int] = {}
        for call, made in self._calls:
            for value in values_of(call):
                self._rename(value, inside)
            if made is not None:
                call.id = inside[made] = len(self.inputs) + len(inside) + 1
            self.program.calls.append(call)
            self.lines.append(self._line(call))
        self.program.inputs = len(self.inputs)
        results = [pb.Value() for _ in outputs]
        for value, handle in zip(results, outputs, strict=True):
            name = name_of(handle._ref)
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
        args = ", ".join(
            [text_of(value) for value in call.args] + [f"{kw.name}={text_of(kw.value)}" for kw in call.kwargs]
        )
        return f"{f'%{call.id} = ' if call.id else ''}{name}({args})"


def is_plain(result: Any) -> bool:
    """Whether something in a result is neither a tensor nor None: a value that Python could go on with."""
    if isinstance(result, (list, tuple)):
        return any(map(is_plain, result))
    return result is not None and not isinstance(result, Handle)


def depends_on_elements(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the size of the result follows from elements."""
    name = operation.name
    if name in _DATA_DEPENDENT:
        return True
    short = name.removeprefix("Tensor.")
    if short == "where":
        return len(args) + len(kwargs) == 1
    if short == "repeat_interleave":
        repeats = args[1] if len(args) > 1 else kwargs.get("repeats", args[0] if args else None)
        return isinstance(repeats, Tensor) and kwargs.get("output_size") is None
    if name == "nn.functional.one_hot":
        return bool((args[1] if len(args) > 1 else kwargs.get("num_classes", -1)) == -1)
    return _is_masked(operation, args)


def _is_masked(operation: Operation, args: tuple[Any, ...]) -> bool:
    """x[mask]: as many elements as the mask has True ones."""
    if operation.name != "Tensor.__getitem__" or len(args) < 2:
        return False
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    return any(isinstance(item, Tensor) and str(item.dtype) in ("torch.bool", "torch.uint8") for item in index)


class ProgramMessage:
    """A program on its way into a call."""

    def __init__(self, program: pb.Program) -> None:
        self.value = pb.Value(program=program).SerializeToString()


register(ProgramMessage, lambda message, scope: message.value)


def context_of(stamp: bytes) -> int:
    return pb.Call.FromString(stamp).context if stamp else 0


def name_of(ref: RemoteRef) -> Name:
    return ref.id, ref.path


def handles_in(value: Any) -> Iterator[Handle]:
    if isinstance(value, Handle):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from handles_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from handles_in(item)
    elif isinstance(value, slice):
        yield from handles_in([value.start, value.stop, value.step])


def _refs_of(result: Any) -> list[RemoteRef]:
    return [handle._ref for handle in handles_in(result)]


def values_of(call: pb.Call) -> Iterator[pb.Value]:
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
    for value in values_of(call):
        yield (value.result, ()) if value.result else (value.ref.id, tuple(value.ref.path))


def text_of(value: pb.Value) -> str:
    kind = value.WhichOneof("kind")
    if kind == "result":
        return f"%{value.result}"
    if kind == "ref":
        return f"%{value.ref.id}{''.join(f'[{step}]' for step in value.ref.path)}"
    if kind in ("list", "tuple"):
        return f"({', '.join(map(text_of, getattr(value, kind).items))})"
    if kind == "mapping":
        return "{" + ", ".join(f"{entry.name}: {text_of(entry.value)}" for entry in value.mapping.entries) + "}"
    if kind == "size":
        return str(tuple(value.size.dims))
    if kind == "slice":
        bounds = (getattr(value.slice, name) for name in ("start", "stop", "step") if value.slice.HasField(name))
        return ":".join(map(text_of, bounds)) or ":"
    if kind in ("none", "ellipsis"):
        return "None" if kind == "none" else "..."
    return str(getattr(value, kind or "none")).strip().replace("\n", " ")
