"""What can go wrong, in the server's own words. Knows neither gRPC nor torch.

    ServerError                  reason, message
    ├── InvalidArgument          the request cannot be right
    ├── UnknownId                an id that the session does not hold
    ├── AlreadyExists            an id or a name that is taken
    ├── NotFound                 a name that nothing has
    ├── ModelNotReady            a model that is on record, but does not serve
    ├── ModelElsewhere           a model that another engine of the house has
    ├── DeadlineExceeded         the time was up before the request was run
    ├── SequenceGap              a batch that is not the next one
    ├── Exhausted                memory, quota, sessions, or unacknowledged replies
    │   ├── QueueFull            too many requests wait for a model; another replica of it may have room
    │   └── TooLarge             what was asked for does not fit into one message; asking again does not help
    ├── SessionLost              the session is gone, and why
    ├── Unauthenticated          the secret is wrong
    ├── Superseded               another stream has taken over
    ├── CallFailed               torch refused a call, or a call that it needs
    ├── VersionMismatch          no common protocol version
    ├── PermissionDenied         the server was not told to allow this
    ├── NotSent                  another server was not reached, or did not keep what it was sent
    ├── NotConfigured            what the server was not given at its start
    ├── StorageFailed            what is on disk cannot be read or written, or is not what was written
    ├── Unimplemented            a part of a protocol that is not served
    ├── Unreachable              an engine does not answer; another one, or the same later, may
    └── Stopping                 the server is on its way out

One interceptor (front/interceptor.py) turns them into statuses; only front/status.py names those.
"""

from __future__ import annotations

from tensorcompute.v1 import tensor_pb2 as pb


class ServerError(Exception):
    """A refusal, with a stable reason for programs and a message for people."""

    reason = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None, **details: str) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.details = details


class InvalidArgument(ServerError):
    """The request cannot be right, whatever the state."""

    reason = "INVALID_ARGUMENT"


class UnknownId(ServerError):
    """An id that the session does not hold."""

    reason = "UNKNOWN_ID"


class AlreadyExists(ServerError):
    """An id or a name that is taken."""

    reason = "ALREADY_EXISTS"


class NotFound(ServerError):
    """A name that nothing has."""

    reason = "NOT_FOUND"


class ModelNotReady(ServerError):
    """A model that is on record, but does not serve."""

    reason = "MODEL_NOT_READY"


class ModelElsewhere(ServerError):
    """A model that this engine of a house is not to run, since another one has it."""

    reason = "MODEL_ELSEWHERE"


class DeadlineExceeded(ServerError):
    """The time was up before the request was run."""

    reason = "DEADLINE_EXCEEDED"


class SequenceGap(ServerError):
    """A batch that is not the next one of its session."""

    reason = "SEQUENCE_GAP"


class Exhausted(ServerError):
    """Memory, quota, sessions, or unacknowledged replies."""

    reason = "RESOURCE_EXHAUSTED"


class QueueFull(Exhausted):
    """Too many requests wait for a model here. It was not run; another replica, or the same later, may take it."""

    reason = "QUEUE_FULL"


class TooLarge(Exhausted):
    """What was asked for does not fit into one message. Asking again does not help; the message says what does."""

    reason = "TOO_LARGE_FOR_A_MESSAGE"


class SessionLost(ServerError):
    """The session is gone; the message says why."""

    reason = "SESSION_LOST"


class Unauthenticated(ServerError):
    """The secret is wrong."""

    reason = "UNAUTHENTICATED"


class Superseded(ServerError):
    """Another stream of the session has taken over."""

    reason = "STREAM_SUPERSEDED"


class VersionMismatch(ServerError):
    """Client and server speak no common protocol version."""

    reason = "VERSION_MISMATCH"


class PermissionDenied(ServerError):
    """The server was not told to allow this."""

    reason = "PERMISSION_DENIED"


class NotSent(ServerError):
    """Another server was not reached, or did not keep what it was sent."""

    reason = "NOT_SENT"


class NotConfigured(ServerError):
    """What the server was not given at its start; the message names the option."""

    reason = "NOT_CONFIGURED"


class StorageFailed(ServerError):
    """What is on disk cannot be read or written, or is not what was written."""

    reason = "STORAGE_FAILED"


class Unimplemented(ServerError):
    """A part of a protocol that is not served."""

    reason = "UNIMPLEMENTED"


class Unreachable(ServerError):
    """The engine that is to answer cannot be reached."""

    reason = "ENGINE_UNREACHABLE"


class Stopping(ServerError):
    """The server is on its way out."""

    reason = "STOPPING"


class CallFailed(ServerError):
    """A call failed, or was skipped because one that it needs failed; carries the root error."""

    reason = "OPERATION_FAILED"

    def __init__(self, error: pb.Error) -> None:
        super().__init__(
            error.message, reason=error.reason, type=error.type, operation=error.operation, **error.details
        )
        self.error = error
