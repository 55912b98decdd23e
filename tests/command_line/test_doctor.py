"""`tserver doctor`: each fault is found, told with a remedy, and ends it with 1; what is well is told too."""

from __future__ import annotations

import calendar
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.authority import Authority
from tests.support.callers import token_of
from tests.support.serving import server_environment
from tserver.cli import main
from tserver.commands import doctor
from tserver.credentials import pem

Doctor = Callable[..., tuple[int, dict[str, list[dict[str, Any]]]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """The command, without the look at torch, which takes seconds: its exit code, and its lines by what they are of."""
    monkeypatch.setattr(doctor, "CHECKS", [each for each in doctor.CHECKS if each is not doctor._torch])

    def run(*options: str, **variables: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
        done = CliRunner().invoke(main, ["doctor", "--json", "--listen=127.0.0.1:0", *options], env=variables)
        found: dict[str, list[dict[str, Any]]] = {}
        for each in json.loads(done.stdout):
            found.setdefault(each["check"], []).append(each)
        return done.exit_code, found

    return run


def test_all_is_looked_at_and_torch_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tserver", "doctor", "--listen=127.0.0.1:0", "--data-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, "--device=cuda:7"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=server_environment(),
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    looked_at = {line[6:].partition("  ")[0].strip() for line in lines}
    assert looked_at >= {"settings", "Python", "packages", "torch", "device", "compiled core", "memory", "address"}
    assert looked_at >= {"data directory", "disk", "tokens", "clock", "open files"}
    assert "-> give one of those that there are: cpu" in done.stdout
    assert {line.split()[0] for line in lines} <= {"ok", "warn", "fail"}


def test_nothing_fails_where_all_is_well(run: Doctor, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    token_of(tmp_path / "data" / "tokens.json", "ada")
    pair = Authority(tmp_path).issue()
    code, found = run("--data-dir", str(tmp_path / "data"), *pair.options)
    assert code == 0
    assert {each["state"] for each in found["TLS"] + found["tokens"] + found["data directory"]} == {"ok"}
    assert "1 that are good" in found["tokens"][0]["text"]


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_an_address_that_is_taken_fails(run: Doctor, taken: str) -> None:
    code, found = run("--metrics-listen", taken)
    assert code == 1
    (bad,) = (each for each in found["address"] if each["state"] == "fail")
    assert f"--metrics-listen {taken}" in bad["text"]
    assert "another port" in bad["remedy"]


def test_settings_that_do_not_go_together_fail_and_the_rest_is_looked_at(run: Doctor) -> None:
    code, found = run("--listen=0.0.0.0:0", TSERVER_LEASE="3")
    assert code == 1
    assert "TSERVER_LEASE_S" in found["settings"][0]["text"]
    assert found["memory"]
    _, found = run("--listen=0.0.0.0:0", "--insecure")
    assert found["settings"][0]["state"] == "warn"
    assert "EVERYONE" in found["settings"][0]["text"]


@pytest.mark.parametrize(
    ("for_days", "state", "told"),
    [(-1, "fail", "has expired"), (3, "warn", "is good until"), (30, "ok", "is good until")],
)
def test_how_long_a_certificate_is_good_is_told(
    for_days: int, state: str, told: str, run: Doctor, tmp_path: Path
) -> None:
    pair = Authority(tmp_path).issue(for_days=for_days)
    code, found = run(*pair.options)
    together, expiry = found["TLS"]
    assert together["state"] == "ok"
    assert (expiry["state"], code) == (state, 1 if state == "fail" else 0)
    assert told in expiry["text"]
    assert bool(expiry["remedy"]) == (state != "ok")


def test_a_key_of_another_certificate_fails(run: Doctor, tmp_path: Path) -> None:
    one, other = (Authority(tmp_path, name).issue() for name in ("one", "other"))
    code, found = run("--tls-cert", str(one.cert), "--tls-key", str(other.key))
    assert code == 1
    assert "the key is not that of the certificate" in found["TLS"][0]["text"]


def test_files_and_folders_that_others_may_read_are_told(run: Doctor, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    token_of(tmp_path / "data" / "tokens.json", "ada", lasts_s=-5)
    (tmp_path / "data" / "tokens.json").chmod(0o644)
    code, found = run("--data-dir", str(tmp_path / "data"))
    assert code == 0
    assert [each["state"] for each in found["data directory"] + found["tokens"]] == ["warn"] * 3
    assert "mode 055" in found["data directory"][0]["text"]
    assert "none that is good" in found["tokens"][0]["text"]


def test_what_is_not_there_fails_with_its_option(run: Doctor, tmp_path: Path) -> None:
    code, found = run("--model-dir", str(tmp_path / "nope"))
    assert code == 1
    assert f"--model-dir {tmp_path}/nope" in found["files"][0]["text"]


@pytest.mark.parametrize("moment", ["1960-01-02 03:04", "1999-12-31 23:59", "2049-12-31 00:00", "2050-01-01 00:00"])
def test_moments_are_read_as_certificates_have_them(moment: str) -> None:
    parsed = time.strptime(moment, "%Y-%m-%d %H:%M")
    is_long = not 1950 <= parsed.tm_year < 2050
    text = time.strftime("%Y%m%d%H%M%SZ" if is_long else "%y%m%d%H%M%SZ", parsed).encode()
    assert pem._moment(0x18 if is_long else 0x17, text) == calendar.timegm(parsed)


@pytest.mark.parametrize("der", [b"", b"\x30", os.urandom(40), b"\x30\x03\x02\x01\x01"], ids=range(4))
def test_what_is_no_certificate_is_refused(der: bytes) -> None:
    with pytest.raises(ValueError, match="it is no certificate"):
        pem.validity(der)
