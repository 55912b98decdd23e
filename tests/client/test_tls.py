"""A connection over TLS: to the server that the certificate names, and to no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import tclient
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
