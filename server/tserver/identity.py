"""Who a caller is: the principal that owns what it makes, and what it may do. Knows neither gRPC nor torch."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, replace
from urllib.parse import quote

REFUSAL = "no valid credentials"
"""All that a caller is told that has none: not whether they were wrong, over, revoked or missing."""

LOCAL = "local"
"""The principal of who calls from this machine, where no credentials are set up."""

LOOPBACK = "loopback"
"""The host of who calls from this machine, however it was reached."""


class Role(enum.IntEnum):
    """What a principal may do; each may do what those before it may."""

    # Its own sessions, tensors, names and models.
    USER = 1
    # Models that all see.
    PUBLISHER = 2
    # What belongs to others, and the server itself.
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, as it was found out once for each RPC."""

    principal: str
    role: Role = Role.USER
    # How it is known: "local", "token", "jwt", "certificate", "house"; "anonymous" where it is not.
    how: str = LOCAL
    # Where it calls from: ipv4:ADDRESS, ipv6:[ADDRESS], or LOOPBACK.
    host: str = ""
    # Whether that is this machine.
    is_local: bool = False
    # The connection, where nothing else is known of the caller: without a session it shares tensors with no other one.
    connection: str = ""
    # When the credentials end that it is known by, in seconds since 1970; 0 is never.
    expires: float = 0.0
    # Which they are, where they may be revoked: no secret.
    credential: str = ""

    def sees(self, principal: str) -> bool:
        """Whether the caller may be shown what is a principal's: its own, and an administrator everybody's."""
        return self.role >= Role.ADMIN or principal == self.principal

    @property
    def without_session(self) -> str:
        """Whose tensors those are of callers that have no session."""
        return self.connection or self.principal

    @property
    def namespace(self) -> str:
        """What stands before the names of what is the caller's alone; empty for who names all that there is."""
        return "" if self.role >= Role.ADMIN else f"{quote(self.principal, safe='')}/"

    def from_afar(self) -> Identity:
        """The same caller, as a process on another host sees it."""
        return replace(self, is_local=False)

    def to_bytes(self) -> bytes:
        """What one process of a house tells another."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Identity:
        """What `to_bytes` made."""
        told = json.loads(data)
        return cls(**{**told, "role": Role(told["role"])})
