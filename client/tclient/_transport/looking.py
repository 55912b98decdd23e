"""What is at an address where no session could be opened: looked at over a socket of our own, to say what to do.

gRPC says of most of it that a socket was closed. Nothing is sent but what begins a connection. Knows sockets and TLS;
does not know gRPC.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

from tclient._transport.trust import Trust
from tensorcompute.wire.address import Address, proxy_before

# What a client of HTTP/2 begins with, and an empty SETTINGS frame. A server answers with one of its own.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_HEAD_BYTES = 9
_HTTP = b"HTTP/"

# Of X509_verify_cert: https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_NAMES = (62, 64)
# What OpenSSL says of bytes that are no TLS, and of a server that knows no version which we do.
_NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "HTTPS_PROXY_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
)
_OLD = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE")
_REMEDY = "the PEM file of the authority that signed its certificate"


@dataclass(frozen=True, slots=True)
class Finding:
    """Why no session could be opened: for programs, and for people."""

    reason: str
    text: str


def look(address: Address, trust: Trust, within_s: float) -> Finding | None:
    """What is there that explains it; None where that is not to be seen. Takes so long at most."""
    if proxy_before(address) is not None or not (address.host or address.path):
        return None
    seen = _Look(address, trust, time.monotonic() + within_s)
    with contextlib.suppress(OSError, ValueError):
        return seen.over_tls() if trust.tls else seen.in_plain_text()
    return None


class _Look:
    def __init__(self, address: Address, trust: Trust, latest: float) -> None:
        self._address, self._trust, self._latest = address, trust, latest
        self._host = address.host or "localhost"

    def in_plain_text(self) -> Finding | None:
        """Why plain text does not do. Raises: OSError."""
        found = self._http(self._plain_answer())
        if found is None and self._speaks_tls():
            return Finding(
                "TLS_REQUIRED",
                f"the server at {self._address} speaks TLS, and this connection is plain text: give tls=True, or tls= "
                f"{_REMEDY} (TCLIENT_TLS says the same)",
            )
        return found

    def over_tls(self) -> Finding | None:
        """Why TLS does not do. Raises: OSError, ValueError."""
        context = self._trust.context()
        shaken = False
        try:
            with self._shaken(context) as connection:
                shaken = True
                connection.sendall(_PREFACE)
                answer = connection.recv(_HEAD_BYTES)
        except ssl.SSLCertVerificationError as error:
            return self._not_trusted(error)
        except (ssl.SSLError, ConnectionError) as error:
            return self._broken(getattr(error, "reason", None) or "", shaken=shaken)
        return self._http(answer) if answer else self._wants_certificate()

    # --- what is told ---

    def _not_trusted(self, error: ssl.SSLCertVerificationError) -> Finding:
        whose = f"the certificate of the server at {self._address}"
        if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
            is_over = error.verify_code == _EXPIRED
            return Finding(
                "CERTIFICATE_EXPIRED" if is_over else "CERTIFICATE_NOT_YET_VALID",
                f"{whose} {'has expired' if is_over else 'is not valid yet'}: it is to be renewed there (the server "
                "reads it again by itself), or the clock of this machine is wrong",
            )
        if error.verify_code in _OTHER_NAMES:
            return Finding(
                "WRONG_NAME",
                f"{whose} is that of {self._names()}, and not of {self._host}: connect by a name that it has, or have "
                "one issued for this name",
            )
        return Finding(
            "UNKNOWN_AUTHORITY",
            f"{whose} is signed by nobody whom this client trusts ({error.verify_message}): give tls= {_REMEDY}",
        )

    def _broken(self, reason: str, *, shaken: bool) -> Finding | None:
        if reason in _NO_TLS:
            return self._http(self._plain_answer()) or Finding(
                "NO_TLS",
                f"the server at {self._address} speaks plain text, and no TLS: leave out tls= and TCLIENT_TLS, or "
                "start it with --tls-cert and --tls-key",
            )
        if reason in _OLD:
            return Finding(
                "TLS_TOO_OLD",
                f"the server at {self._address} speaks no TLS from 1.2 on: bring what is there up to date",
            )
        # A server that does not like what it was shown says so, or leaves.
        return self._wants_certificate() if shaken or "CERTIFICATE" in reason or "ALERT" in reason else None

    def _wants_certificate(self) -> Finding:
        if self._trust.shows_certificate:
            return Finding(
                "CERTIFICATE_REFUSED",
                f"the server at {self._address} ended the connection when it was shown this client's certificate: it "
                "is to be one that the authority of its --tls-client-ca has signed, and that has not expired",
            )
        return Finding(
            "CERTIFICATE_REQUIRED",
            f"the server at {self._address} ended the connection that shows it no certificate of the client's, as one "
            "does that was started with --tls-client-ca: give tls_cert= and tls_key= (TCLIENT_TLS_CERT and "
            "TCLIENT_TLS_KEY)",
        )

    def _http(self, answer: bytes) -> Finding | None:
        if not answer.startswith(_HTTP):
            return None
        return Finding(
            "HTTP",
            f"at {self._address} is a server of HTTP, such as --http-listen and --metrics-listen make: connect to the "
            "address of its --listen",
        )

    def _names(self) -> str:
        """Whose certificate it is, where that can be read."""
        with contextlib.suppress(OSError), self._shaken(self._trust.context(checks_name=False)) as connection:
            shown: Any = connection.getpeercert() or {}
            if names := [name for _, name in shown.get("subjectAltName", ())]:
                return ", ".join(names[:5])
        return "another host"

    # --- connections ---

    def _left_s(self) -> float:
        left_s = self._latest - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _connected(self) -> socket.socket:
        address = self._address
        if not address.path:
            return socket.create_connection((address.host.strip("[]"), address.port), timeout=self._left_s())
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("this system has no Unix sockets")
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(self._left_s())
            connected.connect(address.path)
        except BaseException:
            connected.close()
            raise
        return connected

    def _shaken(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        """A connection with TLS. Raises: OSError."""
        connected = self._connected()
        try:
            return context.wrap_socket(connected, server_hostname=self._host)
        except BaseException:
            connected.close()
            raise

    def _plain_answer(self) -> bytes:
        with self._connected() as connected:
            connected.sendall(_PREFACE)
            with contextlib.suppress(ConnectionError):
                return connected.recv(_HEAD_BYTES)
        return b""

    def _speaks_tls(self) -> bool:
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname = False
        anybody.verify_mode = ssl.CERT_NONE
        with contextlib.suppress(OSError), self._shaken(anybody):
            return True
        return False
