"""Callers that are not our client: plain gRPC and HTTP, with a token or without."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc

from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.credentials import tokens

TENSORS = "/tensorcompute.v1.TensorService"
HEALTH = "/grpc.health.v1.Health/Check"


def token_of(file: Path, principal: str, role: str = "user", lasts_s: float = 3600.0) -> str:
    """A new token."""
    return tokens.create(file, principal, role, int(time.time() + lasts_s))[1]


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that shows a token; none for an empty one."""
    return (("authorization", f"Bearer {token}"),) if token else ()


class Caller:
    """A connection, and what is asked on it."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        # A connection of its own, whoever else has one to there.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        self.channel = (
            grpc.insecure_channel(address, options=options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options=options)
        )

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def ask(self, path: str, request: bytes = b"", token: str = "", timeout_s: float = 10.0) -> bytes:
        """One request, and its response. Raises: grpc.RpcError."""
        call: Any = self.channel.unary_unary(path)
        answer: bytes = call(request, timeout=timeout_s, metadata=bearer(token))
        return answer

    def open(self, token: str = "") -> ts.OpenSessionResponse:
        """A new session. Raises: grpc.RpcError."""
        request = ts.OpenSessionRequest(min_protocol=1, max_protocol=2)
        return ts.OpenSessionResponse.FromString(self.ask(f"{TENSORS}/OpenSession", request.SerializeToString(), token))

    def told(self, path: str, request: bytes = b"", token: str = "") -> tuple[grpc.StatusCode, str]:
        """How a request ends: the status, and what it says."""
        try:
            self.ask(path, request, token)
        except grpc.RpcError as error:
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""


class _Bearing(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Shows a token with every RPC."""

    def __init__(self, token: str) -> None:
        self._metadata = bearer(token)

    def _shown(self: Any, begin: Any, details: Any, request: Any) -> Any:
        return begin(details._replace(metadata=(*(details.metadata or ()), *self._metadata)), request)

    # Each kind has types of its own.
    _show: Any = _shown
    intercept_unary_unary = intercept_unary_stream = _show
    intercept_stream_unary = intercept_stream_stream = _show


def bearing(address: str, token: str) -> grpc.Channel:
    """A connection of its own, which shows a token with every RPC."""
    return grpc.intercept_channel(Caller(address).channel, _Bearing(token))
