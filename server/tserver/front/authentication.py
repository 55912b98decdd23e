"""Who calls: from where, and with which credentials. Asked once for each RPC of every service, and each HTTP request.

Without credentials that are set up, who calls from this machine is the principal "local", who may do all. Others are
there only with --insecure: nothing is known of them, and each host is a principal of its own.
"""

from __future__ import annotations

import functools
import ipaddress
import urllib.parse
from collections.abc import Mapping
from typing import Protocol

from tserver.identity import LOCAL, Identity, Role

# The text of a header, or bytes where its name ends in -bin.
Headers = Mapping[str, str | bytes]


class Authenticator(Protocol):
    """Finds out who calls."""

    def identify(self, peer: str, headers: Headers, certificate: Mapping[str, list[bytes]]) -> Identity:
        """Who calls from a peer, as gRPC names it, with these headers (names in lower case) and, over mutual TLS, what
        gRPC's auth context says of the certificate.

        Raises: Unauthenticated.
        """


class Unconfigured:
    """No credentials are set up."""

    def identify(self, peer: str, headers: Headers, certificate: Mapping[str, list[bytes]]) -> Identity:
        """See Authenticator."""
        del headers, certificate
        return _by_place(peer)


@functools.lru_cache(1024)
def _by_place(peer: str) -> Identity:
    host = host_of(peer)
    if is_loopback(peer):
        return Identity(LOCAL, Role.ADMIN, host=host, is_local=True)
    return Identity(f"anonymous@{host}", Role.ADMIN, "anonymous", host, connection=f"anonymous@{peer}")


def host_of(peer: str) -> str:
    """The host of a peer, as gRPC names it; this machine is "loopback", however it was reached."""
    if is_loopback(peer):
        return "loopback"
    return peer.rsplit(":", 1)[0] if peer.startswith(("ipv4:", "ipv6:")) else peer


def is_loopback(peer: str) -> bool:
    """Whether a peer, as gRPC names it, is on this machine."""
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return True
    host = urllib.parse.unquote(rest.rpartition(":")[0]).strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
