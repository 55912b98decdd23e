"""One RPC under way, as a servicer sees it: who calls, until when, and what is received and sent.

Made by the interceptor, and the only thing of gRPC's that our servicers are given.
"""

from __future__ import annotations

import ipaddress
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

Context = grpc.aio.ServicerContext[bytes, bytes]


class Rpc:
    """Who calls, and the messages of both sides."""

    __slots__ = ("_context", "read", "write")

    def __init__(self, context: Context) -> None:
        self._context = context
        # The next request of a stream, or grpc.aio.EOF; and how a response of a stream is sent. gRPC's own methods:
        # each message passes here, and nothing is to stand in between.
        self.read: Callable[[], Awaitable[Any]] = context.read
        self.write: Callable[[bytes], Awaitable[None]] = context.write

    @property
    def principal(self) -> str:
        """Whose sessions and tensors the caller may name."""
        return principal_of(str(self._context.peer()))

    @property
    def is_local(self) -> bool:
        """Whether the caller is on this machine."""
        return is_loopback(str(self._context.peer()))

    @property
    def deadline(self) -> float | None:
        """The moment of time.monotonic at which the caller gives up; None is never."""
        # None without a deadline, whatever its type says.
        remaining_s: Any = self._context.time_remaining()
        return None if remaining_s is None else time.monotonic() + remaining_s

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What the caller has sent beside the request."""
        found: Any = self._context.invocation_metadata() or ()
        return tuple((key, value) for key, value in found)


def principal_of(peer: str) -> str:
    """Who calls from a peer, as gRPC names it: without authentication, everyone at one host is one principal."""
    if peer.startswith(("ipv4:", "ipv6:")):
        peer = peer.rsplit(":", 1)[0]
    return f"anonymous@{peer}"


def is_loopback(peer: str) -> bool:
    """Whether a peer, as gRPC names it, is on this machine."""
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return True
    host = urllib.parse.unquote(rest.rpartition(":")[0]).strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
