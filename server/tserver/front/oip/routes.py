"""The paths of the protocol over HTTP: what `service` and `inference` do, in JSON. As Triton and KServe have them."""

from __future__ import annotations

import asyncio
from typing import Any

from tserver.config import Config
from tserver.errors import InvalidArgument
from tserver.front.http.messages import Handler, HttpRequest, HttpResponse, Route
from tserver.front.oip.inference import Caller
from tserver.front.oip.json_form import HEADER_LENGTH, of_message, parse, response
from tserver.front.oip.service import Service
from tserver.front.oip.tensors import MAX_MESSAGE_BYTES

# More text than this takes a while to read or write: a thread does that, so that others are served meanwhile.
_MAX_INLINE_BYTES = 64 << 10
_MODEL = "/v2/models/{model}[/versions/{version}]"
_REPOSITORY = "/v2/repository[/{repository}]"


class InferenceRoutes:
    """The paths of the service."""

    def __init__(self, config: Config, service: Service) -> None:
        # Of JSON, and of bodies once they are out of their encoding: both take more memory than they bring bytes.
        self._max_text_bytes = config.max_message_bytes
        self._service = service

    def routes(self) -> list[Route]:
        """Them, those first that another one would also fit. The names are those of the RPCs."""
        return [
            Route("GET", "/v2", "ServerMetadata", self._server_metadata),
            Route("GET", "/v2/health/live", "ServerLive", self._live, needs=None),
            Route("GET", "/v2/health/ready", "ServerReady", self._ready, needs=None),
            Route("GET", "/v2/models/stats", "ModelStatistics", self._statistics),
            Route("GET", _MODEL, "ModelMetadata", self._model_metadata),
            Route("GET", f"{_MODEL}/ready", "ModelReady", self._model_ready),
            Route("GET", f"{_MODEL}/config", "ModelConfig", self._model_config),
            Route("GET", f"{_MODEL}/stats", "ModelStatistics", self._statistics),
            Route("POST", f"{_MODEL}/infer", "ModelInfer", self._infer),
            Route("POST", f"{_REPOSITORY}/index", "RepositoryIndex", self._index),
            Route("POST", f"{_REPOSITORY}/models/{{model}}/load", "RepositoryModelLoad", self._load),
            Route("POST", f"{_REPOSITORY}/models/{{model}}/unload", "RepositoryModelUnload", self._unload),
            *self._shared_memory("system", self._region_status, self._register, self._unregister),
            *self._shared_memory("cuda", self._no_cuda, self._no_cuda, self._no_cuda),
            *(
                Route(method, path, name, handler)
                for method in ("GET", "POST")
                for path, name, handler in (
                    ("/v2/trace/setting", "TraceSetting", self._trace_settings),
                    (f"{_MODEL}/trace/setting", "TraceSetting", self._trace_settings),
                    ("/v2/logging", "LogSettings", self._log_settings),
                )
            ),
        ]

    def _shared_memory(self, kind: str, status: Handler, register: Handler, unregister: Handler) -> list[Route]:
        name = f"{kind.capitalize()}SharedMemory"
        region = f"/v2/{kind}sharedmemory[/region/{{region}}]"
        return [
            Route("GET", f"{region}/status", f"{name}Status", status),
            Route("POST", f"{region}/register", f"{name}Register", register),
            Route("POST", f"{region}/unregister", f"{name}Unregister", unregister),
        ]

    # --- the server and its models ---

    async def _server_metadata(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse.of(of_message(self._service.metadata()))

    async def _live(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse.of({"live": True})

    async def _ready(self, request: HttpRequest) -> HttpResponse:
        return _readiness(self._service.is_ready)

    async def _model_ready(self, request: HttpRequest) -> HttpResponse:
        model = request.names["model"]
        return _readiness(self._service.is_model_ready(model, request.names["version"], request.identity), name=model)

    async def _model_metadata(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse.of(of_message(self._service.model_metadata(*_model(request), request.identity)))

    async def _model_config(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse.of(of_message(self._service.model_config(*_model(request), request.identity)))

    async def _statistics(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse.of(of_message(await self._service.statistics(*_model(request), request.identity)))

    # --- inference ---

    async def _infer(self, request: HttpRequest) -> HttpResponse:
        model, version = _model(request)
        # Before the body is waited for.
        self._service.find(model, version, request.identity)
        length = request.headers.get(HEADER_LENGTH, "")
        body = await request.body(MAX_MESSAGE_BYTES if length else self._max_text_bytes, self._max_text_bytes)
        text_bytes = int(length) if length.isdecimal() and len(length) < 19 else len(body)
        if text_bytes > self._max_text_bytes:
            raise InvalidArgument(
                f"the request has {text_bytes} bytes of JSON, but may have {self._max_text_bytes}; send tensors as "
                "binary data, or start the server with a larger --max-message-bytes"
            )
        if text_bytes > _MAX_INLINE_BYTES:
            asked = await asyncio.to_thread(parse, body, length, self._max_text_bytes)
        else:
            asked = parse(body, length, self._max_text_bytes)
        answer = await self._service.inferences.run(model, version, asked, Caller(request.identity, None))
        text_bytes = sum(len(output.elements) for output in answer.outputs if output.is_text)
        if text_bytes > _MAX_INLINE_BYTES:
            return await asyncio.to_thread(response, answer)
        return response(answer)

    # --- the repository ---

    async def _index(self, request: HttpRequest) -> HttpResponse:
        only_ready = (await self._told(request)).get("ready", False)
        if not isinstance(only_ready, bool):
            raise InvalidArgument(f"ready is {str(only_ready)[:100]!r}, not true or false")
        found = self._service.index(request.names["repository"], request.identity, only_ready=only_ready)
        return HttpResponse.of([of_message(model) for model in found.models])

    async def _load(self, request: HttpRequest) -> HttpResponse:
        parameters = (await self._told(request)).get("parameters") or {}
        if not isinstance(parameters, dict):
            raise InvalidArgument("parameters is not an object")
        await self._service.load(request.names["repository"], request.names["model"], parameters, request.identity)
        return HttpResponse.of({})

    async def _unload(self, request: HttpRequest) -> HttpResponse:
        await self._told(request)
        await self._service.unload(request.names["repository"], request.names["model"], request.identity)
        return HttpResponse.of({})

    # --- shared memory ---

    async def _region_status(self, request: HttpRequest) -> HttpResponse:
        found = self._service.regions(request.names["region"], request.identity)
        return HttpResponse.of(
            [
                {"name": region.name, "key": region.key, "offset": region.offset, "byte_size": region.byte_size}
                for region in found
            ]
        )

    async def _register(self, request: HttpRequest) -> HttpResponse:
        told = await self._told(request)
        key, offset, byte_size = told.get("key"), told.get("offset", 0), told.get("byte_size")
        if not isinstance(key, str) or any(type(size) is not int or size < 0 for size in (offset, byte_size)):
            raise InvalidArgument("a region needs its key, a text, and its offset and byte_size in whole numbers")
        assert isinstance(byte_size, int)
        self._service.register(request.names["region"], key, offset, byte_size, request.identity)
        return HttpResponse.of({})

    async def _unregister(self, request: HttpRequest) -> HttpResponse:
        await self._told(request)
        self._service.unregister(request.names["region"], request.identity)
        return HttpResponse.of({})

    async def _no_cuda(self, request: HttpRequest) -> HttpResponse:
        self._service.no_cuda()

    # --- settings ---

    async def _trace_settings(self, request: HttpRequest) -> HttpResponse:
        changes = {name: _values(name, value) for name, value in (await self._changes(request)).items()}
        told = self._service.trace_settings(request.names.get("model", ""), changes, request.identity)
        return HttpResponse.of({name: list(v) if name == "trace_level" else v[0] for name, v in told.items()})

    async def _log_settings(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse.of(self._service.log_settings(await self._changes(request), request.identity))

    async def _changes(self, request: HttpRequest) -> dict[str, Any]:
        return await self._told(request) if request.method == "POST" else {}

    async def _told(self, request: HttpRequest) -> dict[str, Any]:
        return await request.json(self._max_text_bytes)


def _values(name: str, value: Any) -> list[str]:
    """What a setting is to be: a text or a number, or several; null is as it was."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(each, bool) or not isinstance(each, str | int) for each in values):
        raise InvalidArgument(f"{name[:100]} is {str(value)[:100]}, not a text, several of them, or null")
    return [str(each) for each in values]


def _model(request: HttpRequest) -> tuple[str, str]:
    """The name and the version in a path; empty where there is none."""
    return request.names.get("model", ""), request.names.get("version", "")


def _readiness(is_ready: bool, **told: Any) -> HttpResponse:
    """Whether something is ready: clients look at the status."""
    return HttpResponse.of({**told, "ready": is_ready}, 200 if is_ready else 400)
