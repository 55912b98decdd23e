"""Tokens: how they are made and kept, and that nobody gets anywhere without one that is good."""

from __future__ import annotations

import json
import multiprocessing
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import click.testing
import grpc
import pytest

from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.support.callers import HEALTH, TENSORS, Caller, token_of
from tests.support.listeners import listener
from tests.support.serving import ServerProcess, serving, wait_until
from tserver.cli import main
from tserver.credentials import names, tokens
from tserver.credentials.failures import BURST, Failures
from tserver.credentials.tokens import Tokens
from tserver.front.authentication import watched_tokens

Code = grpc.StatusCode
REFUSED = (Code.UNAUTHENTICATED, "no valid credentials")
INFO = f"{TENSORS}/GetServerInfo"


def run(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, arguments)


# --- the file ---


def test_a_token_is_printed_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    made = run("token", "create", "--data-dir", str(tmp_path / "new"), "--principal", "ada", "--role", "publisher")
    text = made.stdout.strip()
    file = tmp_path / "new" / tokens.NAME
    assert made.exit_code == 0
    assert len(text) > 43
    assert text not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    listed = run("token", "list", "--tokens", str(file)).output
    assert "ada" in listed
    assert "publisher" in listed
    assert text not in listed
    proven = Tokens.of(file.read_bytes()).prove(text, time.time())
    assert proven is not None
    assert (proven.principal, proven.role.name) == ("ada", "PUBLISHER")


def test_a_token_that_is_revoked_or_over_proves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    text, other = token_of(file, "ada"), token_of(file, "bob")
    revoked, kept = tokens.listed(file)
    assert run("token", "revoke", "--tokens", str(file), revoked.id).exit_code == 0
    assert "revoked" in run("token", "list", "--tokens", str(file)).output
    now = time.time()
    found = Tokens.of(file.read_bytes())
    assert found.prove(text, now) is None
    assert found.prove(other, now) is not None
    assert found.prove(other, kept.expires) is None
    assert found.prove(other + "x", now) is None
    assert run("token", "revoke", "--tokens", str(file), "nothing").exit_code == 1


def _make(file: Path, name: str) -> None:
    for _ in range(5):
        token_of(file, name)


def test_commands_at_once_lose_no_token(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    context = multiprocessing.get_context("fork")
    makers = [context.Process(target=_make, args=(file, f"p{number}")) for number in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(30.0)
    assert len(tokens.listed(file)) == 20


BAD_NAMES = {
    "empty": "",
    "long": "x" * 129,
    "slash": "ada/model",
    "newline": 'ada\n{"level": "info"}',
    "escape": "ada\x1b[31m",
    "nothing to see": "ada\u200b",
    "right to left": "ada\u202e",
    "line separator": "ada\u2028",
    "spaces": " ada",
    "surrogate": "ada\udc80",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_name_that_could_be_taken_for_something_else_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="the name of a principal has"):
        names.checked(name)
    with pytest.raises(ValueError, match="the name of a principal has"):
        tokens.create(tmp_path / "tokens.json", name, "user", int(time.time()) + 60)


@pytest.mark.parametrize("name", ["ada", "Ada Lovelace", "ada@example.org", "größe", "数学", "a:b|c"])
def test_other_names_are_names(name: str) -> None:
    assert names.checked(name) == name


MOMENTS = {"30d": 30 * 86400, "12h": 43200, "90s": 90, "2001-09-09T03:46:41+02:00": 1, "2001-09-10": 80000}


@pytest.mark.parametrize(("text", "after_s"), MOMENTS.items(), ids=MOMENTS)
def test_when_a_token_ends_is_said_in_days_or_as_a_date(text: str, after_s: int) -> None:
    assert tokens.moment(text, 1e9) == 1e9 + after_s


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "2001-09-09", "tomorrow"])
def test_what_is_no_time_to_come_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no time|is over already"):
        tokens.moment(text, 1e9)


