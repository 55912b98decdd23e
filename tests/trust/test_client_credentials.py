"""What the client shows to a server: a token with every RPC, certificates of its own, and neither to anybody else."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import tclient
from tclient._transport.channel import Channel
from tclient._transport.trust import Trust
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.support.authority import Authority, Pair
from tests.support.home import Home
from tests.support.serving import HasAddress, ServerProcess, server_environment, serving, wait_until

SECRET = "s3cret.Token_of~ada"
ELSEWHERE = "192.0.2.1:50051"


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says of credentials is said by the tests."""
    for name in ("TOKEN", "TOKEN_FILE", "TLS", "TLS_CERT", "TLS_KEY"):
        monkeypatch.delenv(f"TCLIENT_{name}", raising=False)


@pytest.fixture
def home(server: HasAddress) -> Iterator[Home]:
    """An address that lets in who has the token."""
    with Home(server.address) as home:
        home.accepts = {f"Bearer {SECRET}"}
        yield home


def work() -> None:
    """Something of each kind: calls, a large tensor there and back, a model, what the server tells of itself."""
    numbers = np.arange(1 << 20, dtype=np.float32)
    assert np.array_equal((tclient.from_numpy(numbers) + 1).numpy(), numbers + 1)
    assert tclient.models.list() is not None


# --- a token goes with every RPC ---


def test_a_token_goes_with_every_rpc(home: Home) -> None:
    with tclient.connect(home.address, token=SECRET, lane=False) as session:
        session.transfers.checksums = True  # bulk bytes go over gRPC
        work()
    assert home.asked.keys() >= {"OpenSession", "ExecuteStream", "Upload", "Download", "ListMlps", "CloseSession"}
    assert {shown for _, shown in home.shown} == {f"Bearer {SECRET}"}


def test_a_token_goes_to_the_endpoint_and_comes_home(server: HasAddress) -> None:
    with Home(server.address) as endpoint, Home(server.address, endpoint=endpoint.address) as home:
        home.accepts = endpoint.accepts = {f"Bearer {SECRET}"}
        with tclient.connect(home.address, token=SECRET, lane=False) as session:
            assert session.endpoint == endpoint.address
            x = tclient.ones(2)
            assert x.tolist() == [1, 1]
            endpoint.stop()
            x += 1
            assert x.tolist() == [2, 2]
            assert session.endpoint == home.address
        assert {shown for _, shown in home.shown + endpoint.shown} == {f"Bearer {SECRET}"}
        assert endpoint.asked["ExecuteStream"]
        assert home.asked["ExecuteStream"]


