"""The actors themselves: what Ray starts, and starts again on another host if need be. Each is thin over its part.

Imports Ray, and is imported only where that is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tserver import __version__, logs
from tserver.cluster import keepers
from tserver.cluster.known import Known, Message, News
from tserver.cluster.spec import DIRECTORY, NAMESPACE, Spec

_TICK_S = 0.5
# How long a watcher's question waits for news.
_NEWS_S = 1.0
# How long the directory is waited for.
_TIMEOUT_S = 5.0


class DirectoryActor:
    """Which engines serve where. It is also what has a front on each host."""

    def __init__(self, message: dict[str, Any]) -> None:
        self._spec = Spec.of(message)
        self._message = message
        self._known = Known()
        self._changed = asyncio.Event()
        # The nodes that were given a front.
        self._had_fronts: set[str] = set()
        self._nodes: list[dict[str, Any]] = []
        self._ticking: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def begin(self) -> None:
        """Begin, unless that was done; whoever calls it first after it was started again does that."""
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick())

    async def spec(self) -> dict[str, Any]:
        """What the cluster is to be."""
        return self._message

    async def serving(self, message: Message) -> None:
        """See keepers.Directory."""
        await self.begin()
        self._known.serving(message, time.monotonic())
        self._wake()

    async def beat(self, engine: str, boot_id: str) -> bool:
        """See keepers.Directory."""
        await self.begin()
        return self._known.beat(engine, boot_id, time.monotonic())

    async def ended(self, message: Message) -> None:
        """See keepers.Directory."""
        self._known.ended(message)
        self._wake()

    async def last_end(self, engine: str) -> str:
        """See keepers.Directory."""
        return self._known.last_end(engine)

    async def front(self, node: str, address: str, internal: str, leads: bool, told: list[Message]) -> None:
        """See keepers.Directory."""
        await self.begin()
        before = self._known.version
        self._known.front(node, address, internal, time.monotonic(), leads=leads)
        self._known.told(told)
        self._wake_after(before)

    async def left(self, engine: str) -> None:
        """See keepers.Directory."""
        self._known.left.add(engine)

    async def news(self, run: str, version: int, told_version: int) -> News:
        """See keepers.Directory."""
        await self.begin()
        news = self._known.since(run, version, told_version)
        if not news.is_all and not news.messages:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _NEWS_S)
            news = self._known.since(run, version, told_version)
        return news

    async def drain(self, node: str, cause: str) -> list[str]:
        """Have a node take no new sessions; the engines there."""
        there = self._known.drain(node, cause)
        self._wake()
        return there

    async def forget(self, node: str) -> None:
        """The front of a node is to be no more."""
        self._known.forget(node)

    async def status(self) -> dict[str, Any]:
        """What is known."""
        engines = [known.serving for known in self._known.engines.values()]
        fronts = {node: front.address for node, front in self._known.fronts.items() if front.address}
        told: dict[str, Any] = {"fronts": fronts, "leader": self._known.leader, "engines": engines}
        told["left"] = sorted(self._known.left)
        return {**told, "draining": self._known.draining, "nodes": self._nodes}

    async def stop(self) -> None:
        """Have no more fronts."""
        self._is_stopping = True

    async def _tick(self) -> None:
        while True:
            before = self._known.version
            self._known.silence(time.monotonic())
            self._wake_after(before)
            with contextlib.suppress(RayError):
                self._nodes = await asyncio.to_thread(_nodes)
                alive = {node["id"] for node in self._nodes}
                if not self._is_stopping:
                    # Where there is one, Ray keeps it going.
                    wanted = alive - self._known.draining.keys() - self._had_fronts
                    await asyncio.to_thread(have_fronts, self._message, wanted)
                    self._had_fronts |= wanted
            await asyncio.sleep(_TICK_S)

    def _wake_after(self, version: int) -> None:
        if self._known.version != version:
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class EngineActor:
    """An engine, wherever Ray has put it."""

    def __init__(self, engine: str, message: dict[str, Any]) -> None:
        spec = _begin(message)
        node, node_ip = _here()
        self._keeper = keepers.EngineKeeper(engine, spec, _Directory(), node, node_ip)
        self._keeper.start()

    def stop(self, cause: str) -> None:
        """End it for good; returns when that is done."""
        self._keeper.stop(cause)
        self._keeper.join()

    def where(self) -> tuple[str, int]:
        """The node, and the process id of the actor."""
        return ray.get_runtime_context().get_node_id(), os.getpid()


class FrontActor:
    """The front of a host."""

    def __init__(self, message: dict[str, Any]) -> None:
        spec = _begin(message)
        node, node_ip = _here()
        self._keeper = keepers.FrontKeeper(spec, _Directory(), node, node_ip)
        self._keeper.start()

    def stop(self, cause: str) -> None:
        """End it for good; returns when that is done."""
        self._keeper.stop(cause)
        self._keeper.join()


class _Directory:
    """The directory, by its name: it has one as long as the cluster is up, wherever it runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handle: Any = None

    def serving(self, message: Message) -> None:
        self._ask("serving", message)

    def beat(self, engine: str, boot_id: str) -> bool:
        return bool(self._ask("beat", engine, boot_id))

    def ended(self, message: Message) -> None:
        self._ask("ended", message)

    def last_end(self, engine: str) -> str:
        return str(self._ask("last_end", engine))

    def front(self, node: str, address: str, internal: str, *, leads: bool, told: list[Message]) -> None:
        self._ask("front", node, address, internal, leads, told)

    def left(self, engine: str) -> None:
        self._ask("left", engine)

    def news(self, run: str, version: int, told_version: int) -> News:
        news: News = self._ask("news", run, version, told_version)
        return news

    def _ask(self, method: str, *values: Any) -> Any:
        try:
            with self._lock:
                if self._handle is None:
                    self._handle = ray.get_actor(DIRECTORY, NAMESPACE)
            return ray.get(getattr(self._handle, method).remote(*values), timeout=_TIMEOUT_S)
        except (RayError, ValueError, TimeoutError) as error:
            with self._lock:
                self._handle = None
            raise keepers.Away(str(error)) from error


