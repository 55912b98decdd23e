"""What only the Open Inference Protocol refuses, and the statuses that differ from the main listener's."""

from __future__ import annotations

import grpc

from tserver import errors
from tserver.service.status import code_of


class Refused(errors.ServerError):
    """The server was not told to allow this."""

    reason = "PERMISSION_DENIED"


class Unsupported(errors.ServerError):
    """A part of the protocol that is not served."""

    reason = "UNIMPLEMENTED"


_CODES: dict[type[errors.ServerError], grpc.StatusCode] = {
    Refused: grpc.StatusCode.PERMISSION_DENIED,
    Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    # Triton's status for a version that is there but does not serve: its clients retry on it.
    errors.ModelNotReady: grpc.StatusCode.UNAVAILABLE,
}


def oip_code_of(error: errors.ServerError) -> grpc.StatusCode:
    """The status code for an error on this listener."""
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), None) or code_of(error)
