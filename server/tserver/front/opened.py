"""What is open in the name of callers whose credentials may end: RPCs, lanes, connections of the data endpoint.

Who shows what is good gets in once, and might stay for days. So all of it is registered here, whatever it is, and it is
looked again and again whether what was shown still holds; where it does not, it is ended. Knows no credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

from tserver.errors import Unauthenticated
from tserver.identity import REFUSAL, Identity

# With what a changed file may be overlooked for, all has ended within a second.
_LOOK_S = 0.5


class Opened:
    """What is open in one process."""

    def __init__(self, holds: Callable[[Identity], bool]) -> None:
        """`holds` says whether what a caller has shown is still good."""
        self._holds = holds
        self._lock = threading.Lock()
        # By what is open: in whose name, and what ends it. What is closed and forgotten is not here any more.
        self._open: weakref.WeakKeyDictionary[Any, tuple[Identity, Callable[[Any], None]]] = weakref.WeakKeyDictionary()

    def add(self, connection: socket.socket, identity: Identity) -> bool:
        """A connection is open in somebody's name, until it is closed; False where that cannot be any more, and it is
        to be closed. From any thread.
        """
        return self._add(connection, identity, _shut)

    @contextlib.asynccontextmanager
    async def kept(self, identity: Identity) -> AsyncIterator[None]:
        """Within it something is done in somebody's name. Raises: Unauthenticated when that cannot be any more."""
        try:
            async with asyncio.timeout(None) as limit:
                self._add(limit, identity, _run_out)
                try:
                    yield
                finally:
                    with self._lock:
                        self._open.pop(limit, None)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Unauthenticated(REFUSAL) from None

    async def watch(self) -> None:
        """End what is open in the name of callers whose credentials have ended, for ever. On the event loop."""
        while True:
            await asyncio.sleep(_LOOK_S)
            with self._lock:
                found = [(thing, *told) for thing, told in self._open.items()]
            # Many are one caller's.
            over = {identity for identity in {identity for _, identity, _ in found} if not self._still(identity)}
            for thing, identity, end in found:
                if identity in over:
                    end(thing)
            del found

    def _add(self, thing: Any, identity: Identity, end: Callable[[Any], None]) -> bool:
        if not identity.expires:
            return True
        with self._lock:
            self._open[thing] = identity, end
        return self._still(identity)

    def _still(self, identity: Identity) -> bool:
        return not identity.expires or (time.time() < identity.expires and self._holds(identity))


def _run_out(limit: asyncio.Timeout) -> None:
    limit.reschedule(asyncio.get_running_loop().time())


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not as TLS ends one, which would wait for the thread that uses it: that one wakes up, and closes it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
