"""The roads that calls may take from a client to the server: gRPC, or a lane beside it.

Knows how to have the SDK take one; does not know what travels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tclient._session.session import Session
from tclient._transfer import data_endpoint
from tests.support.proxy import Proxy
from tests.support.raw import Raw, RawSession

ROADS = ("grpc", "lane")


def take(road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have sessions that are opened from now on take this road; a lane over TCP, which a proxy can be before."""
    if road == "grpc":
        monkeypatch.setenv("TCLIENT_LANE", "0")
    else:
        monkeypatch.setattr(data_endpoint, "connect_locally", _refuse)


def data_port_of(session: Session | RawSession) -> int:
    """The port of the data endpoint of a session's server."""
    return int(session.opened.data_endpoint.rpartition(":")[2])


@contextlib.contextmanager
def proxied(address: str, road: str) -> Iterator[Proxy]:
    """A proxy before all that a session on this road uses of a server."""
    with Raw(address) as raw, raw.open_session() as session:
        data_port = data_port_of(session) if road == "lane" else 0
    with Proxy(address, data_port=data_port) as proxy:
        yield proxy


def _refuse(*args: object, **kwargs: object) -> NoReturn:
    raise ConnectionRefusedError("this machine is not the server's")
