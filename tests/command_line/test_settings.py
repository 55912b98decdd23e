"""Settings by options, variables and a file: which counts, what is refused and how, and that all can be printed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.serving import ServerProcess, server_environment
from tserver import cli
from tserver.config import Config

Serve = Callable[..., Result]


@pytest.fixture
def started() -> list[Config]:
    """The settings with which a server would have been started."""
    return []


@pytest.fixture
def serve(started: list[Config], monkeypatch: pytest.MonkeyPatch) -> Serve:
    """`tserver serve` with options and variables, up to where a server is started."""

    def supervise(config: Config) -> int:
        started.append(config)
        return 0

    monkeypatch.setattr(cli, "supervise", supervise)

    def run(*options: str, **variables: str) -> Result:
        return CliRunner().invoke(cli.main, ["serve", *options], env=variables)

    return run


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    """A file of settings."""

    def write(text: str) -> str:
        path = tmp_path / "tserver.toml"
        path.write_text(text)
        return str(path)

    return write


def test_an_option_counts_before_a_variable_and_that_before_the_file(
    serve: Serve, file: Callable[[str], str], started: list[Config]
) -> None:
    path = file("max_sessions = 1\nmax_nesting = 1\nthreads = 1\nlease_s = 7\nsingle_owner = true\n")
    done = serve("--max-sessions", "3", TSERVER_CONFIG=path, TSERVER_MAX_SESSIONS="2", TSERVER_MAX_NESTING="2")
    assert done.exit_code == 0, done.output
    (config,) = started
    assert (config.max_sessions, config.max_nesting, config.threads) == (3, 2, 1)
    assert (config.lease_s, config.single_owner, config.drain_s) == (7.0, True, 10.0)


def test_all_settings_are_printed_with_where_they_come_from_and_are_taken_again(
    serve: Serve, file: Callable[[str], str], started: list[Config]
) -> None:
    path = file('# mine\ndevice = "cpu"\nsend_to = "none"')
    given = ("--config", path, "--lease-s", "1e3", "--advertise", 'a "quoted" \\ ü\x7fname')
    printed = serve(*given, "--print-config", TSERVER_MAX_SESSIONS="5")
    assert printed.exit_code == 0, printed.output
    assert not started
    lines = {line.partition(" = ")[0]: line.rpartition("# ")[2] for line in printed.stdout.splitlines()[1:]}
    assert set(lines) == {field.name for field in fields(Config)}
    assert (lines["device"], lines["send_to"]) == (f"{path}, line 2", f"{path}, line 3")
    assert (lines["lease_s"], lines["max_sessions"], lines["threads"]) == (
        "--lease-s",
        "TSERVER_MAX_SESSIONS",
        "default",
    )

    assert serve(*given, TSERVER_MAX_SESSIONS="5").exit_code == 0
    assert serve("--config", file(printed.stdout)).exit_code == 0
    assert started[0] == started[1]
    assert started[0].device == "cpu"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\n\nlease = 3\n", "line 3: 'lease' is not known; do you mean lease_s?"),
        ("max-sessions = 3", "line 1: 'max-sessions' is not known; do you mean max_sessions?"),
        ("[serve]\nlease_s = 3", "line 1: 'serve' is not known"),
        ('\nlease_s = "3"', 'line 2: lease_s is to be a number, and is "3"'),
        ("max_sessions = 1.5", "line 1: max_sessions is to be a whole number, and is 1.5"),
        ("max_sessions = true", "line 1: max_sessions is to be a whole number, and is true"),
        ("single_owner = 1", "line 1: single_owner is to be true or false, and is 1"),
        ("threads = 1\nlisten = 50051", "line 2: listen is to be a string, and is 50051"),
        ("device = ['cpu']", "line 1: device is to be a string"),
        ("max_sessions = 0", "tserver.toml, line 1: max_sessions': 0 is not in the range x>=1"),
        ('log_level = "loud"', "tserver.toml, line 1: log_level': 'loud' is not one of"),
        ("lease_s = ", "Invalid value"),
        ("lease_s = 1\nlease_s = 2\n", "Cannot overwrite a value (at line 2"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_by_line_and_key(
    text: str, told: str, serve: Serve, file: Callable[[str], str], started: list[Config]
) -> None:
    path = file(text)
    done = serve("--config", path)
    assert done.exit_code == 2
    assert path in done.stderr
    assert told in done.stderr
    assert not started


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"TSERVER_MAX_SESSION": "5"}, "'TSERVER_MAX_SESSION' is not known; do you mean TSERVER_MAX_SESSIONS?"),
        ({"TSERVER_DATA_PORT": "5"}, "'TSERVER_DATA_PORT' is not known"),
        ({"TSERVER_MAX_SESSIONS": "many"}, "Invalid value for 'TSERVER_MAX_SESSIONS': 'many' is not a valid integer"),
        ({"TSERVER_CONFIG": "/nope.toml"}, "--config /nope.toml: No such file or directory"),
    ],
)
def test_what_is_wrong_in_the_environment_is_told_by_the_name_of_the_variable(
    variables: dict[str, str], told: str, serve: Serve, started: list[Config]
) -> None:
    done = serve(**variables)
    assert done.exit_code == 2
    assert told in done.stderr
    assert not started


def test_variables_that_kubernetes_sets_for_a_service_of_that_name_are_no_settings(serve: Serve) -> None:
    own = {
        "TSERVER_PORT": "tcp://10.0.0.1:50051",
        "TSERVER_SERVICE_HOST": "10.0.0.1",
        "TSERVER_SERVICE_PORT_GRPC": "50051",
        "TSERVER_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "TSERVER_PORT_50051_TCP_ADDR": "10.0.0.1",
        "TSERVER_HEADLESS_SERVICE_PORT": "50051",
    }
    assert serve(**own, TSERVER_NATIVE="0").exit_code == 0


_FILES = ["tls-cert", "tls-key", "tls-client-ca", "tokens", "limits"]


@pytest.mark.parametrize(
    ("option", "path", "told"),
    [
        *((name, "{}/nope", "No such file or directory") for name in _FILES),
        *((name, "{}", "Is a directory") for name in _FILES),
        ("model-dir", "{}/nope", "No such file or directory"),
        ("model-dir", "{}/file", "Not a directory"),
        ("data-dir", "{}/file", "Not a directory"),
        ("data-dir", "{}/file/within", "Not a directory"),
        ("data-dir", "/proc/1", "No such file or directory"),
    ],
)
def test_a_file_or_folder_that_cannot_be_used_is_told_by_its_option(
    option: str, path: str, told: str, serve: Serve, tmp_path: Path, started: list[Config]
) -> None:
    good = tmp_path / "file"
    good.touch()
    given: dict[str, Any] = {"tls-cert": good, "tls-key": good} if option.startswith("tls") else {}
    given[option] = path.format(tmp_path)
    done = serve(*(word for name, value in given.items() for word in (f"--{name}", str(value))))
    assert done.exit_code == 2
    assert f"--{option} {path.format(tmp_path)}" in done.stderr
    assert f"{path.format(tmp_path)}: {told}\n" in done.stderr
    assert not started


def test_the_data_directory_is_left_as_it_was_by_the_look(serve: Serve, tmp_path: Path, started: list[Config]) -> None:
    assert serve("--data-dir", str(tmp_path / "new" / "data")).exit_code == 0
    assert list(tmp_path.iterdir()) == []
    assert len(started) == 1


def test_other_commands_take_what_is_theirs_of_the_file(file: Callable[[str], str], tmp_path: Path) -> None:
    path = file(f'data_dir = "{tmp_path}"\ndevice = "cpu"\n')
    made = CliRunner().invoke(cli.main, ["token", "create", "--principal", "ada"], env={"TSERVER_CONFIG": path})
    assert made.exit_code == 0, made.output
    assert (tmp_path / "tokens.json").is_file()
    listed = CliRunner().invoke(cli.main, ["token", "list", "--config", path])
    assert "ada" in listed.stdout


def test_a_server_is_as_its_file_says(file: Callable[[str], str]) -> None:
    path = file('max_sessions = 1\ndata_listen = ""\nlog_level = "warning"\n')
    with ServerProcess("--config", path):
        done = subprocess.run(
            [sys.executable, "-m", "tserver", "serve", "--config", path, "--print-config"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=server_environment(),
        )
    assert tomllib.loads(done.stdout)["data_listen"] == ""
