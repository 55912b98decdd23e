"""What a client is told that reaches something else than a tensor server which it can trust: what is there, and what to
do.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

import tclient
from tests.support.authority import Authority, Pair
from tests.support.listeners import listener
from tests.support.serving import HasAddress, serving


@dataclass(frozen=True)
class Places:
    """Where there is what, and who signed what is there."""

    authority: Authority
    other: Authority
    plain: str
    oip: str
    http: str
    metrics: str
    secure: str
    secure_http: str
    expired: str
    misnamed: str
    mutual: str
    another: str
    client: Pair
    stranger: Pair


@contextlib.contextmanager
def bare_grpc(credentials: grpc.ServerCredentials | None) -> Iterator[str]:
    """The address of a server of gRPC that has no methods."""
    server: Any = grpc.server(ThreadPoolExecutor(1))
    where = "127.0.0.1:0"
    port = server.add_insecure_port(where) if credentials is None else server.add_secure_port(where, credentials)
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def of(pair: Pair) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(pair.key.read_bytes(), pair.cert.read_bytes())])


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Real listeners of every kind."""
    folder = tmp_path_factory.mktemp("tls")
    authority, other = Authority(folder), Authority(folder, "other")
    pair = authority.issue()
    ports = ("--oip-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
    with (
        serving(*ports) as plain,
        serving(*pair.options, "--tls-client-ca", str(authority.pem), "--http-listen", "127.0.0.1:0") as mutual,
        serving(*pair.options) as secure,
        bare_grpc(of(authority.issue(for_days=-1))) as expired,
        bare_grpc(of(authority.issue("gpu.example", "10.0.0.7"))) as misnamed,
        bare_grpc(None) as another,
    ):
        yield Places(
            authority,
            other,
            plain.address,
            listener(plain, "oip"),
            listener(plain, "http"),
            listener(plain, "metrics"),
            secure.address,
            listener(mutual, "http"),
            expired,
            misnamed,
            mutual.address,
            another,
            authority.issue(client="ada"),
            other.issue(client="eve"),
        )


def trusting(places: Places) -> dict[str, Any]:
    return {"tls": places.authority.pem}


def trusting_another(places: Places) -> dict[str, Any]:
    return {"tls": places.other.pem}


def nobody(_: Places) -> dict[str, Any]:
    return {}


def as_stranger(places: Places) -> dict[str, Any]:
    return {**trusting(places), "tls_cert": places.stranger.cert, "tls_key": places.stranger.key}


# Where, how, the reason that programs read, and what people do.
CASES: dict[str, tuple[str, Callable[[Places], dict[str, Any]], str, str]] = {
    "TLS, in plain text": ("secure", nobody, "TLS_REQUIRED", r"speaks TLS.*give tls=True.*TCLIENT_TLS"),
    "plain text, over TLS": ("plain", trusting, "NO_TLS", r"no TLS.*leave out tls=.*--tls-cert"),
    "an unknown authority": ("secure", trusting_another, "UNKNOWN_AUTHORITY", r"nobody whom this client trusts.*tls="),
    "the machine's authorities": ("secure", lambda _: {"tls": True}, "UNKNOWN_AUTHORITY", r"give tls="),
    "another name": ("misnamed", trusting, "WRONG_NAME", r"gpu\.example, 10\.0\.0\.7, and not of 127\.0\.0\.1"),
    "an expired certificate": ("expired", trusting, "CERTIFICATE_EXPIRED", "has expired.*renewed"),
    "no certificate of ours": ("mutual", trusting, "CERTIFICATE_REQUIRED", r"tls_cert= and tls_key="),
    "another's certificate": ("mutual", as_stranger, "CERTIFICATE_REFUSED", "--tls-client-ca"),
    "a server that wants certificates, in plain text": ("mutual", nobody, "TLS_REQUIRED", "give tls=True"),
    "the Open Inference Protocol": ("oip", nobody, "OPEN_INFERENCE_PROTOCOL", r"--oip-listen.*address of --listen"),
    "HTTP": ("http", nobody, "HTTP", "address of its --listen"),
    "metrics": ("metrics", nobody, "HTTP", "--metrics-listen"),
    "HTTP, over TLS": ("http", trusting, "HTTP", "address of its --listen"),
    "HTTP with TLS": ("secure_http", trusting, "HTTP", "address of its --listen"),
    "HTTP with TLS, in plain text": ("secure_http", nobody, "TLS_REQUIRED", "give tls=True"),
    "another server of gRPC": ("another", nobody, "ANOTHER_SERVER", "no tensor server"),
}


@pytest.mark.parametrize(("where", "how", "reason", "remedy"), CASES.values(), ids=CASES)
def test_it_is_told_what_is_there_and_what_to_do(
    places: Places, where: str, how: Callable[[Places], dict[str, Any]], reason: str, remedy: str
) -> None:
    address = getattr(places, where)
    began = time.monotonic()
    with pytest.raises(tclient.ConnectFailed, match=remedy) as raised:
        tclient.connect(address, timeout_s=10, **how(places))
    assert raised.value.reason == reason
    assert address in str(raised.value)
    assert time.monotonic() - began < 8


def test_nothing_at_the_address_is_told_as_before() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    for tls in (False, True):
        with pytest.raises(tclient.ConnectFailed, match=f"tserver serve --listen {address}"):
            tclient.connect(address, tls=tls, timeout_s=5)


def test_who_takes_over_a_session_is_told_as_well(places: Places, server: HasAddress) -> None:
    with tclient.connect(server.address) as session:
        credentials = session.credentials()
    for address, reason in ((places.secure, "TLS_REQUIRED"), (places.oip, "OPEN_INFERENCE_PROTOCOL")):
        moved = tclient.SessionCredentials(address, credentials.secret)
        with pytest.raises(tclient.ConnectFailed) as raised:
            tclient.attach(moved)
        assert raised.value.reason == reason


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_server_that_speaks_old_tls_alone_is_told(places: Places) -> None:
    pair = places.authority.issue()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_1
    context.load_cert_chain(pair.cert, pair.key)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = old.accept()
                with contextlib.suppress(OSError), context.wrap_socket(accepted, server_side=True):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as old:
        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(tclient.ConnectFailed, match=r"no TLS from 1\.2 on"):
            tclient.connect(f"127.0.0.1:{old.getsockname()[1]}", timeout_s=5, **trusting(places))
        old.shutdown(socket.SHUT_RDWR)
