"""What the server says of itself. Knows the contract's messages; gives plain objects."""

from __future__ import annotations

from dataclasses import dataclass

from tclient._session.current import current
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


def server_info() -> ServerInfo:
    """Ask the server of the current session what it is and has. Raises NotConnectedError, ServerError."""
    session = current()
    with transferring(session.channel, "server_info"):
        told: rpc.GetServerInfoResponse = session.channel.call(
            TENSOR_SERVICE + "GetServerInfo", rpc.GetServerInfoRequest(), rpc.GetServerInfoResponse
        )
    return ServerInfo(
        version=told.version,
        boot_id=told.boot_id,
        torch_version=told.torch_version,
        devices=tuple(
            DeviceInfo(each.name, each.description, each.total_bytes, each.free_bytes, each.allocated_bytes)
            for each in told.devices
        ),
        sessions=told.sessions,
        uptime_s=told.uptime_s,
        operations_digest=told.operations_digest,
        max_inline_bytes=told.limits.max_inline_bytes,
        max_message_bytes=told.limits.max_message_bytes,
    )
