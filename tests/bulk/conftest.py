"""These tests have a server that also offers shared memory. Who does not ask for that gets none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.serving import HasAddress, serving


@pytest.fixture(scope="package")
def server() -> Iterator[HasAddress]:
    """One for all tests of this folder."""
    with serving("--shared-memory") as running:
        yield running
