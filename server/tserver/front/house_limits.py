"""What each principal uses of all engines of a house, and what it may.

Sessions are counted here as they are opened, so that there are never too many; where it may be so, the engines are
asked. Of the rest engines tell every second, and are told in turn what is held elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc

from tserver.front.house_service import SERVICE
from tserver.limits.account import Accounts
from tserver.limits.file import LimitsFile

if TYPE_CHECKING:
    from tserver.config import Config
    from tserver.engines.directory import Directory, Entry
    from tserver.front.engine_channels import EngineChannels

_ASK_S = 1.0


class _Opened:
    """The sessions of one principal: never fewer than there are, but for those that were not opened here."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        # As engines have said; None before they were asked. Those that were opened since, and those on their way.
        self.asked: int | None = None
        self.since = self.under_way = 0

    @property
    def most(self) -> int:
        """So many at most."""
        return (self.asked or 0) + self.since


class HouseLimits:
    """The accounts of a house."""

    def __init__(self, config: Config, directory: Directory, channels: EngineChannels) -> None:
        """Raises: OSError where the file of limits is not right."""
        self.accounts = Accounts(LimitsFile.of(config))
        self._directory = directory
        self._channels = channels
        self._opened: dict[str, _Opened] = {}

    @contextlib.asynccontextmanager
    async def opening(self, principal: str) -> AsyncIterator[None]:
        """One session more, unless this fails. Raises: Exhausted where a principal has as many as it may."""
        account = self.accounts.of(principal)
        opened = self._opened.setdefault(principal, _Opened())
        limit = account.limits.sessions
        if limit:
            # Other fronts of a cluster open some, too.
            if opened.asked is None or max(opened.most, self.used(principal)["sessions"]) >= limit:
                async with opened.lock:
                    await self._ask_all(principal, opened)
            account.check("sessions", opened.most)
        opened.since += 1
        opened.under_way += 1
        try:
            yield
        except BaseException:
            opened.since -= 1
            raise
        finally:
            opened.under_way -= 1

    async def _ask_all(self, principal: str, opened: _Opened) -> None:
        # Those on their way may be told of already: counted twice for now, and never not at all.
        opened.asked, opened.since = None, opened.under_way
        entries = list(self._directory.engines.values())
        opened.asked = sum(await asyncio.gather(*(self._ask(entry, principal) for entry in entries)))

    async def _ask(self, entry: Entry, principal: str) -> int:
        try:
            return int(await self._channels.ask(entry, f"/{SERVICE}/Sessions", principal.encode(), timeout_s=_ASK_S))
        except grpc.aio.AioRpcError:
            # It is in a call that lets nothing else run, or about to be found dead.
            return int(_told(entry, principal).get("sessions", 0))

    def used(self, principal: str) -> Counter[str]:
        """What a principal uses by the names of the limits, as engines have told last."""
        found = Counter[str]()
        for entry in self._directory.engines.values():
            found.update(_told(entry, principal))
        return found

    def elsewhere(self, entry: Entry) -> bytes:
        """What an engine is told: the bytes and the tensors that principals hold in others, where that is bounded."""
        found: dict[str, tuple[int, int]] = {}
        for other in self._directory.engines.values():
            if other is entry or other.told is None:
                continue
            for principal, use in other.told.get("principals", {}).items():
                if self.accounts.of(principal).counts_memory:
                    size, tensors = found.get(principal, (0, 0))
                    found[principal] = size + use.get("device_bytes", 0), tensors + use.get("tensors", 0)
        return json.dumps(found).encode() if found else b""


def _told(entry: Entry, principal: str) -> dict[str, float]:
    told: dict[str, float] = (entry.told or {}).get("principals", {}).get(principal, {})
    return told
