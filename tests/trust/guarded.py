"""Servers that ask for tokens, which are made and revoked by their principals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import grpc

from tests.support.callers import token_of
from tests.support.serving import ServerProcess, serving
from tserver.credentials import tokens

REFUSED = (grpc.StatusCode.UNAUTHENTICATED, "no valid credentials")


class Guarded:
    """A server that asks for tokens."""

    def __init__(self, server: ServerProcess, file: Path) -> None:
        self.address, self._file = server.address, file

    def token(self, principal: str, lasts_s: float = 3600.0) -> str:
        """A new token."""
        return token_of(self._file, principal, lasts_s=lasts_s)

    def revoke(self, principal: str, *, but_last: bool = False) -> None:
        """All tokens of a principal; the last one may stay."""
        found = [token.id for token in tokens.listed(self._file) if token.principal == principal]
        for token_id in found[:-1] if but_last else found:
            tokens.revoke(self._file, token_id)


@contextlib.contextmanager
def guarding(folder: Path, *options: str) -> Iterator[Guarded]:
    """A server whose tokens are in a file of that folder."""
    file = folder / tokens.NAME
    token_of(file, "nobody")
    with serving("--tokens", str(file), *options) as server:
        yield Guarded(server, file)
