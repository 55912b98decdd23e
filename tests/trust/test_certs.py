"""`tserver certs`: what it makes works on a real server, and it spoils nothing that is there."""

from __future__ import annotations

import stat
from pathlib import Path

import click.testing
import pytest

import tclient
from tests.support.serving import serving
from tserver.cli import main


def run(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["certs", *arguments])


def test_a_server_and_a_client_use_what_it_makes(tmp_path: Path) -> None:
    out = tmp_path / "certs"
    made = run("--out", str(out), "--name", "gpu-host")
    assert made.exit_code == 0
    assert "--tls-cert" in made.output
    assert f"tls='{out}/ca.pem'" in made.output
    assert run("--out", str(out), "--client", "ada").exit_code == 0
    assert {path.name for path in out.iterdir()} == {
        f"{name}.{kind}" for name in ("ca", "server", "ada") for kind in ("pem", "key")
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    tls = ("--tls-cert", str(out / "server.pem"), "--tls-key", str(out / "server.key"))
    with serving(*tls, "--tls-client-ca", str(out / "ca.pem")) as server:
        trusted, cert, key = (str(out / name) for name in ("ca.pem", "ada.pem", "ada.key"))
        with tclient.connect(server.address, tls=trusted, tls_cert=cert, tls_key=key):
            assert tclient.ones(2).sum().item() == 2
            served = tclient.models.create("of-ada", tclient.nn.MLP([2, 1]))
            assert served.owner == "ada"
        with pytest.raises(tclient.ConnectFailed):
            tclient.connect(server.address, tls=trusted, timeout_s=5)


def test_an_authority_signs_again_and_is_never_written_over(tmp_path: Path) -> None:
    assert run("--out", str(tmp_path)).exit_code == 0
    authority, server = (tmp_path / "ca.pem").read_bytes(), (tmp_path / "server.pem").read_bytes()
    again = run("--out", str(tmp_path))
    assert again.exit_code == 1
    assert "--force" in again.output
    assert (tmp_path / "server.pem").read_bytes() == server
    assert run("--out", str(tmp_path), "--force").exit_code == 0
    assert (tmp_path / "server.pem").read_bytes() != server
    assert (tmp_path / "ca.pem").read_bytes() == authority
    (tmp_path / "ca.key").write_text("no key")
    assert "no authority that can sign" in run("--out", str(tmp_path), "--client", "eve").output
    assert (tmp_path / "ca.pem").read_bytes() == authority


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--name", "gpu-host:50051"], "without a port"),
        (["--name", "a b"], "neither a host name"),
        (["--name", ""], "neither a host name"),
        (["--name", "-x"], "neither a host name"),
        (["--client", "../ada"], "the name of a principal"),
        (["--client", "ca"], "a file is named after it"),
        (["--client", ".hidden"], "a file is named after it"),
        (["--client", "ada", "--name", "host"], "one at a time"),
        (["--expires", "tomorrow"], "is no time"),
        (["--expires", "2001-01-01"], "is over already"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, options: list[str], said: str) -> None:
    result = run("--out", str(tmp_path / "new"), *options)
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "new").exists()


def test_without_its_package_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tserver.extras.is_there", lambda name: False)
    result = run("--out", str(tmp_path))
    assert result.exit_code == 1
    assert "pip install 'tclient[certs]'" in result.output
