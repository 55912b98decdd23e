"""Handle: any object of the client that stands for something on the server. Knows its reference, nothing else."""

from __future__ import annotations

from typing import Any, NoReturn

from tclient._native import HandleFields, bare
from tclient._session.refs import RemoteRef


class Handle(HandleFields):
    """Stands for something that a session holds: a tensor, a generator, a network, an optimiser."""

    __slots__ = ()

    _ref: RemoteRef

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"cannot pickle a {type(self).__name__} of tclient: it lives on the server; "
            "send the elements instead, as x.numpy() or x.tolist()"
        )


class RemoteObject(Handle):
    """Something on the server that is not a tensor, and that only operations can use."""

    __slots__ = ("kind",)

    kind: str

    def __repr__(self) -> str:
        return f"<{self.kind} on {self._ref.session.address}>"


# How a kind of object is wrapped (Value.object of the contract); a kind that is not listed is a RemoteObject.
WRAPPERS: dict[str, type[RemoteObject]] = {}
# What nodes of graphs are, whose kinds are the names of torch's classes: ours have small letters.
NODE = "Node"
_MANY = 4096


def wrap_object(kind: str, ref: RemoteRef) -> RemoteObject:
    """The client's object for something that is not a tensor."""
    cls = WRAPPERS.get(kind)
    if cls is None:
        cls = RemoteObject
        if kind[:1].isupper() and NODE in WRAPPERS:
            cls = type(kind, (WRAPPERS[NODE],), {"__slots__": (), "__module__": "torch.autograd.graph"})
            if len(WRAPPERS) < _MANY:
                WRAPPERS[kind] = cls
    made = bare(cls)
    made._ref = ref
    made.kind = kind
    return made
