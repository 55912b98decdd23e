"""RemoteRef: what stands for a thing that the session holds for this client, and what is known of a tensor without it.

All Python objects that stand for one result share its reference, and its end lets the result go. Knows sessions and
calls; does not know how they travel.
"""

from __future__ import annotations

from tclient._codec import wire
from tclient._native import RefFields
from tclient._session.calls import Call, Name
from tclient._session.kinds import Kind, Meta
from tclient._session.session import Session
from tensorcompute.wire.varint import field


class RemoteRef(RefFields):
    """One result of a call, or a part of one, that the session holds."""

    __slots__ = ()

    session: Session
    id: int
    path: tuple[int, ...]
    call: Call | None  # whose answer describes it, as long as that has not been read
    meta: Meta | None
    epoch: int  # the session's epoch that meta belongs to
    kind: Kind | None  # what it has in common with the results of other calls
    since: int  # the session's epoch that kind belongs to

    @property
    def name(self) -> Name:
        """What names it, for the server and for what is kept by it."""
        return (self.id, self.path) if self.path else self.id


def whole(session: Session, number: int, call: Call | None) -> RemoteRef:
    """The reference to the whole result of a call."""
    return part(session, number, (), call)


def part(session: Session, number: int, path: tuple[int, ...], call: Call | None) -> RemoteRef:
    """The reference to a part of the result of a call."""
    ref = RemoteRef()
    ref.session = session
    ref.id = number
    ref.path = path
    ref.call = call
    ref.meta = ref.kind = None
    ref.epoch = ref.since = -1
    return ref


def ref_value(ref: RemoteRef) -> bytes:
    """Value.result or Value.ref."""
    return field(b"\x12", wire.ref(ref.id, ref.path)) if ref.path else b"\x08" + wire.id_varint(ref.id)
