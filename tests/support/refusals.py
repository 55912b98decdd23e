"""What a failed RPC tells: its status, and the details that every status of the contract must carry.

Knows gRPC; does not know the contract's messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status

DOMAIN = "tensorcompute"


@dataclass
class Refusal:
    """A status with its parsed details."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    reason: str = ""
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None


def parse(error: Any) -> Refusal:
    """The status of a failed RPC; fails where its details do not parse or contradict it."""
    refusal = Refusal(code=code_of(error), message=error.details() or "")
    status = rpc_status.from_call(error)
    assert status is not None, f"{refusal.code} without google.rpc.Status: {refusal.message}"
    assert code_pb2.Code.Name(status.code) == refusal.code.name
    for detail in status.details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            refusal.reason, refusal.domain, refusal.metadata = info.reason, info.domain, dict(info.metadata)
        elif detail.Unpack(retry):
            refusal.retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    assert refusal.domain == DOMAIN, f"{refusal.code} without ErrorInfo of domain {DOMAIN}: {refusal.message}"
    assert refusal.reason, f"{refusal.code} without a reason: {refusal.message}"
    return refusal


def code_of(error: Any) -> grpc.StatusCode:
    """The status of a failed RPC; whatever gRPC raises has one, though its type does not say so."""
    code: grpc.StatusCode = error.code()
    return code


def status_of(action: Callable[[], object]) -> grpc.StatusCode:
    """The status that an RPC ends with; OK where it succeeds."""
    try:
        action()
    except grpc.RpcError as error:
        return code_of(error)
    return grpc.StatusCode.OK


@contextlib.contextmanager
def refused(*codes: grpc.StatusCode, reason: str | None = None, naming: str | None = None) -> Iterator[Refusal]:
    """Expect an RPC to fail with one of the codes; what it told is in the object that the block gets."""
    told = Refusal()
    try:
        yield told
    except grpc.RpcError as error:
        told.__dict__.update(parse(error).__dict__)
    else:
        raise AssertionError(f"not refused; expected {', '.join(code.name for code in codes)}")
    assert told.code in codes, f"{told}; expected {', '.join(code.name for code in codes)}"
    assert reason is None or told.reason == reason, f"{told}; expected reason {reason}"
    assert naming is None or naming in told.message, f"{told}; expected a message that names {naming}"
