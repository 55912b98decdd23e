"""Every exception of the client, and the two tables that lead to them.

    TensorError                      anything a tensor operation or its server reports
    ├── TensorRuntimeError           + RuntimeError
    │   ├── CallCancelled                session.cancel() came before the call was run
    │   ├── TensorNotImplementedError    + NotImplementedError
    │   ├── OutOfMemoryError             device memory or quota is full
    │   ├── AcceleratorError             what a GPU refuses, as one that is not there
    │   └── LinAlgError                  a singular matrix and its kin
    ├── TensorIndexError             + IndexError
    ├── TensorTypeError              + TypeError
    ├── TensorValueError             + ValueError
    ├── TensorKeyError               + KeyError
    ├── TensorAttributeError         + AttributeError
    ├── TensorAssertionError         + AssertionError
    ├── TensorBufferError            + BufferError
    ├── TensorArithmeticError        + ArithmeticError
    │   ├── TensorZeroDivisionError      + ZeroDivisionError
    │   └── TensorOverflowError          + OverflowError
    ├── LimitReached                 what the server's file of limits gives this principal is used up
    │   ├── MemoryLimitReached           + OutOfMemoryError: memory or tensors of all its sessions
    │   └── UseLimitReached              + ServerBusy: anything else
    ├── NotConnectedError            + RuntimeError: no session is open
    ├── ReadTimeout                  + TimeoutError: no answer within connect(read_timeout_s=)
    └── ServerError                  + ConnectionError: the server or the way to it
        ├── ConnectFailed                nothing answers at the address
        │   └── InvalidAddress               + ValueError: it is none
        ├── NotAuthenticated             the server takes only callers that it knows, and credentials are missing
        ├── SessionLost                  the session is gone, and the message says why
        ├── SessionTakenOver             another stream uses this session
        ├── VersionMismatch              client and server speak no common protocol
        ├── ServerBusy                   the server refuses for now; try again later
        ├── RequestRefused               the server would not take a request as it was, and will not later
        └── ServerFailed                 the server failed, or answered what the contract does not allow

Knows no sockets and no tensors.
"""

from __future__ import annotations

from collections.abc import Mapping


class TensorError(Exception):
    """An operation failed. `str` is exactly torch's text; where it was issued is a note and three attributes."""

    operation: str = ""
    filename: str = ""
    lineno: int = 0
    reason: str = ""


class TensorRuntimeError(TensorError, RuntimeError):
    """What torch raises as RuntimeError."""


class CallCancelled(TensorRuntimeError):
    """The call was not run: `session.cancel()`, or that of another process, came before it."""


class TensorNotImplementedError(TensorRuntimeError, NotImplementedError):
    """What torch raises as NotImplementedError."""


class OutOfMemoryError(TensorRuntimeError):
    """The memory of the device, or the session's share of it, is full."""


class AcceleratorError(TensorRuntimeError):
    """What a GPU has refused, or that there is none of that number."""


class LinAlgError(TensorRuntimeError):
    """A matrix on which the algorithm cannot work."""


class TensorIndexError(TensorError, IndexError):
    """What torch raises as IndexError."""


class TensorTypeError(TensorError, TypeError):
    """What torch raises as TypeError."""


class TensorValueError(TensorError, ValueError):
    """What torch raises as ValueError."""


