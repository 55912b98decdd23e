"""StorageService: tensors that are kept on the server's disk under names, and come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorcompute.v1 import storage_service_pb2 as ss
from tserver.front.rpc import Rpc

if TYPE_CHECKING:
    from tserver.engines.port import Engine


class StorageServicer:
    """The RPCs of StorageService."""

    def __init__(self, engine: Engine) -> None:
        self._sessions = engine.sessions
        self._calls = engine.storage_calls

    async def Keep(self, request: ss.KeepRequest, rpc: Rpc) -> ss.KeepResponse:
        """See the proto."""
        session = self._sessions.resolve(request.context.session, rpc.identity)
        return await self._calls.keep(request, session, rpc.principal)

    async def Recall(self, request: ss.RecallRequest, rpc: Rpc) -> ss.RecallResponse:
        """See the proto."""
        session = self._sessions.resolve(request.context.session, rpc.identity)
        return await self._calls.recall(request, session, rpc.principal)

    async def Checkpoint(self, request: ss.CheckpointRequest, rpc: Rpc) -> ss.CheckpointResponse:
        """See the proto."""
        session = self._sessions.resolve(request.context.session, rpc.identity)
        return await self._calls.checkpoint(request, session, rpc.principal)

    async def Resume(self, request: ss.ResumeRequest, rpc: Rpc) -> ss.ResumeResponse:
        """See the proto."""
        session = self._sessions.resolve(request.context.session, rpc.identity)
        return await self._calls.resume(request, session, rpc.principal)

    async def ListNames(self, request: ss.ListNamesRequest, rpc: Rpc) -> ss.ListNamesResponse:
        """See the proto."""
        self._check(request, rpc)
        return await self._calls.names(request, rpc.principal)

    async def Forget(self, request: ss.ForgetRequest, rpc: Rpc) -> ss.ForgetResponse:
        """See the proto."""
        self._check(request, rpc)
        return await self._calls.forget(request, rpc.principal)

    def _check(self, request: ss.ListNamesRequest | ss.ForgetRequest, rpc: Rpc) -> None:
        """Raises: SessionLost, Unauthenticated; a session is not needed here, and none is made."""
        if request.context.session:
            self._sessions.find(request.context.session, rpc.identity)
