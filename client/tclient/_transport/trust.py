"""Who the client is to a server, and which servers it trusts: a token, TLS, and a certificate of its own.

A token goes with every RPC, over TLS or within this machine, and is shown nowhere: not in errors, nor where objects are
printed. Knows files, ssl and gRPC's credentials; does not know RPCs.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import ssl
from collections.abc import Callable

import grpc

from tclient._exceptions import ConnectFailed
from tensorcompute.wire.address import Address

log = logging.getLogger("tclient")

# As RFC 6750 has it; nothing else may stand in a header.
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")

Path = str | os.PathLike[str]
# False is plain text; True trusts the authorities that the machine knows; a path is a PEM file of those to trust.
Tls = bool | Path
# A function is asked again for each RPC.
Token = str | bytes | Callable[[], str | bytes]
Metadata = tuple[tuple[str, str | bytes], ...]


class _Hidden(str):
    """Text that is not shown where objects are printed, as in the frames of a traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'<hidden>'"


def hidden(token: Token | None) -> Token | None:
    """The same token, which is not shown where the variable is printed that holds it."""
    if isinstance(token, bytes):
        token = token.decode("ascii", "replace")
    return _Hidden(token) if isinstance(token, str) else token


class TokenFile:
    """The token that a file holds: read again when the file was replaced."""

    def __init__(self, path: Path) -> None:
        self.path = os.fspath(path)
        self._state: tuple[int, ...] = ()
        self._token = _Hidden()

    def __call__(self) -> str:
        """Raises: OSError."""
        status = os.stat(self.path)
        state = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)
        if state != self._state:
            with open(self.path, encoding="utf-8", errors="replace") as file:
                self._token = _Hidden(file.read().strip())
            self._state = state
        return self._token


