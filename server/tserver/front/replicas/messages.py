"""What the front and the engines say to each other of models: a head, which is JSON, and bytes behind it.

In one message, or in as many as it takes. Knows no RPC.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from google.protobuf import json_format

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.errors import InvalidArgument
from tserver.models.batching import BatchingConfig

CHUNK_BYTES = 1 << 20
_LENGTH = struct.Struct("<I")


def packed(told: dict[str, Any], data: Iterable[Any]) -> bytes:
    """Both in one message."""
    return b"".join((_head(told), *data))


def unpacked(message: bytes | bytearray) -> tuple[dict[str, Any], memoryview]:
    """What was packed so. Raises: InvalidArgument for what was not."""
    if len(message) < _LENGTH.size:
        raise InvalidArgument(f"a message has {len(message)} bytes, which is not even a head")
    (length,) = _LENGTH.unpack_from(message)
    end = _LENGTH.size + length
    return json.loads(message[_LENGTH.size : end]), memoryview(message)[end:]


async def send(
    write: Callable[[bytes], Awaitable[None]],
    told: dict[str, Any],
    data: Iterable[Any],
    chunk_bytes: int = CHUNK_BYTES,
) -> None:
    """Send both in messages of a bearable size."""
    for part in (_head(told), *data):
        whole = memoryview(part)
        for start in range(0, len(whole), chunk_bytes):
            await write(bytes(whole[start : start + chunk_bytes]))


async def receive(read: Callable[[], Awaitable[Any]]) -> tuple[dict[str, Any], memoryview]:
    """What was sent so. Raises: InvalidArgument where nothing comes."""
    data = bytearray()
    while (chunk := await read()) is not grpc.aio.EOF:
        data += chunk
    return unpacked(data)


def batching_of(told: dict[str, Any]) -> BatchingConfig:
    """Settings from JSON."""
    return BatchingConfig.read(json_format.ParseDict(told, ms.BatchingConfig()))


def batching_told(batching: BatchingConfig) -> dict[str, Any]:
    """Settings as JSON."""
    told: dict[str, Any] = json_format.MessageToDict(batching.message(), preserving_proto_field_name=True)
    return told


def _head(told: dict[str, Any]) -> bytes:
    head = json.dumps(told).encode()
    return _LENGTH.pack(len(head)) + head
