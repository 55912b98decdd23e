"""`tclient run`: programs for torch, unchanged, end and print as they do with torch."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tclient
from tests.launcher.running import FORBIDDEN, PROGRAMS, launched, run
from tests.support.serving import ServerProcess, children_of, is_alive, server_environment, wait_until

EXACT = [
    pytest.param(["regression.py", "3", "--flag", "-m"], id="a script with arguments"),
    pytest.param(["classify.py"], id="a network with data sets"),
    pytest.param(["densities.py"], id="distributions"),
    pytest.param(["functions.py"], id="functions of its own and hooks"),
    pytest.param(["lazily.py"], id="lazy layers, pruning and LBFGS"),
    pytest.param(["graphs.py"], id="networks on graphs"),
    pytest.param(["ends.py", str(PROGRAMS)], id="an exit code and work at exit"),
    pytest.param(["-m", "course.lesson", "--local", "x"], id="a module of a package"),
]


@pytest.mark.parametrize("command", EXACT)
def test_a_program_prints_and_ends_as_with_torch(server: ServerProcess, command: list[str]) -> None:
    theirs, ours = run(*command), launched(server.address, *command)
    assert (ours.stdout, ours.returncode, ours.stderr) == (theirs.stdout, theirs.returncode, theirs.stderr)


def test_an_error_is_shown_as_python_shows_it(server: ServerProcess) -> None:
    theirs, ours = run("fails.py"), launched(server.address, "fails.py")
    assert (ours.stdout, ours.returncode, ours.stderr) == (theirs.stdout, theirs.returncode, theirs.stderr)


@pytest.mark.parametrize(
    "text", ["x = (", "import sys\nsys.exit('enough')", "raise KeyboardInterrupt", "import torch.x"]
)
def test_other_ends_are_python_s_too(server: ServerProcess, tmp_path: Path, text: str) -> None:
    (tmp_path / "program.py").write_text(text)
    theirs, ours = run("program.py", folder=tmp_path), launched(server.address, "program.py", folder=tmp_path)
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    if "torch" not in text:
        assert ours.stderr.replace(f"{tmp_path}/", "") == theirs.stderr.replace(f"{tmp_path}/", "")
    else:
        assert ours.stderr.splitlines()[-1] == theirs.stderr.splitlines()[-1]


def test_a_program_that_is_not_there_is_named(server: ServerProcess, tmp_path: Path) -> None:
    script, module = launched(server.address, "none.py"), launched(server.address, "-m", "none.such")
    assert (script.returncode, module.returncode) == (2, 1)
    assert "can't open file" in script.stderr
    assert "none.py" in script.stderr
    assert module.stderr.startswith("tclient: ")
    assert "No module named 'none'" in module.stderr


def test_an_installed_torch_is_not_imported(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(FORBIDDEN)
    (tmp_path / "program.py").write_text(
        "import sys, torch, torch.nn, torch.optim.adam\n"
        "print(torch.ones(2).sum().item(), '_C' in dir(torch), 'torch._C' in sys.modules, torch.nn.Linear.__module__)"
    )
    done = launched(server.address, "program.py", folder=tmp_path)
    assert (done.stdout, done.stderr) == ("2.0 True False tclient.nn.linear\n", "")


def test_the_address_may_stand_in_the_environment(server: ServerProcess) -> None:
    done = run("-m", "tclient", "run", "ends.py", str(PROGRAMS), address=server.address)
    assert (done.returncode, done.stderr) == (7, "")


def test_a_synchronous_program_catches_errors_at_their_line(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import torch\ntry:\n    torch.ones(2, 3) @ torch.ones(2, 3)\nexcept RuntimeError as error:\n    print(error)\n"
    )
    theirs = run("program.py", folder=tmp_path)
    ours = launched(server.address, "--synchronous", "program.py", folder=tmp_path)
    assert ours.stdout == theirs.stdout


def test_without_a_server_both_remedies_are_named(tmp_path: Path) -> None:
    # An environment that has neither the server nor torch.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name in ('torch', 'tserver') else find(name, package)\n"
    )
    env = server_environment()
    env.pop("TCLIENT_ADDRESS", None)
    env["PYTHONPATH"] = f"{tmp_path}:{env['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "tclient", "run", "ends.py"],
        env=env,
        cwd=PROGRAMS,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "--address HOST:PORT" in done.stderr
    assert "pip install 'tclient[server]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_does_not_answer_is_said_in_a_line() -> None:
    done = launched("127.0.0.1:1", "ends.py")
    assert done.returncode == 1
    assert done.stderr.startswith("tclient: ")
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """A program that tells its server, and waits."""
    (tmp_path / "program.py").write_text(
        "import os, sys, torch\nprint(torch.ones(2).sum().item(), os.environ['TCLIENT_ADDRESS'], flush=True)\n"
        "sys.stdin.readline()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tclient", "run", "--local", "program.py"],
        env=server_environment(),
        cwd=tmp_path,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGKILL], ids=["its end", "SIGTERM", "SIGKILL"])
def test_a_server_of_one_s_own_ends_with_the_program(own: Any, number: signal.Signals | None) -> None:
    assert own.stdout.readline().startswith("2.0 127.0.0.1:")
    (server,) = children_of(own.pid)
    engines = children_of(server)
    assert engines
    if number is None:
        own.communicate("\n", timeout=60)
        assert own.returncode == 0
    else:
        own.send_signal(number)
    wait_until(lambda: not any(map(is_alive, [server, *engines])), 30.0, "the end of the server")


def test_the_command_line_says_what_it_is() -> None:
    version, help_of_run = run("-m", "tclient", "--version"), run("-m", "tclient", "run", "--help")
    assert version.stdout == f"tclient {tclient.__version__}\n"
    assert "script.py | -m package.module" in help_of_run.stdout