def have_directory(message: dict[str, Any]) -> Any:
    """The directory, which is started unless there is one."""
    actor = ray.remote(DirectoryActor)
    handle = actor.options(**_named(DIRECTORY), num_cpus=0, max_restarts=-1, max_concurrency=10_000).remote(message)
    ray.get(handle.begin.remote())
    return handle


def have_engine(engine: str, message: dict[str, Any], avoid: list[str]) -> Any:
    """An engine, which Ray starts where there is room for it, unless there is one; not on these nodes."""
    actor = ray.remote(EngineActor)
    where: dict[str, Any] = {"scheduling_strategy": "SPREAD"}
    if avoid:
        where = {"label_selector": {"ray.io/node-id": f"!in({','.join(avoid)})"}}
    options = {**_named(f"engine-{engine}"), **Spec.of(message).resources(), **where, "max_restarts": -1}
    return actor.options(**options).remote(engine, message)


def have_fronts(message: dict[str, Any], nodes: set[str]) -> None:
    """A front on each of these nodes, which Ray starts unless there is one."""
    actor = ray.remote(FrontActor)
    for node in nodes:
        where = NodeAffinitySchedulingStrategy(node, soft=False)
        options = {**_named(f"front-{node}"), "num_cpus": 0, "max_restarts": -1, "scheduling_strategy": where}
        actor.options(**options).remote(message)


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}


def _nodes() -> list[dict[str, Any]]:
    """The nodes that are alive."""
    return [
        {"id": node["NodeID"], "ip": node["NodeManagerAddress"], "name": node["NodeManagerHostname"]}
        for node in ray.nodes()
        if node["Alive"]
    ]


def _here() -> tuple[str, str]:
    return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()


def _begin(message: dict[str, Any]) -> Spec:
    spec = Spec.of(message)
    logs.set_up(spec.config.log_level, spec.config.log_format)
    if spec.version != __version__:
        raise RuntimeError(
            f"this host has tserver {__version__}, and the cluster was started with {spec.version}; install the same "
            "on all hosts"
        )
    return spec
