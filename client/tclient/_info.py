"""What the server says of itself. Knows the contract's messages; gives plain objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tclient._session.current import current
from tclient._session.session import Session
from tclient._transport.channel import TENSOR_SERVICE
from tclient._transport.limits import transferring
from tensorcompute.v1 import tensor_service_pb2 as rpc


@dataclass(frozen=True)
class DeviceInfo:
    """A device of the server."""

    name: str
    description: str
    total_bytes: int
    free_bytes: int
    allocated_bytes: int
    # The engine that has it, where there are several.
    engine: str = ""


@dataclass(frozen=True)
class EngineInfo:
    """One of the engines behind the address of a server."""

    id: str
    # As the server names it; to sessions that live there their GPU is "cuda:0".
    device: str
    # Empty while it starts.
    boot_id: str
    sessions: int
    # STARTING, SERVING, or DRAINING: it takes no new sessions.
    state: str
    # The host that it is on, in a cluster.
    node: str
    # Why it does not serve.
    reason: str


@dataclass(frozen=True)
class LimitInfo:
    """One of the limits of the principal that asks, and what it uses of that."""

    # As the file of limits calls it: "sessions", "device_bytes", "calls_per_s".
    name: str
    # 0 is as much as it likes.
    limit: float
    # Now, or of a rate in the last second or minute.
    used: float


@dataclass(frozen=True)
class ServerInfo:
    """The server: versions, devices (the default one first), and how busy it is."""

    version: str
    boot_id: str
    torch_version: str
    devices: tuple[DeviceInfo, ...]
    sessions: int
    uptime_s: float
    operations_digest: str
    max_inline_bytes: int
    max_message_bytes: int
    # Where there are several.
    engines: tuple[EngineInfo, ...] = ()
    # Those of the caller.
    limits: tuple[LimitInfo, ...] = ()
    # Who the caller is to the server.
    principal: str = ""


def server_info() -> ServerInfo:
    """Ask the server of the current session what it is and has. Raises NotConnectedError, ServerError."""
    session = current()
    return _ask(session, session.channel.ask_home)


def own_devices() -> tuple[DeviceInfo, ...]:
    """The devices of the engine on which the current session lives, by the names that they have there.

    Raises: NotConnectedError, ServerError.
    """
    session = current()
    info = _ask(session, session.channel.call)
    own = next((each for each in info.engines if each.boot_id == session.opened.boot_id), None)
    if own is None:
        return info.devices
    told = {each.name: each for each in info.devices if each.engine in ("", own.id)}
    found = []
    for each in session.opened.devices:
        same = told.get(_as_the_server_counts(each.name, own.device))
        found.append(_device(each) if same is None else replace(same, name=each.name))
    return tuple(found)


def _as_the_server_counts(device: str, first: str) -> str:
    """The name of an engine's device among those of all engines; `first` is that of its first one."""
    if not (device.startswith("cuda:") and first.startswith("cuda:")):
        return device
    return f"cuda:{int(first.partition(':')[2]) + int(device.partition(':')[2])}"


def _device(told: rpc.DeviceInfo) -> DeviceInfo:
    return DeviceInfo(told.name, told.description, told.total_bytes, told.free_bytes, told.allocated_bytes, told.engine)


def _ask(session: Session, call: Callable[..., Any]) -> ServerInfo:
    with transferring(session.channel, "server_info"):
        told: rpc.GetServerInfoResponse = call(
            TENSOR_SERVICE + "GetServerInfo", rpc.GetServerInfoRequest(), rpc.GetServerInfoResponse
        )
    return ServerInfo(
        version=told.version,
        boot_id=told.boot_id,
        torch_version=told.torch_version,
        devices=tuple(map(_device, told.devices)),
        sessions=told.sessions,
        uptime_s=told.uptime_s,
        operations_digest=told.operations_digest,
        max_inline_bytes=told.limits.max_inline_bytes,
        max_message_bytes=told.limits.max_message_bytes,
        engines=tuple(
            EngineInfo(each.id, each.device, each.boot_id, each.sessions, each.state, each.node, each.reason)
            for each in told.engines
        ),
        limits=tuple(LimitInfo(each.name, each.limit, each.used) for each in told.own_limits),
        principal=told.principal,
    )
