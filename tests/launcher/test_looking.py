"""The commands of `tclient` that look at a server: what they print for people and programs, and what they refuse."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tclient
from tclient._commands.showing import duration, text_table
from tclient._launcher.command import main
from tclient._notebook import size
from tests.support.authority import Authority
from tests.support.callers import token_of
from tests.support.serving import ServerProcess, server_environment, serving

_SESSION = re.compile("[0-9a-f]{12}")


@pytest.fixture(scope="module")
def busy() -> Iterator[ServerProcess]:
    """A server with a session, in which is a tensor with a name, and a model that was run."""
    with serving() as server, tclient.connect(server.address):
        x = tclient.ones(2, 3)
        x.name = "weights\x1b[31m"
        tclient.models.create("small", tclient.nn.MLP([3, 2]))([[1.0, 2.0, 3.0]])
        yield server


def tclient_command(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process: its exit code, what it printed, and what it said on stderr."""
    code: Any = 0
    try:
        main(arguments)
    except SystemExit as ended:
        code = ended.code
    out, err = capfd.readouterr()
    if isinstance(code, str):
        code, err = 1, err + code
    return code or 0, out, err


Shown = tuple[int, str, str]


@pytest.fixture
def run(busy: ServerProcess, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command that finds the server by TCLIENT_ADDRESS."""
    monkeypatch.setenv("TCLIENT_ADDRESS", busy.address)

    def ran(*arguments: str) -> Shown:
        return tclient_command(capfd, *arguments)

    return ran


def as_json(shown: Shown) -> Any:
    assert (shown[0], shown[2]) == (0, "")
    return json.loads(shown[1])


def test_ping_tells_percentiles(run: Any, busy: ServerProcess) -> None:
    told = as_json(run("ping", "--count", "12", "--json"))
    assert (told["address"], told["count"]) == (busy.address, 12)
    assert 0 < told["min_ms"] <= told["p50_ms"] <= told["p90_ms"] <= told["p99_ms"] <= told["max_ms"]
    title, names, values = run("ping", busy.address)[1].splitlines()
    assert title == f"round trips to {busy.address}, in milliseconds"
    assert names.split() == ["count", "min", "p50", "p90", "p99", "max", "mean"]
    assert values.split()[0] == "20"


def test_info_tells_what_a_server_is_and_the_limits_of_the_caller(run: Any, busy: ServerProcess) -> None:
    told = as_json(run("info", "--json"))
    assert told["version"] == tclient.__version__
    assert (told["devices"][0]["name"], told["sessions"]) == ("cpu", 1)
    assert {each["name"] for each in told["limits"]} >= {"sessions", "calls_per_s"}
    text = run("info")[1]
    assert text.startswith(f"{busy.address}: server {tclient.__version__}, torch ")
    assert re.search(r"^sessions +none +1$", text, re.MULTILINE)


def test_sessions_and_their_tensors_are_told(run: Any) -> None:
    (told,) = as_json(run("sessions", "--json"))
    assert _SESSION.fullmatch(told["id"])
    assert (told["principal"], told["peer"], told["is_attached"]) == ("local", "loopback", True)
    names, values = run("sessions")[1].splitlines()
    assert names.split() == ["id", "principal", "from", "age", "state", "tensors", "bytes", "queue"]
    assert values.split()[:3] == [told["id"], "local", "loopback"]

    found = as_json(run("tensors", told["id"][:5], "--json"))
    assert {tuple(each["shape"]) for each in found["tensors"]} >= {(2, 3)}
    assert {each["dtype"] for each in found["tensors"]} == {"float32"}
    assert [each["name"] for each in found["tensors"] if each["name"]] == ["weights\x1b[31m"]
    shown = run("tensors", told["id"])[1]
    # What others have named moves no cursor.
    assert r"weights\x1b[31m" in shown
    assert "\x1b" not in shown


def test_models_are_told_with_their_batches(run: Any) -> None:
    (told,) = as_json(run("models", "--json"))
    assert (told["name"], told["version"], told["state"], told["parameters"]) == ("small", 1, "READY", 8)
    assert (told["requests"], told["rows"], told["batch"], told["queue"], told["failed"]) == (1, 1, 1.0, 0, 0)
    assert told["mean_ms"] > 0
    assert run("models")[1].splitlines()[1].split()[:3] == ["small", "1", "READY"]


def test_top_looks_once_or_again_and_again(run: Any, busy: ServerProcess) -> None:
    text = run("top", "--once")[1]
    assert [line for line in text.splitlines() if line in ("devices", "sessions", "models")] == [
        "devices",
        "sessions",
        "models",
    ]
    told = as_json(run("top", "--once", "--json"))
    assert (told["sessions"][0]["principal"], told["models"][0]["name"]) == ("local", "small")
    process = subprocess.Popen(
        [sys.executable, "-m", "tclient", "top", busy.address, "--interval-s", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=server_environment(),
    )
    assert process.stdout is not None
    seen = 0
    while seen < 3:
        seen += process.stdout.readline().startswith(busy.address)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == ""
    assert process.returncode == 128 + signal.SIGINT


def test_on_a_terminal_top_draws_in_place_and_ctrl_c_ends_it_quietly(busy: ServerProcess) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tclient", "top", busy.address, "--interval-s", "0.05"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=server_environment(TERM="xterm", COLUMNS="120", LINES="40"),
    )
    os.close(theirs)
    told, latest = b"", time.monotonic() + 20
    while told.count(b"small") < 3 and time.monotonic() < latest:
        told += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):
        while data := os.read(ours, 65536):
            told += data
    assert process.wait(20) == 128 + signal.SIGINT
    os.close(ours)
    # Another screen, which is left again.
    assert b"\x1b[?1049h" in told
    assert told.rstrip().endswith((b"\x1b[?25h", b"\x1b[?1049l"))
    assert b"Traceback" not in told


def test_bench_measures_and_leaves_nothing(run: Any) -> None:
    told = as_json(run("bench", "--seconds", "0.01", "--size-mib", "1", "--json"))
    assert len(told["results"]) == 6
    assert all(each["median"] > 0 for each in told["results"])
    assert [each["name"] for each in as_json(run("models", "--json"))] == ["small"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["info", "nowhere"], 2, "tclient: connect: 'nowhere' has no port"),
        (["ping", "http://127.0.0.1:1"], 2, "begins with http://"),
        (["info", "127.0.0.1:1"], 1, "tclient: no tensor server answers at 127.0.0.1:1"),
        (["ping", "127.0.0.1:1"], 1, "tclient: no tensor server answers at 127.0.0.1:1"),
        (["ping", "--count", "0"], 2, "0 is not a number from 1 to 1000000"),
        (["ping", "--count", "x"], 2, "argument --count: invalid"),
        (["top", "--interval-s", "-1"], 2, "argument --interval-s"),
        (["info", "--timeout-s", "0"], 2, "0 is not a number of seconds above 0"),
        (["tensors"], 2, "the following arguments are required: SESSION"),
        (["tensors", "zz"], 1, "tclient: no session has an id that begins with 'zz'"),
        (["info", "--token-file", "/nope"], 1, "tclient: connect: the token file '/nope' cannot be used"),
        (["info", "--tls-ca", "/nope"], 1, "/nope"),
        (["nothing"], 2, "invalid choice: 'nothing'"),
        ([], 2, "the following arguments are required: COMMAND"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(arguments: list[str], code: int, told: str, run: Any) -> None:
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert told in err
    assert "Traceback" not in err


def test_a_reader_that_leaves_ends_a_command_without_a_word(busy: ServerProcess) -> None:
    program = f"{sys.executable} -m tclient info {busy.address} --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, timeout=60, check=True, env=server_environment()
    )
    assert done.stdout.splitlines()[-1].lstrip("{") in ("0", str(128 + signal.SIGPIPE))
    assert done.stderr == ""


def test_all_show_tokens_and_trust_certificates_in_the_same_way(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    authority, tokens = Authority(tmp_path), tmp_path / "tokens.json"
    (tmp_path / "token").write_text(token_of(tokens, "ada"))
    (tmp_path / "program.py").write_text("import torch\nprint(torch.ones(3).sum().item())")
    with serving("--tokens", str(tokens), *authority.issue().options) as server:
        how = ("--tls-ca", str(authority.pem), "--token-file", str(tmp_path / "token"))
        for command in ("ping", "info", "sessions", "models"):
            assert tclient_command(capfd, command, server.address, *how, "--json")[0] == 0
        code, _, err = tclient_command(capfd, "info", server.address)
        assert (code, "speaks TLS" in err) == (1, True)
        code, _, err = tclient_command(capfd, "info", server.address, *how[:2])
        assert code == 1
        assert "does not let this client in" in err
        program = ["tclient", "run", "--address", server.address, *how, str(tmp_path / "program.py")]
        done = subprocess.run(
            [sys.executable, "-m", *program],
            capture_output=True,
            text=True,
            timeout=60,
            env=server_environment(),
            check=False,
        )
        assert (done.stdout, done.stderr) == ("3.0\n", "")


def test_tables_are_aligned() -> None:
    rows = [{"name": "a", "count": 1, "size": size(5)}, {"name": "bcd", "count": 123, "size": size(3 << 20)}]
    assert text_table("all", rows) == ["all", "name  count     size", "a         1      5 B", "bcd     123  3.0 MiB"]
    assert text_table("", []) == []
    assert [duration(s) for s in (5, 200, 8000, 1e6)] == ["5 s", "3 min", "2.2 h", "11.6 d"]
