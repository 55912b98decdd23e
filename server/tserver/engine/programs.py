"""Programs: calls that are kept on the server and run as one, on inputs that change.

A program is taken apart once, when it is kept: names become functions, constants become values, and each call knows
which slots it reads. A run is then little more than the functions themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from google.protobuf.message import DecodeError

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.apply import apply_operation
from tserver.engine.functions import WITH_STORE
from tserver.engine.modes import Mode
from tserver.engine.moving import NAMES as BETWEEN_SESSIONS
from tserver.engine.names import OPERATIONS as NAMES
from tserver.engine.object_store import ObjectStore
from tserver.engine.operations import Operation
from tserver.engine.pieces import Pieces, whole
from tserver.engine.program_graphs import ProgramGraphs, is_capturable
from tserver.engine.values import bytes_of, decode
from tserver.errors import InvalidArgument

MAX_CALLS = 100_000
# Operations that look at a session from outside, which a run cannot do.
_NOT_WITHIN = frozenset(
    {
        *("tc.read", "tc.numpy", "tc.describe", "tc.program", "tc.gpu_synchronize"),
        *(*WITH_STORE, *NAMES, *BETWEEN_SESSIONS),
    }
)
# Programs that run programs could make calls without number; the client records the calls of the inner one instead.
_NOT_NESTED = frozenset({"tc.run", "tc.run_with_effects"})

# What a slot holds before it is filled, and after it was let go.
_EMPTY = object()
Slots = list[Any]
Getter = Callable[[Slots], Any]


class Running:
    """The call of a program that is being run, of a session's or a model's, for who looks from outside."""

    step: Any = None


# There is one thread that runs any.
RUNNING = Running()


class _Slots:
    """Stands in for a session's store while the arguments of a program are decoded: what they name are slots."""

    def __init__(self, store: ObjectStore, filled: set[int]) -> None:
        self._store = store
        self.max_nesting = store.max_nesting
        # A program that is larger than a message is uploaded whole.
        self.max_inline_bytes = sys.maxsize
        self._filled = filled

    def whole(self, call_id: int) -> Any:
        """A mark for a slot, which the plan of the call replaces."""
        return _Slot(self._checked(call_id), ())

    def part(self, ref: pb.Ref) -> Any:
        """A mark for a part of what a slot holds."""
        return _Slot(self._checked(ref.id), tuple(ref.path))

    def take_upload(self, upload_id: int) -> Any:
        """Refused: a program outlives an upload."""
        raise InvalidArgument("a program cannot take an upload; make it a tensor first, and an input")

    def meet_meta(self) -> None:
        """The program names the meta device."""
        self._store.meet_meta()

    def meet_sparse(self) -> None:
        """The program names a layout that is not the strided one."""
        self._store.meet_sparse()

    def _checked(self, slot: int) -> int:
        if slot not in self._filled:
            raise InvalidArgument(f"the program reads slot {slot}, which nothing fills, or which was let go")
        return slot


class _Slot:
    __slots__ = ("index", "path")

    def __init__(self, index: int, path: tuple[int, ...]) -> None:
        self.index, self.path = index, path


class _Step:
    """One call, taken apart."""

    __slots__ = (
        "args",
        "constant_kwargs",
        "fills",
        "frees",
        "is_capturable",
        "kwargs",
        "mode",
        "operation",
        "slots_only",
    )

    def __init__(self, operation: Operation, args: list[Any], kwargs: dict[str, Any], call: pb.Call) -> None:
        self.operation = operation
        # Where every argument is a whole slot, the plan is the numbers of the slots.
        self.slots_only = (
            tuple(arg.index for arg in args) if all(isinstance(arg, _Slot) and not arg.path for arg in args) else None
        )
        self.args = [_getter(arg) for arg in args]
        self.constant_kwargs = kwargs if not any(map(_has_slot, kwargs.values())) else None
        self.kwargs = {name: _getter(value) for name, value in kwargs.items()}
        self.fills = call.id
        self.frees = tuple(call.frees)
        self.mode: Mode | None = None
        self.is_capturable = (
            (operation.is_plain or operation.stretches)
            and not operation.changes(dict.fromkeys(kwargs, False))
            # What may be told to write is captured where it is told by name not to, or not told at all.
            and (not operation.effect_flags or not any(value is True or _has_slot(value) for value in args[1:]))
            and not any(kwargs.get(flag) for flag, _ in operation.effect_flags)
            and "out" not in kwargs
            and is_capturable(operation.name, [*_constants(args), *_constants(list(kwargs.values()))])
        )


