"""What is asked of the model service, and what its refusals are to a Python program.

Knows the contract's messages and the channel; does not know what a model is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import grpc

from tclient._codec.dtypes import dtype
from tclient._exceptions import BY_REASON, RequestRefused, ServerBusy, TensorError, make_error
from tclient._session.session import Session
from tclient._transport.channel import ANSWER_S, MODEL_SERVICE, Channel
from tclient._transport.limits import transferring
from tclient._transport.statuses import is_broken, retry_after_s, status_of
from tensorcompute.v1 import model_service_pb2 as rpc
from tensorcompute.v1 import tensor_pb2 as pb

# What may be applied twice is asked again where the connection breaks.
_REPEATABLE = {"DescribeMlp", "GetMlpStatistics", "ListMlps", "LoadMlp", "UnloadMlp", "UpdateMlp"}
# What a reason or status of the model service is to a Python program.
_RAISED = {"INVALID_ARGUMENT": "ValueError", "NOT_FOUND": "KeyError", "ALREADY_EXISTS": "ValueError"}


def code_of(element: dtype | None) -> Any:
    """DType of the contract; none is unspecified."""
    return 0 if element is None else pb.DType.ValueType(element.code)


def batching_of(settings: Mapping[str, Any]) -> rpc.BatchingConfig:
    """BatchingConfig. Raises: TypeError for a setting that it does not have."""
    try:
        return rpc.BatchingConfig(**settings)
    except ValueError as error:
        fields = ", ".join(rpc.BatchingConfig.DESCRIPTOR.fields_by_name)
        raise make_error("TypeError", f"{error}; the settings of batching are {fields}") from None


def ask(session: Session, method: str, request: Any, response: Any, *, timeout_s: float | None = ANSWER_S) -> Any:
    """The answer of the model service. Raises: what its refusal is to a Python program; ServerError."""
    channel = session.channel
    deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def attempt() -> Any:
        channel.check_alive()
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            return channel.unary(MODEL_SERVICE + method, request, response, timeout_s=left_s)
        except grpc.RpcError as error:
            if (method in _REPEATABLE and is_broken(error)) or retry_after_s(error) is not None:
                raise
            raise translated(error, channel) from None

    with transferring(channel, method):
        return channel.again(attempt, ANSWER_S if timeout_s is None else timeout_s)


def translated(error: grpc.RpcError, channel: Channel) -> TensorError:
    """The exception for a failed RPC."""
    failure = channel.translate(error)
    if isinstance(failure, RequestRefused):
        return refusal(status_of(error), failure.reason, str(failure))
    return failure


def refusal(status: str, reason: str, message: str) -> TensorError:
    """The exception for a refusal of the model service."""
    if status in _RAISED and reason not in BY_REASON:
        return make_error(_RAISED[status], message, reason=reason)
    busy = status in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE")
    failure = BY_REASON.get(reason, ServerBusy if busy else RequestRefused)(message)
    failure.reason = reason
    return failure
