"""Whom a client's certificate names, once whoever accepted the connection has seen that it is good."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping, Sequence

from tserver.credentials import names, pem

# Where a certificate names its owner, as gRPC calls these places: what is meant for programs comes first.
_PLACES = ("peer_uri", "peer_dns", "x509_common_name")
# The certificate itself, in PEM.
_WHOLE = "x509_pem_cert"


def principal_of(certificate: Mapping[str, Sequence[bytes]]) -> str:
    """The principal, by what a connection tells of the certificate; empty where it has none, or names nobody."""
    for place in _PLACES:
        for value in certificate.get(place, ()):
            try:
                return names.from_outside(value.decode("utf-8", "replace"))
            except ValueError:
                continue
    return ""


def ends(certificate: Mapping[str, Sequence[bytes]]) -> float:
    """When it is over, in seconds since 1970; 0 where a connection does not tell."""
    found = certificate.get(_WHOLE)
    return _end_of(bytes(found[0])) if found else 0.0


def told_by_ssl(certificate: Mapping[str, object] | None, der: bytes | None = None) -> dict[str, list[bytes]]:
    """What Python's ssl tells of a peer's certificate, as gRPC would."""
    found: dict[str, list[bytes]] = {}
    if der:
        found[_WHOLE] = [ssl.DER_cert_to_PEM_cert(der).encode()]
    places = {"URI": "peer_uri", "DNS": "peer_dns", "commonName": "x509_common_name"}
    told: dict[str, object] = dict(certificate or {})
    subject: object = told.get("subject", ())
    pairs: list[tuple[str, str]] = [*_pairs(told.get("subjectAltName", ()))]
    for name in subject if isinstance(subject, tuple) else ():
        pairs += _pairs(name)
    for kind, value in pairs:
        if kind in places:
            found.setdefault(places[kind], []).append(value.encode())
    return found


def _pairs(told: object) -> list[tuple[str, str]]:
    return [(str(kind), str(value)) for kind, value in told] if isinstance(told, tuple) else []


@functools.lru_cache(1024)
def _end_of(pem_text: bytes) -> float:
    """When a certificate is over that whoever accepted the connection has found well-formed."""
    return pem.validity(pem.first(pem_text))[1]
