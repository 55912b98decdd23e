"""What a front knows of the engines behind it: which serve, which have ended and why, and who belongs to which.

Built from the events of a fleet; on the event loop alone. Knows neither gRPC nor torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tserver.engines.fleet import Draining, Ended, Event, Serving, Told
from tserver.engines.placement import Load
from tserver.errors import SessionLost, Unauthenticated, Unreachable
from tserver.session.secret import SECRET_BYTES, boot_of, of_an_earlier_run

# How many ended runs are remembered, so that their sessions can be told why.
_REMEMBERED = 4096


class Entry:
    """One engine that serves."""

    __slots__ = ("info", "load", "told")

    def __init__(self, info: Serving) -> None:
        self.info = info
        # What it last said of itself; None before that.
        self.told: dict[str, Any] | None = None
        self.load = Load(info.engine, info.device)


class Directory:
    """All engines of a house."""

    def __init__(self, previous_end: str = "", *, keeps_sessions: bool = False) -> None:
        """`previous_end` is why the run of the whole house before this one ended; `keeps_sessions` says that an engine
        which is told to stop writes down what it has.
        """
        # Those that serve, by id.
        self.engines: dict[str, Entry] = {}
        # Why those that are to come again do not serve now.
        self.waiting: dict[str, str] = {}
        self._by_boot: dict[str, Entry] = {}
        self._ended: dict[str, str] = {}
        self._previous_end = previous_end
        self._keeps_sessions = keeps_sessions
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[Event], None]] = []

    def listen(self, function: Callable[[Event], None]) -> None:
        """Call a function with each event, once the directory knows of it."""
        self._listeners.append(function)

    def note(self, event: Event) -> None:
        """Something has become of an engine."""
        if isinstance(event, Serving):
            self._note_serving(event)
        elif isinstance(event, Ended):
            self._note_ended(event)
        elif isinstance(event, Draining) and event.engine in self.engines:
            self.engines[event.engine].load.takes_sessions = False
        if not isinstance(event, Told):
            self._changed.set()
            self._changed = asyncio.Event()
        for function in self._listeners:
            function(event)

    async def changed(self) -> None:
        """Wait until something becomes of an engine."""
        await self._changed.wait()

    def of_boot(self, boot_id: str) -> Entry | None:
        """The engine of a run, if it serves."""
        return self._by_boot.get(boot_id)

    def of_secret(self, secret: bytes) -> Entry:
        """The engine of a session. Raises: SessionLost if that has ended; Unauthenticated for what is no secret."""
        if len(secret) != SECRET_BYTES:
            raise Unauthenticated("no session has this secret; open a session")
        boot_id = boot_of(secret)
        entry = self._by_boot.get(boot_id)
        if entry is None:
            raise self.lost(boot_id)
        return entry

    def lost(self, boot_id: str) -> SessionLost:
        """What the sessions of a run that is over are told."""
        cause = self._ended.get(boot_id)
        if cause is not None:
            return SessionLost(f"the session ended with its engine: {cause}; open a new one", cause=cause)
        return of_an_earlier_run(self._previous_end)

    def gone(self, boot_id: str) -> SessionLost | Unreachable:
        """What the sessions of a run are told that was over just now."""
        if self._keeps_sessions:
            return Unreachable("the engine has ended; ask again for what it has kept of the session")
        return self.lost(boot_id)

    def _note_serving(self, event: Serving) -> None:
        before = self.engines.get(event.engine)
        if before is not None and before.info.boot_id != event.boot_id:
            self._by_boot.pop(before.info.boot_id, None)
        if before is None or before.info != event:
            entry = self.engines[event.engine] = Entry(event)
            self._by_boot[event.boot_id] = entry
        self.waiting.pop(event.engine, None)

    def _note_ended(self, event: Ended) -> None:
        entry = self.engines.get(event.engine)
        if entry is not None and entry.info.boot_id == event.boot_id:
            del self.engines[event.engine]
        self._by_boot.pop(event.boot_id, None)
        if event.boot_id:
            self._ended[event.boot_id] = event.cause
            while len(self._ended) > _REMEMBERED:
                del self._ended[next(iter(self._ended))]
        if event.comes_again:
            self.waiting[event.engine] = event.cause
        else:
            self.waiting.pop(event.engine, None)