class Program:
    """Calls that are kept."""

    held_as: ClassVar[str] = "program"

    def __init__(self, store: ObjectStore, message: pb.Program) -> None:
        if len(message.calls) > MAX_CALLS:
            raise InvalidArgument(f"the program has {len(message.calls)} calls; at most {MAX_CALLS} are kept")
        # What it was made of: the indices in it count in these lists, which only grow.
        self.message = message.SerializeToString()
        self._operations, self._contexts = store.operations, store.contexts
        if message.inputs > MAX_CALLS:
            raise InvalidArgument(f"the program has {message.inputs} inputs; at most {MAX_CALLS} are taken")
        self._inputs = message.inputs
        self._size = 1 + self._inputs
        filled = set(range(1, self._inputs + 1))
        slots = _Slots(store, filled)
        self._steps = [self._step(store, slots, filled, call, message.context) for call in message.calls]
        if not message.HasField("result"):
            raise InvalidArgument("the program has no result; set `none` for none")
        self._result = _getter(decode(slots, message.result))
        # On a device that works by itself, and where every call can be captured.
        self._graphs: ProgramGraphs | None = None
        if store.state.pair is not None and all(step.is_capturable and step.mode is None for step in self._steps):
            self._graphs = ProgramGraphs(f"{len(self._steps)} calls")

    def _step(self, store: ObjectStore, slots: _Slots, filled: set[int], call: pb.Call, context: int) -> _Step:
        if call.operation >= len(store.operations):
            raise InvalidArgument(f"operation index {call.operation} is not defined by the session")
        operation = store.operations[call.operation]
        operation = operation.at_once or operation
        if operation.name in _NOT_WITHIN | _NOT_NESTED:
            raise InvalidArgument(f"{operation.name} cannot be a call of a program")
        filled.difference_update(call.frees)
        args = [decode(slots, value) for value in call.args]
        kwargs = {entry.name: decode(slots, entry.value) for entry in call.kwargs}
        step = _Step(operation, args, kwargs, call)
        if call.context != context:
            step.mode = store.mode(call.context)
        if call.id:
            if call.id in filled or call.id > self._inputs + MAX_CALLS:
                raise InvalidArgument(f"slot {call.id} is filled already, or far beyond the number of calls")
            filled.add(call.id)
            self._size = max(self._size, call.id + 1)
        return step

    def tables(self) -> tuple[list[str], list[pb.Context]]:
        """The operations and modes that the indices in its message count in, as far as they are needed."""
        message = pb.Program.FromString(self.message)
        named = {call.operation for call in message.calls}
        names = [self._operations[index].name if index in named else "" for index in range(max(named, default=-1) + 1)]
        most = max([message.context, *(call.context for call in message.calls)])
        return names, self._contexts[:most]

    def run(self, store: ObjectStore, inputs: Sequence[Any]) -> Any:
        """The result for these inputs, or what gives it in pieces: a call at a time.

        Raises: InvalidArgument, and whatever a call raises.
        """
        if len(inputs) != self._inputs:
            raise InvalidArgument(f"the program takes {self._inputs} inputs, but {len(inputs)} are given")
        pair = store.state.pair
        if self._graphs is None or pair is None or store.counts or store.has_sparse:
            return self._run(store, inputs)
        graphs = self._graphs
        if store.state.others:
            # A graph is of one GPU. Its calls are such as do not ask which one is current.
            first = next((value.device for value in inputs if isinstance(value, torch.Tensor)), store.state.device)
            pair = store.state.pair_on(first) or pair
            with pair.within():
                return whole(graphs.run(lambda given: self._run(store, given), inputs, pair))
        return graphs.run(lambda given: self._run(store, given), inputs, pair)

    def _run(self, store: ObjectStore, inputs: Sequence[Any]) -> Pieces:
        slots: Slots = [_EMPTY] * self._size
        slots[1 : 1 + len(inputs)] = inputs
        for step in self._steps:
            RUNNING.step = step
            for slot in step.frees:
                if slot < len(slots):
                    slots[slot] = _EMPTY
            operation = step.operation
            try:
                if step.mode is None:
                    result = self._call(store, step, operation, slots)
                else:
                    with step.mode:
                        result = self._call(store, step, operation, slots)
            except Exception as error:
                RUNNING.step = None
                error.add_note(f"in `{operation.name}`, a call of the program")
                raise
            if step.fills:
                slots[step.fills] = result
            RUNNING.step = result = None
            yield
        return self._result(slots)

    def _call(self, store: ObjectStore, step: _Step, operation: Operation, slots: Slots) -> Any:
        args: list[Any]
        if step.slots_only is not None:
            args = [slots[slot] for slot in step.slots_only]
        else:
            args = [get(slots) for get in step.args]
        kwargs = step.constant_kwargs
        if kwargs is None:
            kwargs = {name: get(slots) for name, get in step.kwargs.items()}
        is_free = not (store.has_meta or store.has_giants or store.has_sparse or store.read_only is not None)
        if operation.is_direct and is_free and "out" not in kwargs:
            result = operation.function(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return apply_operation(store, operation, args, dict(kwargs))


def _has_slot(value: Any) -> bool:
    if isinstance(value, _Slot):
        return True
    if isinstance(value, (list, tuple)):
        return any(map(_has_slot, value))
    if isinstance(value, dict):
        return any(map(_has_slot, value.values()))
    if isinstance(value, slice):
        return any(map(_has_slot, (value.start, value.stop, value.step)))
    return False


def _constants(values: list[Any]) -> Iterator[Any]:
    """What of some arguments does not come from slots."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _constants(list(value))
        elif not isinstance(value, _Slot):
            yield value


def _getter(value: Any) -> Getter:
    """A function that makes an argument from the slots."""
    if isinstance(value, _Slot):
        index, path = value.index, value.path
        if not path:
            return lambda slots: slots[index]

        def part(slots: Slots) -> Any:
            found = slots[index]
            for step in path:
                found = found[step]
            return found

        return part
    if not _has_slot(value):
        # A list is made anew each time: a function may keep or change the one it is given.
        return (lambda slots: list(value)) if isinstance(value, list) else (lambda slots: value)
    if isinstance(value, slice):
        start, stop, stride = _getter(value.start), _getter(value.stop), _getter(value.step)
        return lambda slots: slice(start(slots), stop(slots), stride(slots))
    if isinstance(value, dict):
        named = {name: _getter(item) for name, item in value.items()}
        return lambda slots: {name: get(slots) for name, get in named.items()}
    items = [_getter(item) for item in value]
    if isinstance(value, tuple):
        return lambda slots: tuple([get(slots) for get in items])
    return lambda slots: [get(slots) for get in items]


def keep_program(store: ObjectStore, message: pb.Program | torch.Tensor) -> Program:
    """`tc.program`: keep a program. Raises: InvalidArgument."""
    if isinstance(message, torch.Tensor) and message.dtype is torch.uint8:
        data = bytes_of(message).tobytes()
        try:
            message = pb.Program.FromString(data)
        except DecodeError as error:
            raise InvalidArgument(f"tc.program: these {len(data)} bytes are not a program: {error}") from None
    if not isinstance(message, pb.Program):
        raise InvalidArgument(f"tc.program takes a program, not a {type(message).__name__}")
    return Program(store, message)


def run_program(store: ObjectStore, program: Any, *inputs: Any) -> Any:
    """`tc.run`: run a program that is kept."""
    if not isinstance(program, Program):
        raise InvalidArgument(f"tc.run takes a program that is kept, not a {type(program).__name__}")
    return program.run(store, inputs)
