"""What a server keeps on its disk under names: the requests, and what their refusals are to a Python program.

Knows the contract's messages and the channel; does not know what a tensor is.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

import grpc

from tclient._exceptions import BY_REASON, RequestRefused, TensorError, TensorTypeError, make_error
from tclient._transport.channel import STORAGE_SERVICE, Channel
from tclient._transport.limits import transferring
from tclient._transport.statuses import is_broken, status_of, translate
from tensorcompute.v1 import storage_service_pb2 as ss
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc

T = TypeVar("T")

# What a status is to a Python program.
_RAISED = {"INVALID_ARGUMENT": "ValueError", "NOT_FOUND": "KeyError", "ALREADY_EXISTS": "ValueError"}
_TOKEN_BYTES = 16


@dataclass(frozen=True, slots=True)
class KeptName:
    """What is kept under a name."""

    name: str
    # "tensor", "state_dict", "module", or the class of what was kept; "checkpoint" of a whole session; "damaged" where
    # the server cannot read it.
    kind: str
    # What it takes on the server's disk.
    size_bytes: int
    # When it was kept, in local time.
    when: datetime
    # How many tensors are in it.
    tensors: int


class Asking(Protocol):
    """The session that asks."""

    channel: Channel

    @property
    def secret(self) -> bytes:
        """What proves to the server that it is ours."""

    @property
    def lease_s(self) -> float:
        """How long the server keeps it while no connection to it is there."""


def keep(
    session: Asking,
    name: str,
    tensors: Sequence[tuple[str, pb.Ref]],
    *,
    kind: str,
    metadata: Mapping[str, str],
    overwrite: bool,
) -> None:
    """Keep what the session holds. Waits. Raises: ValueError, ServerError, OutOfMemoryError."""
    request = ss.KeepRequest(
        context=_context(session),
        name=checked(name),
        tensors=[ss.KeptTensor(name=each, tensor=ref) for each, ref in tensors],
        kind=kind,
        metadata=metadata,
        overwrite=overwrite,
        token=secrets.token_hex(_TOKEN_BYTES),
    )
    most = session.channel.max_message
    if request.ByteSize() > most:
        raise make_error(
            "ValueError",
            f"keep: what is around the tensors takes {request.ByteSize()} bytes in a message, and the server takes "
            f"{most}; keep it in several parts",
        )
    _ask(session, "Keep", request, ss.KeepResponse)


def recall(session: Asking, name: str, number: int, device: str) -> ss.RecallResponse:
    """Bring back what is kept, as parts of the result of that number. Waits. Raises: KeyError, too."""
    request = ss.RecallRequest(context=_context(session), name=checked(name), id=number, device=device)
    return _ask(session, "Recall", request, ss.RecallResponse)


def checkpoint(session: Asking, name: str, *, overwrite: bool) -> list[str]:
    """Keep the whole session; what is not in it. Waits. Raises: ValueError, ServerError, OutOfMemoryError."""
    token = secrets.token_hex(_TOKEN_BYTES)
    request = ss.CheckpointRequest(context=_context(session), name=checked(name), overwrite=overwrite, token=token)
    return list(_ask(session, "Checkpoint", request, ss.CheckpointResponse).left_out)


def resume(session: Asking, name: str) -> None:
    """Fill a session that was just opened. Waits. Raises: KeyError, ValueError, ServerError, OutOfMemoryError."""
    request = ss.ResumeRequest(context=_context(session), name=checked(name))
    _ask(session, "Resume", request, ss.ResumeResponse)


def names(session: Asking) -> list[KeptName]:
    """All that is kept, by name."""
    found: list[KeptName] = []
    token = ""
    while True:
        request = ss.ListNamesRequest(context=_context(session), page_token=token)
        page = _ask(session, "ListNames", request, ss.ListNamesResponse)
        found += [
            KeptName(each.name, each.kind, each.size_bytes, datetime.fromtimestamp(each.kept_unix_s), each.tensors)
            for each in page.names
        ]
        token = page.next_page_token
        if not token:
            return found


def forget(session: Asking, name: str) -> None:
    """Let go of what is kept. Raises: KeyError."""
    _ask(session, "Forget", ss.ForgetRequest(context=_context(session), name=checked(name)), ss.ForgetResponse)


def checked(name: str) -> str:
    """A name, which the server looks at more closely. Raises: TypeError, ValueError."""
    if not isinstance(name, str):
        raise TensorTypeError(f"a name is a str, not {type(name).__name__}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise make_error("ValueError", f"the name {name[:60]!r} is no text: {error.reason}") from None
    return name


def _context(session: Asking) -> rpc.SessionContext:
    return rpc.SessionContext(session=session.secret)


def _ask(session: Asking, method: str, request: Any, response: Callable[[], T]) -> T:
    """The answer, however long the server's disk takes; asked for again while the connection is broken."""
    channel = session.channel
    is_lost = False

    def attempt() -> Any:
        nonlocal is_lost
        channel.check_alive()
        try:
            return channel.unary(STORAGE_SERVICE + method, request, response, timeout_s=None)
        except grpc.RpcError as error:
            if is_broken(error):
                is_lost = True
                raise
            if method == "Forget" and is_lost and status_of(error) == "NOT_FOUND":
                return response()  # it was forgotten, and only the answer was lost
            raise _translated(error, channel.address) from None

    with transferring(channel, method.lower()):
        answer: T = channel.again(attempt, session.lease_s)
        return answer


def _translated(error: grpc.RpcError, address: str) -> TensorError:
    failure = translate(error, address)
    status = status_of(error)
    if isinstance(failure, RequestRefused) and status in _RAISED and failure.reason not in BY_REASON:
        return make_error(_RAISED[status], str(failure), reason=failure.reason)
    return failure
