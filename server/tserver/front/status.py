"""The server's errors as statuses, of gRPC and of HTTP. The only module that names codes: no other speaks of them.

Each status of gRPC carries google.rpc.Status with ErrorInfo, and RetryInfo where a retry makes sense.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import grpc
from google.protobuf.message import Message

from tensorcompute.v1 import status_pb2
from tserver import errors
from tserver.front.http.messages import HttpResponse

log = logging.getLogger("tserver.front")

DOMAIN = "tensorcompute"
DETAILS_KEY = "grpc-status-details-bin"
# Whose types the details are, to every client.
_TYPES = "type.googleapis.com/google.rpc."

Codes = Callable[[errors.ServerError], grpc.StatusCode]

CODES: dict[type[errors.ServerError], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownId: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.ModelNotReady: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelElsewhere: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.SequenceGap: grpc.StatusCode.OUT_OF_RANGE,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.SessionLost: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Superseded: grpc.StatusCode.ABORTED,
    errors.VersionMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Stopping: grpc.StatusCode.UNAVAILABLE,
    errors.Unreachable: grpc.StatusCode.UNAVAILABLE,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotSent: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotConfigured: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StorageFailed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
    errors.ServerError: grpc.StatusCode.INTERNAL,
}

# A failed call of a typed RPC: by the reason, and where that says only that torch refused, by what torch raised.
_CALL_REASONS: dict[str, grpc.StatusCode] = {
    "UNKNOWN_ID": grpc.StatusCode.NOT_FOUND,
    "NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ALREADY_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "MODEL_NOT_READY": grpc.StatusCode.FAILED_PRECONDITION,
    "MODEL_ELSEWHERE": grpc.StatusCode.FAILED_PRECONDITION,
    "DUPLICATE_ID": grpc.StatusCode.ALREADY_EXISTS,
    "OUT_OF_MEMORY": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "QUOTA_EXCEEDED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "RESOURCE_EXHAUSTED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "LIMIT": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "TOO_LARGE_FOR_A_MESSAGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "INVALID_ARGUMENT": grpc.StatusCode.INVALID_ARGUMENT,
    "CANCELLED": grpc.StatusCode.CANCELLED,
    "DEADLINE_EXCEEDED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}
_CALL_TYPES: dict[str, grpc.StatusCode] = {
    "IndexError": grpc.StatusCode.OUT_OF_RANGE,
    "NotImplementedError": grpc.StatusCode.UNIMPLEMENTED,
}


def code_of(error: errors.ServerError) -> grpc.StatusCode:
    """The status code for an error."""
    if isinstance(error, errors.CallFailed):
        code = _CALL_REASONS.get(error.error.reason)
        return code or _CALL_TYPES.get(error.error.type, grpc.StatusCode.INVALID_ARGUMENT)
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def _oip_code_of(error: errors.ServerError) -> grpc.StatusCode:
    # Triton's status for a version that is there but does not serve: its clients retry on it.
    return grpc.StatusCode.UNAVAILABLE if isinstance(error, errors.ModelNotReady) else code_of(error)


HTTP = "http"
"""The service that requests of HTTP are counted under."""

CODES_OF: dict[str, Codes] = {"inference.GRPCInferenceService": _oip_code_of, HTTP: _oip_code_of}
"""The services whose statuses differ."""

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
# As google.rpc.Code has them in HTTP, which are Triton's too.
_HTTP: dict[grpc.StatusCode, HTTPStatus] = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}
# What HTTP has words for that gRPC has not, by the reason.
_HTTP_REASONS: dict[str, HTTPStatus] = {
    errors.TooLarge.reason: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "METHOD_NOT_ALLOWED": HTTPStatus.METHOD_NOT_ALLOWED,
    "UNSUPPORTED_ENCODING": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "BODY_TOO_SLOW": HTTPStatus.REQUEST_TIMEOUT,
}


def code_number(error: errors.ServerError) -> int:
    """The status code for an error, as its number."""
    number: int = code_of(error).value[0]
    return number


def trailers(error: errors.ServerError, codes: Codes = code_of) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that carries the details of an error."""
    details = dict(error.details)
    retry_after_s = details.pop("retry_after_s", "")
    code = codes(error)
    status = status_pb2.Status(code=code.value[0], message=error.message)
    _attach(status, status_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=details))
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after_s:
        # It was refused before it was run, and may be asked for again: clients do. Memory that is short, or a limit
        # that time does not move, names no time.
        retry = status_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(float(retry_after_s) * 1e9))
        _attach(status, retry)
    return ((DETAILS_KEY, status.SerializeToString()),)


def _attach(status: status_pb2.Status, detail: Message) -> None:
    status.details.add(type_url=_TYPES + detail.DESCRIPTOR.name, value=detail.SerializeToString())


def failure(context: Any) -> tuple[str, str]:
    """The status and the reason of an RPC that was aborted: from the details, which each of our statuses carries."""
    for key, value in context.trailing_metadata() or ():
        if key == DETAILS_KEY:
            status = status_pb2.Status.FromString(value)
            if status.details:
                # The first is the ErrorInfo: see `trailers`.
                info = status_pb2.ErrorInfo.FromString(status.details[0].value)
                return _NAMES.get(status.code, "UNKNOWN"), info.reason
    # One of gRPC's own services.
    code = context.code()
    name = code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"
    return name, name


