"""The address of many engines: its front opens sessions on them, and forwards for who does not go there directly.

Never imports torch. Engines outlive this process; the one that comes after it finds them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING

import grpc

from tserver import audit
from tserver.engines.directory import Directory
from tserver.engines.fleet import Draining
from tserver.engines.plan import Plan
from tserver.engines.watchdog import TICK_S, Watchdog
from tserver.front import authentication, listeners
from tserver.front.binding import SERVICES, bind
from tserver.front.engine_channels import EngineChannels
from tserver.front.forwarding import forwarding_handlers
from tserver.front.health import Health
from tserver.front.house_limits import HouseLimits
from tserver.front.house_tensors import HouseTensors
from tserver.front.interceptor import Interceptor
from tserver.front.oip.listener import OipListener
from tserver.front.oip.routes import InferenceRoutes
from tserver.front.oip.service import Service
from tserver.front.placing import Placing
from tserver.front.replicas.choosing import Choosing
from tserver.front.replicas.cluster import ClusterModels
from tserver.front.replicas.coordinator import ModelCoordinator
from tserver.front.replicas.inference import HouseInference
from tserver.front.replicas.links import Links
from tserver.front.replicas.records import Record
from tserver.front.replicas.servicer import HouseModels
from tserver.front.router import Router
from tserver.front.rpc_counts import RpcCounts
from tserver.front.running import end_at_once, loop_factory, quiet_collector, take_files, until_told_to_stop

if TYPE_CHECKING:
    from tserver.config import Config
    from tserver.engines.directory import Entry
    from tserver.engines.fleet import Event, Fleet
    from tserver.front.http.listener import HttpListener

log = logging.getLogger("tserver")

_TENSORS, _MODELS, _STORAGE = SERVICES
# How long the engines that a house begins with may take.
_START_TIMEOUT_S = 120.0


def serve(
    config: Config, fleet: Fleet, *, cause_file: str = "", previous_end: str = "", beats: int | None = None
) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. `previous_end` is why the run of the house before this one ended,
    and `beats` a pipe that is written to while this process goes on.

    Raises: ServerError for settings that cannot be, OSError where an address cannot be listened on.
    """
    take_files()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_Front(config, fleet, cause_file, previous_end, beats).run())


