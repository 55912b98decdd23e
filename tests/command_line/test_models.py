"""`tserver models`: the same models, in a data directory and on the server that has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import tclient
from tests.support.serving import ServerProcess, serving
from tserver.cli import main


def models(*arguments: str, **variables: str) -> Result:
    """The command."""
    return CliRunner().invoke(main, ["models", *arguments], env=variables)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory."""
    return tmp_path_factory.mktemp("models") / "data"


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[ServerProcess]:
    """A server that has it, with two models, one of them in two versions."""
    with serving("--data-dir", str(folder)) as server:
        with tclient.connect(server.address):
            tclient.models.create("small", tclient.nn.MLP([2, 3]))
            tclient.models.create("small", tclient.nn.MLP([2, 4]), version=2)
            tclient.models.create("other", tclient.nn.MLP([5, 1]))
        yield server


def test_a_running_server_tells_and_removes_its_models(running: ServerProcess) -> None:
    at = ("--address", running.address)
    listed = json.loads(models("list", *at, "--json").stdout)
    assert [(row["name"], row["version"], row["state"]) for row in listed] == [
        ("other", 1, "READY"),
        ("small", 1, "READY"),
        ("small", 2, "READY"),
    ]
    assert listed[0]["bytes"] == 4 * 6
    assert models("list", *at).stdout.splitlines()[0].split() == ["other", "1", "READY", "24"]
    assert json.loads(models("show", *at, "small").stdout)["version"] == 2
    assert json.loads(models("show", *at, "small", "--version", "1").stdout)["parameters"] == "9"

    assert models("delete", *at, "small", "--version", "2").exit_code == 1  # nobody says yes
    assert models("delete", *at, "small", "--version", "2", "--yes").exit_code == 0
    gone = models("show", *at, "small", "--version", "2")
    assert gone.exit_code == 1
    assert gone.stderr.startswith(f"Error: {running.address}: NOT_FOUND: ")


def test_a_directory_that_a_server_has_is_left_to_it(running: ServerProcess, folder: Path) -> None:
    done = models("list", "--data-dir", str(folder))
    assert done.exit_code == 1
    assert "another server uses the data directory" in done.stderr
    assert "--address HOST:PORT" in done.stderr


def test_a_directory_without_a_server_tells_verifies_and_removes(running: ServerProcess, folder: Path) -> None:
    assert running.terminate() == 0
    at = {"TSERVER_DATA_DIR": str(folder)}
    listed = json.loads(models("list", "--json", **at).stdout)
    assert [(row["name"], row["version"], row["state"]) for row in listed] == [
        ("other", 1, "ON DISK"),
        ("small", 1, "ON DISK"),
    ]
    assert json.loads(models("show", "small", **at).stdout)["layers"][0]["out_features"] == "3"
    sound = models("verify", **at)
    assert (sound.exit_code, sound.stdout) == (0, "other  1  ok\nsmall  1  ok\n")

    weights = folder / "models" / "small" / "1" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    damaged = models("verify", **at)
    assert damaged.exit_code == 1
    assert "small  1  model.safetensors does not have the sha256" in damaged.stdout
    assert "1 are damaged" in damaged.stderr
    # It is told, and left where it is.
    assert weights.is_file()

    assert models("delete", "small", "--yes", **at).exit_code == 0
    assert not weights.exists()
    assert models("show", "small", **at).stderr.startswith("Error: there is no model 'small'")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["list"], 2, "--data-dir, as the server has it, or --address"),
        (["list", "--data-dir", "/nope"], 1, "--data-dir /nope: there is no such directory"),
        (["list", "--address", "nowhere"], 1, "has no port"),
        (["list", "--address", "127.0.0.1:1"], 1, "127.0.0.1:1: UNAVAILABLE"),
        (["list", "--address", "127.0.0.1:1", "--token-file", "/nope"], 1, "/nope: No such file"),
        (["show", "x", "--version", "0", "--data-dir", "/"], 2, "0 is not in the range"),
    ],
)
def test_what_cannot_be_is_told(arguments: list[str], code: int, told: str) -> None:
    done = models(*arguments)
    assert done.exit_code == code
    assert told in done.stderr
