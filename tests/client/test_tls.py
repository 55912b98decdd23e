"""A connection over TLS: to the server that the certificate names, and to no other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme

import tclient
from tests.support.home import Home
from tests.support.serving import ServerProcess, serving


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A certificate of 127.0.0.1 with its chain, its key, and the authority that signed it."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem", folder / "authority.pem"
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files[0].write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    files[1].write_bytes(issued.private_key_pem.bytes())
    files[2].write_bytes(authority.cert_pem.bytes())
    return files


@pytest.fixture(scope="module")
def secure(certificate: tuple[Path, Path, Path]) -> Iterator[ServerProcess]:
    """A server that speaks TLS."""
    with serving("--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1])) as server:
        yield server


def test_a_session_over_tls_works_in_every_part(secure: ServerProcess, certificate: tuple[Path, Path, Path]) -> None:
    with tclient.connect(secure.address, tls=certificate[2]):
        x = tclient.arange(6.0).reshape(2, 3)
        assert (x @ x.T).tolist() == [[5.0, 14.0], [14.0, 50.0]]
        large = tclient.ones(1 << 20)
        assert tclient.from_numpy(large.numpy()).sum().item() == 1 << 20


def test_the_authority_may_stand_in_the_environment(
    secure: ServerProcess, certificate: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TCLIENT_TLS", str(certificate[2]))
    with tclient.connect(secure.address):
        assert tclient.ones(2).sum().item() == 2


@pytest.mark.parametrize("tls", [False, True], ids=["plain text", "an authority that did not sign"])
def test_a_connection_that_cannot_be_trusted_is_refused(secure: ServerProcess, tls: bool) -> None:
    with pytest.raises(tclient.ConnectFailed, match=secure.address):
        tclient.connect(secure.address, tls=tls, timeout_s=3)


def test_a_file_that_is_not_there_is_named(secure: ServerProcess) -> None:
    with pytest.raises(tclient.ConnectFailed, match=r"no\.pem"):
        tclient.connect(secure.address, tls="no.pem")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the certificates of a house."""
    return trustme.CA()


@contextlib.contextmanager
def at_home(authority: trustme.CA, tmp_path: Path, *, engine_named: str) -> Iterator[tuple[str, str, Path]]:
    """A home called localhost, before an engine at 127.0.0.1 whose certificate names another host.

    The addresses of home and of the endpoint, and who is to be trusted.
    """
    cert, key, trusted = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "authority.pem"
    engine_s = authority.issue_cert(engine_named)
    cert.write_bytes(b"".join(part.bytes() for part in engine_s.cert_chain_pems))
    key.write_bytes(engine_s.private_key_pem.bytes())
    trusted.write_bytes(authority.cert_pem.bytes())
    home_s = authority.issue_cert("localhost")
    chain = b"".join(part.bytes() for part in home_s.cert_chain_pems)
    with (
        serving("--tls-cert", str(cert), "--tls-key", str(key)) as engine,
        Home(
            engine.address,
            endpoint=engine.address,
            host="localhost",
            credentials=grpc.ssl_server_credentials([(home_s.private_key_pem.bytes(), chain)]),
            trusted=grpc.ssl_channel_credentials(authority.cert_pem.bytes()),
            engine_named=engine_named,
        ) as home,
    ):
        yield home.address, engine.address, trusted


def test_an_endpoint_on_another_host_is_verified_as_home_is(authority: trustme.CA, tmp_path: Path) -> None:
    with (
        at_home(authority, tmp_path, engine_named="localhost") as (home, endpoint, trusted),
        tclient.connect(home, tls=trusted) as session,
    ):
        assert session.endpoint == endpoint
        numbers = np.arange(1 << 20, dtype=np.float32)
        assert np.array_equal((tclient.from_numpy(numbers) + 1).numpy(), numbers + 1)
        assert session.transfers.endpoint.resting, "the data endpoint was trusted, too"


def test_an_endpoint_that_does_not_prove_to_be_home_gets_nothing(authority: trustme.CA, tmp_path: Path) -> None:
    with (
        at_home(authority, tmp_path, engine_named="elsewhere.example") as (home, _, trusted),
        tclient.connect(home, tls=trusted) as session,
    ):
        assert session.endpoint == home
        assert tclient.ones(2).tolist() == [1, 1]
        large = tclient.ones(1 << 20)
        assert tclient.from_numpy(large.numpy()).sum().item() == 1 << 20
        assert not session.transfers.endpoint.resting
