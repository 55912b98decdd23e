"""The gRPC server that the protocol is on: a port of its own, since its clients send larger messages than ours."""

from __future__ import annotations

import grpc

from tensorcompute.oip import inference_pb2 as oip
from tserver.config import Config
from tserver.front import listeners
from tserver.front.binding import bind
from tserver.front.health import Health
from tserver.front.interceptor import Interceptor
from tserver.front.oip.gate import Gate, max_message_bytes
from tserver.front.oip.service import Service
from tserver.front.oip.servicer import InferenceServicer

SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
# They read and write bytes: see `wire`.
_PART_OF_FILES = 0.2
BY_BYTES = frozenset({"ModelInfer", "ModelStreamInfer"})


class OipListener:
    """The listener of one server."""

    def __init__(self, config: Config, service: Service, interceptor: Interceptor) -> None:
        self._config = config
        self._server = grpc.aio.server(
            options=listeners.options(max_message_bytes(config), _PART_OF_FILES), interceptors=[interceptor]
        )
        self._health = Health(self._server, [SERVICE.full_name])
        servicer = InferenceServicer(service)
        # What comes first is asked first.
        gated = grpc.method_handlers_generic_handler(SERVICE.full_name, Gate(servicer, config).handlers())
        self._server.add_generic_rpc_handlers((gated, bind(SERVICE, servicer, BY_BYTES)))

    async def start(self) -> str:
        """Listen; the address. Raises: ValueError, OSError where that cannot be."""
        server = self._server
        address = listeners.listen(server, "--oip-listen", self._config.oip_listen, self._config)
        await server.start()
        await self._health.say_serving()
        return address

    async def drain(self) -> None:
        """Say that no more requests are wanted; those that come are answered still."""
        await self._health.say_stopping()

    async def stop(self, grace_s: float) -> None:
        """End, once the requests under way are answered or the time is up."""
        await self._server.stop(grace_s)
