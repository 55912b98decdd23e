"""What the directory of a cluster knows, and what watchers are told of it: messages about engines, in order.

Nothing of it is kept elsewhere: engines say who they are again when it does not know them. Pure; time is given.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]

# An engine or a front that has said nothing for so long is gone, and its host with it.
SILENT_S = 4.0
# How long a directory that begins listens for the front that keeps the models already.
_LISTENED_S = 2.5
# How many changes, and ends of engines, are remembered.
_REMEMBERED = 4096


@dataclass(slots=True)
class _Engine:
    serving: Message
    heard_at: float


@dataclass(slots=True)
class _Front:
    # Where clients reach it, once it serves; and where other fronts do.
    address: str
    internal: str
    heard_at: float


@dataclass(frozen=True, slots=True)
class News:
    """What has changed since a watcher asked last."""

    # Of this directory's run, and how far it has come.
    run: str
    version: int
    # Whether these are all there is to say, rather than what is new.
    is_all: bool
    messages: list[Message]
    # What engines have said since that they have to do, and how far that has come.
    told: list[Message]
    told_version: int


class Known:
    """All engines of a cluster."""

    def __init__(self) -> None:
        self.run = secrets.token_hex(8)
        self.version = 0
        self.engines: dict[str, _Engine] = {}
        self.fronts: dict[str, _Front] = {}
        # The node whose front keeps the models of all.
        self.leader = ""
        self._began_at: float | None = None
        # Nodes that take no new sessions, and why.
        self.draining: dict[str, str] = {}
        # Engines there that have no model any more that others lack.
        self.left: set[str] = set()
        # What each has said last that it has to do, and the how manieth word of all that was.
        self._told: dict[str, tuple[int, Message]] = {}
        self._told_version = 0
        self._ended: deque[Message] = deque(maxlen=_REMEMBERED)
        self._changes: deque[Message] = deque(maxlen=_REMEMBERED)

    def serving(self, message: Message, now: float) -> None:
        """An engine serves; also one that was thought gone."""
        engine = message["engine"]
        before = self.engines.get(engine)
        if before is not None and before.serving["boot_id"] != message["boot_id"]:
            self._note_ended(before.serving, "its host is gone", comes_again=True)
        if before is None or before.serving != message:
            self._tell(message)
        self.engines[engine] = _Engine(message, now)
        if cause := self.draining.get(message["node"]):
            self._tell({"is": "draining", "engine": engine, "cause": cause})

    def beat(self, engine: str, boot_id: str, now: float) -> bool:
        """An engine goes on; whether it is known. One that is not says again that it serves."""
        known = self.engines.get(engine)
        if known is None or known.serving["boot_id"] != boot_id:
            return False
        known.heard_at = now
        return True

    def ended(self, message: Message) -> None:
        """A run of an engine has ended, or could not begin."""
        known = self.engines.get(message["engine"])
        if known is not None and known.serving["boot_id"] == message["boot_id"]:
            del self.engines[message["engine"]]
            self._told.pop(message["engine"], None)
        if message["boot_id"]:
            self._ended.append(message)
        self._tell(message)

    def front(self, node: str, address: str, internal: str, now: float, *, leads: bool) -> None:
        """A front goes on, or is about to begin; `leads` says that it keeps the models."""
        if self._began_at is None:
            self._began_at = now
        before = self.fronts.get(node)
        is_moved = node == self.leader and before is not None and before.internal != internal
        self.fronts[node] = _Front(address, internal, now)
        if is_moved or (leads and not self.leader):
            self._lead(node)
        self.silence(now)

    def forget(self, node: str) -> None:
        """The front of a node is no more."""
        self.fronts.pop(node, None)

    def silence(self, now: float) -> None:
        """See which engines and fronts have not been heard of for too long, and which front leads then."""
        for known in list(self.engines.values()):
            if now - known.heard_at > SILENT_S:
                self._note_ended(known.serving, "its host is gone", comes_again=True)
        for node in [node for node, front in self.fronts.items() if now - front.heard_at > SILENT_S]:
            del self.fronts[node]
        candidates = self.fronts.keys() - self.draining.keys()
        if self.leader in candidates or not candidates or self._began_at is None:
            return
        if self.leader or now - self._began_at > _LISTENED_S:
            self._lead(min(candidates))

    def drain(self, node: str, cause: str) -> list[str]:
        """A node takes no new sessions; the engines there."""
        self.draining[node] = cause
        there = [engine for engine, known in self.engines.items() if known.serving["node"] == node]
        self.left.difference_update(there)
        for engine in there:
            self._tell({"is": "draining", "engine": engine, "cause": cause})
        return there

    def told(self, messages: list[Message]) -> None:
        """The front of a host says what the engines there have to do."""
        for message in messages:
            engine = message["engine"]
            if engine in self.engines and self._told.get(engine, (0, {}))[1] != message:
                self._told_version += 1
                self._told[engine] = (self._told_version, message)

    def last_end(self, engine: str) -> str:
        """Why the last run of an engine ended, as far as that is known."""
        return next((message["cause"] for message in reversed(self._ended) if message["engine"] == engine), "")

    def since(self, run: str, version: int, told_version: int = 0) -> News:
        """What is new to a watcher that knows a run up to a version; all, where that is not known any more."""
        missed = self.version - version
        last = told_version if run == self.run else 0
        told = [message for number, message in self._told.values() if number > last]
        if run == self.run and 0 <= missed <= len(self._changes):
            new = [self._changes[index] for index in range(len(self._changes) - missed, len(self._changes))]
            return News(self.run, self.version, False, new, told, self._told_version)
        leading = [self._leading()] if self.leader in self.fronts else []
        all_of_it = [*leading, *self._ended, *(known.serving for known in self.engines.values())]
        for engine, known in self.engines.items():
            if cause := self.draining.get(known.serving["node"]):
                all_of_it.append({"is": "draining", "engine": engine, "cause": cause})
        return News(self.run, self.version, True, all_of_it, told, self._told_version)

    def _lead(self, node: str) -> None:
        self.leader = node
        self._tell(self._leading())

    def _leading(self) -> Message:
        return {"is": "leads", "node": self.leader, "internal": self.fronts[self.leader].internal}

    def _note_ended(self, serving: Message, cause: str, *, comes_again: bool) -> None:
        message = {"is": "ended", "engine": serving["engine"], "boot_id": serving["boot_id"], "cause": cause}
        self.ended({**message, "comes_again": comes_again})

    def _tell(self, message: Message) -> None:
        self.version += 1
        self._changes.append(message)
