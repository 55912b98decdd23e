"""The secret of a session: it begins with the boot id of the run that the session is of."""

from __future__ import annotations

import hashlib

from tserver.errors import SessionLost

BOOT_BYTES = 8
RANDOM_BYTES = 16
SECRET_BYTES = BOOT_BYTES + RANDOM_BYTES


# Of its hash, what is told of a session where its secret must not be.
_ID_LETTERS = 12


def id_of(secret: bytes) -> str:
    """What a session is called in logs and lists, by which nobody can use it."""
    return hashlib.sha256(secret).hexdigest()[:_ID_LETTERS]


def boot_of(secret: bytes) -> str:
    """The boot id of the run that a session is of."""
    return secret[:BOOT_BYTES].hex()


def of_an_earlier_run(previous_end: str) -> SessionLost:
    """What a session is told whose run is over, and no more is known of it than how the last one ended."""
    cause = previous_end or "the server was restarted"
    return SessionLost(f"the session is of an earlier run of this server: {cause}; open a new one", cause=cause)
