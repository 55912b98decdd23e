"""These tests have a server that also offers shared memory. Who does not ask for that gets none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.raw import Raw, RawSession
from tests.support.serving import HasAddress, serving


@pytest.fixture(scope="package")
def server() -> Iterator[HasAddress]:
    """One for all tests of this folder."""
    with serving("--shared-memory") as running:
        yield running


@pytest.fixture(scope="module")
def wire(server: HasAddress) -> Iterator[Raw]:
    """One connection for the sessions of these tests."""
    with Raw(server.address) as raw:
        yield raw


@pytest.fixture
def session(wire: Raw) -> Iterator[RawSession]:
    """A session of its own."""
    with wire.open_session() as session:
        yield session


@pytest.fixture
def port(session: RawSession) -> int:
    """Where the endpoint is: on the host of the server."""
    assert session.opened.data_endpoint.startswith(":")
    return int(session.opened.data_endpoint[1:])
