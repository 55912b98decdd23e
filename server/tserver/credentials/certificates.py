"""Whom a client's certificate names, once whoever accepted the connection has seen that it is good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tserver.credentials import names

# Where a certificate names its owner, as gRPC calls these places: what is meant for programs comes first.
_PLACES = ("peer_uri", "peer_dns", "x509_common_name")


def principal_of(certificate: Mapping[str, Sequence[bytes]]) -> str:
    """The principal, by what a connection tells of the certificate; empty where it has none, or names nobody.

    A "/" in it is written as %2F: a principal has none.
    """
    for place in _PLACES:
        for value in certificate.get(place, ()):
            name = value.decode("utf-8", "replace").replace("%", "%25").replace("/", "%2F")
            try:
                return names.checked(name)
            except ValueError:
                continue
    return ""


def told_by_ssl(certificate: Mapping[str, object] | None) -> dict[str, list[bytes]]:
    """What Python's ssl tells of a peer's certificate, as gRPC would."""
    found: dict[str, list[bytes]] = {}
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
