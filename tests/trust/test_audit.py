"""The audit log: what is in it, what is not, and that nothing a caller does can spoil it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest

import tclient
from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.support.callers import HEALTH, TENSORS, Caller, token_of
from tests.support.listeners import listener
from tests.support.serving import ServerProcess, serving, wait_until
from tserver import audit
from tserver.cli import main
from tserver.credentials import tokens
from tserver.front import status
from tserver.identity import Identity, Role

MODELS = "/tensorcompute.v1.ModelService"
ADA = Identity("ada", Role.USER, "token", "ipv4:10.0.0.1")


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


class Audited:
    """A server that keeps an audit log."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server, self.file, self.tokens = server, folder / "audit.jsonl", folder / tokens.NAME

    def until(self, what: str, **told: Any) -> dict[str, Any]:
        """The line that says so, once it is there."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [line for line in lines(self.file) if line["what"] == what and told.items() <= line.items()]
            return bool(found)

        wait_until(is_there, 5.0, f"a line about {what} {told}, not only {lines(self.file)[-5:]}")
        return found[-1]


@pytest.fixture(scope="module", params=["one server", "a house"])
def audited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("audited")
    token_of(folder / tokens.NAME, "nobody")
    options = ["--engines", "2"] if request.param == "a house" else []
    with serving(
        "--data-dir", str(folder), "--audit-log", str(folder / "audit.jsonl"), "--http-listen", "127.0.0.1:0", *options
    ) as server:
        yield Audited(server, folder)


def known(audited: Audited, principal: str, role: str = "user") -> str:
    token = token_of(audited.tokens, principal, role)
    with Caller(audited.server.address) as caller:
        wait_until(lambda: "OK" in str(caller.told(f"{TENSORS}/GetServerInfo", token=token)[0]), 5.0, "a new token")
    return token


def test_who_asked_for_what_and_how_it_ended_is_in_it_once(audited: Audited) -> None:
    token = known(audited, "ada")
    with Caller(audited.server.address) as caller:
        opened = caller.open(token)
        short = hashlib.sha256(opened.session).hexdigest()[:12]
        request = ms.DeleteMlpRequest(name="no such\n{model}").SerializeToString()
        caller.told(f"{MODELS}/DeleteMlp", request, token)
        close = ts.CloseSessionRequest(session=opened.session).SerializeToString()
        caller.ask(f"{TENSORS}/CloseSession", close, token)
    closed = audited.until(f"{TENSORS}/CloseSession", session=short)
    assert closed["outcome"] == "OK"
    assert (closed["principal"], closed["role"], closed["how"], closed["host"]) == ("ada", "user", "token", "loopback")
    assert closed["bytes_in"] == len(close)
    assert closed["seconds"] > 0
    deleted = audited.until(f"{MODELS}/DeleteMlp", model="no such\n{model}")
    assert (deleted["outcome"], deleted["reason"]) == ("NOT_FOUND", "NOT_FOUND")
    assert [line["what"] for line in lines(audited.file) if line.get("session") == short] == [f"{TENSORS}/CloseSession"]


def test_strangers_are_in_it_and_health_checks_are_not(audited: Audited) -> None:
    with Caller(audited.server.address) as caller:
        caller.told(f"{TENSORS}/OpenSession", token="wrong")
        caller.ask(HEALTH)
    line = audited.until(f"{TENSORS}/OpenSession", outcome="UNAUTHENTICATED")
    assert "principal" not in line
    assert line["host"] == "loopback"
    assert not [line for line in lines(audited.file) if "Health" in line["what"]]


def test_http_is_in_it(audited: Audited) -> None:
    token = known(audited, "web")
    address = f"http://{listener(audited.server, 'http')}/v2?secret=query"
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10.0) as answer:
        size = len(answer.read())
    assert audited.until("GET /v2", principal="web")["bytes_out"] == size
    assert "query" not in audited.file.read_text()


def test_a_stream_is_told_of_at_its_beginning_and_end(audited: Audited) -> None:
    token = known(audited, "streamer")
    with tclient.connect(audited.server.address, token=token, lane=False):
        assert tclient.ones(3).sum().item() == 3
        begun = audited.until(f"{TENSORS}/ExecuteStream begins", principal="streamer")
        assert len(begun["session"]) == 12
    ended = audited.until(f"{TENSORS}/ExecuteStream", principal="streamer", session=begun["session"])
    assert ended["bytes_in"] > 0 < ended["bytes_out"]


def test_bytes_beside_grpc_are_told_of_with_their_sizes(audited: Audited) -> None:
    with tclient.connect(audited.server.address, token=known(audited, "mover")):
        x = tclient.tensor(np.ones(1 << 20, np.float32))
        assert len(x.numpy()) == 1 << 20
    told = audited.until("data connection", principal="mover")
    assert (told["outcome"], told["how"], told["transfers"]) == ("OK", "token", 2)
    assert (told["bytes_in"], told["bytes_out"]) == (4 << 20, 4 << 20)


def test_what_is_kept_is_told_by_its_name(audited: Audited) -> None:
    with tclient.connect(audited.server.address, token=known(audited, "keeper", "publisher")):
        tclient.keep("kept-by-name", tclient.ones(3))
    audited.until("/tensorcompute.v1.StorageService/Keep", name="kept-by-name", principal="keeper")


def test_the_file_is_private_and_may_be_moved_away(audited: Audited) -> None:
    assert stat.S_IMODE(audited.file.stat().st_mode) == 0o600
    moved = audited.file.with_name("audit.1")
    os.rename(audited.file, moved)
    with Caller(audited.server.address) as caller:

        def is_there() -> bool:
            caller.told(f"{TENSORS}/GetServerInfo", token="wrong")
            return audited.file.exists() and bool(lines(audited.file))

        wait_until(is_there, 10.0, "a new file")
    assert lines(moved)


def test_commands_about_tokens_are_in_it(tmp_path: Path) -> None:
    file, log = tmp_path / "tokens.json", tmp_path / "audit.jsonl"
    run = click.testing.CliRunner().invoke
    made = run(main, ["token", "create", "--tokens", str(file), "--principal", "ada", "--audit-log", str(log)])
    (token,) = tokens.listed(file)
    run(main, ["token", "revoke", "--tokens", str(file), token.id, "--audit-log", str(log)])
    told = [(line["what"], line["of"], line["token"], line["how"]) for line in lines(log)]
    assert told == [(f"token {what}", "ada", token.id, "command line") for what in ("create", "revoke")]
    assert made.stdout.strip() not in log.read_text()


def test_what_the_disk_is_too_slow_for_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_QUEUED", 3)
    may_write = threading.Event()
    write = os.write

    def slow(file: int, data: bytes) -> int:
        may_write.wait(10.0)
        return write(file, data)

    monkeypatch.setattr(os, "write", slow)
    log = audit.Audit(str(tmp_path / "log"))
    for number in range(20):
        log.add("asked", ADA, "", number=number)
    may_write.set()
    wait_until(lambda: len(lines(tmp_path / "log")) >= 3, 5.0, "the lines")
    log.add("asked", ADA, "", number=99)
    log.close()
    found = lines(tmp_path / "log")
    assert [line["number"] for line in found][:3] == [0, 1, 2]
    assert found[-1]["number"] == 99
    assert len(found) + sum(line.get("missing", 0) for line in found) == 21


def test_strangers_do_not_fill_the_disk(tmp_path: Path) -> None:
    log = audit.Audit(str(tmp_path / "log"))
    for _ in range(1000):
        log.add("asked", None, "ipv4:10.0.0.9", outcome="UNAUTHENTICATED")
    log.add("asked", ADA, "")
    log.close()
    found = lines(tmp_path / "log")
    assert len(found) <= 101
    assert len(found) + sum(line.get("missing", 0) for line in found) == 1001


def test_a_name_can_break_no_line_and_is_cut(tmp_path: Path) -> None:
    log = audit.Audit(str(tmp_path / "log"))
    log.add('x"}\n{"what": "forged"}', ADA, "", name="\x1b[2J\u2028" + "n" * 100_000)
    log.close()
    (line,) = lines(tmp_path / "log")
    assert line["what"] == 'x"}\n{"what": "forged"}'
    assert len(line["name"]) == 200
    assert (tmp_path / "log").read_bytes().isascii()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match=r"--audit-log .* cannot be used"):
        audit.Audit(str(tmp_path / "log"))
    result = click.testing.CliRunner().invoke(main, ["serve", "--audit-log", str(tmp_path / "no" / "log")])
    assert result.exit_code == 2
    assert "--audit-log" in result.output


def test_an_error_is_recorded_as_the_caller_is_told_of_it() -> None:
    told = status.told_of(MemoryError(), status.code_of)
    assert told[:2] == ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY")
    assert status.told_of(ZeroDivisionError("secret"), status.code_of) == ("INTERNAL", "INTERNAL", "ZeroDivisionError")