SOURCES: dict[str, Callable[[], Any]] = {
    "text": lambda: SECRET,
    "bytes": SECRET.encode,
    "a function": lambda: lambda: SECRET,
    "a function that gives bytes": lambda: lambda: SECRET.encode() + b"\n",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_token_may_be(home: Home, source: Callable[[], Any]) -> None:
    with tclient.connect(home.address, token=source()):
        assert tclient.ones(2).tolist() == [1, 1]


def test_a_token_may_stand_in_the_environment(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("another\n")
    monkeypatch.setenv("TCLIENT_TOKEN_FILE", str(file))
    with pytest.raises(tclient.NotAuthenticated):
        tclient.connect(home.address)
    monkeypatch.setenv("TCLIENT_TOKEN", SECRET)
    with tclient.connect(home.address):
        assert tclient.ones(2).tolist() == [1, 1]


def test_a_token_file_that_was_replaced_is_read_again(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, new = tmp_path / "token", tmp_path / "new"
    file.write_text(SECRET)
    monkeypatch.setenv("TCLIENT_TOKEN_FILE", str(file))
    with tclient.connect(home.address, lane=False) as session:
        x = tclient.ones(2)
        assert x.tolist() == [1, 1]
        new.write_text("renewed\n")
        new.rename(file)
        home.accepts = {"Bearer renewed"}
        home.stop()
        home.start()
        x += 1
        assert x.tolist() == [2, 2], "the session went on with the new token"
        # While it is not there, the last one is shown.
        file.unlink()
        assert session.channel.metadata == (("authorization", "Bearer renewed"),)


def test_a_function_that_fails_later_leaves_the_last_token() -> None:
    tokens = iter([SECRET])
    credentials = Trust(token=lambda: next(tokens))
    assert credentials.metadata() == credentials.metadata() == (("authorization", f"Bearer {SECRET}"),)


def test_tclient_run_takes_the_file_of_a_token(home: Home, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "program.py").write_text("import torch\nprint(torch.ones(2).sum().item())\n")
    done = subprocess.run(
        [sys.executable, "-m", "tclient", "run", "--address", home.address, "--token-file", "token", "program.py"],
        env=server_environment(TCLIENT_TOKEN="another"),
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("2.0\n", "")
    assert {shown for _, shown in home.shown} == {f"Bearer {SECRET}"}


# --- and to nobody else ---


@pytest.mark.parametrize("address", [ELSEWHERE, "gpu.example:50051", "dns:gpu.example:50051"])
def test_a_token_is_not_sent_in_plain_text_to_another_machine(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "open_session", None)  # nothing is tried
    with pytest.raises(tclient.ConnectFailed, match=r"tls=.*ca\.pem") as raised:
        tclient.connect(address, token=SECRET)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("address", ["127.0.0.1:50051", "localhost:50051", "[::1]:50051", "unix:/run/tserver.sock"])
def test_a_token_goes_to_this_machine_without_tls(address: str) -> None:
    channel = Channel(address, Trust(token=SECRET))
    assert channel.metadata == (("authorization", f"Bearer {SECRET}"),)
    channel.close()


def test_an_endpoint_on_another_machine_is_not_followed_in_plain_text() -> None:
    for token, follows in ((SECRET, False), (None, True)):
        channel = Channel("127.0.0.1:50051", Trust(token=token))
        opened = ts.OpenSessionResponse(endpoint=ELSEWHERE)
        reached: list[bool] = []
        channel._reach_endpoint = lambda *, waits, reached=reached: bool(reached.append(True))  # type: ignore[method-assign, misc]
        channel.follow(opened)
        assert bool(reached) is follows
        channel.close()


# --- it is shown nowhere ---

BAD = {
    "two words": ("first second", "characters"),
    "a line": (f"{SECRET}\r\nx-admin: 1", "characters"),
    "with its kind": (f"Bearer {SECRET}", "without the word Bearer"),
    "not ASCII": ("tökén", "characters"),
    "not ASCII, in bytes": ("tökén".encode(), "characters"),
    "nothing": ("  ", "empty"),
    "a number": (lambda: 7, "of type int"),
}


@pytest.mark.parametrize(("token", "told"), BAD.values(), ids=BAD)
def test_what_is_no_token_is_refused_without_quoting_it(token: Any, told: str) -> None:
    with pytest.raises(tclient.ConnectFailed, match=told) as raised:
        tclient.connect("127.0.0.1:1", token=token)
    text = "".join(traceback.TracebackException.from_exception(raised.value, capture_locals=True).format())
    inside = text.partition("current.py")[2]
    given = token.decode() if isinstance(token, bytes) else token
    assert callable(token) or not given.strip() or given not in inside


def test_a_file_of_no_token_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCLIENT_TOKEN_FILE", str(tmp_path / "missing"))
    with pytest.raises(tclient.ConnectFailed, match=r"missing.*No such file"):
        tclient.connect("127.0.0.1:1")


def failing() -> str:
    raise RuntimeError(f"the vault refused {SECRET}")


def test_a_function_that_gives_no_token_is_told_without_its_words() -> None:
    with pytest.raises(tclient.ConnectFailed, match="failed with RuntimeError") as raised:
        tclient.connect("127.0.0.1:1", token=failing)
    assert SECRET not in str(raised.value)


def test_a_token_is_in_no_error_log_or_printed_object(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    home.accepts = {"Bearer another"}
    with pytest.raises(tclient.NotAuthenticated) as raised:
        tclient.connect(home.address, token=SECRET)
    shown = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    # The frame of this test knows it as SECRET; those of the client do not show it.
    assert SECRET not in "".join(shown.format()).partition("current.py")[2]
    home.accepts = None
    with tclient.connect(home.address, token=SECRET, lane=False) as session:
        home.stop()
        home.start()
        assert tclient.ones(2).tolist() == [1, 1]
        for each in (session, session.channel, session.channel.trust, session.channel.metadata):
            assert SECRET not in repr(each)
            assert SECRET not in str(getattr(each, "__dict__", ""))
    assert SECRET not in caplog.text


# --- a server that does not know the caller ---


def test_without_a_token_it_is_told_how_to_give_one(home: Home) -> None:
    with pytest.raises(tclient.NotAuthenticated, match=r"no token was given.*token=.*TCLIENT_TOKEN_FILE") as raised:
        tclient.connect(home.address)
    assert raised.value.reason == "UNAUTHENTICATED"
    assert isinstance(raised.value, tclient.ServerError)


def test_a_wrong_token_is_told_as_that(home: Home) -> None:
    with pytest.raises(tclient.NotAuthenticated, match="the token that was given is not valid"):
        tclient.connect(home.address, token="another")


def test_a_token_that_is_revoked_ends_the_session_with_that_cause(home: Home) -> None:
    with tclient.connect(home.address, token=SECRET, lane=False) as session:
        assert tclient.ones(2).tolist() == [1, 1]
        home.accepts = set()
        home.stop()
        home.start()
        wait_until(lambda: session.dead is not None, 20.0, "the end of the session")
        with pytest.raises(tclient.NotAuthenticated, match="is not valid"):
            tclient.ones(2).tolist()


# --- certificates of the client ---


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs all certificates."""
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def mutual(authority: Authority) -> Iterator[ServerProcess]:
    """A server that wants certificates of its clients."""
    with serving(*authority.issue().options, "--tls-client-ca", str(authority.pem)) as server:
        yield server


@pytest.fixture(scope="module")
def ada(authority: Authority) -> Pair:
    """A certificate of a client."""
    return authority.issue("ada.example", client="ada")


@pytest.mark.parametrize("lane", [True, False], ids=["lane", "gRPC"])
def test_a_session_with_a_certificate_works_in_every_part(
    mutual: ServerProcess, authority: Authority, ada: Pair, lane: bool
) -> None:
    with tclient.connect(mutual.address, tls=authority.pem, tls_cert=ada.cert, tls_key=ada.key, lane=lane) as session:
        work()
        assert session.transfers.endpoint.resting, "the data endpoint was trusted, too"


def test_a_certificate_may_stand_in_the_environment_with_its_key_in_one_file(
    mutual: ServerProcess, authority: Authority, ada: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = tmp_path / "ada.pem"
    both.write_bytes(ada.key.read_bytes() + ada.cert.read_bytes())
    monkeypatch.setenv("TCLIENT_TLS", str(authority.pem))
    monkeypatch.setenv("TCLIENT_TLS_CERT", str(both))
    with tclient.connect(mutual.address):
        assert tclient.ones(2).tolist() == [1, 1]


def test_a_token_goes_over_tls(server: HasAddress, authority: Authority) -> None:
    used = authority.issue("localhost")
    credentials = grpc.ssl_server_credentials([(used.key.read_bytes(), used.cert.read_bytes())])
    with Home(server.address, host="localhost", credentials=credentials) as home:
        home.accepts = {f"Bearer {SECRET}"}
        with tclient.connect(home.address, tls=authority.pem, token=SECRET):
            assert tclient.ones(2).tolist() == [1, 1]


FILES = {
    "no certificate there": ({"tls_cert": "missing.pem"}, r"tls_cert='missing\.pem' is not a file"),
    "no key": ({"tls_cert": "ada.cert"}, "are not a certificate and its key"),
    "a key alone": ({"tls_key": "ada.key"}, "give tls_cert="),
    "a key of another": ({"tls_cert": "ada.cert", "tls_key": "bob.key"}, "are not a certificate and its key"),
    "no TLS": ({"tls": False, "tls_cert": "ada.cert", "tls_key": "ada.key"}, "tls=True"),
    "no authority": ({"tls": "ada.key"}, r"tls='ada\.key' holds no certificates"),
}


@pytest.mark.parametrize(("given", "told"), FILES.values(), ids=FILES)
def test_files_that_cannot_be_used_are_told(
    given: dict[str, Any], told: str, authority: Authority, ada: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file, content in (("ada.cert", ada.cert), ("ada.key", ada.key), ("bob.key", authority.issue().key)):
        (tmp_path / file).write_bytes(content.read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tclient.ConnectFailed, match=told):
        tclient.connect("127.0.0.1:1", timeout_s=1, **given)
