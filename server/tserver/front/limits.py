"""The limits of a server, as its clients are told them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.config import Config

if TYPE_CHECKING:
    from tserver.engines.port import Engine


def limits_of(config: Config) -> ts.Limits:
    """What a client must stay in."""
    return ts.Limits(
        max_message_bytes=config.max_message_bytes,
        max_inline_bytes=config.max_inline_bytes,
        max_unacked_bytes=config.max_unacked_bytes,
        max_sessions=config.max_sessions,
        max_session_bytes=config.max_session_bytes,
        max_nesting=config.max_nesting,
        max_chunk_bytes=config.max_chunk_bytes,
        max_batches_in_flight=config.max_batches_in_flight,
    )


def own_limits(engine: Engine, principal: str) -> Iterator[ts.LimitInfo]:
    """What a principal may use, and what it uses."""
    for name, limit, used in engine.accounts.of(principal).told(engine.sessions.count_of(principal)):
        yield ts.LimitInfo(name=name, limit=limit, used=used)
