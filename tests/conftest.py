"""Fixtures that all tests share: one real server process, and a `tclient` connected to it."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.support.serving import ServerProcess


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """A server in a process of its own, on a free port of loopback."""
    with ServerProcess() as running:
        yield running


@pytest.fixture
def tc(server: ServerProcess) -> Iterator[ModuleType]:
    """`tclient`, with a fresh session on the shared server."""
    import tclient

    with tclient.connect(server.address):
        yield tclient
