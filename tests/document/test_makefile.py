"""What `make` installs, and for whom; nothing is installed here."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.serving import ROOT


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As much of a clone as `make` looks at."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "hatch_build.py"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("client", "server", "proto", "tests/node"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "tests/node/package.json").touch()
    return tmp_path


def would_do(clone: Path, target: str) -> str:
    done = subprocess.run(["make", "-n", target], cwd=clone, capture_output=True, text=True, timeout=30.0, check=True)
    return done.stdout


def would_install(clone: Path, target: str) -> list[str]:
    return re.findall(r"--editable '\.\[(.*)\]'", would_do(clone, target))


def stamp(clone: Path, *names: str) -> None:
    (clone / ".venv").mkdir(exist_ok=True)
    for name in names:
        (clone / ".venv" / name).write_text(f"{clone}/.venv/{name}\n")


@pytest.mark.parametrize("target", ["demo", "serve"])
def test_who_only_looks_installs_no_tools(clone: Path, target: str) -> None:
    assert would_install(clone, target) == ["server,demo"]
    assert "npm" not in would_do(clone, target)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert [re.match(r"[\w-]+", each).group() for each in extras["demo"]] == ["matplotlib", "scikit-learn"]  # type: ignore[union-attr]


def test_the_tools_come_on_top_and_the_demo_needs_nothing_more_then(clone: Path) -> None:
    stamp(clone, ".installed-demo")
    assert would_install(clone, "demo") == []
    assert would_install(clone, "test") == ["server,demo,load,dev"]
    stamp(clone, ".installed-demo", ".installed")
    assert would_install(clone, "test") == would_install(clone, "demo") == []


@pytest.mark.parametrize("name", [".installed-demo", ".installed"])
def test_an_environment_of_another_place_is_made_anew(clone: Path, name: str) -> None:
    stamp(clone, ".installed-demo", ".installed")
    (clone / ".venv" / name).write_text("/elsewhere/.venv/.installed\n")
    assert would_install(clone, "demo") != []
