"""A real server on a GPU, in the place of the one that other tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import ServerProcess

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cuda)


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """A server whose new tensors are on the GPU. It must be the same process at the end as at the beginning."""
    with ServerProcess(device="cuda") as running:
        pid = running.engine_pid()
        yield running
        assert running.engine_pid() == pid, f"the server was started again\n{running.log()}"
