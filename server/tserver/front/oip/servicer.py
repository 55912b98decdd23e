"""The RPCs of inference.GRPCInferenceService: what `service` and `inference` do, over gRPC.

A method takes the parsed request and returns the response; those of inference itself work on bytes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from tensorcompute.oip import inference_pb2 as oip
from tserver.errors import ServerError
from tserver.front.oip.inference import Caller
from tserver.front.oip.protobuf_form import failed_in_stream, joined, joined_in_stream, parse
from tserver.front.oip.service import Service
from tserver.front.oip.stream import RequestStream
from tserver.front.oip.tensors import InferRequest
from tserver.front.rpc import Rpc

log = logging.getLogger("tserver.front")


class InferenceServicer:
    """The RPCs of the service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._inferences = service.inferences

    # --- the server and its models ---

    async def ServerLive(self, request: oip.ServerLiveRequest, rpc: Rpc) -> oip.ServerLiveResponse:
        """See the proto."""
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(self, request: oip.ServerReadyRequest, rpc: Rpc) -> oip.ServerReadyResponse:
        """See the proto."""
        return oip.ServerReadyResponse(ready=self._service.is_ready)

    async def ModelReady(self, request: oip.ModelReadyRequest, rpc: Rpc) -> oip.ModelReadyResponse:
        """See the proto."""
        return oip.ModelReadyResponse(ready=self._service.is_model_ready(request.name, request.version, rpc.identity))

    async def ServerMetadata(self, request: oip.ServerMetadataRequest, rpc: Rpc) -> oip.ServerMetadataResponse:
        """See the proto."""
        return self._service.metadata()

    async def ModelMetadata(self, request: oip.ModelMetadataRequest, rpc: Rpc) -> oip.ModelMetadataResponse:
        """See the proto."""
        return self._service.model_metadata(request.name, request.version, rpc.identity)

    async def ModelConfig(self, request: oip.ModelConfigRequest, rpc: Rpc) -> oip.ModelConfigResponse:
        """See the proto."""
        return oip.ModelConfigResponse(config=self._service.model_config(request.name, request.version, rpc.identity))

    async def ModelStatistics(self, request: oip.ModelStatisticsRequest, rpc: Rpc) -> oip.ModelStatisticsResponse:
        """See the proto."""
        return await self._service.statistics(request.name, request.version, rpc.identity)

    # --- inference ---

    async def ModelInfer(self, data: bytes, rpc: Rpc) -> bytes:
        """See the proto."""
        message, request = parse(data)
        return joined(await self._inferences.run(message.model_name, message.model_version, request, _caller(rpc)))

    async def ModelStreamInfer(self, messages: AsyncIterator[bytes], rpc: Rpc) -> None:
        """See the proto."""
        caller = _caller(rpc)
        ends_on_error = any(key == "triton_grpc_error" and value == "true" for key, value in rpc.metadata)

        def begin(data: bytes) -> tuple[int, Callable[[], Coroutine[Any, Any, bytes]]]:
            try:
                message, request = parse(data)
            except ServerError as error:
                return 0, partial(failed, error, "")
            name, version = message.model_name, message.model_version
            return self._inferences.answer_bytes(name, version, request, caller.identity), partial(
                answer, name, version, request
            )

        async def answer(name: str, version: str, request: InferRequest) -> bytes:
            try:
                return joined_in_stream(await self._inferences.run(name, version, request, caller), request)
            except Exception as error:
                return await failed(error, request.id)

        async def failed(error: Exception, request_id: str) -> bytes:
            if ends_on_error:
                raise error
            if not isinstance(error, ServerError):
                log.error("a request of a stream failed in a way it should not", exc_info=error)
            return failed_in_stream(error, request_id)

        await RequestStream(begin, rpc.write).run(messages)

    # --- the repository ---

    async def RepositoryIndex(self, request: oip.RepositoryIndexRequest, rpc: Rpc) -> oip.RepositoryIndexResponse:
        """See the proto."""
        return self._service.index(request.repository_name, rpc.identity, only_ready=request.ready)

    async def RepositoryModelLoad(
        self, request: oip.RepositoryModelLoadRequest, rpc: Rpc
    ) -> oip.RepositoryModelLoadResponse:
        """See the proto."""
        await self._service.load(request.repository_name, request.model_name, list(request.parameters), rpc.identity)
        return oip.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: oip.RepositoryModelUnloadRequest, rpc: Rpc
    ) -> oip.RepositoryModelUnloadResponse:
        """See the proto."""
        await self._service.unload(request.repository_name, request.model_name, rpc.identity)
        return oip.RepositoryModelUnloadResponse()

    # --- shared memory ---

    async def SystemSharedMemoryStatus(
        self, request: oip.SystemSharedMemoryStatusRequest, rpc: Rpc
    ) -> oip.SystemSharedMemoryStatusResponse:
        """See the proto."""
        response = oip.SystemSharedMemoryStatusResponse()
        for region in self._service.regions(request.name, rpc.identity):
            entry = response.regions[region.name]
            entry.name, entry.key = region.name, region.key
            entry.offset, entry.byte_size = region.offset, region.byte_size
        return response

    async def SystemSharedMemoryRegister(
        self, request: oip.SystemSharedMemoryRegisterRequest, rpc: Rpc
    ) -> oip.SystemSharedMemoryRegisterResponse:
        """See the proto."""
        self._service.register(request.name, request.key, request.offset, request.byte_size, rpc.identity)
        return oip.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(
        self, request: oip.SystemSharedMemoryUnregisterRequest, rpc: Rpc
    ) -> oip.SystemSharedMemoryUnregisterResponse:
        """See the proto."""
        self._service.unregister(request.name, rpc.identity)
        return oip.SystemSharedMemoryUnregisterResponse()

    # --- settings ---

    async def TraceSetting(self, request: oip.TraceSettingRequest, rpc: Rpc) -> oip.TraceSettingResponse:
        """See the proto."""
        changes = {name: list(setting.value) for name, setting in request.settings.items()}
        response = oip.TraceSettingResponse()
        for name, values in self._service.trace_settings(request.model_name, changes, rpc.identity).items():
            response.settings[name].value.extend(values)
        return response

    async def LogSettings(self, request: oip.LogSettingsRequest, rpc: Rpc) -> oip.LogSettingsResponse:
        """See the proto."""
        changes = {name: _chosen(setting) for name, setting in request.settings.items()}
        response = oip.LogSettingsResponse()
        for name, value in self._service.log_settings(changes, rpc.identity).items():
            setting = response.settings[name]
            if isinstance(value, bool):
                setting.bool_param = value
            elif isinstance(value, int):
                setting.uint32_param = value
            else:
                setting.string_param = value
        return response

    async def _no_cuda(self, request: Any, rpc: Rpc) -> Any:
        self._service.no_cuda()

    CudaSharedMemoryStatus = CudaSharedMemoryRegister = CudaSharedMemoryUnregister = _no_cuda


def _chosen(setting: oip.LogSettingsRequest.SettingValue) -> object:
    kind = setting.WhichOneof("parameter_choice")
    return None if kind is None else getattr(setting, kind)


def _caller(rpc: Rpc) -> Caller:
    return Caller(rpc.identity, rpc.deadline)
