"""With the compiled core and in pure Python: which a process has, and that a part of the suite passes in the other."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tclient import _native
from tensorcompute.wire import compiled
from tests.support.serving import ROOT, server_environment

# Quick, and of all that a plain call goes through: modes, kinds, threads, views and writes to them, errors.
PART = ["tests/client/test_modes.py", "tests/client/test_call_queue.py"]
ASK = """
from tclient import _native
from tserver.engine import packed
print(_native.COMPILED, packed.run_plain is not None)
"""


def _run(setting: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=server_environment(TCLIENT_NATIVE=setting, TSERVER_NATIVE=setting),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_a_part_of_the_suite_passes_in_the_other_mode() -> None:
    if not _native.COMPILED and importlib.util.find_spec("tclient._native.core") is None:
        pytest.skip("nothing is compiled here, so that there is one mode only: see hatch_build.py")
    other = "0" if _native.COMPILED else "1"
    done = _run(other, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *PART)
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_environment_keeps_both_sides_to_pure_python() -> None:
    done = _run("0", "-c", ASK)
    assert (done.stdout, done.stderr) == ("False False\n", "")


def test_what_was_built_of_another_source_is_not_used(tmp_path: Any) -> None:
    module: Any = SimpleNamespace(__name__="some.core", __file__=str(tmp_path / "core.so"), SOURCE=5)
    assert compiled.is_current(module)
    (tmp_path / "core.pyx").write_text("changed since")
    assert not compiled.is_current(module)
    assert compiled.compiled("tclient._native.no_such_module", "TCLIENT_NATIVE") is None