class _Front:
    def __init__(self, config: Config, fleet: Fleet, cause_file: str, previous_end: str, beats: int | None) -> None:
        self._config = config
        self._fleet = fleet
        self._cause_file = cause_file
        self._beats = beats
        self._directory = Directory(previous_end, keeps_sessions=config.checkpoint_on_drain)
        self._leaving: set[asyncio.Task[None]] = set()
        self._ticks = 0

    async def run(self) -> int:
        config, directory, fleet = self._config, self._directory, self._fleet
        loop = asyncio.get_running_loop()
        authenticator = authentication.of(config)
        watchdog = Watchdog(self, config.hang_s, on_hang=self._fatal, beats=self._beats)
        ticking = asyncio.create_task(self._tick())
        watchdog.start()
        await fleet.start(directory.note)
        plan = Plan(config, fleet.key, fleet.node)
        channels = EngineChannels(directory, fleet)
        limits = HouseLimits(config, directory, channels)
        links = Links(lambda entry: channels.target(entry).channel, fleet.key, config.max_message_bytes)

        async def lead(coordinator: ModelCoordinator) -> grpc.aio.Server:
            """Have other fronts reach the models, which this one keeps for all."""
            within = grpc.aio.server(
                options=listeners.options(config.max_message_bytes),
                interceptors=[Interceptor(None, key=fleet.key, authenticator=authenticator)],
            )
            choosing = Choosing(coordinator)
            servicer = HouseModels(coordinator, choosing, directory, placing.home, router.of_session)
            within.add_generic_rpc_handlers((bind(_MODELS, servicer),))
            listeners.listen_within(within, fleet.internal)
            await within.start()
            return within

        def coordinator() -> ModelCoordinator:
            return ModelCoordinator(config, directory, links, accounts=limits.accounts)

        models = ClusterModels(fleet, coordinator, lead) if plan.is_of_cluster else coordinator()
        placing = Placing(config, directory, fleet, plan, channels, models, limits)
        router = Router(config, directory, placing, channels)
        await models.start()
        rpcs = RpcCounts() if config.metrics_listen or config.http_listen else None
        interceptor = Interceptor(
            rpcs,
            key=fleet.key,
            authenticator=authenticator,
            accounts=limits.accounts,
            audit=audit.of(config.audit_log),
        )
        server = grpc.aio.server(options=listeners.options(config.max_message_bytes), interceptors=[interceptor])

        def kept() -> list[Record]:
            """The models that this front keeps, which is one of those of a cluster."""
            return [] if isinstance(models, ClusterModels) else models.records.index()

        own = HouseTensors(config, directory, plan, placing, channels, router, limits, kept)
        health = Health(server, [each.full_name for each in SERVICES])
        # What comes first is asked first.
        forwarded = forwarding_handlers((_TENSORS, _STORAGE), router.choose)
        service: Service | None = None
        if isinstance(models, ClusterModels):
            bound = forwarding_handlers((_MODELS,), models.choose)
            directory.listen(partial(self._note, models))
        else:
            choosing = Choosing(models)
            bound = (bind(_MODELS, HouseModels(models, choosing, directory, placing.home, router.of_session)),)
            service = Service(config, HouseInference(models, choosing), health)
        server.add_generic_rpc_handlers((bind(_TENSORS, own, only=HouseTensors.OWN), *forwarded, *bound))
        address = listeners.listen(server, "--listen", config.listen, config)
        listeners.listen_within(server, plan.front)
        oip = OipListener(config, service, interceptor) if config.oip_listen and service is not None else None
        watching = asyncio.gather(placing.watch(), interceptor.opened.watch())
        stopped = asyncio.create_task(until_told_to_stop())
        if not await self._begin(plan, models, stopped):
            return 1
        # Told before the main address: who waits for that one then knows all of them.
        https = [] if rpcs is None else await self._serve_http(channels, interceptor, rpcs, service)
        if oip is not None:
            print(f"oip listening on {await oip.start()}", flush=True)
        await server.start()
        await health.say_serving()
        telling = asyncio.create_task(self._tell(health, plan))
        quiet_collector()
        print(f"listening on {address}", flush=True)
        log.info("serving", extra={"address": address, "engines": len(directory.engines)})
        await stopped
        stop_by = loop.time() + config.drain_s
        log.info("stopping", extra={"sessions": placing.sessions})
        telling.cancel()
        await health.say_stopping()
        if oip is not None:
            await oip.drain()
        placing.stop()
        models.rest()
        if not plan.is_of_cluster:
            await self._end_engines(stop_by)
        also = [] if oip is None else [oip.stop(grace_s=1.0)]
        await asyncio.gather(server.stop(grace=1.0), *also, *(each.stop(grace_s=1.0) for each in https))
        watching.cancel()
        ticking.cancel()
        watchdog.stop()
        models.stop()
        if isinstance(models, ClusterModels):
            await models.close()
        await channels.close()
        await fleet.stop()
        log.info("stopped")
        return 0

    # --- engines ---

    async def _begin(self, plan: Plan, models: ModelCoordinator | ClusterModels, stopped: asyncio.Task[None]) -> bool:
        """Have the first engines, and wait for them and their models; whether they are all there."""
        loop, first = asyncio.get_running_loop(), plan.first
        for engine, device in first:
            # Those that were there already are not started again.
            self._fleet.launch(plan.launch(engine, device))
        serving = loop.create_task(self._serving({engine for engine, _ in first}))
        await asyncio.wait({serving, stopped}, timeout=_START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        if serving.done() and not (cause := serving.result()):
            entries = [self._directory.engines[engine] for engine, _ in first if engine in self._directory.engines]
            welcomed = loop.create_task(_all_welcomed(models, entries))
            await asyncio.wait({welcomed, stopped}, return_when=asyncio.FIRST_COMPLETED)
            welcomed.cancel()
            return True
        if not stopped.done():
            cause = cause if serving.done() else f"it takes longer than {_START_TIMEOUT_S:.0f} s"
            print(f"tserver: an engine could not be started: {cause}", file=sys.stderr)
        return False

    async def _serving(self, wanted: set[str]) -> str:
        """Wait until these serve, or one ends; then why."""
        while not wanted <= self._directory.engines.keys():
            for engine in wanted:
                if engine in self._directory.waiting:
                    return self._directory.waiting[engine]
            await self._directory.changed()
        return ""

    async def _end_engines(self, stop_by: float) -> None:
        """End all engines: each drains by itself."""
        for engine in [*self._directory.engines, *self._directory.waiting]:
            self._fleet.end(engine, "the server is stopping")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(stop_by):
                while self._directory.engines:
                    await self._directory.changed()

    def _note(self, models: ClusterModels, event: Event) -> None:
        """The host of an engine is drained: its models are to be elsewhere before it ends."""
        if isinstance(event, Draining) and (entry := self._directory.engines.get(event.engine)) is not None:
            task = asyncio.get_running_loop().create_task(models.leave(entry))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    # --- what is told ---

    async def _tell(self, health: Health, plan: Plan) -> None:
        """Say whether the house serves: while one engine does, or while they are made for who comes."""
        while True:
            if self._directory.engines or plan.is_isolated:
                await health.say_serving()
            else:
                await health.say_stalled()
            await self._directory.changed()

    async def _serve_http(
        self, channels: EngineChannels, interceptor: Interceptor, rpcs: RpcCounts, service: Service | None
    ) -> list[HttpListener]:
        # Who serves no HTTP may lack aiohttp and prometheus_client.
        from tserver.front.house_metrics import HouseMetrics
        from tserver.front.http.listener import listen_as_wanted
        from tserver.front.page.house_page import HousePage
        from tserver.front.page.routes import PageRoutes

        metrics = HouseMetrics(self._directory, channels, rpcs, self._config.data_dir).routes()
        inference = [] if service is None else InferenceRoutes(self._config, service).routes()
        page = PageRoutes(HousePage(self._directory, channels, rpcs)).routes()
        return await listen_as_wanted(self._config, interceptor.http, metrics, [*inference, *page])

    # --- going on ---

    def progress(self) -> object:
        """See Watched: the event loop goes on."""
        return self._ticks

    def at_work(self) -> str:
        """See Watched."""
        return "the event loop of the front"

    async def _tick(self) -> None:
        while True:
            self._ticks += 1
            await asyncio.sleep(TICK_S / 4)

    def _fatal(self, cause: str) -> None:
        end_at_once(cause, self._cause_file)


async def _all_welcomed(models: ModelCoordinator | ClusterModels, entries: list[Entry]) -> None:
    for entry in entries:
        await models.welcomed(entry)
