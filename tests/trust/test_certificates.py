"""A certificate says who a client is: over gRPC, over HTTP, in a house; and until it is over."""

from __future__ import annotations

import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tclient
from tests.support.authority import Authority, Pair
from tests.support.callers import token_of
from tests.support.listeners import listener
from tests.support.serving import ServerProcess, serving, wait_until
from tserver.credentials import certificates, tokens


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs all certificates."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that wants certificates of clients, and takes tokens."""
    file = tmp_path_factory.mktemp("tokens") / tokens.NAME
    token_of(file, "nobody")
    options = ("--tls-client-ca", str(authority.pem), "--tokens", str(file), "--http-listen", "127.0.0.1:0")
    with serving(*authority.issue().options, *options) as server:
        yield server


@pytest.fixture(scope="module")
def house(authority: Authority) -> Iterator[ServerProcess]:
    """Two engines behind a front."""
    with serving(*authority.issue().options, "--tls-client-ca", str(authority.pem), "--engines", "2") as house:
        yield house


def connect(server: ServerProcess, authority: Authority, pair: Pair, lane: bool = True) -> tclient.Session:
    return tclient.connect(server.address, tls=authority.pem, tls_cert=pair.cert, tls_key=pair.key, lane=lane)


@pytest.mark.parametrize("kind", ["server", "house"])
def test_a_client_is_whom_its_certificate_names(
    kind: str, authority: Authority, request: pytest.FixtureRequest
) -> None:
    where: ServerProcess = request.getfixturevalue(kind)
    ada, bob = authority.issue("ada.example", client="somebody"), authority.issue("bob.example", client="somebody")
    with connect(where, authority, ada):
        assert tclient.server_info().principal == "ada.example"
        mine = tclient.models.create(f"mine-{kind}", lambda rows: rows + 1, np.ones((4, 2), np.float32))
        assert mine(np.ones((1, 2), np.float32)).tolist() == [[2, 2]]
    with connect(where, authority, bob):
        assert tclient.server_info().principal == "bob.example"
        assert f"mine-{kind}" not in [model.name for model in tclient.models.list()]
    with connect(where, authority, ada):
        assert f"mine-{kind}" in [model.name for model in tclient.models.list()]


@pytest.mark.parametrize("kind", ["server", "house"])
@pytest.mark.parametrize("lane", [True, False], ids=["lane", "gRPC"])
def test_what_is_open_ends_with_the_certificate(
    kind: str, lane: bool, authority: Authority, request: pytest.FixtureRequest
) -> None:
    where: ServerProcess = request.getfixturevalue(kind)
    until = time.time() + 4
    short = authority.issue("eve.example", client="eve", for_days=(until - time.time()) / 86400)
    with connect(where, authority, short, lane) as session:
        assert tclient.ones(2).tolist() == [1, 1]
        assert session.dead is None
        wait_until(lambda: session.dead is not None, until + 3 - time.time(), "the end of the session")
        assert isinstance(session.dead, tclient.NotAuthenticated)


def test_over_http_a_certificate_says_who_it_is_too(server: ServerProcess, authority: Authority) -> None:
    ada = authority.issue("ada.example", client="ada")
    context = ssl.create_default_context(cafile=str(authority.pem))
    context.load_cert_chain(ada.cert, ada.key)
    with urllib.request.urlopen(f"https://{listener(server, 'http')}/v2", context=context) as answer:
        assert answer.status == 200


def pem_of(pair: Pair) -> bytes:
    text = pair.cert.read_text()
    return text[: text.index("-----END CERTIFICATE-----") + 25].encode()


def test_the_end_of_a_certificate_is_what_ssl_says_it_is(authority: Authority, tmp_path: Path) -> None:
    for days in (-30.0, 1.0, 365.0 * 40):
        pair = authority.issue("ada.example", for_days=days)
        assert certificates.ends({"x509_pem_cert": [pem_of(pair)]}) == pytest.approx(time.time() + days * 86400, abs=5)
    assert certificates.ends({}) == 0
