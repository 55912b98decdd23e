"""An engine in this process, whose lanes are run by hand."""

from __future__ import annotations

import pytest

from tserver.config import Config
from tserver.engine.engine import Engine


def refuse(cause: str) -> None:
    """The engine must not end."""
    pytest.fail(cause)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine that is not started: its lanes are run by hand. It leaves this process's limits and settings alone."""
    monkeypatch.setattr(Engine, "_prepare", lambda self: None)
    return Engine(Config(device="cpu"), on_fatal=refuse)
