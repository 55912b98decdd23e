"""The page about trust is true: its commands, run in its order against a real server, do what it says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import tclient
from tests.document.test_readme import ADDRESS, block, blocks, code_of, output_of
from tests.support.grpcurl import path_with_it
from tests.support.node import MODULES, node_with_packages
from tests.support.serving import ROOT, ServerProcess, serving, wait_until
from tserver.limits import file as limits

PAGE = "docs/trust.md"
TSERVER = f"{shlex.quote(sys.executable)} -P -m tserver"
NOBODY = "no valid credentials"


def command(beginning: str) -> str:
    """A command of the page, without what is said of it."""
    found = re.findall(rf"^({re.escape(beginning)}[^#\n]*)", code_of(PAGE).replace("`", "\n"), re.M)
    assert found, beginning
    return str(found[0]).strip()


def run(line: str, folder: Path) -> str:
    """What a command of this project prints, run in the folder."""
    return output_of(["bash"], re.sub("^tserver", TSERVER, line), folder=folder).strip()


class Here(NamedTuple):
    """A server as the page starts it, and the token that the page has made."""

    server: ServerProcess
    folder: Path
    token: str
    audit_log: Path

    def placed(self, program: str) -> str:
        """A program of the page, with the address of this server and the files of this folder."""
        ca = str(self.folder / "certs" / "ca.pem")
        return program.replace("gpu-host:50051", self.server.address).replace("ca.pem", ca)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("trust")
    run(command("tserver certs --out certs --name"), folder)
    token = run(command("tserver token create"), folder)
    serve = command("tserver serve --data-dir data --listen 0.0.0.0:50051 --tls-cert").replace(
        "0.0.0.0:50051", "127.0.0.1:0"
    )
    files = {
        "data": folder / "data",
        **{f"server.{kind}": folder / "certs" / f"server.{kind}" for kind in ("pem", "key")},
    }
    options = [str(files.get(word, word)) for word in shlex.split(serve)[2:]]
    log = folder / "audit.jsonl"
    with serving(*options, "--audit-log", str(log)) as server:
        yield Here(server, folder, token, log)


def test_the_program_in_python_is_known_by_its_token(here: Here) -> None:
    program = block(PAGE, "python", "import tclient")
    assert f'"{ADDRESS}", token="TOKEN"' in program
    program = program.replace(f'"{ADDRESS}"', '"gpu-host:50051", tls="ca.pem"').replace('"TOKEN"', f'"{here.token}"')
    assert output_of([sys.executable, "-"], f"{here.placed(program)}print(tclient.ones(2).sum())") == "tensor(2.)\n"


def test_grpcurl_is_known_by_its_header(here: Here, tmp_path: Path) -> None:
    program = here.placed(block(PAGE, "sh", "grpcurl"))
    path = path_with_it(tmp_path)
    told = json.loads(output_of(["bash"], program, PATH=path, TOKEN=here.token))
    assert told["version"] == tclient.__version__
    refused = subprocess.run(
        ["bash"],
        input=program,
        env={"PATH": path, "TOKEN": "none"},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode != 0
    assert NOBODY in refused.stderr


def test_a_program_in_javascript_is_known_by_its_metadata(here: Here) -> None:
    node = node_with_packages()
    program = here.placed(block(PAGE, "js", "const fs"))
    for token, told in ((here.token, tclient.__version__), ("none", NOBODY)):
        printed = output_of([node, "-"], program, folder=ROOT, NODE_PATH=str(MODULES), TOKEN=token)
        assert printed == f"{told}\n{told}\n"


def test_a_line_of_the_audit_log_has_what_the_page_shows(here: Here) -> None:
    shown = json.loads(block(PAGE, "json", "{"))
    with tclient.connect(here.server.address, token=here.token, tls=here.folder / "certs" / "ca.pem"):
        tclient.models.create(shown["model"], tclient.nn.MLP([2, 1])).delete()
    found: list[dict[str, object]] = []

    def is_told() -> bool:
        lines = [json.loads(line) for line in here.audit_log.read_text().splitlines()]
        found[:] = [line for line in lines if line["what"] == shown["what"]]
        return bool(found)

    wait_until(is_told, 5.0, "a line")
    assert list(found[0]) == list(shown)
    same = ("principal", "role", "how", "model", "outcome")
    assert [found[0][name] for name in same] == [shown[name] for name in same]


def test_what_is_revoked_opens_nothing_a_second_later(here: Here) -> None:
    token = run(command("tserver token create"), here.folder)

    def is_known() -> bool:
        try:
            tclient.connect(here.server.address, token=token, tls=here.folder / "certs" / "ca.pem").close()
        except tclient.NotAuthenticated:
            return False
        return True

    wait_until(is_known, 5.0, "a new token")
    last = run(command("tserver token list"), here.folder).splitlines()[-1].split()
    assert last[-1] == "ada"
    run(command("tserver token revoke").replace(" ID", f" {last[0]}"), here.folder)
    wait_until(lambda: not is_known(), 5.0, "the revocation")


def test_the_file_of_limits_is_one() -> None:
    for text in blocks(PAGE, "toml"):
        assert limits.parse(text).principals
