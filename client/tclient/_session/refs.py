"""RemoteRef: what stands for a thing that the session holds for this client, and what is known of a tensor without it.

All Python objects that stand for one result share its reference, and its end lets the result go. Knows sessions and
calls; does not know how they travel.
"""

from __future__ import annotations

from tclient._codec import wire
from tclient._session.calls import Call
from tclient._session.kinds import Kind, Meta
from tclient._session.session import Session
from tensorcompute.wire.varint import field


class RemoteRef:
    """One result of a call, or a part of one, that the session holds."""

    __slots__ = ("arg", "call", "drop", "epoch", "id", "kind", "meta", "path", "session", "since")

    session: Session
    id: bytes  # the id as a varint
    path: tuple[int, ...]
    arg: bytes  # Call.args of another call that takes it
    drop: bytes  # the field of Call or Batch that lets it go
    call: Call | None  # whose answer describes it, as long as that has not been read
    meta: Meta | None
    epoch: int  # the session's epoch that meta belongs to
    kind: Kind | None  # what it has in common with the results of other calls
    since: int  # the session's epoch that kind belongs to

    def __del__(self) -> None:
        # Runs at any moment, within any lock: appending to a deque is all it may do.
        queue = self.session.queue
        queue.drops.append(self.drop)
        if queue.dozing:
            queue.rouse()


def whole(session: Session, id_bytes: bytes, call: Call | None) -> RemoteRef:
    """The reference to the whole result of a call."""
    ref = RemoteRef()
    ref.session = session
    ref.id = id_bytes
    ref.path = ()
    ref.arg = wire.SHORT_ARG[len(id_bytes) + 1] + b"\x08" + id_bytes
    ref.drop = wire.FREE + id_bytes
    ref.call = call
    ref.meta = ref.kind = None
    ref.epoch = ref.since = -1
    return ref


def part(session: Session, id_bytes: bytes, path: tuple[int, ...], call: Call | None) -> RemoteRef:
    """The reference to a part of the result of a call."""
    ref = RemoteRef()
    ref.session = session
    ref.id = id_bytes
    ref.path = path
    named = wire.ref(id_bytes, path)
    ref.arg = wire.arg(field(b"\x12", named))
    ref.drop = field(wire.FREE_PART, named)
    ref.call = call
    ref.meta = ref.kind = None
    ref.epoch = ref.since = -1
    return ref


def ref_value(ref: RemoteRef) -> bytes:
    """Value.result or Value.ref: the argument without its frame."""
    return ref.arg[2:]
