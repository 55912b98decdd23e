"""TLS of the server: which versions, and certificates that are renewed under running sessions."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import tclient
from tests.support.authority import Authority, Pair, shown_at
from tests.support.serving import ServerProcess, serving, wait_until
from tserver.config import Config
from tserver.front import certificates

LISTENERS = ("oip", "http", "metrics")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificates of a server."""
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def everywhere(authority: Authority) -> Iterator[dict[str, str]]:
    """The addresses of a server that listens with TLS on every port that there is."""
    options = [part for name in LISTENERS for part in (f"--{name}-listen", "127.0.0.1:0")]
    with serving(*authority.issue().options, *options) as server:
        addresses = {"grpc": server.address}
        for line in server.stdout:
            name, _, address = line.partition(" listening on ")
            if address:
                addresses[name] = address
        with tclient.connect(server.address, tls=authority.pem) as session:
            addresses["data"] = "127.0.0.1" + session.opened.data_endpoint
        yield addresses


def speaks(address: str, newest: ssl.TLSVersion) -> None:
    """Shake hands as one that knows no newer version of TLS than this. Raises: OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, newest
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10.0) as plain,
        context.wrap_socket(plain) as connection,
    ):
        assert connection.version() == {"TLSv1_1": "TLSv1.1", "TLSv1_2": "TLSv1.2"}[newest.name]


@contextlib.contextmanager
def of_the_past(pair: Pair) -> Iterator[str]:
    """The address of a listener that takes what servers took before TLS 1.2; for one connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.load_cert_chain(pair.cert, pair.key)

    def serve() -> None:
        with contextlib.suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10.0)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("port", ["grpc", "data", *LISTENERS])
