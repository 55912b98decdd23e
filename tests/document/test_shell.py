"""Every block of shell commands of the documents is given to a shell, page by page, as a reader pastes it.

What is quick is run, on a server: curl, grpcurl, `tclient run`, `python -c`, `tserver health`, and `make` so far as
it says what it would do. Of the rest it is seen that it exists as it is called: options, extras, files, profiles.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import click
import pytest
import yaml

from tensorcompute.v1 import tensor_service_pb2
from tests.document.test_readme import ADDRESS, DOCUMENTS, blocks, output_of
from tests.support.grpcurl import path_with_it
from tests.support.listeners import listener
from tests.support.serving import ROOT, ServerProcess, serving
from tserver.cli import main as tserver

PAGES = [name for name in DOCUMENTS if blocks(name, "sh")]
PYTHON = shlex.quote(sys.executable)
MAKE = shutil.which("make")
Check = Callable[[list[str]], None]


def check_tserver(arguments: list[str]) -> None:
    """All commands, options and values are those of the command line."""
    command: click.Command = tserver
    while isinstance(command, click.Group):
        name, *arguments = arguments
        found = command.get_command(click.Context(command), name)
        assert found is not None, name
        command = found
    command.make_context(str(command.name), arguments)


def check_pip(arguments: list[str]) -> None:
    """It installs this project, with extras that it has."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert arguments[0] == "install"
    found = re.fullmatch(r"(?:\.|tclient)(?:\[([\w,]+)\])?", arguments[-1])
    assert found, arguments
    assert set(filter(None, (found[1] or "").split(","))) <= set(extras)


def check_python(arguments: list[str]) -> None:
    """A module that it runs is there; what `-c` says was run."""
    assert arguments[0] == "-c" or (arguments[0] == "-m" and find_spec(arguments[1]) is not None), arguments


def check_docker(arguments: list[str]) -> None:
    """Files, profiles, targets and build arguments are there."""
    given = {name: value for name, value in pairwise(arguments) if name.startswith("--")}
    text = (ROOT / given["--file"]).read_text(encoding="utf-8")
    if arguments[0] == "compose":
        profiles = {each for service in yaml.safe_load(text)["services"].values() for each in service["profiles"]}
        assert {value for name, value in pairwise(arguments) if name == "--profile"} <= profiles
    else:
        assert arguments[0] == "build"
        assert f" AS {given['--target']}\n" in text
        assert f"ARG {given['--build-arg'].partition('=')[0]}" in text


def check_kubectl(arguments: list[str]) -> None:
    """The manifest is there."""
    if arguments[0] == "apply":
        assert (ROOT / arguments[arguments.index("--filename") + 1]).is_file()


def check_grpcurl(arguments: list[str]) -> None:
    """What is asked for is of the contract."""
    if arguments[-1] == "list":
        return
    service, _, method = arguments[-1].replace("/", ".").rpartition(".")
    assert method in tensor_service_pb2.DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods_by_name


def check_npm(arguments: list[str]) -> None:
    """The packages are those that our own program is run with."""
    tested = json.loads((ROOT / "tests" / "node" / "package.json").read_text(encoding="utf-8"))
    assert arguments[0] == "install"
    assert set(arguments[1:]) <= {**tested.get("dependencies", {}), **tested.get("devDependencies", {})}.keys()


def check_protoc(arguments: list[str]) -> None:
    """The files are there."""
    files = [each for each in arguments if each.endswith(".proto")]
    assert files
    assert all((ROOT / "proto" / each).is_file() for each in files)


def anything(arguments: list[str]) -> None:
    """Of a program that is not ours nothing is known."""


