"""How gRPC's core waits is chosen only where the installed gRPC is known to have the choice."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
import pytest

from tensorcompute.wire import polling


@pytest.mark.parametrize(
    ("metadata", "is_chosen"),
    [
        pytest.param('__version__ = """1.85.3"""', True, id="known"),
        pytest.param('__version__ = """1.86.0"""', False, id="newer"),
        pytest.param('__version__ = """2.1.0"""', False, id="much newer"),
        pytest.param('__version__ = "none"', False, id="no version"),
        pytest.param(None, False, id="nothing that tells it"),
    ],
)
def test_the_choice_depends_on_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: str | None, is_chosen: bool
) -> None:
    package = tmp_path / "grpc"
    package.mkdir()
    (package / "__init__.py").touch()
    if metadata is not None:
        (package / "_grpcio_metadata.py").write_text(metadata)
    monkeypatch.delitem(sys.modules, "grpc")
    monkeypatch.syspath_prepend(tmp_path)
    assert (polling.choice() is not None) == is_chosen


def test_the_version_that_is_read_is_grpcs() -> None:
    major, minor = map(int, grpc.__version__.split(".")[:2])
    assert (polling.choice() is not None) == ((major, minor) < (1, 86))


def test_without_grpc_there_is_no_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "grpc")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert polling.choice() is None
