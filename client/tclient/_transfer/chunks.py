"""Upload and Download in chunks over gRPC: large arrays, from and into their own memory.

The protobuf framing around each chunk is written and read by hand, so that our code copies each byte once. Knows the
channel; does not know what a tensor is.
"""

from __future__ import annotations

import functools
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from tclient._exceptions import ServerFailed
from tclient._transfer.arrays import Array, Fetched, memory_for
from tclient._transfer.progress import Progress, Wish
from tclient._transport.channel import FRAME_BYTES, TENSOR_SERVICE, Channel, Messages
from tclient._transport.statuses import is_there_already, message_limit
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tensorcompute.wire.chunks import chunk_message, chunk_of

# Of 512 KiB to 2 MiB this is the fastest, by a fifth and more: from 1 MiB on, with what frames it, a message is larger
# than gRPC takes in one go.
_CHUNK_BYTES = 960 << 10


def upload(
    channel: Channel,
    header: rpc.UploadHeader,
    view: memoryview,
    reach: Callable[[int], object],
    *,
    max_chunk_bytes: int,
    within_s: float,
) -> None:
    """Send an upload, again from the beginning where the connection breaks. `reach` is told how many bytes are sent.

    Raises: a ServerError.
    """
    _keep_freed_memory()
    opening = rpc.UploadRequest(header=header).SerializeToString()

    def attempt() -> None:
        channel.check_alive()
        try:
            chunks = _chunks(opening, view, chunk_bytes(channel, max_chunk_bytes))
            messages = _counted(chunks, reach, view, channel.chunks)
            with channel.moving_bulk():
                response = channel.client_stream(TENSOR_SERVICE + "Upload", messages, rpc.UploadResponse)
        except grpc.RpcError as error:
            if is_there_already(error):
                return  # it had arrived; only the answer was lost
            limit = message_limit(error)
            if limit is None or limit >= channel.max_message:
                raise
            channel.bound_messages(limit)
            attempt()
            return
        if response.received_bytes != len(view):
            raise ServerFailed(f"upload: sent {len(view)} bytes, but the server received {response.received_bytes}")

    channel.again(attempt, within_s)


def download(
    channel: Channel, request: rpc.DownloadRequest, out: Array | None, wish: Wish, *, within_s: float
) -> Fetched:
    """Fetch a staged copy, into `out` where that can be filled as it is.

    Raises: a ServerError; TypeError and ValueError if `out` does not fit.
    """
    _keep_freed_memory()

    def attempt() -> Fetched:
        channel.check_alive()
        messages = channel.server_stream(TENSOR_SERVICE + "Download", request)
        with channel.moving_bulk():
            return _receive(channel, messages, out, wish, checked=not request.without_crc32)

    return channel.again(attempt, within_s)


def chunk_bytes(channel: Channel, max_chunk_bytes: int) -> int:
    """The size of the chunks of an upload to a server that takes such chunks; 0 is any."""
    most = min(_CHUNK_BYTES, channel.max_message - FRAME_BYTES)
    return max(1, min(most, max_chunk_bytes or most))


@functools.cache
def _keep_freed_memory() -> None:
    """Let the C library keep some freed memory. Else the kernel maps each chunk anew: that is slower than a copy."""
    # glibc takes the size of the largest block freed so far, up to 32 MiB, for what is usual here. Never touched.
    bytearray((32 << 20) - 8192)


def _chunks(opening: bytes, view: memoryview, chunk_bytes: int) -> Iterator[bytes]:
    yield opening
    for start in range(0, len(view), chunk_bytes):
        yield chunk_message(view[start : start + chunk_bytes])


def _counted(
    messages: Iterator[bytes], reach: Callable[[int], object], view: memoryview, moved: deque[float]
) -> Iterator[bytes]:
    yield next(messages)
    done = 0
    for message in messages:
        yield message
        done += len(message)
        moved.append(time.monotonic())
        reach(min(done, len(view)))


def _receive(channel: Channel, messages: Messages, out: Array | None, wish: Wish, *, checked: bool) -> Fetched:
    header: rpc.DownloadHeader | None = None
    trailer: rpc.DownloadTrailer | None = None
    buffer = np.empty(0, np.uint8)
    view = memoryview(b"")
    position = checksum = 0
    progress = Progress(wish, "download", 0)
    try:
        for message in messages:
            chunk = chunk_of(message)
            if chunk is not None and header is not None:
                if position + len(chunk) > len(view):
                    raise ServerFailed(f"download: more bytes came than the {len(view)} announced")
                view[position : position + len(chunk)] = chunk
                if checked:
                    checksum = zlib.crc32(chunk, checksum)
                position += len(chunk)
                channel.chunks.append(time.monotonic())
                progress.reach(position)
                continue
            response = _parsed(message)
            if response.HasField("header"):
                header = response.header
                buffer = memory_for(header.dtype, header.shape, header.total_bytes, out)
                view = buffer.data
                progress = Progress(wish, "download", len(view))
            elif response.HasField("trailer"):
                trailer = response.trailer
    except grpc.RpcError:
        raise
    except BaseException:
        messages.cancel()
        raise
    finally:
        progress.__exit__(None, None, None)
    if header is None or trailer is None or position != len(view):
        raise ServerFailed(f"download: the server at {channel.address} ended it after {position} of {len(view)} bytes")
    if checked and trailer.HasField("crc32") and trailer.crc32 != checksum:
        raise ServerFailed(f"download: the checksum is {checksum:#010x}, but the server sent {trailer.crc32:#010x}")
    return header.dtype, tuple(header.shape), buffer


def _parsed(message: bytes) -> rpc.DownloadResponse:
    """A message that is not a chunk alone. Raises: ServerFailed."""
    try:
        response = rpc.DownloadResponse.FromString(message)
    except DecodeError:
        raise ServerFailed("download: a message is not framed as the contract says") from None
    if response.HasField("chunk"):
        raise ServerFailed("download: a message is not framed as the contract says")
    return response
