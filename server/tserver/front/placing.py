"""Which engine a caller gets: one that is shared, or one of its own, which is started ahead and ended behind it.

Knows the directory and the fleet; engines are asked how much they have to do every second.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc

from tserver.engines import placement
from tserver.engines.fleet import Ended, Event, Serving, Told
from tserver.errors import Exhausted, ServerError
from tserver.front.house_service import SERVICE
from tserver.front.replicas.coordinator import ModelCoordinator

if TYPE_CHECKING:
    from tserver.config import Config
    from tserver.engines.directory import Directory, Entry
    from tserver.engines.fleet import Fleet
    from tserver.engines.plan import Plan
    from tserver.front.engine_channels import EngineChannels
    from tserver.front.house_limits import HouseLimits
    from tserver.front.replicas.cluster import ClusterModels

log = logging.getLogger("tserver.front")

_POLL_S = 1.0
_POLL_TIMEOUT_S = 1.0
# How long a new engine is waited for.
_START_TIMEOUT_S = 60.0
# Before the principal whose session an engine has held: nobody else has that one after it.
_ONE_SESSION = "\0session"


class Placing:
    """The placement of sessions, and of callers without one."""

    def __init__(
        self,
        config: Config,
        directory: Directory,
        fleet: Fleet,
        plan: Plan,
        channels: EngineChannels,
        models: ModelCoordinator | ClusterModels,
        limits: HouseLimits,
    ) -> None:
        self._config = config
        self._models = models
        self._limits = limits
        self._directory = directory
        self._fleet = fleet
        self._plan = plan
        self._channels = channels
        self._is_isolated = plan.is_isolated
        # Where each has one of its own: the principal of an engine. Those that are nobody's are not in it.
        self._owners: dict[str, str] = {}
        # Engines that were asked for and do not serve yet, and the device of each.
        self._starting: dict[str, str] = {}
        # When an engine was last seen with a session, of those that have had one.
        self._used: dict[str, float] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._failures: dict[str, str] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self.is_stopping = False
        directory.listen(self._note)
        if plan.is_isolated and isinstance(models, ModelCoordinator):
            models.keep_apart(self.owner_of, self.home)

    def owner_of(self, engine: str) -> str:
        """The principal whose engine it is, where each has one of its own; empty is nobody's."""
        return self._owners.get(engine, "").removeprefix(_ONE_SESSION)

    @property
    def sessions(self) -> int:
        """How many there are, as far as is known."""
        return sum(entry.load.sessions + entry.load.placed for entry in self._directory.engines.values())

    def stop(self) -> None:
        """Start no more engines, and leave none half started."""
        self.is_stopping = True
        for engine in self._starting:
            self._fleet.end(engine, "the server is stopping")

    @contextlib.asynccontextmanager
    async def session(self, principal: str, device: str) -> Any:
        """The engine for a new session of a principal, which counts as there from now on, and no more if this fails.

        Raises: InvalidArgument for a device that is not there, Exhausted.
        """
        async with self._limits.opening(principal), self._placed(principal, device) as entry:
            yield entry

    @contextlib.asynccontextmanager
    async def _placed(self, principal: str, device: str) -> Any:
        if self.sessions >= self._config.max_sessions:
            raise Exhausted(
                f"{self.sessions} sessions are open, which is the limit; close one, or retry later", retry_after_s="1"
            )
        if not self._is_isolated:
            # An engine that has just begun is brought its models first, where another one has them.
            entries = self._directory.engines.values()
            ready = [entry.load for entry in entries if self._models.is_welcomed(entry)]
            fits = any(load.takes_sessions and placement.fits(load.device, device) for load in ready)
            entry = self._entry(placement.choose(ready if fits else self._loads(), device).engine)
        elif self._config.isolation == "session":
            entry = await self._own(_ONE_SESSION + principal, device)
        else:
            entry = await self._of_principal(principal, device)
        entry.load.placed += 1
        try:
            await self._models.welcomed(entry)
            yield entry
        except BaseException:
            entry.load.placed -= 1
            raise

    async def home(self, principal: str) -> Entry:
        """The engine of a principal's callers who have no session. Raises: Exhausted."""
        if self._is_isolated:
            return await self._of_principal(principal, "")
        return self._entry(placement.home(self._directory.engines, principal))

    async def watch(self) -> None:
        """Ask engines how much they have to do, and have as many ready as is wanted, for ever."""
        while True:
            self._limits.accounts.look()
            self._keep_spares()
            # Those of other hosts are asked by the front there, which tells.
            here = [entry for entry in self._directory.engines.values() if entry.info.node == self._fleet.node]
            await asyncio.gather(*(self._ask(entry) for entry in here))
            self._end_idle()
            await asyncio.sleep(_POLL_S)

    # --- engines of one's own ---

    async def _of_principal(self, principal: str, device: str) -> Entry:
        lock = self._locks.get(principal)
        if lock is None:
            lock = self._locks[principal] = asyncio.Lock()
        async with lock:
            for engine, owner in self._owners.items():
                entry = self._directory.engines.get(engine)
                if owner == principal and entry is not None and placement.fits(entry.info.device, device):
                    return entry
            return await self._own(principal, device)

    async def _own(self, owner: str, device: str) -> Entry:
        """An engine that nobody has had before."""
        serving = {load.engine: load.device for load in self._loads()}
        # One that serves, or one that is about to.
        spares = (
            engine
            for engine, its in {**serving, **self._starting}.items()
            if engine not in self._owners and placement.fits(its, device)
        )
        engine = next(spares, "") or self._start(device)
        self._owners[engine] = owner
        if engine not in serving:
            await self._started(engine)
        self._keep_spares()
        entry = self._entry(engine)
        self._used[engine] = time.monotonic()
        # So that a front that comes after this one knows.
        await self._channels.ask(entry, f"/{SERVICE}/Own", owner.encode(), timeout_s=_START_TIMEOUT_S)
        if isinstance(self._models, ModelCoordinator):
            await self._models.owned(entry, self.owner_of(engine))
        return entry

    def _start(self, device: str) -> str:
        if self.is_stopping:
            raise Exhausted("the server is stopping; retry later", retry_after_s="1")
        most, known = self._plan.most, len(self._directory.engines) + len(self._starting)
        if most and known >= most and not self._end_one_idle():
            raise Exhausted(
                f"{known} engines are in use, which is the limit; close a session, or retry later", retry_after_s="1"
            )
        on = [load.device for load in self._loads()] + list(self._starting.values())
        devices = [each for each in self._plan.devices if placement.fits(each, device)]
        if not devices:
            has = ", ".join(self._plan.devices)
            raise placement.no_device(device, has)
        chosen = min(devices, key=on.count)
        engine = secrets.token_hex(4)
        self._fleet.launch(self._plan.launch(engine, chosen))
        self._starting[engine] = chosen
        return engine

    async def _started(self, engine: str) -> None:
        """Wait for an engine. Raises: ServerError if it does not come."""
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while engine not in self._directory.engines:
                    if (cause := self._failures.pop(engine, None)) is not None:
                        raise ServerError(f"an engine could not be started: {cause}", reason="ENGINE_FAILED")
                    await self._directory.changed()
        except TimeoutError:
            self._fleet.end(engine, "it took too long to start")
            raise ServerError(
                f"an engine did not start within {_START_TIMEOUT_S:.0f} s", reason="ENGINE_FAILED"
            ) from None

    def _keep_spares(self) -> None:
        if not self._is_isolated or self.is_stopping:
            return
        there = [*self._directory.engines, *self._starting]
        free = sum(1 for engine in there if engine not in self._owners)
        most = self._plan.most or len(there) + self._config.spare_engines
        for _ in range(min(self._config.spare_engines - free, most - len(there))):
            try:
                self._start("")
            except ServerError as error:
                log.warning("no engine is kept ready", extra={"cause": error.message})
                return

    def _end_idle(self) -> None:
        """End engines whose principal has gone: all that have held a session alone, others but for a few."""
        idle = list(self._idle())
        if self._config.isolation == "principal":
            idle = idle[: max(0, len(idle) - self._config.spare_engines)]
        for engine in idle:
            self._end(engine)

    def _end_one_idle(self) -> bool:
        for engine in self._idle():
            self._end(engine)
            return True
        return False

    def _idle(self) -> Iterator[str]:
        """Engines that somebody had and nobody uses, those first that have rested longest."""
        for engine in sorted(self._owners, key=lambda engine: self._used.get(engine, 0.0)):
            entry = self._directory.engines.get(engine)
            if entry is None:
                continue
            if entry.load.sessions or entry.load.placed:
                self._used[engine] = time.monotonic()
            elif time.monotonic() - self._used.get(engine, 0.0) > _POLL_S:
                yield engine

    def _end(self, engine: str) -> None:
        # At once: it is to get no session between now and its end.
        self._directory.engines[engine].load.takes_sessions = False
        self._owners[engine] = ""
        task = asyncio.get_running_loop().create_task(self._end_now(self._directory.engines[engine]))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end_now(self, entry: Entry) -> None:
        # What it alone has outlives it.
        await self._models.leave(entry)
        self._fleet.end(entry.info.engine, "nobody used it")

    # --- what engines say ---

    async def _ask(self, entry: Entry) -> None:
        placed, elsewhere = entry.load.placed, self._limits.elsewhere(entry)
        try:
            answer = await self._channels.ask(entry, f"/{SERVICE}/Load", elsewhere, timeout_s=_POLL_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            # It is in a call that lets nothing else run, or about to be found dead.
            return
        told = json.loads(answer)
        self._take(entry, told, placed)
        self._fleet.tell(Told(entry.info.engine, entry.info.boot_id, told))

    def _take(self, entry: Entry, told: dict[str, Any], placed: int) -> None:
        """Note what an engine says; it knows of so many sessions that were placed there."""
        entry.told = told
        entry.load.sessions = told["sessions"]
        entry.load.placed -= min(placed, entry.load.placed)
        entry.load.free_bytes = next((each["free"] for each in told["devices"] if each["name"] == told["device"]), 0)
        if self._is_isolated and told["owner"]:
            self._owners.setdefault(entry.info.engine, told["owner"])

    def _note(self, event: Event) -> None:
        engine = event.engine
        if isinstance(event, Serving):
            self._starting.pop(engine, None)
        elif isinstance(event, Ended):
            if self._starting.pop(engine, None) is not None and not event.comes_again:
                self._failures[engine] = event.cause
            if not event.comes_again:
                self._owners.pop(engine, None)
                self._used.pop(engine, None)
                self._plan.release(engine)
        elif isinstance(event, Told):
            entry = self._directory.of_boot(event.boot_id)
            if entry is not None and entry.info.node != self._fleet.node:
                self._take(entry, event.said, entry.load.placed)

    def _loads(self) -> list[placement.Load]:
        return [entry.load for entry in self._directory.engines.values()]

    def _entry(self, engine: str) -> Entry:
        entry = self._directory.engines.get(engine)
        if entry is None:
            raise Exhausted("the engine has just ended; retry later", retry_after_s="0.1")
        return entry
