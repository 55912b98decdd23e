"""One RPC under way, as a servicer sees it: who calls, until when, and what is received and sent.

Made by the interceptor, and the only thing of gRPC's that our servicers are given.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc

Context = grpc.aio.ServicerContext[bytes, bytes]

# What one process of a house says to another: that it is of the house, and who really calls, from where.
HOUSE_KEY = "tensorcompute-house"
HOUSE_PRINCIPAL = "tensorcompute-principal-bin"
HOUSE_LOCAL = "tensorcompute-local"
# That a change of models is to be made by this very engine, and which engine passes on what it was asked.
HOUSE_HERE = "tensorcompute-here"
HOUSE_ENGINE = "tensorcompute-engine"
HOUSE_HEADERS = frozenset((HOUSE_KEY, HOUSE_PRINCIPAL, HOUSE_LOCAL, HOUSE_HERE, HOUSE_ENGINE))


class Rpc:
    """Who calls, and the messages of both sides."""

    __slots__ = ("_context", "_house", "read", "write")

    def __init__(self, context: Context, key: str = "") -> None:
        """`key` is that of the house that this process is of; who sends it along speaks for somebody else."""
        self._context = context
        self._house = _house_headers(context, key) if key else None
        # The next request of a stream, or grpc.aio.EOF; and how a response of a stream is sent. gRPC's own methods:
        # each message passes here, and nothing is to stand in between.
        self.read: Callable[[], Awaitable[Any]] = context.read
        self.write: Callable[[bytes], Awaitable[None]] = context.write

    @property
    def principal(self) -> str:
        """Whose sessions and tensors the caller may name."""
        if self._house is not None:
            return self._house.get(HOUSE_PRINCIPAL, b"").decode()
        return principal_of(str(self._context.peer()))

    @property
    def is_local(self) -> bool:
        """Whether the caller is on this machine."""
        if self._house is not None:
            return self._house.get(HOUSE_LOCAL) == b"1"
        return is_loopback(str(self._context.peer()))

    @property
    def is_of_house(self) -> bool:
        """Whether it comes from another process of this house, in its own name or in that of a caller."""
        return self._house is not None

    @property
    def acts_here(self) -> bool:
        """Whether the front has decided that what is asked of models is to be done by this very engine."""
        return self._house is not None and self._house.get(HOUSE_HERE) == b"1"

    @property
    def engine(self) -> str:
        """The engine of this house that passes on what it was asked; empty where it is another caller."""
        return "" if self._house is None else self._house.get(HOUSE_ENGINE, b"").decode()

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

    async def send_initial_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Send what goes before the first response."""
        await self._context.send_initial_metadata(tuple(metadata))

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Say what goes behind the last response, or with the status of an error."""
        self._context.set_trailing_metadata(tuple(metadata))


def house_metadata(key: str, principal: str, *, is_local: bool) -> tuple[tuple[str, str | bytes], ...]:
    """What goes with a request to another process of the house, in the name of who has asked this one."""
    return ((HOUSE_KEY, key), (HOUSE_PRINCIPAL, principal.encode()), (HOUSE_LOCAL, "1" if is_local else "0"))


def _house_headers(context: Context, key: str) -> dict[str, bytes] | None:
    """The headers above, if they come from one who has the key."""
    found: Any = context.invocation_metadata() or ()
    sent = {
        name: value if isinstance(value, bytes) else value.encode() for name, value in found if name in HOUSE_HEADERS
    }
    return sent if hmac.compare_digest(sent.get(HOUSE_KEY, b""), key.encode()) else None


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