LINE = {"id": "1", "principal": "ada", "role": "user", "sha256": "0" * 64, "created": 1, "expires": 2}
BROKEN = {
    "no JSON": b'{"version": 1, "tokens": [',
    "nothing": b"",
    "another version": b'{"version": 2, "tokens": []}',
    "a list": b"[]",
    "another field": b'{"version": 1, "tokens": [{"id": "x", "secret": "y"}]}',
    "another type": json.dumps({"version": 1, "tokens": [{**LINE, "id": 1}]}).encode(),
    "a role that there is not": json.dumps({"version": 1, "tokens": [{**LINE, "role": "root"}]}).encode(),
    "another hash": json.dumps({"version": 1, "tokens": [{**LINE, "sha256": "0"}]}).encode(),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_broken_keeps_what_was_read_before(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tokens.json"
    text = token_of(file, "ada")
    watched = watched_tokens(str(file))
    file.write_bytes(data)
    for _ in range(3):
        assert watched.current().prove(text, time.time()) is not None
    assert caplog.text.count("cannot be used") == 1
    file.write_bytes(b'{"version": 1, "tokens": []}')
    assert watched.current().prove(text, time.time()) is None
    file.write_bytes(data)
    with pytest.raises(OSError, match=r"--tokens .* cannot be"):
        watched_tokens(str(file))


# --- failures ---


def test_who_fails_too_often_has_to_wait_and_others_do_not() -> None:
    failures = Failures()
    while not failures.wait_s("ipv4:10.0.0.1"):
        failures.count("ipv4:10.0.0.1")
    assert 0 < failures.wait_s("ipv4:10.0.0.1") < 1
    assert failures.wait_s("ipv4:10.0.0.2") == 0
    for number in range(int(BURST) + 20):
        failures.count(f"ipv6:[2001:db8::{number:x}]")
    assert failures.wait_s("ipv6:[2001:db8::ffff]") > 0, "of one network"
    assert failures.wait_s("ipv6:[2001:db8:0:1::1]") == 0


# --- a server ---


class Guarded:
    """A server that asks for tokens."""

    def __init__(self, server: ServerProcess, file: Path) -> None:
        self.server, self.file = server, file
        self.ada, self.admin = token_of(file, "ada"), token_of(file, "root", "admin")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server with all ports."""
    file = tmp_path_factory.mktemp("guarded") / "tokens.json"
    token_of(file, "nobody")
    ports = [part for name in ("oip", "http", "metrics") for part in (f"--{name}-listen", "127.0.0.1:0")]
    with serving("--tokens", str(file), *ports) as server:
        guarded = Guarded(server, file)
        with Caller(server.address) as caller:
            wait_until(lambda: caller.told(INFO, token=guarded.admin)[0] is Code.OK, 5.0, "the new tokens")
        yield guarded


def test_who_has_a_token_is_served_and_who_has_none_is_not_on_loopback_either(guarded: Guarded) -> None:
    with Caller(guarded.server.address) as caller:
        assert caller.open(guarded.ada).session
        assert caller.told(INFO) == REFUSED
        assert caller.told(INFO, token="tcs_" + "x" * 43) == REFUSED
        assert caller.told(INFO, token=guarded.ada[:-1]) == REFUSED
        assert caller.ask(HEALTH), "health is told to everyone"


def test_a_token_that_is_revoked_or_ends_is_refused_within_a_second(guarded: Guarded) -> None:
    short, long = token_of(guarded.file, "eve", lasts_s=3.0), token_of(guarded.file, "eve")
    with Caller(guarded.server.address) as caller:
        for token in (short, long):
            wait_until(lambda token=token: caller.told(INFO, token=token)[0] is Code.OK, 2.0, "a new token")  # type: ignore[misc]
        tokens.revoke(guarded.file, tokens.listed(guarded.file)[-1].id)
        wait_until(lambda: caller.told(INFO, token=long) == REFUSED, 1.0, "the revocation", interval_s=0.1)
        wait_until(lambda: caller.told(INFO, token=short) == REFUSED, 4.0, "the end of a token", interval_s=0.1)


def test_a_session_is_another_principal_s_even_for_who_knows_its_secret(guarded: Guarded) -> None:
    bob = token_of(guarded.file, "bob")
    close = f"{TENSORS}/CloseSession"
    with Caller(guarded.server.address) as caller:
        session = caller.open(guarded.ada).session
        wait_until(lambda: caller.told(INFO, token=bob)[0] is Code.OK, 2.0, "a new token")
        request = ts.CloseSessionRequest(session=session).SerializeToString()
        never = ts.CloseSessionRequest(session=session[:-1] + bytes([session[-1] ^ 1])).SerializeToString()
        assert caller.told(close, request, bob) == caller.told(close, never, bob)
        assert caller.told(close, request, bob)[0] is not Code.OK
        assert caller.told(close, request, guarded.ada)[0] is Code.OK


def http_status(address: str, path: str, token: str = "") -> int:
    """How a request ends."""
    headers = {"Authorization": f"bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{address}{path}", headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        told = error
    if told.code == 401:
        assert (told.headers["WWW-Authenticate"], json.load(told)) == ("Bearer", {"error": REFUSED[1]})
    return told.code


def test_http_asks_for_tokens_too_and_metrics_for_an_admin_s(guarded: Guarded) -> None:
    http, metrics = listener(guarded.server, "http"), listener(guarded.server, "metrics")
    paths = {"/v2/health/live": 200, "/v2/health/ready": 200, "/v2": 401, "/metrics": 401}
    assert {path: http_status(http, path) for path in paths} == paths
    assert [http_status(http, path, guarded.ada) for path in ("/v2", "/metrics")] == [200, 403]
    assert [http_status(metrics, "/metrics", token) for token in ("", guarded.ada, guarded.admin)] == [401, 403, 200]


def test_the_open_inference_protocol_asks_for_tokens_too(guarded: Guarded) -> None:
    with Caller(listener(guarded.server, "oip")) as caller:
        live = "/inference.GRPCInferenceService/ServerLive"
        assert caller.told(live) == REFUSED
        assert caller.told(live, token=guarded.ada)[0] is Code.OK
        assert caller.ask(HEALTH)


def test_engines_of_a_house_ask_for_tokens_at_their_own_addresses(tmp_path: Path) -> None:
    file = tmp_path / tokens.NAME
    ada = token_of(file, "ada")
    with serving("--data-dir", str(tmp_path), "--engines", "2") as server, Caller(server.address) as front:
        opened = front.open(ada)
        assert front.told(f"{TENSORS}/OpenSession", b"") == REFUSED
        assert opened.endpoint
        close = ts.CloseSessionRequest(session=opened.session).SerializeToString()
        assert front.told(f"{TENSORS}/CloseSession", close) == REFUSED
        with Caller(f"127.0.0.1{opened.endpoint}") as engine:
            assert engine.told(f"{TENSORS}/CloseSession", close) == REFUSED
            assert engine.told("/tensorcompute.house/Load", b"", ada)[0] is Code.UNAUTHENTICATED
            assert engine.told(f"{TENSORS}/ListTensors", ts.ListTensorsRequest().SerializeToString(), ada)[0] is Code.OK
        assert front.told(f"{TENSORS}/CloseSession", close, ada)[0] is Code.OK


# --- what is served at all ---

STARTS = {
    "nothing": (["--insecure=no"], "there is no TLS and nobody needs credentials"),
    "TLS alone": (["--tls-cert", "c", "--tls-key", "k"], "nobody needs credentials"),
    "tokens alone": (["--tokens", "t"], "there is no TLS"),
}


@pytest.mark.parametrize(("options", "said"), STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("name", ["--listen", "--oip-listen", "--http-listen", "--metrics-listen", "--data-listen"])
def test_an_address_that_others_reach_needs_tls_and_credentials(options: list[str], said: str, name: str) -> None:
    given = [option for option in options if not option.startswith("--insecure")]
    for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:0"):
        result = run("serve", name, address, *given)
        assert result.exit_code == 2
        assert said in result.output
        assert "--insecure" in result.output


def test_insecure_is_said_loudly(tmp_path: Path) -> None:
    with serving("--insecure", listen="0.0.0.0:0") as server:
        wait_until(lambda: "EVERYONE who can reach this server can use it" in server.log(), 5.0, "a word in the log")
    token_of(tmp_path / tokens.NAME, "ada")
    with serving("--insecure", "--data-dir", str(tmp_path), listen="0.0.0.0:0") as server:
        wait_until(lambda: "tokens cross the network in plain text" in server.log(), 5.0, "a word in the log")
        with Caller(f"127.0.0.1:{server.port}") as caller:
            assert caller.told(INFO) == REFUSED


def test_a_unix_socket_is_for_its_own_user(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with serving(listen=f"unix:{path}") as server, Caller(server.address) as caller:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert caller.open().session
