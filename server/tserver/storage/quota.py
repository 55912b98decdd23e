"""What a principal has under names, and how many of those it may have."""

from __future__ import annotations

from typing import NamedTuple

from tserver.errors import Exhausted

MAX_NAMES = 10_000


class Use(NamedTuple):
    """What is on disk."""

    size_bytes: int = 0
    names: int = 0


def check_names(principal: str, used: Use, asked: Use) -> None:
    """Refuse a name that would be one too many beside those there are. Raises: Exhausted."""
    if asked.names and used.names + asked.names > MAX_NAMES:
        raise Exhausted(
            f"names: {used.names} are kept, {asked.names} more are asked for, and {MAX_NAMES} are the limit; forget "
            "names first",
            reason="LIMIT",
            name="names",
            limit=str(MAX_NAMES),
            used=str(used.names),
            asked=str(asked.names),
        )
