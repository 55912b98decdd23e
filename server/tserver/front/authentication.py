"""Who calls: from where, and with which credentials. Asked once for each RPC of every service, and each HTTP request.

Where credentials are set up, everyone must have some, on loopback too: a token in the header `authorization: Bearer …`,
of ours or a JSON Web Token, or the certificate of the connection. A failure does not say why. Without any that are set
up, who calls from this machine is the principal "local", who may do all. Others are there only with --insecure: nothing
is known of them, and each host is a principal of its own.
"""

from __future__ import annotations

import functools
import ipaddress
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tserver.config import Config
from tserver.credentials import certificates
from tserver.credentials.failures import Failures
from tserver.credentials.proven import Proofs, Proven
from tserver.credentials.tokens import Tokens
from tserver.errors import Exhausted, Unauthenticated
from tserver.identity import LOCAL, LOOPBACK, REFUSAL, Identity, Role
from tserver.watched import Watched

if TYPE_CHECKING:
    from tserver.credentials.jwks import Jwks

TOKEN, JWT, CERTIFICATE = "token", "jwt", "certificate"
"""How a caller is known that has shown one."""

# How many callers are known at once; beyond that all are looked at again.
_MAX_KNOWN = 8192
_COMPLAINT = "a file of credentials has changed and cannot be used; what was read before stays in use"

# The text of a header, or bytes where its name ends in -bin.
Headers = Mapping[str, str | bytes]


class Authenticator(Protocol):
    """Finds out who calls."""

    def identify(self, peer: str, headers: Headers, certificate: Mapping[str, list[bytes]]) -> Identity:
        """Who calls from a peer, as gRPC names it, with these headers (names in lower case) and, over mutual TLS, what
        gRPC's auth context says of the certificate.

        Raises: Unauthenticated; Exhausted for a host that has failed too often.
        """

    def holds(self, identity: Identity) -> bool:
        """Whether what showed who a caller is would show that now, but for the time when it ends."""


class Unconfigured:
    """No credentials are set up."""

    def identify(self, peer: str, headers: Headers, certificate: Mapping[str, list[bytes]]) -> Identity:
        """See Authenticator."""
        del headers, certificate
        return _by_place(peer)

    def holds(self, identity: Identity) -> bool:
        """See Authenticator."""
        return True


class Configured:
    """Credentials are set up."""

    def __init__(self, config: Config) -> None:
        """Raises: OSError that names an option whose file cannot be used."""
        # By how a caller is known that one of them proves.
        self._sources: dict[str, Watched[Any]] = {}
        if config.tokens:
            self._sources[TOKEN] = watched_tokens(config.tokens)
        if config.jwt_jwks:
            self._sources[JWT] = watched_keys(config.jwt_jwks, config.jwt_issuer, config.jwt_audience)
        self._takes_certificates = bool(config.tls_client_ca)
        self._failures = Failures()
        # Who has shown what, from where: a header and a peer; and what it was found by.
        self._known: dict[tuple[str, str], Identity] = {}
        self._found_by: list[Proofs] = []

    def identify(self, peer: str, headers: Headers, certificate: Mapping[str, list[bytes]]) -> Identity:
        """See Authenticator."""
        header = headers.get("authorization", "")
        found_by = [source.lately() for source in self._sources.values()]
        if found_by != self._found_by:
            self._known.clear()
            self._found_by = found_by
        if not header and self._takes_certificates and (principal := certificates.principal_of(certificate)):
            return self._by_certificate(principal, certificates.ends(certificate), peer)
        key = (header if isinstance(header, str) else "", peer)
        known = self._known.get(key)
        now = time.time()
        if known is not None and now < known.expires:
            return known
        return self._find(key, now)

    def holds(self, identity: Identity) -> bool:
        """See Authenticator."""
        source = self._sources.get(identity.how)
        if source is None:
            return True
        proofs: Proofs = source.lately()
        return proofs.still_proves(identity)

    def _by_certificate(self, principal: str, ends: float, peer: str) -> Identity:
        if ends and ends <= time.time():
            raise Unauthenticated(REFUSAL)
        return Identity(principal, Role.USER, CERTIFICATE, host_of(peer), is_loopback(peer), expires=ends)

    def _find(self, key: tuple[str, str], now: float) -> Identity:
        header, peer = key
        host = host_of(peer)
        scheme, _, text = header.partition(" ")
        found = self._proven(text, now) if scheme.lower() == "bearer" else None
        if found is None:
            if wait_s := self._failures.wait_s(host):
                raise Exhausted(
                    "too many callers of this host have shown no valid credentials", retry_after_s=f"{wait_s:.1f}"
                )
            self._failures.count(host)
            raise Unauthenticated(REFUSAL)
        how, proven = found
        identity = Identity(
            proven.principal,
            proven.role,
            how,
            host,
            is_loopback(peer),
            expires=proven.expires,
            credential=proven.credential,
        )
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[key] = identity
        return identity

    def _proven(self, text: str, now: float) -> tuple[str, Proven] | None:
        """How that is known, and whose it is."""
        for how, source in self._sources.items():
            # One that was made just now is good at once.
            proofs: Proofs = source.current()
            if (proven := proofs.prove(text, now)) is not None:
                return how, proven
        return None


def watched_tokens(path: str) -> Watched[Tokens]:
    """Those in a file. Raises: OSError that names the option."""
    return Watched(
        f"--tokens {path}",
        [path],
        lambda: Tokens.of(Path(path).read_bytes()),
        _COMPLAINT,
    )


def watched_keys(path: str, issuer: str, audience: str) -> Watched[Jwks]:
    """Those in a file, by which an issuer signs. Raises: OSError that names the option."""
    # Who takes no such tokens may lack PyJWT.
    from tserver.credentials.jwks import Jwks

    return Watched(f"--jwt-jwks {path}", [path], lambda: Jwks(Path(path).read_bytes(), issuer, audience), _COMPLAINT)


@functools.lru_cache(16)
def of(config: Config) -> Authenticator:
    """What the settings ask for, the same for all listeners of a process. Raises: OSError."""
    return Configured(config) if config.has_credentials else Unconfigured()


@functools.lru_cache(1024)
def _by_place(peer: str) -> Identity:
    host = host_of(peer)
    if is_loopback(peer):
        return Identity(LOCAL, Role.ADMIN, host=host, is_local=True)
    return Identity(f"anonymous@{host}", Role.ADMIN, "anonymous", host, connection=f"anonymous@{peer}")


def host_of(peer: str) -> str:
    """The host of a peer, as gRPC names it."""
    if is_loopback(peer):
        return LOOPBACK
    address = _address_of(peer)
    if address is None:
        return peer
    return f"ipv4:{address}" if address.version == 4 else f"ipv6:[{address}]"


def is_loopback(peer: str) -> bool:
    """Whether a peer, as gRPC names it, is on this machine."""
    if peer.startswith("unix:"):
        return True
    address = _address_of(peer)
    return address is not None and address.is_loopback


def _address_of(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """One address has one form here, by whichever kind of socket it came."""
    host = urllib.parse.unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
