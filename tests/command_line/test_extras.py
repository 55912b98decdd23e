"""A package that is missing is told in one line, with how to install it, by whatever needs it; the others go on."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.serving import LISTENING, ROOT, server_environment

# In a folder that Python looks into first: it finds no package of a name.
_WITHOUT = """
import importlib.machinery, os, sys
class Without(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == os.environ["WITHOUT"] else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Without
"""
_OURS = {"tserver", "tclient", "tensorcompute"}
# What a server does without.
_SERVES_WITHOUT = {"grpc_health", "grpc_reflection", "uvloop", "ray", "pynvml", "trustme", "jwt", "opentelemetry"}
_ALL_LISTENERS = [f"--{name}-listen=127.0.0.1:0" for name in ("http", "metrics", "oip")]


def imported(room: str) -> set[str]:
    """The packages of others that a part of this project imports anywhere."""
    found = set()
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - _OURS


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the package that WITHOUT names is not there."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text(_WITHOUT)
    given = server_environment()
    return {**given, "PYTHONPATH": f"{folder}{os.pathsep}{given['PYTHONPATH']}"}


def run(without: dict[str, str], package: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python without a package."""
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**without, "WITHOUT": package},
    )


SERVE = ("-m", "tserver", "serve", "--listen=127.0.0.1:0", "--device=cpu", *_ALL_LISTENERS)
needed = sorted(imported("server/tserver") - _SERVES_WITHOUT)


def test_the_packages_were_found() -> None:
    assert {"click", "grpc", "google", "numpy", "torch", "safetensors", "aiohttp", "prometheus_client"} <= set(needed)


@pytest.mark.parametrize("package", needed)
def test_a_server_says_what_it_lacks_and_how_to_install_it(package: str, without: dict[str, str]) -> None:
    done = run(without, package, *SERVE)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"tserver: {package}")
    assert line.endswith(" is not installed; the server needs: pip install 'tclient[server]'")


@pytest.mark.parametrize("package", ["grpc_health", "uvloop"])
def test_a_server_does_without_what_it_need_not_have(package: str, without: dict[str, str]) -> None:
    process = subprocess.Popen(
        [sys.executable, *SERVE],
        env={**without, "WITHOUT": package},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert any(line.startswith(LISTENING) for line in process.stdout)
    finally:
        process.terminate()
        assert "Traceback" not in process.communicate(timeout=20)[1]


@pytest.mark.parametrize("package", ["click", "grpc", "google", "grpc_health", "ray"])
@pytest.mark.parametrize(
    "command", ["health 127.0.0.1:1", "token list --tokens /none", "cluster status --ray-address 127.0.0.1:1 --help"]
)
def test_no_other_command_ends_in_a_traceback(command: str, package: str, without: dict[str, str]) -> None:
    done = run(without, package, "-m", "tserver", *command.split())
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
    if "not installed" in done.stderr or "needs a package" in done.stderr:
        assert "pip install " in done.stderr


_PROGRAMS = {
    "onnx": "import tclient.onnx; tclient.onnx.load(b'x')",
    "tensorboard": "import tclient.utils.tensorboard",
}


@pytest.mark.parametrize("package", _PROGRAMS)
def test_a_function_of_the_client_names_what_it_lacks(package: str, without: dict[str, str]) -> None:
    done = run(without, package, "-c", _PROGRAMS[package])
    assert done.stderr.splitlines()[-1].partition("Error: ")[2].startswith(f"No module named '{package}': ")
    assert "pip install " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("package", ["torch", "tserver", "click"])
def test_a_program_without_a_server_is_told_how_to_have_one(
    package: str, without: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text("import torch")
    for where in ("--local", "--synchronous"):
        done = run(without, package, "-m", "tclient", "run", where, str(tmp_path / "program.py"))
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "pip install 'tclient[server]'" in done.stderr
