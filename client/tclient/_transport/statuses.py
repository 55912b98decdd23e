"""What gRPC's statuses mean: the only place of the client that speaks of status codes.

Every status becomes an exception of ours here. Knows gRPC; does not know calls or tensors.
"""

from __future__ import annotations

import re
from typing import Any

import grpc

from tclient._exceptions import BY_REASON, BY_STATUS, LIMIT, ConnectFailed, ServerFailed, TensorError, limit_error
from tensorcompute.wire.address import parse, proxy_before

# After these the session may still be there: open the stream again, and send again what was not answered.
_RESUMABLE = frozenset({"UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})


# What gRPC says of a message that is too large: in C and Go with the limit as the second number, in Java as the first.
_LARGER = re.compile(r"larger than max \(\d+ vs\. (\d+)\)|exceeds maximum size (\d+)")
# What went through may go again: a forward pass changes nothing. CANCELLED is a fork.
_REPEATABLE = frozenset({"UNAVAILABLE", "UNKNOWN", "CANCELLED"})
_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
# What a server says of the secret of a session that it does not have, with the same status.
_NO_SESSION = "no session has this secret"
OK = grpc.StatusCode.OK.value[0]
CANCELLED = grpc.StatusCode.CANCELLED.value[0]


class Ended(grpc.RpcError):
    """The status of an RPC that failed, as an operation of gRPC's core received it."""

    def __init__(self, operation: Any) -> None:
        super().__init__(operation.details())
        self._operation = operation

    def code(self) -> grpc.StatusCode:
        """As of grpc.Call."""
        return _BY_NUMBER.get(self._operation.code(), grpc.StatusCode.UNKNOWN)

    def details(self) -> str:
        """As of grpc.Call."""
        return str(self._operation.details() or "")

    def trailing_metadata(self) -> Any:
        """As of grpc.Call."""
        return self._operation.trailing_metadata()


class Broken(grpc.RpcError):
    """The end of a connection that is not gRPC's, in gRPC's words: it may be tried again."""

    def code(self) -> grpc.StatusCode:
        """As of grpc.Call."""
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        """As of grpc.Call."""
        return str(self)

    def trailing_metadata(self) -> Any:
        """As of grpc.Call."""
        return ()


def name_of(number: int) -> str:
    """The name of the status with that number."""
    return _BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN).name


def status_of(error: grpc.RpcError) -> str:
    """The name of the status that an RPC ended with."""
    return error.code().name


def is_exhausted(error: grpc.RpcError) -> bool:
    """Whether the server had no room for it."""
    return bool(error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)


def is_unauthenticated(error: grpc.RpcError) -> bool:
    """Whether the server did not find out who calls; a session that it does not know is another matter."""
    return bool(error.code() is grpc.StatusCode.UNAUTHENTICATED) and _NO_SESSION not in (error.details() or "")


def is_unknown_method(error: grpc.RpcError) -> bool:
    """Whether nobody there knows the RPC."""
    return bool(error.code() is grpc.StatusCode.UNIMPLEMENTED)


def is_late(error: grpc.RpcError) -> bool:
    """Whether no answer came within the time that the RPC had."""
    return bool(error.code() is grpc.StatusCode.DEADLINE_EXCEEDED)


def is_there_already(error: grpc.RpcError) -> bool:
    """Whether what was to be made is there."""
    return bool(error.code() is grpc.StatusCode.ALREADY_EXISTS)


def is_repeatable(error: grpc.RpcError) -> bool:
    """Whether what changes nothing may be asked for again."""
    return error.code().name in _REPEATABLE


def is_resumable(error: grpc.RpcError, failure: TensorError) -> bool:
    """Whether the session may have survived."""
    if failure.reason in BY_REASON:
        return False
    return error.code().name in _RESUMABLE


def says_of_session(error: grpc.RpcError) -> bool:
    """Whether the server says that the session is not there, or is another's by now."""
    return _error_info(error)[0] in BY_REASON


def message_limit(error: grpc.RpcError) -> int | None:
    """The size of a message in bytes that the server, or a proxy before it, takes, where one was refused as larger."""
    if not is_exhausted(error):
        return None
    found = _LARGER.search(error.details() or "")
    return int(found[1] or found[2]) if found else None


def translate(error: grpc.RpcError, address: str) -> TensorError:
    """The exception for a status of gRPC, with its reason."""
    status = error.code().name
    reason, details = _error_info(error)
    if message_limit(error) is not None:
        reason = "MESSAGE_TOO_LARGE"
    if reason == LIMIT:
        return limit_error(error.details() or status, details)
    kind = BY_REASON.get(reason) or BY_STATUS.get(status, ServerFailed)
    text = error.details() or status
    if kind is ConnectFailed:
        text = f"no tensor server answers at {address} ({text}); {_advice(address)}"
    elif details.get("cause") and details["cause"] not in text:
        text = f"{text} (cause: {details['cause']})"
    failure = kind(text)
    failure.reason = reason or status
    return failure


def _advice(address: str) -> str:
    parsed = parse(address)
    proxy = proxy_before(parsed)
    advice = f"start it with: tserver serve --listen {address}, or connect to the address where it listens"
    if proxy is None:
        return advice
    return (
        f"connections to it go through the proxy {proxy}, which {proxy.variable} names: to go past it, add "
        f"{parsed.host} to no_proxy. If no server is there, {advice}"
    )


def _error_info(error: grpc.RpcError) -> tuple[str, dict[str, str]]:
    """reason and metadata of the ErrorInfo that rides in the trailer."""
    trailers: Any = error.trailing_metadata()
    for key, value in trailers or ():
        if key == "grpc-status-details-bin":
            # Not needed before something fails, and not free to import.
            from tensorcompute.v1 import status_pb2

            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                if detail.type_url.endswith("/google.rpc.ErrorInfo"):
                    info = status_pb2.ErrorInfo.FromString(detail.value)
                    return info.reason, dict(info.metadata)
    return "", {}


def retry_after_s(error: grpc.RpcError) -> float | None:
    """After how long the server takes what it has refused now, before it was run; None where it does not say so."""
    if not is_exhausted(error):
        return None
    trailers: Any = error.trailing_metadata()
    for key, value in trailers or ():
        if key == "grpc-status-details-bin":
            from tensorcompute.v1 import status_pb2

            found: float | None = None
            for detail in status_pb2.Status.FromString(value).details:
                if detail.type_url.endswith("/google.rpc.RetryInfo"):
                    found = status_pb2.RetryInfo.FromString(detail.value).retry_delay.ToNanoseconds() / 1e9
            # Memory that is short is not there for the asking.
            return None if _error_info(error)[0] in BY_REASON else found
    return None


def is_broken(error: grpc.RpcError) -> bool:
    """Whether there was no connection, or it broke, or the server is stopping."""
    return bool(error.code() is grpc.StatusCode.UNAVAILABLE)