class Trust:
    """What one session has."""

    def __init__(
        self,
        tls: Tls = False,
        *,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        token: Token | None = None,
    ) -> None:
        """`tls_key` may be in the file of `tls_cert`. Raises: ConnectFailed for files that cannot be used."""
        self.tls = tls
        self._authority = "" if isinstance(tls, bool) else os.fspath(tls)
        self._cert = os.fspath(tls_cert) if tls_cert else ""
        self._key = os.fspath(tls_key) if tls_key else self._cert
        self._source = hidden(token)
        # The last one that was had.
        self._metadata: Metadata = ()
        if self._key and not (tls and self._cert):
            raise ConnectFailed(
                "connect: tls_cert= and tls_key= are the client's own certificate for a connection with TLS: give "
                "tls_cert=, and tls=True or tls= the PEM file of the server's authority"
            )

    @classmethod
    def given(cls, tls: Tls | None, tls_cert: Path | None, tls_key: Path | None, token: Token | None) -> Trust:
        """What `tclient.connect` is given; where that is None, what the environment says. Raises: ConnectFailed."""
        named = os.environ.get
        if token is None:
            if found := named("TCLIENT_TOKEN"):
                token = hidden(found)
            elif path := named("TCLIENT_TOKEN_FILE"):
                token = TokenFile(path)
        if tls_cert is None:
            tls_cert = named("TCLIENT_TLS_CERT")
            tls_key = tls_key or named("TCLIENT_TLS_KEY")
        if tls is None:
            said = named("TCLIENT_TLS", "")
            tls = said == "1" or (said if said not in ("", "0") else not said and bool(tls_cert))
        return cls(tls, tls_cert=tls_cert, tls_key=tls_key, token=token)

    @property
    def has_token(self) -> bool:
        """Whether a token goes with RPCs."""
        return self._source is not None

    def may_go_to(self, address: Address) -> bool:
        """Whether nobody on the way to an address can read the token."""
        return not self.has_token or bool(self.tls) or address.is_local

    def check(self, address: Address) -> None:
        """Before anything goes to an address. Raises: ConnectFailed."""
        if not self.may_go_to(address):
            raise ConnectFailed(
                "connect: a token is not sent in plain text to another machine, and there is no TLS to "
                f'{address}: give tls=True, or tls="ca.pem", the file of the authority that signed the server\'s '
                "certificate (TCLIENT_TLS says the same)"
            )
        self.metadata()

    def metadata(self) -> Metadata:
        """What goes with an RPC. Raises: ConnectFailed where there is no token yet, and none can be had."""
        if self._source is not None:
            try:
                token = hidden(self._source() if callable(self._source) else self._source)
                self._metadata = (("authorization", _Hidden(f"Bearer {_checked(token)}")),)
            except Exception as error:
                if not self._metadata:
                    raise ConnectFailed(f"connect: {self._told(error)}") from None
                log.warning("the last token is sent again: %s", self._told(error))
        return self._metadata

    def _told(self, error: Exception) -> str:
        """Without what the error itself says, which may quote the token; but for those of files, and our own."""
        if isinstance(self._source, TokenFile):
            why = error.strerror if isinstance(error, OSError) else error if isinstance(error, BadToken) else "no token"
            return f"the token file {self._source.path!r} cannot be used: {why}"
        if isinstance(error, BadToken):
            return f"the token cannot be used: {error}"
        return f"the function that gives the token failed with {type(error).__name__}"

    @property
    def advice(self) -> str:
        """What to do where a server says that it does not know the caller."""
        if self.has_token:
            return (
                "the token that was given is not valid there: it is another server's, or has expired, or was revoked; "
                "ask for a new one (tserver token create)"
            )
        given = "a certificate was given, and no token" if self._cert else "no token was given"
        return (
            f"{given}: pass tclient.connect(..., token=...), or set TCLIENT_TOKEN, or TCLIENT_TOKEN_FILE to the file "
            "that holds it"
        )

    @property
    def shows_certificate(self) -> bool:
        """Whether the client has a certificate of its own."""
        return bool(self._cert)

    def for_grpc(self) -> grpc.ChannelCredentials | None:
        """None for plain text. Raises: ConnectFailed for files that cannot be used."""
        if not self.tls:
            return None
        authority = _read("tls", self._authority) if self._authority else None
        if authority is not None and b"-----BEGIN CERTIFICATE-----" not in authority:
            raise ConnectFailed(f"connect: tls={self._authority!r} holds no certificates in PEM")
        if not self._cert:
            return grpc.ssl_channel_credentials(authority)
        cert, key = _read("tls_cert", self._cert), _read("tls_key", self._key)
        try:
            self.context()
        except (OSError, ValueError):
            raise ConnectFailed(
                f"connect: tls_cert={self._cert!r} and tls_key={self._key!r} are not a certificate and its key, in PEM "
                "and not encrypted"
            ) from None
        return grpc.ssl_channel_credentials(authority, key, cert)

    def context(self, *, checks_name: bool = True) -> ssl.SSLContext:
        """For a connection that is not gRPC's. Raises: OSError, ValueError."""
        return _context(self._authority, self._cert, self._key, checks_name)


class BadToken(ValueError):
    """What was given as a token is none."""


def _checked(token: object) -> str:
    """Raises: BadToken, which does not say what it was."""
    if not isinstance(token, str):
        raise BadToken(f"it is of type {type(token).__name__}; give str or bytes, or a function that returns one")
    text = _Hidden(token.strip())
    if text[:7].lower() == "bearer ":
        raise BadToken("give the token alone, without the word Bearer")
    if not text:
        raise BadToken("it is empty")
    if not _TOKEN.fullmatch(text):
        raise BadToken("it has characters that no token has: letters, digits and -._~+/= are allowed")
    return text


def _read(option: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConnectFailed(f"connect: {option}={path!r} is not a file that can be read: {error.strerror}") from error


@functools.cache
def _context(authority: str, cert: str, key: str, checks_name: bool) -> ssl.SSLContext:
    """Those whom the session trusts: the authority in that file; without one, those that the system trusts."""
    context = ssl.create_default_context(cafile=authority or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = checks_name
    if cert:
        context.load_cert_chain(cert, key, password=lambda: "")
    return context
