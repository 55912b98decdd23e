"""The address: listeners and services before an engine, started, drained and stopped. One for each process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from tserver import audit
from tserver.config import Config
from tserver.front import authentication, listeners
from tserver.front.binding import SERVICES, bind
from tserver.front.data_endpoint import DataEndpoint, wanted_address
from tserver.front.health import Health
from tserver.front.house_service import HouseService
from tserver.front.interceptor import Interceptor
from tserver.front.model_service import ModelServicer
from tserver.front.oip.listener import OipListener
from tserver.front.oip.routes import InferenceRoutes
from tserver.front.oip.service import Service
from tserver.front.replicas.elsewhere import Elsewhere
from tserver.front.replicas.service import ReplicaService
from tserver.front.rpc_counts import RpcCounts
from tserver.front.running import end_at_once, loop_factory, quiet_collector, take_files, until_told_to_stop
from tserver.front.storage_service import StorageServicer
from tserver.front.tensor_service import TensorServicer

if TYPE_CHECKING:
    from tserver.engines.house import House
    from tserver.engines.port import Engine
    from tserver.front.http.listener import HttpListener

log = logging.getLogger("tserver")


def serve(
    config: Config,
    make_engine: Callable[[Callable[[str], None]], Engine],
    *,
    cause_file: str,
    house: House | None = None,
    report: Callable[[str, str], None] | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; the exit code.

    The engine is made on the event loop, and given what to call with the cause when it cannot go on. One of a house
    listens for the front too, and has `report` called with its boot id and address in the place of printing it.
    """
    take_files()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_Process(config, make_engine, cause_file, house, report).run())


def handlers(
    config: Config, engine: Engine, house: House | None = None
) -> tuple[TensorServicer, tuple[grpc.GenericRpcHandler, ...]]:
    """The RPCs of the main listener, and the servicer that is to be told of a data endpoint."""
    elsewhere = None if house is None else Elsewhere(house)
    engine.models.registry.elsewhere = elsewhere
    tensors = TensorServicer(config, engine, elsewhere, "" if house is None else house.key)
    servicers = (tensors, ModelServicer(config, engine, elsewhere), StorageServicer(engine))
    bound = tuple(bind(service, servicer) for service, servicer in zip(SERVICES, servicers, strict=True))
    return tensors, bound if elsewhere is None else (*bound, ReplicaService(engine, elsewhere).handler())


class _Process:
    def __init__(
        self,
        config: Config,
        make_engine: Callable[[Callable[[str], None]], Engine],
        cause_file: str,
        house: House | None,
        report: Callable[[str, str], None] | None,
    ) -> None:
        self._config = config
        self._house = house
        self._report = report
        self._make_engine = make_engine
        self._cause_file = cause_file

    async def run(self) -> int:
        config = self._config
        engine = self._make_engine(self._fatal)
        sessions = engine.sessions
        rpcs = RpcCounts() if config.metrics_listen or config.http_listen else None
        house = self._house
        key = house.key if house is not None else ""
        audit_log = audit.of(config.audit_log)
        interceptor = Interceptor(
            rpcs,
            key=key,
            authenticator=authentication.of(config),
            accounts=engine.accounts,
            audit=audit_log,
        )
        server = grpc.aio.server(options=listeners.options(config.max_message_bytes), interceptors=[interceptor])
        tensors, bound = handlers(config, engine, house)
        server.add_generic_rpc_handlers(bound)
        health = Health(server, [service.full_name for service in SERVICES])
        address = listeners.listen(server, "--listen", config.listen, config)
        if house is not None:
            server.add_generic_rpc_handlers((HouseService(engine, rpcs).handler(),))
            listeners.listen_within(server, house.internal)
        engine.start()
        data = tensors.data_endpoint = DataEndpoint(config, wanted_address(config), interceptor.opened, audit_log)
        service = Service(config, engine.models, health)
        # Told before the main address: who waits for that one then knows all of them.
        oip = None
        if config.oip_listen and house is None:
            oip = OipListener(config, service, interceptor)
            print(f"oip listening on {await oip.start()}", flush=True)
        https = [] if rpcs is None or house is not None else await self._serve_http(engine, service, interceptor, rpcs)
        # Who is told of the address may have this process stop at once.
        stopped = asyncio.create_task(until_told_to_stop())
        await server.start()
        await health.say_serving()
        loop = asyncio.get_running_loop()
        engine.watch(lambda stalled: _tell(loop, health, stalled=stalled))
        quiet_collector()
        if self._report is not None:
            self._report(sessions.boot_id, address)
        else:
            print(f"listening on {address}", flush=True)
        log.info(
            "serving",
            extra={
                "address": address,
                "data": data.address,
                "device": engine.device,
                "boot_id": sessions.boot_id,
            },
        )
        expiring = asyncio.create_task(sessions.expire())
        watching = asyncio.create_task(interceptor.opened.watch())
        await stopped
        stop_by = loop.time() + config.drain_s
        engine.stop_watching()
        log.info("stopping", extra={"sessions": len(sessions)})
        await health.say_stopping()
        if oip is not None:
            await oip.drain()
        await sessions.drain(config.drain_s)
        await engine.storage_calls.idle(stop_by - loop.time())
        expiring.cancel()
        watching.cancel()
        also = [*([] if oip is None else [oip.stop(grace_s=1.0)]), *(each.stop(grace_s=1.0) for each in https)]
        await asyncio.gather(server.stop(grace=1.0), *also)
        data.stop()
        if under_way := engine.stop(max(0.1, stop_by - loop.time())):
            # A kernel cannot be interrupted, and Python does not end in an orderly way beside one.
            log.warning("stopped within a call", extra={"call": under_way})
            logging.shutdown()
            os._exit(0)
        log.info("stopped")
        return 0

    async def _serve_http(
        self, engine: Engine, service: Service, interceptor: Interceptor, rpcs: RpcCounts
    ) -> list[HttpListener]:
        """Listen for HTTP where that is wanted."""
        # Who serves no HTTP may lack aiohttp and prometheus_client, which nothing else needs.
        from tserver.front.http.listener import listen_as_wanted
        from tserver.front.metrics import Metrics
        from tserver.front.page.engine_page import EnginePage
        from tserver.front.page.routes import PageRoutes

        metrics = Metrics(engine, rpcs, self._config.data_dir).routes()
        more = [*InferenceRoutes(self._config, service).routes(), *PageRoutes(EnginePage(engine, rpcs)).routes()]
        return await listen_as_wanted(self._config, interceptor.http, metrics, more)

    def _fatal(self, cause: str) -> None:
        """The engine cannot go on."""
        end_at_once(cause, self._cause_file)


def _tell(loop: asyncio.AbstractEventLoop, health: Health, *, stalled: bool) -> None:
    """From the watchdog's thread: who balances load is to send it elsewhere while the engine does not answer."""
    with contextlib.suppress(RuntimeError):
        asyncio.run_coroutine_threadsafe(health.say_stalled() if stalled else health.say_serving(), loop)
