"""The operations that callers may run: the table's names, made callables once, at start.

The table is the allowlist. A name that is not in it is never looked up, here or anywhere.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from importlib import resources
from typing import Any

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine import cost, extents
from tserver.engine.guards import guarded
from tserver.engine.new_memory import BACKWARD, fills, has_graph, on_zeros
from tserver.engine.threads import spread
from tserver.engine.versions import counted
from tserver.errors import CallFailed

# A longer name is no misspelling, and comparing it with every name takes long.
_MAX_HINTED = 60


# The function behind a name, made one that may answer later; None to leave it as it is.
Later = Callable[[str, Callable[..., Any]], Callable[..., Any] | None]
# The function behind a name, made safe.
Guarded = Callable[[str, Callable[..., Any]], Callable[..., Any]]


@dataclass(slots=True)
class Operation:
    """One operation: the function, and what the engine must know about it."""

    name: str
    function: Callable[..., Any]
    # Something is changed besides the result: a failure must reach the caller though nobody asks for a result.
    has_effect: bool = False
    # Parameters that make it change something when they are true, and whether they are by default.
    effect_flags: tuple[tuple[str, bool], ...] = ()
    # The result goes to the default device when no device is given.
    is_factory: bool = False
    # The size of its result is in its arguments, and is checked before memory is taken.
    allocates: bool = False
    # Its result may be a view of many more elements than there are (cost.py).
    stretches: bool = False
    # The session's store is the first argument.
    needs_store: bool = False
    # A packed sequence is passed as it is, not as a list.
    takes_packed: bool = False
    # It may leave memory of its result unwritten, which is zeros then.
    on_zeros: bool = False
    # What it has to write to (`out`) may grow, by memory that is zeros then.
    grows_on_zeros: bool = False
    # Where a result may come later (reads.py): the same with the result at once, for programs.
    at_once: Operation | None = None
    # A call is the function and nothing else, but for the memory it is on.
    is_plain: bool = field(init=False, default=False)
    # A call without `out` is the function and nothing else.
    is_direct: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.derive()

    def derive(self) -> None:
        """Work out what follows from the other fields."""
        self.is_plain = not (self.is_factory or self.allocates or self.stretches or self.needs_store)
        self.is_direct = self.is_plain and not self.on_zeros

    def call(self, store: Any, args: Iterable[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the function returns; it is given the store where it needs one."""
        if self.needs_store:
            args = (store, *args)
        if self.on_zeros and (store.graphs_on_zeros or self.name not in BACKWARD):
            result = on_zeros(self.function, args, kwargs)
            if has_graph(result):
                store.graphs_on_zeros = True
            return result
        if self.grows_on_zeros and kwargs.get("out") is not None:
            return on_zeros(self.function, args, kwargs)
        return self.function(*args, **kwargs)

    def changes(self, kwargs: dict[str, Any]) -> bool:
        """Whether a call with these keyword arguments changes something besides its result."""
        return (
            self.has_effect
            or kwargs.get("out") is not None
            or any(kwargs.get(flag, default) is not False for flag, default in self.effect_flags)
        )


def refusing(operation: Operation, error: pb.Error) -> Operation:
    """Stands in for an operation of calls that are not run any more: it is known what they would have changed."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise CallFailed(error)

    return Operation(
        operation.name,
        refuse,
        has_effect=operation.has_effect,
        effect_flags=operation.effect_flags,
        takes_packed=operation.takes_packed,
    )


class UnknownOperation(AttributeError):
    """An operation that is not in the table; the message names the nearest ones."""


class Operations:
    """All operations of this server, by name."""

    def __init__(
        self,
        own: Iterable[Operation],
        *,
        later: Later | None = None,
        guard: Guarded | None = None,
        single_owner: bool = False,
    ) -> None:
        """Where the server has a device that works by itself, `guard` puts guards before functions whose kernels only
        assert there, and `later` gives functions whose results may come later. With a single owner, uninitialised
        memory is left as it is.
        """
        text = resources.files("tensorcompute.v1").joinpath("operations.json").read_text()
        table = json.loads(text)
        self.digest: str = table["digest"]
        self._by_name: dict[str, Operation] = {}
        self._absent: set[str] = set()
        effects: dict[str, bool] = {}
        for entry in table["operations"]:
            name = entry["name"]
            effects[name] = bool(entry.get("writes") or entry.get("state") or entry["returns"] in ("self", "none"))
            function = None if entry["kind"] == "builtin" else _resolve(name)
            if function is None:
                self._absent.add(name)
                continue
            function = cost.bounded(name, guarded(name, counted(name, function)))
            flag = entry.get("writes_if")
            self._by_name[name] = Operation(
                name,
                spread(name, function if guard is None else guard(name, function)),
                has_effect=effects[name],
                effect_flags=((flag["flag"], bool(flag["default"])),) if flag else (),
                is_factory=bool(entry.get("factory")),
                allocates=_allocates(entry),
                stretches=cost.stretches(name),
            )
        # Our own operations come last: some stand in for torch's function of that name.
        for operation in own:
            if operation.name in effects:
                operation.function = guarded(operation.name, operation.function)
                operation.has_effect = effects[operation.name]
                known = self._by_name.get(operation.name)
                operation.is_factory = known is not None and known.is_factory
                # Data is there already, and a list of it is no shape.
                operation.allocates = known is not None and known.allocates and not operation.takes_packed
                operation.derive()
                self._by_name[operation.name] = operation
        if not single_owner:
            for name, operation in self._by_name.items():
                operation.on_zeros, operation.grows_on_zeros = not fills(name), True
                operation.derive()
        for entry in table["operations"]:
            if entry["name"] in self._by_name:
                operation = self._by_name[entry["name"]]
                operation.function = _kept_within(entry, operation.function)
        if later is not None:
            for operation in list(self._by_name.values()):
                function = later(operation.name, operation.function)
                if function is not None:
                    self._by_name[operation.name] = replace(operation, function=function, at_once=operation)

    def names(self) -> list[str]:
        """The names of all operations."""
        return list(self._by_name)

    def get(self, name: str) -> Operation:
        """The operation of that name, or one that fails when it is run: naming it is not yet an error."""
        found = self._by_name.get(name)
        return found if found is not None else Operation(name[:200], self._refuse(name[:200]))

    def _refuse(self, name: str) -> Callable[..., Any]:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            if name in self._absent:
                raise UnknownOperation(
                    f"operation {name!r} does not exist in torch {torch.__version__}, which this server runs"
                )
            near = difflib.get_close_matches(name, self._by_name, n=3) if len(name) <= _MAX_HINTED else []
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise UnknownOperation(f"operation {name!r} is not in the table of operations{hint}")

        return refuse


def _allocates(entry: dict[str, Any]) -> bool:
    name: str = entry["name"]
    if name == "scalar_tensor":
        return False
    return bool(entry.get("factory")) or name.endswith("_like") or name.startswith("Tensor.new_")


def _kept_within(entry: dict[str, Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose result or first argument stays within its storage if the caller says where it lies."""
    if entry.get("meta_change") and entry["returns"] == "self":
        return extents.restoring(function)
    geometry = entry.get("geometry")
    return function if geometry is None else extents.within(function, by_strides=geometry == "strides")


def _resolve(name: str) -> Callable[..., Any] | None:
    """The callable behind a name of the table; None if this torch has none."""
    try:
        found = reduce(getattr, name.split("."), torch)
    except AttributeError:
        return None
    return found if callable(found) else None
