"""The server's errors as gRPC statuses. The only place that speaks of status codes.

Each status carries google.rpc.Status with ErrorInfo, and RetryInfo where a retry makes sense.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import grpc
from google.protobuf.message import Message

from tensorcompute.v1 import status_pb2
from tserver import errors

log = logging.getLogger("tserver.service")

DOMAIN = "tensorcompute"
DETAILS_KEY = "grpc-status-details-bin"
# Whose types the details are, to every client.
_TYPES = "type.googleapis.com/google.rpc."

CODES: dict[type[errors.ServerError], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownId: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.ModelNotReady: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.SequenceGap: grpc.StatusCode.OUT_OF_RANGE,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.SessionLost: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Superseded: grpc.StatusCode.ABORTED,
    errors.VersionMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Stopping: grpc.StatusCode.UNAVAILABLE,
    errors.ServerError: grpc.StatusCode.INTERNAL,
}

# A failed call of a typed RPC: by the reason, and where that says only that torch refused, by what torch raised.
_CALL_REASONS: dict[str, grpc.StatusCode] = {
    "UNKNOWN_ID": grpc.StatusCode.NOT_FOUND,
    "NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ALREADY_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "MODEL_NOT_READY": grpc.StatusCode.FAILED_PRECONDITION,
    "DUPLICATE_ID": grpc.StatusCode.ALREADY_EXISTS,
    "OUT_OF_MEMORY": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "QUOTA_EXCEEDED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "RESOURCE_EXHAUSTED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "TOO_LARGE_FOR_A_MESSAGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "INVALID_ARGUMENT": grpc.StatusCode.INVALID_ARGUMENT,
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


def trailers(
    error: errors.ServerError, codes: Callable[[errors.ServerError], grpc.StatusCode] = code_of
) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that carries the details of an error."""
    details = dict(error.details)
    retry_after_s = details.pop("retry_after_s", "")
    code = codes(error)
    status = status_pb2.Status(code=code.value[0], message=error.message)
    _attach(status, status_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=details))
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.reason != errors.TooLarge.reason:
        retry = status_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(float(retry_after_s or 1) * 1e9))
        _attach(status, retry)
    return ((DETAILS_KEY, status.SerializeToString()),)


def _attach(status: status_pb2.Status, detail: Message) -> None:
    status.details.add(type_url=_TYPES + detail.DESCRIPTOR.name, value=detail.SerializeToString())


async def abort(
    context: grpc.aio.ServicerContext[bytes, bytes],
    error: Exception,
    codes: Callable[[errors.ServerError], grpc.StatusCode] = code_of,
) -> None:
    """End an RPC with the status for an error; an error that is not ours is a defect, and logged.

    Raises: CancelledError where the caller is gone.
    """
    if isinstance(error, grpc.aio.InternalError):
        # A message could not be sent: the caller left while it waited to be. There is nobody to tell, and no defect.
        raise asyncio.CancelledError from error
    if not isinstance(error, errors.ServerError):
        log.error("an RPC failed in a way it should not", exc_info=error)
        error = errors.ServerError(f"the server failed: {type(error).__name__}: {error}")
    # HTTP/2 headers have a limit of 8 KiB by default; a longer text would lose the whole status.
    text = error.message.replace("\n", " ")[:2000]
    error.message = error.message[:2000]
    await context.abort(codes(error), text, trailers(error, codes))
