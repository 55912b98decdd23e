"""These tests have servers beside each other: two that send to each other, and one that sends to nobody."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.serving import HasAddress, serving


@pytest.fixture(scope="package")
def server() -> Iterator[HasAddress]:
    """The one that tensors are on."""
    with serving("--shared-memory") as running:
        yield running


@pytest.fixture(scope="package")
def other_server() -> Iterator[HasAddress]:
    """One that they go to."""
    with serving() as running:
        yield running


@pytest.fixture(scope="package")
def lonely_server() -> Iterator[HasAddress]:
    """One that sends to nobody, so that its clients carry the bytes."""
    with serving("--send-to", "none") as running:
        yield running
