"""Upload and Download: large arrays, in chunks, from and into their own memory.

The protobuf framing around each chunk is written and read by hand, so that our code copies each byte once. Knows the
connection; does not know what a tensor is.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np

from tclient import _wire
from tclient._connection import again
from tclient._dtypes import BY_CODE
from tclient._exceptions import ServerFailed
from tclient._session import Session
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc

_CHUNK_BYTES = 1 << 20


def upload(session: Session, dtype_code: int, shape: Sequence[int], data: memoryview | bytes) -> bytes:
    """Send the bytes of an array; the id of the upload, as a varint, for HostArray.upload. Raises a ServerError."""
    number = session.next_id()
    header = rpc.UploadHeader(
        context=rpc.SessionContext(session=session.secret),
        id=number,
        dtype=pb.DType.Name(pb.DType.ValueType(dtype_code)),
        shape=shape,
        crc32=zlib.crc32(data),
    )
    opening = rpc.UploadRequest(header=header).SerializeToString()
    chunk_bytes = min(_CHUNK_BYTES, session.limits.max_chunk_bytes or _CHUNK_BYTES)
    view = memoryview(data)

    def attempt() -> None:
        try:
            response = session.connection.upload(_chunks(opening, view, chunk_bytes))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                return  # it had arrived; only the answer was lost
            raise
        if response.received_bytes != len(view):
            raise ServerFailed(f"upload: sent {len(view)} bytes, but the server received {response.received_bytes}")

    session.stats.uploads += 1
    again(attempt, session.address, session.lease_s)
    return _wire.id_varint(number)


def _chunks(opening: bytes, view: memoryview, chunk_bytes: int) -> Iterator[bytes]:
    yield opening
    for start in range(0, len(view), chunk_bytes):
        piece = view[start : start + chunk_bytes]
        # UploadRequest.chunk
        yield b"".join((b"\x12", _wire.varint(len(piece)), piece))


def download(session: Session, id_bytes: bytes) -> tuple[int, tuple[int, ...], np.ndarray[Any, Any]]:
    """Fetch a staged copy: its dtype code, its shape, and its bytes. Raises a ServerError."""
    reference = pb.Ref.FromString(b"\x08" + id_bytes)
    request = rpc.DownloadRequest(context=rpc.SessionContext(session=session.secret), tensor=reference)
    session.stats.downloads += 1

    def attempt() -> tuple[int, tuple[int, ...], np.ndarray[Any, Any]]:
        return _receive(session, session.connection.download(request))

    found: tuple[int, tuple[int, ...], np.ndarray[Any, Any]] = again(attempt, session.address, session.lease_s)
    return found


def _receive(session: Session, messages: Any) -> tuple[int, tuple[int, ...], np.ndarray[Any, Any]]:
    header: rpc.DownloadHeader | None = None
    trailer: rpc.DownloadTrailer | None = None
    buffer = np.empty(0, np.uint8)
    view = memoryview(b"")
    position = checksum = 0
    for message in messages:
        if message[:1] == b"\x12" and header is not None:
            # DownloadResponse.chunk
            start, length = _frame(message)
            if position + length > len(view):
                messages.cancel()
                raise ServerFailed(f"download: more bytes came than the {len(view)} announced")
            piece = memoryview(message)[start : start + length]
            view[position : position + length] = piece
            checksum = zlib.crc32(piece, checksum)
            position += length
            continue
        response = rpc.DownloadResponse.FromString(message)
        if response.HasField("header"):
            header = response.header
            buffer = np.empty(header.total_bytes, np.uint8)
            view = buffer.data
        elif response.HasField("trailer"):
            trailer = response.trailer
    if header is None or trailer is None or position != len(view):
        raise ServerFailed(f"download: the server at {session.address} ended it after {position} of {len(view)} bytes")
    if trailer.crc32 != checksum:
        raise ServerFailed(f"download: the checksum is {checksum:#010x}, but the server sent {trailer.crc32:#010x}")
    if header.dtype not in BY_CODE:
        raise ServerFailed(f"download: dtype {header.dtype} is not known to this client")
    return header.dtype, tuple(header.shape), buffer


def _frame(message: bytes) -> tuple[int, int]:
    """Where the content of a length-delimited field begins, and its length."""
    length = shift = 0
    position = 1
    while True:
        byte = message[position]
        position += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    if position + length != len(message):
        raise ServerFailed("download: a message is not framed as the contract says")
    return position, length