def code_name(error: errors.ServerError) -> str:
    """The name of the status for an error of HTTP, in gRPC's words, which all requests are counted in."""
    return _oip_code_of(error).name


def http_refusal(error: errors.ServerError) -> HttpResponse:
    """The response that tells of an error."""
    code = _oip_code_of(error)
    found = _HTTP_REASONS.get(error.reason) or _HTTP.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {}
    if "allow" in error.details:
        headers["Allow"] = error.details["allow"]
    if found is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if found is HTTPStatus.TOO_MANY_REQUESTS:
        # In whole seconds.
        headers["Retry-After"] = str(math.ceil(float(error.details.get("retry_after_s", "") or 1)))
    return HttpResponse.of({"error": error.message[:2000]}, found.value, **headers)


def as_ours(error: Exception, what: str, peer: str = "") -> errors.ServerError:
    """An error of ours; another one is a defect, and logged."""
    found = _known(error)
    if found is None:
        log.error("%s failed in a way it should not", what, exc_info=error, extra={"peer": peer})
        found = errors.ServerError(f"the server failed: {type(error).__name__}: {error}")
    return found


def _known(error: Exception) -> errors.ServerError | None:
    """What is told of an error; None of one that is a defect."""
    if isinstance(error, MemoryError):
        # Of this request alone: what it had is let go with it.
        return errors.Exhausted(
            "the memory of the server is full; free tensors, or retry later", reason="OUT_OF_MEMORY"
        )
    return error if isinstance(error, errors.ServerError) else None


def told_of(error: Exception, codes: Codes) -> tuple[str, str, str]:
    """The status, the reason and the message of an error for a record of it; of a defect no more than what it is."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code().name, error_of(error).reason, error.details() or ""
    found = _known(error)
    if found is None:
        return grpc.StatusCode.INTERNAL.name, errors.ServerError.reason, type(error).__name__
    return codes(found).name, found.reason, found.message


async def abort(
    context: grpc.aio.ServicerContext[bytes, bytes],
    error: Exception,
    codes: Codes = code_of,
) -> None:
    """End an RPC with the status for an error; an error that is not ours is a defect, and logged.

    Raises: CancelledError where the caller is gone.
    """
    if isinstance(error, grpc.aio.InternalError):
        # A message could not be sent: the caller left while it waited to be. There is nobody to tell, and no defect.
        raise asyncio.CancelledError from error
    error = as_ours(error, "an RPC", str(context.peer()))
    # gRPC keeps the end of an RPC in a circle with it, and that keeps this error until the collector comes. What the
    # frames have that it went through is not to wait for that: an upload's memory may be most there is.
    error.__traceback__ = error.__context__ = error.__cause__ = None
    # HTTP/2 headers have a limit of 8 KiB by default; a longer text would lose the whole status.
    # Both places say the same, or readers of google.rpc.Status take the answer for a broken one.
    error.message = error.message.replace("\n", " ")[:2000]
    await context.abort(codes(error), error.message, trailers(error, codes))


async def pass_on(context: grpc.aio.ServicerContext[bytes, bytes], told: grpc.aio.AioRpcError) -> None:
    """End an RPC with the status that another server of this house has given to it, as it is."""
    trailing: Any = told.trailing_metadata() or ()
    await context.abort(told.code(), told.details() or "", tuple(trailing))


def is_of_connection(told: grpc.aio.AioRpcError) -> bool:
    """Whether a status tells of the connection, rather than of what the server at its other end has said.

    Ours say why they are unavailable, in their details.
    """
    trailing: Any = told.trailing_metadata() or ()
    return told.code() is grpc.StatusCode.UNAVAILABLE and all(key != DETAILS_KEY for key, _ in trailing)


# What gRPC says of a connection that breaks, or of a call that it meets at an unlucky moment.
_OF_CONNECTION = frozenset(
    (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED)
)


def error_of(told: grpc.aio.AioRpcError) -> errors.ServerError:
    """The error that another server of this house has told of, as one of ours that has the same status."""
    code, message = told.code(), told.details() or ""
    reason, details = "", dict[str, str]()
    trailing: Any = told.trailing_metadata() or ()
    for key, value in trailing:
        if key == DETAILS_KEY:
            for detail in status_pb2.Status.FromString(value).details:
                if detail.type_url == _TYPES + "ErrorInfo":
                    info = status_pb2.ErrorInfo.FromString(detail.value)
                    reason, details = info.reason, dict(info.metadata)
                elif detail.type_url == _TYPES + "RetryInfo":
                    delay = status_pb2.RetryInfo.FromString(detail.value).retry_delay
                    details["retry_after_s"] = str(delay.ToNanoseconds() / 1e9)
    if not reason and code in _OF_CONNECTION:
        return errors.Unreachable(f"an engine does not answer: {message}; try again")
    of_code = [kind for kind, its in CODES.items() if its is code] or [errors.ServerError]
    kind = next((each for each in of_code if each.reason == reason), of_code[0])
    return kind(message, reason=reason or None, **details)
