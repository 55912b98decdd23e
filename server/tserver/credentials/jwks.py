"""The keys of who issues JSON Web Tokens (a JWK Set, RFC 7517), and what such tokens prove (RFC 7519). By PyJWT.

Only signatures by a private key count: who has what is in the file can make no token. Knows neither gRPC nor torch.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

import jwt

from tserver.credentials import names
from tserver.credentials.proven import Proven, role_of
from tserver.identity import Identity

# By the type and the curve of a key, the one algorithm that it is for here.
_ALGORITHMS = {
    ("RSA", ""): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
    ("OKP", "Ed448"): "EdDSA",
}
_LEAST_RSA_BITS = 2048
# The clock of the issuer may be ahead of this one: what must not count yet says so by nbf.
_OPTIONS: Any = {"require": ["exp", "sub"], "verify_iat": False}
_USER = "user"


class _Key(NamedTuple):
    public: jwt.PyJWK
    algorithm: str
    # By which it is known that the same key is still there.
    digest: str


class Jwks:
    """The keys of a file, and what else tokens must say."""

    def __init__(self, data: bytes, issuer: str = "", audience: str = "") -> None:
        """Without an issuer any is taken; without an audience, tokens that are for nobody in particular.

        Raises: ValueError.
        """
        self._issuer, self._audience = issuer or None, audience or None
        self._keys = _keys(data)

    def prove(self, text: str, now: float) -> Proven | None:
        """Whose token that is; None if it is no good. PyJWT looks at the time by itself."""
        del now
        try:
            kid = jwt.get_unverified_header(text).get("kid", "")
            key = self._keys.get(kid)
            if key is None:
                return None
            claims = jwt.decode(
                text,
                key.public,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                options=_OPTIONS,
            )
            principal = names.from_outside(claims["sub"])
            return Proven(principal, role_of(claims.get("role", _USER)), float(claims["exp"]), key.digest)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            return None

    def still_proves(self, identity: Identity) -> bool:
        """Whether the key that a token was signed by is still there."""
        return any(key.digest == identity.credential for key in self._keys.values())


def _keys(data: bytes) -> dict[str, _Key]:
    """By their ids. Raises: ValueError."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    listed = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(listed, list):
        raise ValueError('it is not {"keys": […]}')
    found: dict[str, _Key] = {}
    for line in listed:
        algorithm = _algorithm(line)
        if not algorithm:
            continue
        kid = line.get("kid", "")
        if kid in found:
            raise ValueError(f"two keys have the id {kid[:40]!r}")
        try:
            public = jwt.PyJWK(line, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError):
            raise ValueError(f"the key {kid[:40]!r} is not a public key") from None
        if algorithm == "RS256" and public.key.key_size < _LEAST_RSA_BITS:
            raise ValueError(f"the key {kid[:40]!r} has {public.key.key_size} bits; {_LEAST_RSA_BITS} are needed")
        digest = hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()[:16]
        found[kid] = _Key(public, algorithm, digest)
    if not found:
        raise ValueError(f"it has no key that is for signatures by {', '.join(dict.fromkeys(_ALGORITHMS.values()))}")
    return found


def _algorithm(line: Any) -> str:
    """What a key is for; empty where that is nothing here, as of secret keys. Raises: ValueError."""
    if not isinstance(line, dict) or not isinstance(line.get("kid", ""), str):
        raise ValueError("a key is not an object with an id in text")
    if line.get("use", "sig") != "sig" or "d" in line:
        return ""
    algorithm = _ALGORITHMS.get((str(line.get("kty")), str(line.get("crv", ""))), "")
    return algorithm if line.get("alg", algorithm) == algorithm else ""
