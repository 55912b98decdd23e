"""The process that serves: engine, sessions and gRPC put together, started, drained and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from tensorcompute.v1 import model_service_pb2, tensor_service_pb2
from tserver.config import Config
from tserver.engine.engine import Engine
from tserver.engine.models import ModelDoor
from tserver.engine.models.door import restore
from tserver.engine.models.store import Store
from tserver.service.binding import bind
from tserver.service.model_service import ModelServicer
from tserver.service.tensor_service import TensorServicer
from tserver.session.registry import Sessions

log = logging.getLogger("tserver")

# What the supervisor takes as "start me again": the device is lost, the process is of no more use.
EXIT_DEVICE_FAILED = 75
_SERVICES = tuple(
    pb2.DESCRIPTOR.services_by_name[name]
    for pb2, name in ((tensor_service_pb2, "TensorService"), (model_service_pb2, "ModelService"))
)


def serve(config: Config, *, port: int, previous_end: str, cause_file: str) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. `port` replaces the port of config.listen."""
    return asyncio.run(_Process(config, port, previous_end, cause_file).run())


class _Process:
    def __init__(self, config: Config, port: int, previous_end: str, cause_file: str) -> None:
        self._config = config
        self._port = port
        self._previous_end = previous_end
        self._cause_file = cause_file

    async def run(self) -> int:
        config = self._config
        engine = Engine(config, on_fatal=self._fatal)
        sessions = Sessions(config, engine, previous_end=self._previous_end)
        disk = Store(Path(config.data_dir)) if config.data_dir else None
        if disk is not None:
            restore(engine.models, disk)
        server = grpc.aio.server(options=_options(config))
        servicers = (
            TensorServicer(config, engine, sessions, engine.torch_version),
            ModelServicer(config, ModelDoor(engine, disk, config.model_dir), sessions),
        )
        server.add_generic_rpc_handlers(
            tuple(bind(service, servicer) for service, servicer in zip(_SERVICES, servicers, strict=True))
        )
        health = HealthServicer()
        add_HealthServicer_to_server(health, server)
        names = [service.full_name for service in _SERVICES]
        reflection.enable_server_reflection(
            (*names, reflection.SERVICE_NAME, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name), server
        )
        host = config.listen.rsplit(":", 1)[0]
        address = f"{host}:{self._port}"
        bound = _bind_port(server, address, config)
        engine.start()
        await server.start()
        for name in ("", *names):
            await health.set(name, health_pb2.HealthCheckResponse.SERVING)
        print(f"listening on {host}:{bound}", flush=True)
        log.info(
            "serving", extra={"address": f"{host}:{bound}", "device": str(engine.device), "boot_id": sessions.boot_id}
        )
        expiring = asyncio.create_task(sessions.expire())
        await _until_told_to_stop()
        log.info("stopping", extra={"sessions": len(sessions)})
        await health.enter_graceful_shutdown()
        await sessions.drain(config.drain_s)
        expiring.cancel()
        await server.stop(grace=1.0)
        engine.stop()
        log.info("stopped")
        return 0

    def _fatal(self, cause: str) -> None:
        """The engine cannot go on: leave the cause for the next boot, and end at once."""
        log.critical("%s", cause)
        if self._cause_file:
            with contextlib.suppress(OSError):
                Path(self._cause_file).write_text(cause)
        logging.shutdown()
        sys.stderr.flush()
        os._exit(EXIT_DEVICE_FAILED)


def _options(config: Config) -> list[tuple[str, int]]:
    return [
        # Two servers on one port would share its connections silently.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # The client pings an idle connection every 30 s; allow that, or gRPC's default strikes it off.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.max_metadata_size", 16 << 10),
    ]


def _bind_port(server: grpc.aio.Server, address: str, config: Config) -> int:
    if config.tls_cert:
        pair = (Path(config.tls_key).read_bytes(), Path(config.tls_cert).read_bytes())
        return server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    return server.add_insecure_port(address)


async def _until_told_to_stop() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
