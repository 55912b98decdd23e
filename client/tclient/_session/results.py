"""What calls return, as Python objects: tensors of unanswered calls at once, plain values when they are answered.

Knows references, and makes tensors through a function it is given; does not know how answers come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tclient._codec.device import device
from tclient._codec.dtypes import BY_CODE, LAYOUTS, MEMORY_FORMATS
from tclient._codec.overloads import Count, Fields
from tclient._codec.size import size_of
from tclient._exceptions import ServerFailed
from tclient._session.calls import Call
from tclient._session.handles import wrap_object
from tclient._session.kinds import Kind, Meta
from tclient._session.refs import RemoteRef, part, whole
from tclient._session.session import Session
from tensorcompute.v1 import tensor_pb2 as pb

MakeTensor = Callable[[RemoteRef], Any]


class ReturnType(tuple[Any, ...]):
    """A result with named fields, as torch's own: a tuple whose items have names."""

    __slots__ = ()
    _torch_name = ""
    _field_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        items = ",\n".join(f"{name}={item!r}" for name, item in zip(self._field_names, self, strict=True))
        return f"{self._torch_name}(\n{items})"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"'{self._torch_name}' object has no attribute '{name}'", name=name, obj=self)

    def __reduce__(self) -> Any:
        return return_type, (self._torch_name, self._field_names), None


_return_types: dict[tuple[str, tuple[str, ...]], type[ReturnType]] = {}


def return_type(name: str, fields: tuple[str, ...]) -> type[ReturnType]:
    """The class of results with these fields; one for each of torch's."""
    found = _return_types.get((name, fields))
    if found is None:
        members: dict[str, Any] = {
            "__slots__": (),
            "_torch_name": name,
            "_field_names": fields,
            "__match_args__": fields,
            "n_fields": len(fields),
            "n_sequence_fields": len(fields),
            "__module__": name.rpartition(".")[0] or "torch.return_types",
        }
        for position, field in enumerate(fields):
            members[field] = property(_getter(position))
        found = type(name.rpartition(".")[2], (ReturnType,), members)
        _return_types[name, fields] = found
    return found


def _getter(position: int) -> Callable[[Any], Any]:
    def get(self: Any) -> Any:
        return self[position]

    return get


def unanswered(
    returns: Fields | Count,
    session: Session,
    number: int,
    call: Call,
    make: MakeTensor,
    kind: Kind | None = None,
    since: int = -1,
) -> Any:
    """The tensors that a call surely returns, before it is answered. `kind` is known since that epoch."""
    count = len(returns["fields"]) if "fields" in returns else returns["count"]
    items = []
    for position in range(count):
        ref = part(session, number, (position,), call)
        if kind is not None:
            ref.kind, ref.since = kind.part(position), since
        items.append(make(ref))
    if "fields" in returns:
        return return_type(returns["type"], tuple(returns["fields"]))(items)
    return tuple(items)


def as_before(
    kind: Kind, session: Session, number: int, call: Call, make: MakeTensor, since: int
) -> list[Any] | tuple[Any, ...]:
    """What a call returns that returned several tensors before, for arguments of the same kinds."""
    assert kind.items is not None
    made = unanswered({"count": len(kind.items)}, session, number, call, make, kind, since)
    items = [item if is_tensor else None for item, is_tensor in zip(made, kind.items, strict=True)]
    return items if isinstance(kind.items, list) else tuple(items)


def learn(kind: Kind, value: pb.Value) -> None:
    """Takes in what such a call returned, if it is a list or tuple of tensors, or None for some of them."""
    which = value.WhichOneof("kind")
    if which not in ("list", "tuple"):
        return
    items = value.list.items if which == "list" else value.tuple.items
    kinds = [item.WhichOneof("kind") for item in items]
    if not {"tensor", "none"}.issuperset(kinds):
        return
    for position, item in enumerate(items):
        if kinds[position] == "tensor":
            kind.part(position).learn(Meta(item.tensor))
    are_tensors = [each == "tensor" for each in kinds]
    kind.items = are_tensors if which == "list" else tuple(are_tensors)


class Decoder:
    """Turns the answer of one call into Python objects."""

    def __init__(self, session: Session, number: int, epoch: int, make: MakeTensor) -> None:
        self._session = session
        self._id = number
        self._epoch = epoch
        self._make = make

    def decode(self, value: pb.Value, path: tuple[int, ...] = ()) -> Any:
        """The Python object. Raises ServerFailed for a value that this client does not know."""
        kind = value.WhichOneof("kind")
        plain = _PLAIN.get(kind)
        if plain is not None:
            return plain(value)
        if kind == "tensor":
            ref = self._ref(path)
            ref.meta = Meta(value.tensor)
            ref.epoch = self._epoch
            return self._make(ref)
        if kind == "tuple":
            return tuple(self._items(value.tuple.items, path))
        if kind == "list":
            return self._items(value.list.items, path)
        if kind == "named_tuple":
            named = value.named_tuple
            return return_type(named.type, tuple(named.fields))(self._items(named.items, path))
        if kind == "mapping":
            return {
                entry.name: self.decode(entry.value, (*path, position))
                for position, entry in enumerate(value.mapping.entries)
            }
        if kind == "object":
            return wrap_object(value.object, self._ref(path))
        raise ServerFailed(f"the server returned a value of kind {kind!r}, which this client does not know; upgrade it")

    def _items(self, items: Sequence[pb.Value], path: tuple[int, ...]) -> list[Any]:
        return [self.decode(item, (*path, position)) for position, item in enumerate(items)]

    def _ref(self, path: tuple[int, ...]) -> RemoteRef:
        return part(self._session, self._id, path, None) if path else whole(self._session, self._id, None)


_PLAIN: dict[str | None, Callable[[pb.Value], Any]] = {
    "integer": lambda value: value.integer,
    "unsigned": lambda value: value.unsigned,
    "big_integer": lambda value: int.from_bytes(value.big_integer, "little", signed=True),
    "number": lambda value: value.number,
    "boolean": lambda value: value.boolean,
    "text": lambda value: value.text,
    "none": lambda value: None,
    "complex": lambda value: complex(value.complex.real, value.complex.imag),
    "dtype": lambda value: BY_CODE[value.dtype],
    "device": lambda value: device(value.device),
    "size": lambda value: size_of(value.size.dims),
    "memory_format": lambda value: MEMORY_FORMATS[value.memory_format],
    "layout": lambda value: LAYOUTS[value.layout],
    "ellipsis": lambda value: ...,
}


def meta_at(value: pb.Value, path: tuple[int, ...]) -> pb.TensorMeta | None:
    """The description of the tensor at that place of an answer."""
    for step in path:
        kind = value.WhichOneof("kind")
        if kind == "named_tuple":
            items: Any = value.named_tuple.items
        elif kind == "tuple":
            items = value.tuple.items
        elif kind == "list":
            items = value.list.items
        else:
            return None
        if step >= len(items):
            return None
        value = items[step]
    return value.tensor if value.WhichOneof("kind") == "tensor" else None
