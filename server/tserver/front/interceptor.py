"""The one way in: every request of every listener passes here, before its servicer and after it.

What is known of a caller (Rpc), what becomes of errors (status.py) and what is counted (rpc_counts.py) is decided here,
for our services, for gRPC's own (health, reflection) and for HTTP. Tokens and the headers of traces are read here, and
nowhere else. A stream passes once, not each of its messages. Knows no servicer.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import grpc

from tserver.errors import PermissionDenied, ServerError
from tserver.front import status
from tserver.front.auditing import audited
from tserver.front.authentication import host_of
from tserver.front.opened import Opened
from tserver.front.rpc import OPEN, Behaviour, Context, Rpc, identified
from tserver.front.rpc_counts import CountedRpc, MethodCounts, RpcCounts, size_of
from tserver.tracing.context import HEADER
from tserver.tracing.traced import answering
from tserver.tracing.tracer import TRACER

if TYPE_CHECKING:
    from tserver.audit import Audit
    from tserver.front.authentication import Authenticator
    from tserver.front.http import messages
    from tserver.identity import Identity
    from tserver.limits.account import Accounts

    Handler = grpc.RpcMethodHandler[Any, Any]
    Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]

log = logging.getLogger("tserver.front")

# What is told to everyone: whoever balances load asks without credentials.
_WATCH = "/grpc.health.v1.Health/Watch"
# Which of its requests are traced, that one is told (oip/settings.py).
_INFERENCE = "inference.GRPCInferenceService"
_OPEN_PATHS = frozenset({"/grpc.health.v1.Health/Check", _WATCH})


class Interceptor(grpc.aio.ServerInterceptor):
    """What all servers of one process share."""

    def __init__(
        self,
        rpcs: RpcCounts | None = None,
        *,
        key: str = "",
        authenticator: Authenticator = OPEN,
        accounts: Accounts | None = None,
        audit: Audit | None = None,
    ) -> None:
        """With `rpcs`, what is asked is counted there. `key` is that of the house, in one of its processes."""
        self._audit = audit
        self._authenticator = authenticator
        # What is open in the name of callers; whoever makes this has it watched.
        self.opened = Opened(authenticator.holds)
        self._accounts = accounts
        self._rpcs = rpcs
        self._key = key
        # By the identity of the handler, which is kept alive here: two servers have handlers of one path.
        self._wrapped: dict[int, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """See grpc.aio.ServerInterceptor. A handler is wrapped once, when it is first asked for."""
        handler = await continuation(handler_call_details)
        if handler is None:
            # Only paths of methods that there are: a stranger's do not fill the table.
            return None
        known = self._wrapped.get(id(handler))
        if known is None:
            known = self._wrapped[id(handler)] = handler, self._wrap(handler_call_details.method, handler)
        return known[1]

    def http(self, routes: messages.Routes) -> messages.Handler:
        """What answers the requests of a listener for HTTP, also where they fail."""

        async def answered(request: messages.HttpRequest) -> messages.HttpResponse:
            try:
                # As with gRPC, only paths that there are have a row in the table.
                route = routes.find(request)
            except ServerError as refusal:
                return status.http_refusal(refusal)
            counts = MethodCounts() if self._rpcs is None else self._rpcs.method(status.HTTP, route.name)
            counts.started += 1
            began = time.perf_counter()
            code, reason, size_bytes = "CANCELLED", "", 0
            try:
                response, error = await self._http_outcome(route, request)
                code = "OK" if error is None else status.code_name(error)
                if error is not None:
                    reason = error.reason
                    counts.by_reason[reason] = counts.by_reason.get(reason, 0) + 1
                    if self._rpcs is not None and request.identity.principal:
                        what = f"{request.method} {request.path}"[:200]
                        self._rpcs.recent.add(what, request.identity, code, reason, error.message)
                size_bytes = response.size_bytes
                counts.bytes_out += size_bytes
                return response
            finally:
                counts.bytes_in += request.body_bytes
                seconds = time.perf_counter() - began
                counts.finish(code, seconds)
                if self._audit is not None and route.needs is not None:
                    self._audit.add(
                        f"{request.method} {request.path}",
                        request.identity if request.identity.principal else None,
                        host_of(request.peer),
                        outcome=code,
                        reason=reason,
                        bytes_in=request.body_bytes,
                        bytes_out=size_bytes,
                        seconds=round(seconds, 6),
                    )

        return answered

    async def _http_outcome(
        self, route: messages.Route, request: messages.HttpRequest
    ) -> tuple[messages.HttpResponse, ServerError | None]:
        """The response, and the error that it tells of."""
        try:
            if route.needs is not None:
                headers = {name.lower(): value for name, value in request.headers.items()}
                request.identity = identity = self._authenticator.identify(request.peer, headers, request.certificate)
                if identity.role < route.needs:
                    raise PermissionDenied(
                        f"{request.path[:200]} tells of all principals, and needs the role {route.needs.name.lower()}"
                    )
            async with self.opened.kept(request.identity):
                return await _traced_http(route, request), None
        except Exception as raised:
            error = status.as_ours(raised, "an HTTP request", request.peer)
            return status.http_refusal(error), error

    def _as_it_is(self, context: Context) -> Any:
        """What a service of gRPC's own is given: its own context, once it is known who calls."""
        identified(context, self._authenticator)
        return context

    def _wrap(self, path: str, handler: Any) -> Handler:
        service, _, method = path.strip("/").rpartition("/")
        codes = status.CODES_OF.get(service, status.code_of)
        if handler.request_streaming:
            kind, behaviour = (
                (grpc.stream_stream_rpc_method_handler, handler.stream_stream)
                if handler.response_streaming
                else (grpc.stream_unary_rpc_method_handler, handler.stream_unary)
            )
        else:
            kind, behaviour = (
                (grpc.unary_stream_rpc_method_handler, handler.unary_stream)
                if handler.response_streaming
                else (grpc.unary_unary_rpc_method_handler, handler.unary_unary)
            )
        # Ours take bytes and an Rpc; others are gRPC's own, which take messages and its context.
        is_ours = handler.request_deserializer is None
        if inspect.isasyncgenfunction(behaviour):
            behaviour = _writing(behaviour)
        if is_ours and self._accounts is not None and (handler.request_streaming or handler.response_streaming):
            behaviour = _bounded(behaviour, self._accounts)
        if path not in _OPEN_PATHS:
            of = attrgetter("identity") if is_ours else partial(identified, authenticator=self._authenticator)
            behaviour = _while_known(behaviour, self.opened, of)
            if self._rpcs is not None and is_ours:
                behaviour = self._rpcs.recent.noting(behaviour, path, of, codes)
        knowing: dict[str, Any] = {"key": self._key, "authenticator": self._authenticator}
        seen: Callable[[Context], Any] = partial(Rpc, **knowing) if is_ours else self._as_it_is
        counts = None if self._rpcs is None else self._rpcs.method(service, method)
        if counts is not None and is_ours and (handler.request_streaming or handler.response_streaming):
            seen = partial(CountedRpc, **knowing, counts=counts)
        if TRACER.is_on and is_ours and not (handler.request_streaming and handler.response_streaming):
            # What goes on for long is not one request: its messages say what they are a part of.
            behaviour = _traced(behaviour, path.strip("/"), codes, may_choose=service != _INFERENCE)
        if path in _OPEN_PATHS:
            asked = behaviour
        elif self._audit is None:
            asked = _asked(behaviour, seen)
        else:
            asked = audited(self._audit, path, behaviour, seen, self._authenticator, codes)
        wrapped = _guarded(asked, codes)
        if counts is not None:
            # What goes on until its caller leaves has ended well then.
            is_endless = (handler.request_streaming and handler.response_streaming) or path == _WATCH
            wrapped = _counted(counts, wrapped, "OK" if is_endless else "CANCELLED")
        return kind(wrapped, handler.request_deserializer, handler.response_serializer)


