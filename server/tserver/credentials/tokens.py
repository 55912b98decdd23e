"""The file of tokens: whose each is, what it may do, until when. Of the token itself it has a hash only.

A token has 256 random bits, so that a plain hash of it tells nothing. Commands change the file one after the other,
and replace it as a whole; a server only reads it.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tserver.credentials import names
from tserver.credentials.proven import Proven, role_of
from tserver.identity import Identity
from tserver.storage import files

NAME = "tokens.json"
"""Of the file, in a data directory."""

# What secrets are found by that were put where they should not be.
_PREFIX = "tcs_"
_RANDOM_BYTES = 32
_VERSION = 1
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, slots=True)
class Token:
    """One line of the file. Times are seconds since 1970."""

    id: str
    principal: str
    role: str
    sha256: str
    created: int
    expires: int
    revoked: int = 0

    def is_good(self, now: float) -> bool:
        """Whether it opens anything at that time."""
        return not self.revoked and now < self.expires


class Tokens:
    """What a file says."""

    def __init__(self, tokens: list[Token]) -> None:
        """Raises: ValueError."""
        self.all = tokens
        self._by_hash = {token.sha256: token for token in tokens}
        self._by_id = {token.id: token for token in tokens}
        if len(self._by_hash) != len(tokens) or len(self._by_id) != len(tokens):
            raise ValueError("two tokens have the same id or the same hash")

    def prove(self, text: str, now: float) -> Proven | None:
        """Whose token that is; None if it is no good."""
        token = self._by_hash.get(_hash(text))
        if token is None or not token.is_good(now):
            return None
        return Proven(token.principal, role_of(token.role), token.expires, token.id)

    def still_proves(self, identity: Identity) -> bool:
        """Whether a token proves the same as before, but for its time."""
        token = self._by_id.get(identity.credential)
        if token is None or token.revoked:
            return False
        return (token.principal, role_of(token.role)) == (identity.principal, identity.role)

    def to_bytes(self) -> bytes:
        """The file."""
        lines = [{name: getattr(token, name) for name in Token.__slots__} for token in self.all]
        return json.dumps({"version": _VERSION, "tokens": lines}, indent=1).encode() + b"\n"

    @classmethod
    def of(cls, data: bytes) -> Tokens:
        """What a file says. Raises: ValueError."""
        try:
            told = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not JSON: {error}") from None
        if not isinstance(told, dict) or told.get("version") != _VERSION or not isinstance(told.get("tokens"), list):
            raise ValueError(f'it is not {{"version": {_VERSION}, "tokens": […]}}')
        return cls([_token(line) for line in told["tokens"]])


def create(path: Path, principal: str, role: str, expires: int) -> tuple[Token, str]:
    """A new token, and its text, which is nowhere else. Raises: ValueError, OSError."""
    names.checked(principal)
    role_of(role)
    text = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    token = Token(secrets.token_hex(6), principal, role, _hash(text), int(time.time()), expires)
    with _changing(path) as tokens:
        tokens.append(token)
    return token, text


def revoke(path: Path, token_id: str) -> Token:
    """Have a token open nothing any more. Raises: KeyError if there is none with that id; ValueError, OSError."""
    with _changing(path) as tokens:
        for at, token in enumerate(tokens):
            if token.id == token_id:
                tokens[at] = replace(token, revoked=token.revoked or int(time.time()))
                return tokens[at]
        raise KeyError(token_id)


def listed(path: Path) -> list[Token]:
    """Those in a file. Raises: ValueError, OSError."""
    return Tokens.of(path.read_bytes()).all


def moment(text: str, now: float) -> int:
    """What `30d`, `12h`, `2027-01-31` (as it begins, in UTC) or `2027-01-31T12:00+01:00` means. Raises: ValueError."""
    if span := re.fullmatch(r"(\d{1,9})([smhdw])", text):
        then = now + int(span[1]) * _UNITS_S[span[2]]
    else:
        try:
            date = datetime.datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is no time: say 30d, 12h, or a date such as 2027-01-31") from None
        then = (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp()
    if then <= now:
        raise ValueError(f"{text!r} is over already")
    return int(then)


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[list[Token]]:
    """The tokens of a file, to be changed; written when that went well. One at a time, of all processes."""
    path.parent.mkdir(mode=files.PRIVATE_FOLDER, parents=True, exist_ok=True)
    with files.locked(path.with_name(f".{path.name}.lock")):
        tokens = listed(path) if path.exists() else []
        yield tokens
        files.replace(path, Tokens(tokens).to_bytes())


def _token(line: Any) -> Token:
    """Raises: ValueError."""
    try:
        token = Token(**line)
    except TypeError as error:
        raise ValueError(f"a token has other fields: {error}") from None
    texts = (token.id, token.principal, token.role, token.sha256)
    times = (token.created, token.expires, token.revoked)
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in times):
        raise ValueError(f"the token {token.id!r} has a field of another type")
    names.checked(token.principal)
    role_of(token.role)
    if not re.fullmatch(r"[0-9a-f]{64}", token.sha256):
        raise ValueError(f"the token {token.id!r} has no SHA-256 in hexadecimal")
    return token


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
