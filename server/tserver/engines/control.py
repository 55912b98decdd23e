"""What the front and the supervisor say to each other over their socket: messages of JSON, one to a packet.

supervisor to front   house: whose key; serving, ended, draining: what becomes of an engine; all: that was all so far
front to supervisor   launch: have an engine; end: end one for good

In a cluster an actor is in the place of the supervisor (cluster/keepers.py), and they say more:

actor to front        leader: where models are kept; told: how much an engine of another host has to do
front to actor        told: the same of an engine here; left: the models of an engine are elsewhere
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tserver.config import Config
from tserver.engines.fleet import Draining, Ended, Event, Launch, Serving, Told
from tserver.engines.house import House

_EVENTS: dict[str, type[Event]] = {"serving": Serving, "ended": Ended, "draining": Draining, "told": Told}
_NAMES = {kind: name for name, kind in _EVENTS.items()}


@dataclass(frozen=True, slots=True)
class End:
    """An engine is to be ended for good."""

    engine: str
    cause: str


def message_of(said: Event | Launch | End) -> dict[str, Any]:
    """As it is sent."""
    if isinstance(said, Launch):
        gpus = None if said.gpus is None else list(said.gpus)
        settings = {"config": asdict(said.config), "house": said.house.message()}
        return {"is": "launch", **settings, "gpus": gpus, "is_kept": said.is_kept}
    return {"is": "end" if isinstance(said, End) else _NAMES[type(said)], **asdict(said)}


def event_of(message: dict[str, Any]) -> Event:
    """What the supervisor has told of an engine."""
    fields = dict(message)
    return _EVENTS[fields.pop("is")](**fields)


def wanted_by(message: dict[str, Any]) -> Launch | End:
    """What the front has asked for."""
    if message["is"] == "end":
        return End(message["engine"], message["cause"])
    gpus = message["gpus"]
    return Launch(
        Config(**message["config"]),
        House(**message["house"]),
        None if gpus is None else tuple(gpus),
        message["is_kept"],
    )
