"""HTTP by hand: a socket, bytes out, answers in. Knows no client library: what none of them sends can be sent here."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Reply:
    """One response; its headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """What it says went wrong."""
        assert set(self.json) == {"error"}
        return str(self.json["error"])


class Caller:
    """One connection."""

    def __init__(self, address: str, tls: ssl.SSLContext | None = None, timeout_s: float = 20.0) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout_s)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self._received = b""

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """Send a request and read the response. Names of headers have _ for -."""
        self.send(request(method, path, body, **headers))
        return self.reply(has_body=method != "HEAD")

    def reply(self, *, has_body: bool = True) -> Reply:
        """The next response."""
        head = self._until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        if status < 200:
            return Reply(status, headers, b"")
        return Reply(status, headers, self._exactly(int(headers.get("content-length", "0"))) if has_body else b"")

    def is_closed(self) -> bool:
        """Whether the other side has closed the connection, waiting for it; there is nothing left to read then."""
        try:
            return self._received + self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            self._more()
        head, _, self._received = self._received.partition(mark)
        return head

    def _exactly(self, count: int) -> bytes:
        while len(self._received) < count:
            self._more()
        found, self._received = self._received[:count], self._received[count:]
        return found

    def _more(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError(f"closed after {self._received!r}")
        self._received += data

    def close(self) -> None:
        """Leave."""
        self.socket.close()

    def __enter__(self) -> Caller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request as bytes. A header that is given as nothing is left out."""
    lengths = {"Content_Length": str(len(body))} if body or method == "POST" else {}
    sent = {"Host": "test", **lengths, **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in sent.items() if value]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body


def chunked(*pieces: bytes) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))
