"""What each principal has in the data directory: under names, as checkpoints, and of models that are its alone.

Read from the disk, so that all processes of a house count alike. Every method blocks on the disk.
"""

from __future__ import annotations

from pathlib import Path

from tserver.limits.account import Accounts
from tserver.models.disk import own_bytes
from tserver.storage.quota import Use, check_names
from tserver.storage.store import use_of


class DiskUse:
    """That of one data directory, bounded by what accounts allow."""

    def __init__(self, directory: Path, accounts: Accounts) -> None:
        self._directory = directory
        self._accounts = accounts

    def used(self, principal: str) -> int:
        """The bytes of a principal."""
        return use_of(self._directory, principal).size_bytes + own_bytes(self._directory, principal)

    def check_names(self, principal: str, used: Use, asked: Use) -> None:
        """May there be more under names, where so much is? Raises: Exhausted."""
        check_names(principal, used, asked)
        own = own_bytes(self._directory, principal)
        self._accounts.of(principal).check("disk_bytes", used.size_bytes + own, asked.size_bytes)

    def check_model(self, principal: str, size_bytes: int) -> None:
        """May there be one model more of its own? Raises: Exhausted."""
        self._accounts.of(principal).check("disk_bytes", self.used(principal), size_bytes)