# By the program: what is run of it, in a shell, and what is seen of it in any case.
PROGRAMS: dict[str, tuple[str, Check]] = {
    "make": (f'exec {MAKE} --directory {shlex.quote(str(ROOT))} --dry-run "$@" >/dev/null', anything),
    "tserver": (f'[ "$1" != health ] || exec {PYTHON} -P -m tserver "$@"', check_tserver),
    "tclient": (f'case "$*" in *--local*) ;; *) exec {PYTHON} -m tclient "$@" ;; esac', anything),
    "python": (f'[ "$1" != -c ] || exec {PYTHON} "$@"', check_python),
    "python3": ("", check_python),
    "pip": ("", check_pip),
    "docker": ("", check_docker),
    "kubectl": ("", check_kubectl),
    "npm": ("", check_npm),
    "protoc": ("", check_protoc),
    "pytest": ("", anything),
    "ray": ("", anything),
    "ssh": ("", anything),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One with all that the pages ask."""
    data = str(tmp_path_factory.mktemp("data"))
    with serving("--data-dir", data, "--oip-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0") as running:
        yield running


class Shell:
    """A folder with the programs that commands call, each of which notes how it was called."""

    def __init__(self, folder: Path, server: ServerProcess) -> None:
        self._folder, self._server = folder, server
        self._log = folder / "calls"
        tools = folder / "tools"
        tools.mkdir()
        (folder / ".venv").mkdir()
        (folder / ".venv" / "bin").symlink_to(tools)
        for name, (run, _) in PROGRAMS.items():
            self._put(tools / name, name, run)
        real = folder / "real"
        real.mkdir()
        calls = shlex.quote(f"PATH={path_with_it(real)}")
        self._put(
            tools / "grpcurl",
            "grpcurl",
            f'case " $* " in *" -cacert "*|*" list "*|*" describe "*) ;; *) exec env {calls} grpcurl "$@" ;; esac',
        )
        self._path = f"{tools}:/usr/bin:/bin"
        # What the pages call the programs of the reader.
        for file in ("train.py", "course/lesson.py"):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text("import torch\n\nassert torch.ones(2).sum() == 2\n")
        (folder / ".tclient-token").write_text("none\n")

    def _put(self, file: Path, name: str, run: str) -> None:
        note = f"{{ printf '%s\\037' {name} \"$@\"; printf '\\036'; }} >> {shlex.quote(str(self._log))}"
        file.write_text(f"#!/bin/bash\n{note}\n{run}\n")
        file.chmod(0o755)

    def placed(self, text: str) -> str:
        """Commands of a page, for this server."""
        text = text.replace(ADDRESS, self._server.address).replace("gpu-host:50051", self._server.address)
        text = text.replace("127.0.0.1:8001", listener(self._server, "oip"))
        return text.replace("127.0.0.1:8000", listener(self._server, "http"))

    def run_and_check(self, commands: str) -> None:
        """Have bash run them, and look at the programs that were called, each with its arguments."""
        self._log.write_text("")
        given = {"PATH": self._path, "HOME": str(self._folder), "TOKEN": "none"}
        commands = f"set -euo pipefail\nexport TCLIENT_ADDRESS={self._server.address}\n{self.placed(commands)}"
        output_of(["bash"], commands, folder=self._folder, **given)
        for call in self._log.read_text(encoding="utf-8").split("\036")[:-1]:
            name, *arguments = call.split("\037")[:-1]
            check = check_grpcurl if name == "grpcurl" else PROGRAMS[name][1]
            check(arguments)


@pytest.fixture
def shell(tmp_path: Path, server: ServerProcess) -> Shell:
    return Shell(tmp_path, server)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_or_are_there(page: str, shell: Shell, tmp_path: Path) -> None:
    texts = [textwrap.dedent(text) for text in blocks(page, "sh")]
    if any("/v2/models/" in text for text in texts):
        # They ask for what the programs of the page have made.
        programs = "\n".join(blocks(page, "python"))
        output_of([sys.executable, "-"], shell.placed(programs), folder=tmp_path, TCLIENT_ADDRESS=shell.placed(ADDRESS))
    for text in texts:
        shell.run_and_check(text)


@pytest.mark.parametrize(
    ("commands", "error"),
    [
        ("tserver serve --listn 1", click.UsageError),
        ("tserver serves", AssertionError),
        ("tserver serve --max-sessions few", click.UsageError),
        ("pip install '.[servers]'", AssertionError),
        (".venv/bin/python -m tests.fuzzy", AssertionError),
        ("docker compose --file docker/compose.yaml --profile tpu up", AssertionError),
        ("make nothing", AssertionError),
        ("tsever serve", AssertionError),
        ("tclient run --adress 127.0.0.1:50051 train.py", AssertionError),
        ("grpcurl -plaintext 127.0.0.1:50051 tensorcompute.v1.TensorService/Ad", AssertionError),
    ],
)
def test_what_is_not_there_is_found(commands: str, error: type[BaseException], shell: Shell) -> None:
    with pytest.raises(error):
        shell.run_and_check(commands)
