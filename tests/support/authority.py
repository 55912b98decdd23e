"""An authority with its certificates, as files: for servers and clients under test."""

from __future__ import annotations

import datetime
import hashlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain, and its key: two files."""

    cert: Path
    key: Path

    @property
    def options(self) -> tuple[str, ...]:
        """What has a server use it."""
        return "--tls-cert", str(self.cert), "--tls-key", str(self.key)

    @property
    def sha256(self) -> str:
        """Of the certificate."""
        first = self.cert.read_text().partition("-----END CERTIFICATE-----")
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[0] + first[1] + "\n")).hexdigest()

    def replace(self, other: Pair) -> None:
        """Put another pair in its files, as one that was renewed."""
        self.key.write_bytes(other.key.read_bytes())
        self.cert.write_bytes(other.cert.read_bytes())


class Authority:
    """Signs certificates; `pem` is the file that others trust."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder, self._name = folder, name
        self._issued = 0
        self._ca = trustme.CA()
        self.pem = folder / f"{name}.pem"
        self.pem.write_bytes(self._ca.cert_pem.bytes())

    def issue(self, *names: str, for_days: float = 30.0, client: str = "") -> Pair:
        """A certificate of these names, which ended that long ago if the days are negative; `client` is its subject."""
        self._issued += 1
        cert, key = (self._folder / f"{self._name}-{self._issued}.{kind}" for kind in ("cert", "key"))
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=for_days)
        issued = self._ca.issue_cert(
            *(names or ("localhost", "127.0.0.1")),
            common_name=client or None,
            not_before=until - datetime.timedelta(days=60),
            not_after=until,
        )
        cert.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return Pair(cert, key)


def shown_at(address: str, client: Pair | None = None) -> str:
    """The SHA-256 of the certificate that is shown at an address, whoever signed it. Raises: OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if client is not None:
        context.load_cert_chain(client.cert, client.key)
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=_TIMEOUT_S) as plain,
        context.wrap_socket(plain) as connection,
    ):
        return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()
