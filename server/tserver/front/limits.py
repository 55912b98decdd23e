"""The limits of a server, as its clients are told them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.config import Config
from tserver.models.owners import is_of, owner_of

if TYPE_CHECKING:
    from tserver.engines.port import Engine, Usage
    from tserver.identity import Identity
    from tserver.limits.account import Account


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


async def own_limits(engine: Engine, identity: Identity, usage: Usage) -> list[ts.LimitInfo]:
    """What a principal may use, and what it uses."""
    principal, owner = identity.principal, owner_of(identity)
    size, tensors = usage.by_principal.get(principal, (0, 0))
    disk_use = engine.disk_use
    used = {
        "sessions": engine.sessions.count_of(principal),
        "models": sum(is_of(each, owner) for each in engine.models.registry.index()),
        "device_bytes": size,
        "tensors": tensors,
        "disk_bytes": 0 if disk_use is None else await asyncio.to_thread(disk_use.used, principal),
    }
    return infos(engine.accounts.of(principal), used)


def infos(account: Account, used: Mapping[str, float]) -> list[ts.LimitInfo]:
    """The limits of an account, and what is used of each; of some others know."""
    return [ts.LimitInfo(name=name, limit=limit, used=use) for name, limit, use in account.told(used)]
