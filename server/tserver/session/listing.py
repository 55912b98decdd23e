"""Sessions as others may be shown them: by an id that opens nothing, and only to who may know of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.errors import InvalidArgument, NotFound
from tserver.identity import Identity

if TYPE_CHECKING:
    from tserver.session.registry import Sessions
    from tserver.session.session import Seen, Session


def listed(sessions: Sessions, identity: Identity) -> list[ts.SessionInfo]:
    """Those that a caller may know of, the oldest first."""
    return oldest_first(_info(each.seen()) for each in sessions.visible(identity))


def _info(seen: Seen) -> ts.SessionInfo:
    return ts.SessionInfo(
        id=seen.id,
        principal=seen.principal,
        client=seen.client,
        peer=seen.peer,
        age_s=max(0.0, time.time() - seen.opened_unix_s),
        is_attached=seen.is_attached,
        lease_left_s=seen.lease_left_s,
        tensors=seen.tensors,
        tensor_bytes=seen.held_bytes,
        batches=seen.waiting,
    )


def oldest_first(told: Iterable[ts.SessionInfo]) -> list[ts.SessionInfo]:
    """In the order in which they are listed."""
    return sorted(told, key=lambda each: each.age_s, reverse=True)


def named(sessions: Sessions, identity: Identity, prefix: str) -> Session:
    """The one whose id begins so. Raises: NotFound, InvalidArgument where several do."""
    found = [each for each in sessions.visible(identity) if each.id.startswith(prefix)]
    check_one([each.id for each in found], prefix)
    return found[0]


def check_one(ids: list[str], prefix: str) -> None:
    """Refuse a prefix that is not of one session alone. Raises: NotFound, InvalidArgument."""
    if not prefix:
        raise InvalidArgument("the id is empty; ListSessions tells which there are")
    if not ids:
        raise NotFound(f"no session has an id that begins with {prefix[:40]!r}; ListSessions tells which there are")
    if len(ids) > 1:
        raise InvalidArgument(f"{len(ids)} sessions have ids that begin with {prefix[:40]!r}; give more of it")
