"""What gRPC's companion packages add to a server: health checks and reflection.

A server does without what is not installed: a GPU host may have only what torch and gRPC bring.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterable
from typing import Any

import grpc

log = logging.getLogger("tserver.front")


class Health:
    """The health of the services of a server, for who asks."""

    def __init__(self, server: grpc.aio.Server, services: Iterable[str]) -> None:
        """Answer for these services, by their full names, and let callers list them."""
        # For who asks otherwise than by gRPC.
        self.is_serving = self._is_over = False
        # All of them, and the server itself.
        self._names = ("", *services)
        self._servicer: Any = None
        self._pb2: Any = None
        listed = list(self._names[1:])
        try:
            from grpc_health.v1 import health_pb2
            from grpc_health.v1._async import HealthServicer
            from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
        except ImportError:
            log.warning("no health checks: grpcio-health-checking is not installed")
        else:
            self._pb2 = health_pb2
            self._servicer = HealthServicer()
            add_HealthServicer_to_server(self._servicer, server)
            listed.append(health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        try:
            from grpc_reflection.v1alpha import reflection
        except ImportError:
            log.warning("no reflection: grpcio-reflection is not installed")
        else:
            reflection.enable_server_reflection((*listed, reflection.SERVICE_NAME), server)
            with contextlib.suppress(ImportError):
                # Then it describes the details of errors, too.
                importlib.import_module("google.rpc.error_details_pb2")

    async def say_serving(self) -> None:
        """From now on all services serve."""
        await self._say("SERVING")

    async def say_stalled(self) -> None:
        """From now on none does, until the engine goes on."""
        await self._say("NOT_SERVING")

    async def _say(self, status: str) -> None:
        if self._is_over:
            return
        self.is_serving = status == "SERVING"
        if self._servicer is not None:
            for name in self._names:
                await self._servicer.set(name, self._pb2.HealthCheckResponse.ServingStatus.Value(status))

    async def say_stopping(self) -> None:
        """From now on none does, for good."""
        self._is_over, self.is_serving = True, False
        if self._servicer is not None:
            await self._servicer.enter_graceful_shutdown()
