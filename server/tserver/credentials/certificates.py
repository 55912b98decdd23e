"""Whom a client's certificate names, once whoever accepted the connection has seen that it is good."""

from __future__ import annotations

import datetime
import functools
import ssl
from collections.abc import Iterator, Mapping, Sequence

from tserver.credentials import names

# Where a certificate names its owner, as gRPC calls these places: what is meant for programs comes first.
_PLACES = ("peer_uri", "peer_dns", "x509_common_name")
# The certificate itself, in PEM.
_WHOLE = "x509_pem_cert"
# Tags of DER.
_VERSION, _UTC_TIME = 0xA0, 0x17


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
def _end_of(pem: bytes) -> float:
    """When a certificate is over that whoever accepted the connection has found well-formed (RFC 5280, 4.1)."""
    _, certificate = next(_parts(ssl.PEM_cert_to_DER_cert(pem.decode("ascii").rstrip("\0"))))
    _, signed = next(_parts(certificate))
    # After the version, which may be missing: serial number, algorithm, issuer, validity.
    *_, (_, validity) = [part for part in _parts(signed) if part[0] != _VERSION][:4]
    _, (tag, told) = _parts(validity)
    text = told.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC).timestamp()


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """What stands in a sequence: tags, and what they are before."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(der[at : at + count], "big")
            at += count
        yield tag, der[at : at + length]
        at += length