class TensorKeyError(TensorError, KeyError):
    """What torch raises as KeyError; its text is not quoted."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class TensorAttributeError(TensorError, AttributeError):
    """A name that tensors, or this server, do not have."""


class TensorAssertionError(TensorError, AssertionError):
    """What torch raises as AssertionError."""


class TensorBufferError(TensorError, BufferError):
    """What torch raises as BufferError."""


class TensorArithmeticError(TensorError, ArithmeticError):
    """What torch raises as ArithmeticError."""


class TensorZeroDivisionError(TensorArithmeticError, ZeroDivisionError):
    """What torch raises as ZeroDivisionError."""


class TensorOverflowError(TensorArithmeticError, OverflowError):
    """What torch raises as OverflowError."""


class LimitReached(TensorError):
    """This principal uses as much as it may of something. `tclient.server_info().limits` tells of all its limits."""

    # What the file of limits calls it: "device_bytes", "sessions"; and how much may be used, was used, and was asked
    # for beyond that.
    name: str = ""
    limit: float = 0
    used: float = 0
    asked: float = 0


class MemoryLimitReached(LimitReached, OutOfMemoryError):
    """All sessions of this principal together would hold more memory, or tensors, than they may."""


class NotConnectedError(TensorError, RuntimeError):
    """No session is open. The text says how to open one."""


class ReadTimeout(TensorError, TimeoutError):
    """No answer came within `read_timeout_s`. The session goes on; what was asked for may still be applied."""


class ServerError(TensorError, ConnectionError):
    """The server, or the way to it, is at fault."""


class ConnectFailed(ServerError):
    """Nothing usable answers at the address."""


class InvalidAddress(ConnectFailed, ValueError):
    """An address that is none; the text says what it should be."""


class NotAuthenticated(ServerError):
    """The server takes only callers that it knows. The text says whether a token was given, and what to do."""


class SessionLost(ServerError):
    """The session is gone with all its tensors. Open a new one and start over."""


class SessionTakenOver(ServerError):
    """Another stream of the same session took over from this client."""


class VersionMismatch(ServerError):
    """Client and server speak no common version of the protocol."""


class ServerBusy(ServerError):
    """The server refuses for now: there are too many sessions, or too much waits. Try again later."""


class UseLimitReached(LimitReached, ServerBusy):
    """This principal has as many sessions, streams, models or bytes on disk as it may, or sends too much too fast."""


class RequestRefused(ServerError):
    """The server would not take a request as it was. Trying again does not help; the text says what does."""


class ServerFailed(ServerError):
    """The server failed, or answered what the contract does not allow."""


# Error.type of the contract -> class.
BY_TYPE: dict[str, type[TensorError]] = {
    "AcceleratorError": AcceleratorError,
    "ArithmeticError": TensorArithmeticError,
    "AssertionError": TensorAssertionError,
    "AttributeError": TensorAttributeError,
    "BufferError": TensorBufferError,
    "CallCancelled": CallCancelled,
    "IndexError": TensorIndexError,
    "KeyError": TensorKeyError,
    "LinAlgError": LinAlgError,
    "LookupError": TensorIndexError,
    "NotImplementedError": TensorNotImplementedError,
    "OutOfMemoryError": OutOfMemoryError,
    "OverflowError": TensorOverflowError,
    "RuntimeError": TensorRuntimeError,
    "StopIteration": TensorRuntimeError,
    "TypeError": TensorTypeError,
    "ValueError": TensorValueError,
    "ZeroDivisionError": TensorZeroDivisionError,
}

# gRPC status name -> class; a reason of the contract, where there is one, decides instead.
BY_STATUS: dict[str, type[ServerError]] = {
    "CANCELLED": ServerFailed,
    "UNKNOWN": ServerFailed,
    "INVALID_ARGUMENT": RequestRefused,
    "DEADLINE_EXCEEDED": ConnectFailed,
    "NOT_FOUND": RequestRefused,
    "ALREADY_EXISTS": RequestRefused,
    "PERMISSION_DENIED": RequestRefused,
    "RESOURCE_EXHAUSTED": ServerBusy,
    "FAILED_PRECONDITION": RequestRefused,
    "ABORTED": ServerFailed,
    "OUT_OF_RANGE": ServerFailed,
    "UNIMPLEMENTED": RequestRefused,
    "INTERNAL": ServerFailed,
    "UNAVAILABLE": ConnectFailed,
    "DATA_LOSS": ServerFailed,
    "UNAUTHENTICATED": SessionLost,
}

# The reason of a LimitReached.
LIMIT = "LIMIT"

# ErrorInfo.reason of the contract -> class.
BY_REASON: dict[str, type[TensorError]] = {
    "DISK": ServerFailed,
    "MESSAGE_TOO_LARGE": RequestRefused,
    "OUT_OF_MEMORY": OutOfMemoryError,
    "QUOTA_EXCEEDED": OutOfMemoryError,
    "REPLY_TOO_LARGE": RequestRefused,
    "SESSION_LOST": SessionLost,
    "STREAM_SUPERSEDED": SessionTakenOver,
    "TOO_LARGE_FOR_A_MESSAGE": RequestRefused,
    "VERSION_MISMATCH": VersionMismatch,
}


# What a LimitReached has of the details of an ErrorInfo.
_NUMBERS = ("limit", "used", "asked")
_OF_MEMORY = ("device_bytes", "tensors")


def limit_error(message: str, details: Mapping[str, str]) -> LimitReached:
    """The exception for the reason LIMIT."""
    name = details.get("name", "")
    error = MemoryLimitReached(message) if name in _OF_MEMORY else UseLimitReached(message)
    error.name, error.reason = name, LIMIT
    error.limit, error.used, error.asked = (_number(details.get(each, "")) for each in _NUMBERS)
    return error


def _number(text: str) -> float:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return 0


def make_error(
    kind: str,
    message: str,
    *,
    operation: str = "",
    reason: str = "",
    site: tuple[str, int] | None = None,
    details: Mapping[str, str] | None = None,
) -> TensorError:
    """The exception for an Error of the contract, with the caller's line as a note (PEP 678)."""
    error: TensorError = (
        limit_error(message, details) if reason == LIMIT and details else BY_TYPE.get(kind, TensorRuntimeError)(message)
    )
    return attribute(error, operation=operation, reason=reason, site=site)


def attribute(
    error: TensorError, *, operation: str, reason: str = "", site: tuple[str, int] | None = None
) -> TensorError:
    """Say on an exception which operation failed, and where it was issued."""
    error.operation = operation
    error.reason = reason
    if site is not None:
        error.filename, error.lineno = site
        error.add_note(f"`{operation}` issued at {site[0]}:{site[1]}")
    return error


def fresh(error: TensorError) -> TensorError:
    """A copy of an error: one exception object raised in many places would collect their tracebacks and notes."""
    copy = type(error)(*error.args)
    copy.reason = error.reason
    if isinstance(error, LimitReached) and isinstance(copy, LimitReached):
        copy.name, copy.limit, copy.used, copy.asked = error.name, error.limit, error.used, error.asked
    return copy
