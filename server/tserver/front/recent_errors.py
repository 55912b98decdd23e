"""The last errors that callers were told of: a bounded few, with whose they were, and not what the calls were about.

Knows no servicer. Errors alone are noted: what goes well costs nothing.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from tserver.front import status
from tserver.front.routing import ROUTINGS
from tserver.front.rpc import Behaviour
from tserver.identity import Identity
from tserver.session.secret import id_of

MOST = 100
_MESSAGE_LETTERS = 300


class RecentError(NamedTuple):
    """One error."""

    # Counts all there were.
    number: int
    unix_s: float
    method: str
    code: str
    reason: str
    principal: str
    # What the session is called where others may read it; empty where the first message named none.
    session: str
    message: str


class RecentErrors:
    """Those of one process."""

    def __init__(self) -> None:
        self._ring: deque[RecentError] = deque(maxlen=MOST)
        self._numbers = itertools.count(1)

    def add(self, method: str, identity: Identity, code: str, reason: str, message: str, session: str = "") -> None:
        """One more."""
        text = " ".join(message.split())[:_MESSAGE_LETTERS]
        self._ring.append(
            RecentError(next(self._numbers), time.time(), method, code, reason, identity.principal, session, text)
        )

    def visible(self, identity: Identity) -> list[RecentError]:
        """Those that a caller may be shown, the last one first: its own, and to an administrator all."""
        return [each for each in reversed(self._ring) if identity.sees(each.principal)]

    def noting(
        self, behaviour: Behaviour, path: str, identity_of: Callable[[Any], Identity], codes: status.Codes
    ) -> Behaviour:
        """The behaviour of an RPC of a contract, whose errors are noted. What another process of the house has told,
        that notes.
        """
        if path not in ROUTINGS:
            return behaviour

        async def noting(argument: Any, given: Any) -> Any:
            try:
                return await behaviour(argument, given)
            except (grpc.aio.AioRpcError, grpc.aio.AbortError):
                raise
            except Exception as error:
                told = status.told_of(error, codes)
                self.add(path, identity_of(given), *told, _session(path, argument))
                raise

        return noting


def _session(path: str, argument: Any) -> str:
    secret = ROUTINGS[path].secret(argument) if isinstance(argument, bytes) else None
    return id_of(secret) if secret else ""
