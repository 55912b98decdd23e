"""Fixtures that all tests share: one real server process, and a `tclient` connected to it."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.support.serving import ServerProcess


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the tensors of the shared server live; what compares with torch then has torch make its own there."""
    parser.addoption("--device", default="cpu", help="device of the server that tests share (default: %(default)s)")


@pytest.fixture(scope="session", autouse=True)
def oracle() -> None:
    """torch leaves the machine's cores to the servers, and says each time what else it says once in a process."""
    import torch

    torch.set_num_threads(1)
    torch.set_warn_always(True)


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server in a process of its own, on a free port of loopback."""
    with ServerProcess(device=request.config.getoption("--device"), cold=True) as running:
        yield running


@pytest.fixture
def tc(server: ServerProcess) -> Iterator[ModuleType]:
    """`tclient`, with a fresh session on the shared server."""
    import tclient

    with tclient.connect(server.address):
        yield tclient
