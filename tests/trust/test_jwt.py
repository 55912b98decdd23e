"""JSON Web Tokens: only such as the issuer has signed, for this server, until now; all others are told the same."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

import tclient
from tests.support.callers import HEALTH, TENSORS, Caller
from tests.support.serving import ServerProcess, serving, wait_until
from tests.trust.guarded import REFUSED
from tserver import extras
from tserver.config import Config
from tserver.credentials.jwks import Jwks
from tserver.front.authentication import watched_keys

INFO = f"{TENSORS}/GetServerInfo"
ISSUER, AUDIENCE = "https://issuer.example", "tensors"
RSA, WEAK, STRANGE = (rsa.generate_private_key(65537, bits) for bits in (2048, 1024, 2048))
EC, ED = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
SECRET = b"a secret that both sides have, of many bytes"


def jwk(key: Any, kid: str) -> dict[str, Any]:
    """The public key, as it stands in a JWK Set."""
    of = {rsa.RSAPublicKey: RSAAlgorithm, ec.EllipticCurvePublicKey: ECAlgorithm}
    public = key.public_key()
    form: Any = next((form for kind, form in of.items() if isinstance(public, kind)), OKPAlgorithm)
    return {**form.to_jwk(public, as_dict=True), "kid": kid, "use": "sig"}


SYMMETRIC = {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(SECRET).decode().rstrip("=")}
KEYS = {"keys": [jwk(RSA, "rsa"), jwk(EC, "ec"), jwk(ED, "ed"), SYMMETRIC]}


def claims(**others: Any) -> dict[str, Any]:
    """What a good token says; None is what it leaves out."""
    usual = {"sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 60, **others}
    return {name: value for name, value in usual.items() if value is not None}


def signed(key: Any = RSA, algorithm: str = "RS256", kid: str | None = "rsa", **others: Any) -> str:
    """A token."""
    return jwt.encode(claims(**others), key, algorithm, headers={"kid": kid} if kid is not None else {})


def by_hand(algorithm: str, key: bytes, kid: str = "rsa") -> str:
    """One that libraries refuse to make."""

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    header = {"alg": algorithm, "typ": "JWT", "kid": kid}
    text = b".".join(part(json.dumps(each).encode()) for each in (header, claims()))
    mac = hmac.digest(key, text, hashlib.sha256) if key else b""
    return (text + b"." + part(mac)).decode()


def pem() -> bytes:
    return RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


GOOD = {
    "RS256": signed,
    "ES256": lambda: signed(EC, "ES256", "ec"),
    "EdDSA": lambda: signed(ED, "EdDSA", "ed"),
    "for others as well": lambda: signed(aud=["others", AUDIENCE]),
    "issued by a clock that is ahead": lambda: signed(iat=int(time.time()) + 30),
}
BAD = {
    "expired": lambda: signed(exp=int(time.time()) - 1),
    "no end": lambda: signed(exp=None),
    "an end that is no number": lambda: signed(exp="never"),
    "an end beyond all time": lambda: signed(exp=float("1e400")),
    "not yet": lambda: signed(nbf=int(time.time()) + 60),
    "another issuer": lambda: signed(iss="https://other.example"),
    "no issuer": lambda: signed(iss=None),
    "another audience": lambda: signed(aud="others"),
    "no audience": lambda: signed(aud=None),
    "no subject": lambda: signed(sub=None),
    "a subject that is no name": lambda: signed(sub="ada\nbob"),
    "a role that there is not": lambda: signed(role="root"),
    "another key": lambda: signed(STRANGE),
    "a key that is not known": lambda: signed(STRANGE, kid="strange"),
    "no key named": lambda: signed(kid=None),
    "the key of another algorithm": lambda: signed(EC, "ES256", "rsa"),
    "another algorithm of the key": lambda: signed(RSA, "PS256"),
    "a longer hash": lambda: signed(RSA, "RS512"),
    "none": lambda: by_hand("none", b""),
    "None": lambda: by_hand("None", b""),
    "the public key as a secret": lambda: by_hand("HS256", pem()),
    "a secret that is in the file": lambda: by_hand("HS256", SECRET, "oct"),
    "no signature": lambda: signed().rpartition(".")[0] + ".",
    "changed": lambda: ".".join([signed().split(".")[0], signed(sub="root").split(".")[1], signed().split(".")[2]]),
    "what it does not know is critical": lambda: jwt.encode(
        claims(), RSA, "RS256", headers={"kid": "rsa", "crit": ["x"], "x": 1}
    ),
    "no token": lambda: "x.y.z",
    "nothing": lambda: "x",
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys of the issuer."""
    file = tmp_path_factory.mktemp("jwt") / "jwks.json"
    file.write_text(json.dumps(KEYS))
    return file


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[ServerProcess]:
    """A server that takes the tokens of an issuer."""
    with serving("--jwt-jwks", str(file), "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE) as server:
        yield server


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_a_token_of_the_issuer_is_good(server: ServerProcess, make: Any) -> None:
    with Caller(server.address) as caller:
        assert caller.told(INFO, token=make())[0] is grpc.StatusCode.OK


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_another_token_is_refused_without_a_reason(server: ServerProcess, make: Any) -> None:
    with Caller(server.address) as caller:
        assert caller.told(INFO, token=make()) == REFUSED
        assert caller.ask(HEALTH)


def test_the_principal_and_its_role_are_those_of_the_token() -> None:
    keys = Jwks(json.dumps(KEYS).encode(), ISSUER, AUDIENCE)
    found = [
        keys.prove(signed(**others), time.time())
        for others in ({}, {"role": "publisher"}, {"sub": "auth0|7/8"}, {"role": ["admin"]}, {"role": 3})
    ]
    told = [found and (found.principal, found.role.name) for found in found]
    assert told == [("ada", "USER"), ("ada", "PUBLISHER"), ("auth0|7%2F8", "USER"), None, None]


def test_without_an_audience_a_token_that_is_for_somebody_is_refused() -> None:
    keys = Jwks(json.dumps(KEYS).encode())
    assert keys.prove(signed(iss="anyone"), time.time()) is None
    assert keys.prove(signed(iss="anyone", aud=None), time.time()) is not None


def test_a_session_ends_with_its_token_and_with_its_key(server: ServerProcess, file: Path) -> None:
    with contextlib.ExitStack() as stack:
        short, long, other = (
            stack.enter_context(tclient.connect(server.address, token=token, lane=lane))
            for token, lane in (
                (signed(exp=int(time.time()) + 4), True),
                (signed(), False),
                (signed(EC, "ES256", "ec"), True),
            )
        )
        wait_until(lambda: short.dead is not None, 7.0, "the end of a token")
        assert isinstance(short.dead, tclient.NotAuthenticated)
        assert long.dead is None
        file.write_text(json.dumps({"keys": KEYS["keys"][1:]}))
        wait_until(lambda: long.dead is not None, 2.0, "the end of a key")
        assert other.dead is None
        with Caller(server.address) as caller:
            assert caller.told(INFO, token=signed()) == REFUSED
            file.write_text(json.dumps(KEYS))
            assert caller.told(INFO, token=signed())[0] is grpc.StatusCode.OK, "at once"


BROKEN = {
    "no JSON": (b"{", "it is not JSON"),
    "no set": (b"[]", "it is not"),
    "no keys": (b'{"keys": []}', "it has no key that is for signatures by RS256, ES256, EdDSA"),
    "secrets alone": (json.dumps({"keys": [SYMMETRIC]}).encode(), "it has no key"),
    "a weak key": (json.dumps({"keys": [jwk(WEAK, "weak")]}).encode(), "'weak' has 1024 bits"),
    "two of one id": (json.dumps({"keys": [jwk(RSA, "a"), jwk(EC, "a")]}).encode(), "two keys have the id 'a'"),
    "half a key": (json.dumps({"keys": [{**jwk(EC, "a"), "x": "AA"}]}).encode(), "'a' is not a public key"),
    "no object": (b'{"keys": [7]}', "a key is not an object"),
}


@pytest.mark.parametrize(("data", "told"), BROKEN.values(), ids=BROKEN)
def test_a_file_of_keys_that_cannot_be_used_is_told(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(data)
    with pytest.raises(OSError, match=f"--jwt-jwks .*{told}"):
        watched_keys(str(path), "", "")


def test_where_the_package_is_missing_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = extras.is_there
    monkeypatch.setattr(extras, "is_there", lambda name: name != "jwt" and there(name))
    assert extras.missing(Config()) == ""
    told = extras.missing(Config(jwt_jwks="jwks.json"))
    assert told == "jwt is not installed; --jwt-jwks needs: pip install 'tclient[jwt]'"