def test_downgraded_tls_is_refused_on_every_port(everywhere: dict[str, str], authority: Authority, port: str) -> None:
    with of_the_past(authority.issue()) as past:
        speaks(past, ssl.TLSVersion.TLSv1_1)  # so the client could, if the server did
    with pytest.raises((ssl.SSLError, ConnectionError)):
        speaks(everywhere[port], ssl.TLSVersion.TLSv1_1)
    speaks(everywhere[port], ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize("port", ["grpc", "data", *LISTENERS])
def test_plain_text_is_refused_on_every_port(everywhere: dict[str, str], port: str) -> None:
    host, _, number = everywhere[port].rpartition(":")
    with socket.create_connection((host, int(number)), timeout=10.0) as plain:
        plain.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := plain.recv(4096):
                answer += piece
    # An alert of TLS at most.
    assert not answer or answer[0] == 0x15


def test_a_certificate_is_renewed_under_a_session_and_a_transfer(authority: Authority, tmp_path: Path) -> None:
    used, renewed = authority.issue(), Authority(tmp_path).issue()
    before, after = used.sha256, renewed.sha256
    seen: list[str] = []
    with (
        serving(*used.options, "--http-listen", "127.0.0.1:0") as server,
        tclient.connect(server.address, tls=authority.pem) as session,
    ):
        addresses = [server.address, "127.0.0.1" + session.opened.data_endpoint, server.stdout[0].split()[-1]]
        x = tclient.arange(4.0)
        assert [shown_at(address) for address in addresses] == [before] * 3

        def renew(done: int, total: int) -> None:
            if not seen:
                assert done < total
                used.replace(renewed)
                seen.extend(shown_at(address) for address in addresses)

        session.progress = renew
        numbers = np.arange(16 << 20, dtype=np.float32)
        assert (tclient.from_numpy(numbers) == tclient.arange(16 << 20)).all().item(), "the transfer went on"
        session.progress = False
        assert seen == [after] * 3
        assert (x + 1).tolist() == [1, 2, 3, 4], "the session went on"
        with pytest.raises(tclient.ConnectFailed):
            tclient.connect(server.address, tls=authority.pem, timeout_s=5)
        with tclient.connect(server.address, tls=tmp_path / "authority.pem"):
            assert tclient.ones(2).sum().item() == 2


def test_a_pair_that_is_half_written_changes_nothing(authority: Authority) -> None:
    used, renewed = authority.issue(), authority.issue()
    before = used.sha256
    with serving(*used.options) as server:
        used.cert.write_bytes(renewed.cert.read_bytes())
        assert shown_at(server.address) == before
        wait_until(lambda: "cannot be used" in server.log(), 10.0, "a word in the log")
        used.cert.write_bytes(renewed.cert.read_bytes()[:300])
        assert shown_at(server.address) == before
        used.cert.unlink()
        assert shown_at(server.address) == before
        used.replace(renewed)
        assert shown_at(server.address) == renewed.sha256
        assert "PRIVATE KEY" not in server.log()


def test_the_certificates_of_a_house_are_renewed_too(authority: Authority) -> None:
    used, renewed = authority.issue(), authority.issue()
    before = used.sha256
    with (
        serving(*used.options, "--engines", "2") as server,
        tclient.connect(server.address, tls=authority.pem) as session,
    ):
        addresses = [server.address, session.endpoint, "127.0.0.1" + session.opened.data_endpoint]
        assert len(set(addresses)) == 3
        x = tclient.ones(3)
        assert [shown_at(address) for address in addresses] == [before] * 3
        used.replace(renewed)
        assert [shown_at(address) for address in addresses] == [renewed.sha256] * 3
        assert (x + 1).tolist() == [2, 2, 2]


# --- certificates of clients ---


@pytest.fixture(scope="module")
def mutual(authority: Authority) -> Iterator[ServerProcess]:
    """A server that wants a certificate of each client."""
    with serving(*authority.issue().options, "--tls-client-ca", str(authority.pem)) as server:
        yield server


def is_served(address: str, authority: Authority, client: Pair | None) -> bool:
    """Whether gRPC answers who shows that certificate."""
    pair = (None, None) if client is None else (client.key.read_bytes(), client.cert.read_bytes())
    trusted = grpc.ssl_channel_credentials(authority.pem.read_bytes(), *pair)
    with grpc.secure_channel(address, trusted) as channel:
        health: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            return bool(health(b"", timeout=5.0))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False


def test_a_client_is_served_with_a_certificate_of_the_authority_only(
    mutual: ServerProcess, authority: Authority, tmp_path: Path
) -> None:
    assert is_served(mutual.address, authority, authority.issue("ada.example", client="ada"))
    assert not is_served(mutual.address, authority, None)
    assert not is_served(mutual.address, authority, Authority(tmp_path).issue("ada.example", client="ada"))
    assert not is_served(mutual.address, authority, authority.issue("ada.example", client="ada", for_days=-1))


def test_the_authority_of_clients_is_renewed_as_well(authority: Authority, tmp_path: Path) -> None:
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(authority.pem.read_bytes())
    later = Authority(tmp_path)
    ada, bob = authority.issue(client="ada"), later.issue(client="bob")
    with serving(*authority.issue().options, "--tls-client-ca", str(trusted)) as server:
        assert [is_served(server.address, authority, each) for each in (ada, bob)] == [True, False]
        trusted.write_bytes(later.pem.read_bytes())
        assert [is_served(server.address, authority, each) for each in (ada, bob)] == [False, True]


# --- settings ---

BROKEN = {
    "another key": ("cert", "other key", "the key is not that of the certificate"),
    "no file": ("missing", "key", "No such file"),
    "no certificate": ("key", "key", "PEM"),
}


@pytest.mark.parametrize(("cert", "key", "told"), BROKEN.values(), ids=BROKEN)
def test_files_that_cannot_be_used_are_told_at_the_start(
    authority: Authority, tmp_path: Path, cert: str, key: str, told: str
) -> None:
    pair, other = authority.issue(), authority.issue()
    files = {"cert": pair.cert, "key": pair.key, "other key": other.key, "missing": tmp_path / "missing"}
    with pytest.raises(OSError, match=f"--tls-cert .*{told}"):
        certificates.of(Config(tls_cert=str(files[cert]), tls_key=str(files[key])))
