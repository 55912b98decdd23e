"""What an engine of a house tells its front: how much it has to do, its metrics, and what its page shows.

No part of the contract: processes of one house are of one version. Answers are JSON, or text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.errors import NotFound, SessionLost, Unauthenticated
from tserver.front.rpc import Rpc

if TYPE_CHECKING:
    from tserver.engines.port import Engine
    from tserver.front.rpc_counts import RpcCounts

SERVICE = "tensorcompute.house"
# The answer to what is asked of a session; empty is no.
YES = b"yes"
# How long the engine is waited for, which may be in a long kernel; after that what was known before is told.
_USAGE_TIMEOUT_S = 0.2


class HouseService:
    """The RPCs between a front and this engine."""

    def __init__(self, engine: Engine, rpcs: RpcCounts | None) -> None:
        self._engine = engine
        self._rpcs = rpcs
        # Whose engine this is, where each principal or session has one of its own.
        self._owner = ""
        self._devices: list[ts.DeviceInfo] = []
        # The bytes and the tensors of each principal.
        self._held: dict[str, tuple[int, int]] = {}
        self._metrics: Any = None
        self._page: Any = None

    def handler(self) -> grpc.GenericRpcHandler:
        """What the server is to be given."""
        methods = {
            "Load": self._load,
            "Own": self._own,
            "Sessions": self._sessions,
            "Metrics": self._scrape,
            "HasSession": self._has,
            "BringBack": self._bring_back,
            "Page": self._show,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE, {name: grpc.unary_unary_rpc_method_handler(_within(method)) for name, method in methods.items()}
        )

    async def _load(self, request: bytes, rpc: Rpc) -> bytes:
        devices = [
            {"name": d.name, "description": d.description, "total": d.total_bytes, "free": d.free_bytes}
            | {"allocated": d.allocated_bytes}
            for d in await self._usage()
        ]
        elsewhere = json.loads(request) if request else {}
        for account in self._engine.accounts.all():
            size, tensors = elsewhere.get(account.principal, (0, 0))
            account.elsewhere = size, tensors
        told = {
            "principals": self._principals(),
            "sessions": len(self._engine.sessions),
            "owner": self._owner,
            "device": self._engine.device,
            "torch": self._engine.torch_version,
            "operations": self._engine.operations_digest,
            "devices": devices,
            # Requests that wait for models, of callers who are here too.
            "waiting": {
                f"{served.name}/{served.version}": served.waiting
                for served in self._engine.models.registry.index()
                if served.waiting
            },
        }
        return json.dumps(told).encode()

    async def _own(self, request: bytes, rpc: Rpc) -> bytes:
        self._owner = request.decode()
        return b""

    async def _has(self, request: bytes, rpc: Rpc) -> bytes:
        return YES if self._engine.sessions.has(request, rpc.identity) else b""

    async def _bring_back(self, request: bytes, rpc: Rpc) -> bytes:
        try:
            self._engine.sessions.bring_back(request, rpc.identity)
        except SessionLost:
            return b""
        return YES

    async def _scrape(self, request: bytes, rpc: Rpc) -> bytes:
        if self._rpcs is None:
            return b""
        if self._metrics is None:
            # A GPU host may lack prometheus_client.
            from tserver.front.metrics import Metrics

            self._metrics = Metrics(self._engine, self._rpcs)
        return bytes(await self._metrics.text())

    async def _sessions(self, request: bytes, rpc: Rpc) -> bytes:
        """How many a principal has."""
        return str(self._engine.sessions.by_principal()[request.decode()]).encode()

    def _principals(self) -> dict[str, dict[str, float]]:
        """What each uses of what it may, by the names of the limits."""
        sessions = self._engine.sessions.by_principal()
        found: dict[str, dict[str, float]] = {}
        for account in self._engine.accounts.all():
            name = account.principal
            size, tensors = self._held.get(name, (0, 0))
            used = {"sessions": sessions[name], "device_bytes": size, "tensors": tensors}
            if told := {limit: use for limit, _, use in account.told(used) if use}:
                found[name] = told
        return found

    async def _show(self, request: bytes, rpc: Rpc) -> bytes:
        """What the page shows one caller, of this engine. Raises: as EnginePage.answer."""
        if self._rpcs is None:
            raise NotFound("this engine tells no page anything")
        if self._page is None:
            from tserver.front.page.engine_page import EnginePage

            self._page = EnginePage(self._engine, self._rpcs)
        told = json.loads(request)
        return json.dumps(await self._page.answer(told["what"], told["asked"], rpc.identity)).encode()

    async def _usage(self) -> list[ts.DeviceInfo]:
        asked = asyncio.wrap_future(self._engine.usage())
        with contextlib.suppress(TimeoutError):
            usage = await asyncio.wait_for(asyncio.shield(asked), _USAGE_TIMEOUT_S)
            self._devices, self._held = usage.devices, usage.by_principal
        return self._devices or self._engine.devices()


def _within(method: Callable[[bytes, Rpc], Awaitable[bytes]]) -> Callable[[bytes, Rpc], Awaitable[bytes]]:
    async def answered(request: bytes, rpc: Rpc) -> bytes:
        if not rpc.is_of_house:
            raise Unauthenticated("this is for the processes of the house alone")
        return await method(request, rpc)

    return answered
