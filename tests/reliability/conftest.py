"""Fixtures of the reliability tests: a proxy before the shared server, and sessions through it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.proxy import Proxy
from tests.support.raw import Raw
from tests.support.roads import ROADS, proxied, take
from tests.support.serving import HasAddress


@pytest.fixture(params=ROADS)
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each road in turn, which sessions take."""
    road: str = request.param
    take(road, monkeypatch)
    return road


@pytest.fixture
def proxy(server: HasAddress, road: str) -> Iterator[Proxy]:
    """A proxy before the shared server, on either road."""
    with proxied(server.address, road) as proxy:
        yield proxy


@pytest.fixture
def raw(server: HasAddress) -> Iterator[Raw]:
    """A connection straight to the shared server, to see what it holds."""
    with Raw(server.address) as raw:
        yield raw
