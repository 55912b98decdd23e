"""One RPC under way, as a servicer sees it: who calls, until when, and what is received and sent.

Made by the interceptor, and the only thing of gRPC's that our servicers are given.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

import grpc

from tserver.errors import DeadlineExceeded
from tserver.front.authentication import Authenticator, Unconfigured, host_of
from tserver.identity import LOOPBACK, Identity, Role

Context = grpc.aio.ServicerContext[bytes, bytes]
# What answers an RPC: given the request, or an iterator of them, and what is seen of the context.
Behaviour = Callable[[Any, Any], Awaitable[Any]]

# What one process of a house says to another: that it is of the house, and who really calls, from where.
HOUSE_KEY = "tensorcompute-house"
HOUSE_IDENTITY = "tensorcompute-identity-bin"
# That a change of models is to be made by this very engine, and which engine passes on what it was asked.
HOUSE_HERE = "tensorcompute-here"
HOUSE_ENGINE = "tensorcompute-engine"
HOUSE_HEADERS = frozenset((HOUSE_KEY, HOUSE_IDENTITY, HOUSE_HERE, HOUSE_ENGINE))

# How long a stream may be open before anything is said on it: whoever needs longer opens another one.
_FIRST_S = 30.0

# Another process of the house, in its own name; and where no credentials are set up.
OF_HOUSE = Identity("", Role.ADMIN, "house")
OPEN: Authenticator = Unconfigured()


class Rpc:
    """Who calls, and the messages of both sides."""

    __slots__ = ("_context", "_house", "identity", "read", "write")

    def __init__(self, context: Context, key: str = "", authenticator: Authenticator = OPEN) -> None:
        """`key` is that of the house that this process is of; who sends it along speaks for somebody else.

        Raises: Unauthenticated.
        """
        self._context = context
        self._house = house = _house_headers(context, key) if key else None
        # Who calls.
        self.identity = identified(context, authenticator) if house is None else _told(house, context)
        # The next request of a stream, or grpc.aio.EOF; and how a response of a stream is sent. gRPC's own methods:
        # each message passes here, and nothing is to stand in between.
        self.read: Callable[[], Awaitable[Any]] = context.read
        self.write: Callable[[bytes], Awaitable[None]] = context.write

    @property
    def principal(self) -> str:
        """Whose sessions and tensors the caller may name."""
        return self.identity.principal

    @property
    def is_local(self) -> bool:
        """Whether the caller is on this machine."""
        return self.identity.is_local

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

    def header(self, name: str) -> str:
        """What the caller has sent under a name; empty where that is nothing, or bytes."""
        return next((value for key, value in self.metadata if key == name and isinstance(value, str)), "")

    async def first(self) -> Any:
        """The first request of a stream, or grpc.aio.EOF. Raises: DeadlineExceeded where none comes."""
        try:
            async with asyncio.timeout(_FIRST_S):
                return await self.read()
        except TimeoutError:
            raise DeadlineExceeded(
                f"no message came on this stream for {_FIRST_S:g} s; open it when there is something to send"
            ) from None

    async def send_initial_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Send what goes before the first response."""
        await self._context.send_initial_metadata(tuple(metadata))

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Say what goes behind the last response, or with the status of an error."""
        self._context.set_trailing_metadata(tuple(metadata))


def house_metadata(key: str, identity: Identity = OF_HOUSE) -> tuple[tuple[str, str | bytes], ...]:
    """What goes with a request to another process of the house, in the name of who has asked this one."""
    return ((HOUSE_KEY, key), (HOUSE_IDENTITY, identity.to_bytes()))


def identified(context: Context, authenticator: Authenticator) -> Identity:
    """Who calls. Raises: Unauthenticated."""
    found: Any = context.invocation_metadata() or ()
    certificate: Any = context.auth_context()
    return authenticator.identify(str(context.peer()), dict(found), certificate)


def _told(house: dict[str, bytes], context: Context) -> Identity:
    """Whom another process of the house speaks for."""
    said = house.get(HOUSE_IDENTITY)
    if said is None:
        return OF_HOUSE
    identity = Identity.from_bytes(said)
    if identity.host == LOOPBACK and not identity.is_local:
        # It is on the machine of that process, which is another one.
        return replace(identity, host=host_of(str(context.peer())))
    return identity


def _house_headers(context: Context, key: str) -> dict[str, bytes] | None:
    """The headers above, if they come from one who has the key."""
    found: Any = context.invocation_metadata() or ()
    sent = {
        name: value if isinstance(value, bytes) else value.encode() for name, value in found if name in HOUSE_HEADERS
    }
    return sent if hmac.compare_digest(sent.get(HOUSE_KEY, b""), key.encode()) else None