def _asked(behaviour: Behaviour, seen: Callable[[Context], Any]) -> Behaviour:
    """The behaviour, given what it is to see of the context."""

    def asked(argument: Any, context: Context) -> Awaitable[Any]:
        return behaviour(argument, seen(context))

    return asked


def _guarded(asked: Behaviour, codes: status.Codes) -> Behaviour:
    """A behaviour whose errors become statuses."""

    async def guarded(argument: Any, context: Context) -> Any:
        try:
            return await asked(argument, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except grpc.aio.AioRpcError as told:
            await status.pass_on(context, told)
        except Exception as error:
            await status.abort(context, error, codes)

    return guarded


def _while_known(behaviour: Behaviour, opened: Opened, identity_of: Callable[[Any], Identity]) -> Behaviour:
    """A behaviour that goes on while what its caller has shown is good."""

    async def while_known(argument: Any, given: Any) -> Any:
        identity = identity_of(given)
        if not identity.expires:
            return await behaviour(argument, given)
        async with opened.kept(identity):
            return await behaviour(argument, given)

    return while_known


def _traced(behaviour: Behaviour, name: str, codes: status.Codes, *, may_choose: bool) -> Behaviour:
    """A behaviour whose requests are traced as their callers say, or by chance."""

    async def traced(argument: Any, rpc: Rpc) -> Any:
        # Within a house it was chosen where it came in.
        may = may_choose and not rpc.is_of_house
        request = TRACER.request(name, rpc.header(HEADER), may_choose=may)
        if request is None:
            return await behaviour(argument, rpc)
        with answering(request, lambda error: status.told_of(error, codes)[0]):
            return await behaviour(argument, rpc)

    return traced


def _bounded(behaviour: Behaviour, accounts: Accounts) -> Behaviour:
    """A behaviour of a stream, of which a principal may have only so many."""

    async def bounded(argument: Any, rpc: Rpc) -> Any:
        if rpc.is_of_house:
            # It was counted where it came in.
            return await behaviour(argument, rpc)
        with accounts.of(rpc.principal).stream():
            return await behaviour(argument, rpc)

    return bounded


async def _traced_http(route: messages.Route, request: messages.HttpRequest) -> messages.HttpResponse:
    """The answer to a request, which is traced if its caller says so."""
    sent = request.headers.get(HEADER, "") if TRACER.is_on else ""
    traced = TRACER.request(f"{request.method} {route.path}", sent, may_choose=False) if sent else None
    if traced is None:
        return await route.handler(request)
    with answering(traced, lambda error: type(error).__name__):
        response = await route.handler(request)
        traced.end(attributes={"http.response.status_code": response.status})
        return response


def _writing(behaviour: Callable[[Any, Any], AsyncIterator[Any]]) -> Behaviour:
    """A behaviour that yields its responses, as one that writes them."""

    async def writing(argument: Any, context: Context) -> None:
        async for response in behaviour(argument, context):
            await context.write(response)

    return writing


def _counted(counts: MethodCounts, behaviour: Behaviour, left: str) -> Behaviour:
    """A behaviour that is counted; `left` is how one has ended whose caller has left."""

    # A servicer takes its requests from this iterator, or from the Rpc: each message is counted once.
    async def messages(iterator: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for message in iterator:
            counts.bytes_in += size_of(message)
            yield message

    async def counted(argument: Any, context: Context) -> Any:
        counts.started += 1
        began = time.perf_counter()
        code = "OK"
        if isinstance(argument, AsyncIterator):
            argument = messages(argument)
        else:
            counts.bytes_in += size_of(argument)
        try:
            response = await behaviour(argument, context)
            if response is not None:
                counts.bytes_out += size_of(response)
            return response
        except asyncio.CancelledError:
            code = left
            raise
        except Exception:
            code, reason = status.failure(context)
            counts.by_reason[reason] = counts.by_reason.get(reason, 0) + 1
            raise
        finally:
            counts.finish(code, time.perf_counter() - began)

    return counted
