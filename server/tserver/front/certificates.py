"""The server's certificate and key, and who signs those of its clients: PEM files, read again when they change.

What is read counts for connections from then on; those that are open go on as they are. Files that are half written,
or do not go together, change nothing. Knows ssl; does not know gRPC.
"""

from __future__ import annotations

import functools
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tserver.config import Config
from tserver.credentials import pem
from tserver.watched import Watched


@dataclass(frozen=True, slots=True)
class Material:
    """What was in the files at one time."""

    key: bytes
    chain: bytes
    # Those that sign the certificates of clients; empty where clients need none.
    authority: bytes
    # Of the server's own certificate, by which another server knows this one.
    sha256: bytes
    # For connections whose callers prove themselves in another way.
    plain: ssl.SSLContext
    # For connections that ask for the caller's certificate, and go on without one.
    asking: ssl.SSLContext


class Certificates(Watched[Material]):
    """The files of one server."""

    def __init__(self, cert: str, key: str, client_ca: str = "") -> None:
        """Raises: OSError that names the options, where they cannot be used."""
        self._cert, self._key, self._client_ca = cert, key, client_ca
        also = f" and --tls-client-ca {client_ca}" if client_ca else ""
        super().__init__(
            f"--tls-cert {cert}, --tls-key {key}{also}",
            [cert, key, *([client_ca] if client_ca else [])],
            self._material,
            "the certificate files have changed and cannot be used; what was read before stays in use",
        )

    def http(self) -> ssl.SSLContext:
        """A context for asyncio to listen with, in which each connection gets what counts when it begins."""
        renewed = _Renewed(ssl.PROTOCOL_TLS_SERVER)
        renewed.certificates = self
        return renewed

    def _material(self) -> Material:
        """What is in the files. Raises: OSError, ValueError."""
        try:
            return self._loaded()
        except ssl.SSLError as error:
            raise ValueError(pem.fault(error)) from error

    def _loaded(self) -> Material:
        contexts = []
        for client_ca in ("", self._client_ca):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            # Without this, a key that is encrypted would be asked for on the terminal.
            context.load_cert_chain(self._cert, self._key, password=pem.no_password)
            if client_ca:
                context.load_verify_locations(client_ca)
                context.verify_mode = ssl.CERT_OPTIONAL
            contexts.append(context)
        chain = Path(self._cert).read_bytes()
        authority = Path(self._client_ca).read_bytes() if self._client_ca else b""
        sha256 = hashlib.sha256(pem.first(chain)).digest()
        return Material(Path(self._key).read_bytes(), chain, authority, sha256, *contexts)


class _Renewed(ssl.SSLContext):
    """Each connection of it is one of what counts at its time."""

    certificates: Certificates

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """See ssl: what asyncio makes a connection with."""
        return self.certificates.current().asking.wrap_bio(*args, **options)


@functools.lru_cache(16)
def of(config: Config) -> Certificates | None:
    """Those that the settings name, the same for all listeners of a process; None where they name none.

    Raises: OSError.
    """
    return Certificates(config.tls_cert, config.tls_key, config.tls_client_ca) if config.tls_cert else None
