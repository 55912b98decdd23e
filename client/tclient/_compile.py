"""compile: a function of tensors, recorded once, kept on the server, and run there with one small call each time.

The first call with arguments of a kind runs the function as it is and records the operations that it issues. What the
function reads from the outside (other tensors, parameters of modules) becomes an input too. Knows how calls are
encoded; does not know sockets.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from tclient import _issue
from tclient._codec.operations import Operation
from tclient._exceptions import TensorError, TensorRuntimeError
from tclient._recording import ProgramMessage, Recorder
from tclient._session.current import current
from tclient._session.handles import Handle
from tclient._session.kinds import Meta
from tclient._session.modes import MODES
from tclient._session.session import Session
from tclient._tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")
_F = TypeVar("_F", bound=Callable[..., Any])

# The key of what a tensor is: more than this a function cannot tell from Python without reading elements.
_Key = tuple[Any, ...]


class _Slot:
    """In the place of a tensor: the position of an output, or the number of an input, which counts from 1, negated."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class _Recorder(Recorder):
    """The operations of a function that is to be compiled."""

    def __init__(self, function: str, session: Session, inputs: list[Handle]) -> None:
        super().__init__(session, inputs)
        self._function = function

    def refused(self, name: str, what: str) -> TensorError:
        """The error for what cannot be recorded."""
        return TensorRuntimeError(
            f"compile: `{name}` within {self._function} {what}, which a recorded function cannot do; "
            "return the tensor, and read it outside"
        )


class _Recording:
    """A function for arguments of one kind: the program on the server, and how to put its results back together."""

    def __init__(self, recorder: Recorder, arguments: int, result: Any, outputs: list[Handle]) -> None:
        self.lines = recorder.lines
        # Inputs behind the arguments: what the function took from the outside.
        self.captured = recorder.inputs[arguments:]
        self._structure = result
        self._count = len(outputs)
        self._metas: list[Meta | None] = [None] * len(outputs)
        self._latest = [weakref.ref(output) for output in outputs]
        with recorder.session.use():
            self._program = _issue.call_builtin("tc.program", ProgramMessage(recorder.program))
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
        result = recorder.run(lambda: self._function(*args, **kwargs))
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
