"""How much a principal may have on disk."""

from __future__ import annotations

from typing import NamedTuple

from tserver.errors import Exhausted

MAX_BYTES = 256 << 30
MAX_NAMES = 10_000


class Use(NamedTuple):
    """What is on disk."""

    size_bytes: int = 0
    names: int = 0

    def __add__(self, other: object) -> Use:
        """Both together."""
        assert isinstance(other, Use)
        return Use(self.size_bytes + other.size_bytes, self.names + other.names)


def check_disk(principal: str, used: Use, asked: Use) -> None:
    """Refuse what would be too much beside what there is. Raises: Exhausted."""
    for limit, most, has, wants in (
        ("disk_bytes", MAX_BYTES, used.size_bytes, asked.size_bytes),
        ("names", MAX_NAMES, used.names, asked.names),
    ):
        if wants and has + wants > most:
            raise Exhausted(
                f"{limit}: {has} are kept, {wants} more are asked for, and {most} are the limit; forget names first",
                reason="LIMIT",
                limit=limit,
                used=str(has),
                asked=str(wants),
            )
