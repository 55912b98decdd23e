"""From the command to a server that listens: what is said meanwhile, in which form, and Ctrl-C at any moment of it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tclient
from tests.support.serving import ServerProcess, children_of, is_alive, server_environment, serving, wait_until
from tserver import logs

COMMAND = [sys.executable, "-m", "tserver", "serve", "--listen", "127.0.0.1:0", "--device", "cpu"]


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    found = children_of(pid)
    return found + [below for child in found for below in descendants(child)]


def has_loaded(pid: int, library: str) -> bool:
    """Whether a process below has a library mapped."""
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            if library in Path(f"/proc/{each}/maps").read_text():
                return True
    return False


MOMENTS: dict[str, Callable[[int], bool]] = {
    "at once": lambda pid: True,
    "a child is there": lambda pid: bool(descendants(pid)),
    "gRPC is imported": lambda pid: has_loaded(pid, "cygrpc"),
    "torch is being imported": lambda pid: has_loaded(pid, "libtorch_cpu"),
    "torch is imported": lambda pid: has_loaded(pid, "libtorch_python"),
}


@pytest.mark.parametrize("house", [(), ("--engines", "2")], ids=["a server", "a house"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_while_a_server_starts_ends_all_of_it_without_a_traceback(moment: str, house: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        [*COMMAND, *house],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=server_environment(),
        process_group=0,
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert json.loads(said)["message"] == "starting"
        # From here on the supervisor takes signals, which is before it has a child.
        wait_until(lambda: _takes(process.pid, signal.SIGINT), 20.0, "it takes signals")
        wait_until(lambda: MOMENTS[moment](process.pid), 30.0, moment)
        below = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20.0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in err
    assert "KeyboardInterrupt" not in err
    assert {json.loads(line)["level"] for line in err.splitlines()} <= {"info"}
    assert process.returncode in {128 + signal.SIGINT, 0}
    assert not out or out.startswith("listening on ")
    wait_until(lambda: not any(map(is_alive, below)), 5.0, "its processes have ended")


def _takes(pid: int, number: int) -> bool:
    found = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)


def test_ctrl_c_ends_a_server_in_its_own_time() -> None:
    with ServerProcess(cold=True) as running:
        running.wait_listening()
        running.signal(signal.SIGINT)
        assert running.wait() == 0
        assert json.loads(running.stderr[-1])["message"] == "stopped"


def test_on_a_terminal_the_log_is_text() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=theirs, stdin=subprocess.DEVNULL, text=True, env=server_environment()
    )
    os.close(theirs)
    try:
        told = b""
        while b"serving" not in told:
            told += os.read(ours, 4096)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on 127.0.0.1:")
    finally:
        process.terminate()
        process.wait(20.0)
        os.close(ours)
    first, *_ = told.decode().splitlines()
    assert re.fullmatch(r"\S+Z info     starting version=\S+ listen=127.0.0.1:0 device=cpu", first)
    assert "Z info     serving address=127.0.0.1:" in told.decode()


def test_the_log_names_a_session_by_a_hash_with_who_has_it_and_from_where() -> None:
    with serving("--log-format", "json") as server:
        with tclient.connect(server.address) as session:
            secret = session.credentials()
        wait_until(lambda: any("session ended" in line for line in server.stderr), 5.0, "the end of the session")
        lines = [json.loads(line) for line in server.stderr if "session" in line]
    opened, ended = (
        next(line for line in lines if line["message"] == f"session {what}") for what in ("opened", "ended")
    )
    assert re.fullmatch("[0-9a-f]{12}", opened["session"])
    assert opened["session"] == ended["session"]
    assert (opened["principal"], opened["peer"]) == ("local", "loopback")
    assert ended["cause"] == "its client closed it"
    assert opened["session"] not in str(secret)


@pytest.fixture
def record() -> logging.LogRecord:
    """A record with what a caller may have named."""
    try:
        raise ValueError("bad\n2026-01-01T00:00:00.000Z info     forged \x1b[31m")
    except ValueError:
        found = logging.LogRecord("tserver", logging.INFO, "", 0, "told\n%s", ("this\x1b[0m",), sys.exc_info())
    found.__dict__.update(name_of="a b", empty="", count=3, many=["x", "y"], forged='x" level="critical')
    return found


def test_text_is_one_line_whatever_is_in_it(record: logging.LogRecord) -> None:
    first, *others = logs.TextFormatter(engine="0").format(record).split("\n")
    assert first[25:] == (
        r"info     told\nthis\x1b[0m engine=0 "
        r'name_of="a b" empty="" count=3 many=["x", "y"] forged="x\" level=\"critical"'
    )
    assert others
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def test_json_has_the_same(record: logging.LogRecord) -> None:
    entry = json.loads(logs.JsonFormatter(engine="0").format(record))
    assert (entry["message"], entry["engine"], entry["count"]) == ("told\nthis\x1b[0m", "0", 3)
    assert "forged" in entry["exception"]
