"""What credentials prove, whichever they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tserver.identity import Identity, Role

ROLES = {role.name.lower(): role for role in Role}


@dataclass(frozen=True, slots=True)
class Proven:
    """Whose they are."""

    principal: str
    role: Role
    # In seconds since 1970.
    expires: float
    # Which it is of those that may be revoked; no secret.
    credential: str


class Proofs(Protocol):
    """What there is to prove by, as a file says."""

    def prove(self, text: str, now: float) -> Proven | None:
        """What a credential proves; None if it is no good."""

    def still_proves(self, identity: Identity) -> bool:
        """Whether the credential that somebody is known by is as good as it was, but for its time."""


def role_of(name: object) -> Role:
    """The role of that name. Raises: ValueError."""
    if not isinstance(name, str) or name not in ROLES:
        raise ValueError(f"a role is one of {', '.join(ROLES)}, not {str(name)[:40]!r}")
    return ROLES[name]
