"""Which engine an RPC goes to, by the session that it names.

A session is where it was opened. One that its engine has kept as it was told to stop (session/keeping.py) is brought to
an engine that serves, by whoever asks for it first, and stays there. Which that is a front remembers, and otherwise
asks the engines: another front may have decided it, or this one before it was started again.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from tserver.errors import Stopping, Unreachable
from tserver.front.house_service import SERVICE, YES
from tserver.front.routing import ROUTINGS
from tserver.session.keeping import KeptSessions
from tserver.session.secret import boot_of

if TYPE_CHECKING:
    from tserver.config import Config
    from tserver.engines.directory import Directory, Entry
    from tserver.front.engine_channels import EngineChannels
    from tserver.front.forwarding import Target
    from tserver.front.placing import Placing
    from tserver.front.rpc import Rpc
    from tserver.identity import Identity

# How often an engine is looked for, where another front does so too, or those that are found end.
_TRIES = 3
_ANSWER_S = 5.0
# How many sessions are remembered that are not where they were opened.
_REMEMBERED = 65536

# A session in the name of a principal: nobody else learns that it is there.
_Whose = tuple[bytes, str]


class Router:
    """The engines of sessions, and of callers without one."""

    def __init__(self, config: Config, directory: Directory, placing: Placing, channels: EngineChannels) -> None:
        self._directory = directory
        self._placing = placing
        self._channels = channels
        self._kept = KeptSessions(Path(config.data_dir)) if config.data_dir and config.checkpoint_on_drain else None
        # The runs that have sessions of earlier ones.
        self._boots: dict[_Whose, str] = {}
        self._under_way: dict[_Whose, asyncio.Task[Entry]] = {}

    async def choose(self, path: str, first: bytes, rpc: Rpc) -> Target:
        """Where an RPC goes, by its first message: see `entry`."""
        return self._channels.target(await self.entry(path, first, rpc))

    async def entry(self, path: str, first: bytes, rpc: Rpc) -> Entry:
        """The engine of the session which the first message names, else the one of callers without a session.

        Raises: SessionLost, Unauthenticated, Exhausted.
        """
        secret = ROUTINGS[path].secret(first)
        return await (self.of_session(secret, rpc) if secret else self._placing.home(rpc.principal))

    async def of_session(self, secret: bytes, rpc: Rpc) -> Entry:
        """The engine of a session. Raises: SessionLost, Unauthenticated; Stopping, Unreachable, Exhausted for now."""
        if self._kept is None or self._directory.of_boot(boot_of(secret)) is not None:
            return self._directory.of_secret(secret)
        whose = hashlib.sha256(secret).digest(), rpc.principal
        entry = self._directory.of_boot(self._boots.get(whose, ""))
        if entry is not None:
            return entry
        task = self._under_way.get(whose)
        if task is None:
            task = self._under_way[whose] = asyncio.create_task(self._find(secret, self._kept, rpc.identity))
            task.add_done_callback(lambda _: self._under_way.pop(whose))
        entry = await asyncio.shield(task)
        self._boots[whose] = entry.info.boot_id
        while len(self._boots) > _REMEMBERED:
            del self._boots[next(iter(self._boots))]
        return entry

    async def _find(self, secret: bytes, kept: KeptSessions, identity: Identity) -> Entry:
        for _ in range(_TRIES):
            holder, all_answered = await self._holder(secret, identity)
            if holder is not None:
                return holder
            if self._placing.is_stopping:
                raise Stopping("the server is stopping; retry later")
            head = await asyncio.to_thread(kept.find, secret, identity.principal)
            if head is None and all_answered:
                # Raises, where it is not that its engine has begun just now.
                return self._directory.of_secret(secret)
            if head is not None and (entry := await self._bring_back(secret, head.device, identity)) is not None:
                return entry
        raise Unreachable("it is not known yet which engine has the session; try again")

    async def _holder(self, secret: bytes, identity: Identity) -> tuple[Entry | None, bool]:
        """The engine that has a session already, and whether all have told."""
        entries = list(self._directory.engines.values())
        answers = await asyncio.gather(*(self._ask(entry, "HasSession", secret, identity) for entry in entries))
        holder = next((entry for entry, answer in zip(entries, answers, strict=True) if answer), None)
        return holder, None not in answers

    async def _bring_back(self, secret: bytes, device: str, identity: Identity) -> Entry | None:
        """An engine that goes on with a session; None where another one is quicker. Raises: Exhausted."""
        entry: Entry
        async with self._placing.session(identity.principal, device) as entry:
            if await self._ask(entry, "BringBack", secret, identity):
                return entry
            entry.load.placed -= 1
        return None

    async def _ask(self, entry: Entry, method: str, secret: bytes, identity: Identity) -> bool | None:
        """What an engine says of a session, in the name of the caller; None where it does not answer."""
        try:
            path = f"/{SERVICE}/{method}"
            answer = await self._channels.ask(entry, path, secret, timeout_s=_ANSWER_S, identity=identity)
        except grpc.aio.AioRpcError:
            return None
        return answer == YES
