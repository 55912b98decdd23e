"""A home before real servers, as the front of many engines is to a client: it says where a session lives, passes on
what names it, and knows what became of an engine.

Messages pass as bytes. Whoever calls is the servers' principal, as all are on one host.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc

from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.support.raw import path_of
from tserver.errors import ServerError, SessionLost, Unauthenticated
from tserver.front.status import code_of, trailers

_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_BOOT_BYTES = 8
_LONG_S = 1e6


class Home(grpc.GenericRpcHandler):
    """A context manager; `address` is known once it is entered."""

    def __init__(
        self,
        engine: str,
        *,
        endpoint: str = "",
        credentials: grpc.ServerCredentials | None = None,
        trusted: grpc.ChannelCredentials | None = None,
        host: str = "127.0.0.1",
        engine_named: str = "",
    ) -> None:
        """New sessions are opened with the server at `engine`, and told that they live at `endpoint`.

        `trusted` is for servers with TLS, whose certificates name `engine_named`.
        """
        self.engine = engine
        self.endpoint = endpoint
        # What it says of all engines; else the one of new sessions tells of itself.
        self.info: ts.GetServerInfoResponse | None = None
        # How often an RPC was asked for here, by the name of its method, and with which authorization.
        self.asked: Counter[str] = Counter()
        self.shown: list[tuple[str, str]] = []
        # Those that are let in; None is everybody.
        self.accepts: set[str] | None = None
        self._host, self._credentials, self._trusted = host, credentials, trusted
        self._options: tuple[tuple[str, str | int], ...] = _OPTIONS
        if engine_named:
            self._options += (("grpc.ssl_target_name_override", engine_named),)
        self._channels: dict[str, grpc.Channel] = {}
        # Where the sessions of a run live, and why that run is over.
        self._engines: dict[bytes, str] = {}
        self._causes: dict[str, str] = {}
        self._lock = threading.Lock()
        self._server: Any = None
        self.address = ""

    def lose(self, engine: str, cause: str) -> None:
        """From now on it is known that a server has ended, and why."""
        self._causes[engine] = cause

    def start(self) -> None:
        """Listen, under the address that it had before if there is one."""
        self._server = grpc.server(ThreadPoolExecutor(32), handlers=[self], options=_OPTIONS)
        where = self.address or f"{self._host}:0"
        if self._credentials is None:
            port = self._server.add_insecure_port(where)
        else:
            port = self._server.add_secure_port(where, self._credentials)
        self._server.start()
        self.address = f"{self._host}:{port}"

    def stop(self) -> None:
        """End, with all that is under way; see `start`."""
        self._server.stop(None).wait()

    # --- what gRPC asks

    def service(self, handler_call_details: Any) -> Any:
        """See grpc.GenericRpcHandler: all RPCs are streams of bytes."""
        path = handler_call_details.method

        def behaviour(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            method = path.rpartition("/")[2]
            self.asked[method] += 1
            shown = str(dict(context.invocation_metadata()).get("authorization", ""))
            self.shown.append((method, shown))
            try:
                if self.accepts is not None and shown not in self.accepts:
                    raise Unauthenticated("no valid credentials")
                if path == path_of("OpenSession"):
                    yield self._open(requests, context)
                elif self.info is not None and path == path_of("GetServerInfo"):
                    yield self.info.SerializeToString()
                else:
                    yield from self._pass_on(path, requests, context)
            except ServerError as error:
                context.set_trailing_metadata(trailers(error))
                context.abort(code_of(error), error.message)
            except grpc.RpcError as told:
                # One without a code is the caller's, who has gone.
                if isinstance(told, grpc.Call):
                    context.set_trailing_metadata(told.trailing_metadata() or ())
                    context.abort(told.code(), told.details())

        return grpc.stream_stream_rpc_method_handler(behaviour)

    def _open(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        engine = self.engine
        method: Any = self._channel(engine).unary_unary(path_of("OpenSession"))
        opened = ts.OpenSessionResponse.FromString(method(next(requests), timeout=_left_s(context)))
        self._engines[opened.session[:_BOOT_BYTES]] = engine
        opened.endpoint = self.endpoint
        return opened.SerializeToString()

    def _pass_on(self, path: str, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        first = next(requests, b"")
        # The secret of a session is somewhere in the first message, as its boot id is.
        engine = next((where for boot, where in self._engines.items() if boot in first), self.engine)
        if engine in self._causes:
            cause = self._causes[engine]
            raise SessionLost(f"the session ended with its engine: {cause}; open a new one", cause=cause)

        def all_requests() -> Iterator[bytes]:
            with contextlib.suppress(grpc.RpcError):
                yield first
                yield from requests

        method: Any = self._channel(engine).stream_stream(path)
        call = method(all_requests(), timeout=_left_s(context), metadata=context.invocation_metadata())
        context.add_callback(call.cancel)
        yield from call

    def _channel(self, engine: str) -> grpc.Channel:
        with self._lock:
            if engine not in self._channels:
                if self._trusted is None:
                    self._channels[engine] = grpc.insecure_channel(engine, options=self._options)
                else:
                    self._channels[engine] = grpc.secure_channel(engine, self._trusted, options=self._options)
            return self._channels[engine]

    def __enter__(self) -> Home:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for channel in self._channels.values():
            channel.close()


def _left_s(context: grpc.ServicerContext) -> float | None:
    left_s: float | None = context.time_remaining()
    # Where the caller has named no time, gRPC's own is centuries.
    return left_s if left_s is not None and left_s < _LONG_S else None
