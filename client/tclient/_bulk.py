"""Upload and Download: large arrays, from and into their own memory.

They go by the data endpoint where there is one, else in chunks over gRPC. There the protobuf framing around each chunk
is written and read by hand, so that our code copies each byte once. Knows the connection; does not know what a tensor
is.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from tclient import _data_endpoint, _wire
from tclient._connection import again, message_limit
from tclient._dtypes import BY_CODE
from tclient._exceptions import ServerFailed, TensorTypeError, TensorValueError
from tclient._limits import check, transferring
from tclient._oversize import FRAME_BYTES
from tclient._progress import Progress
from tclient._session import Session
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc
from tensorcompute.wire.chunks import chunk_message, chunk_of

# Of 512 KiB to 2 MiB this is the fastest, by a fifth and more: from 1 MiB on, with what frames it, a message is larger
# than gRPC takes in one go.
_CHUNK_BYTES = 960 << 10

Array = np.ndarray[Any, Any]
# The code of the dtype, the shape, and the bytes.
Fetched = tuple[int, tuple[int, ...], Array]


def upload(session: Session, dtype_code: int, shape: Sequence[int], data: memoryview | bytes) -> bytes:
    """Send the bytes of an array; the id of the upload, as a varint, for HostArray.upload. Raises a ServerError."""
    number = session.next_id()
    view = memoryview(data)
    header = rpc.UploadHeader(
        id=number,
        dtype=pb.DType.Name(pb.DType.ValueType(dtype_code)),
        shape=shape,
    )
    session.stats.uploads += 1
    with transferring(session, "upload"):
        if session.checksums:
            header.crc32 = zlib.crc32(view)
        elif _data_endpoint.send(session, header, view):
            return _wire.id_varint(number)
        with Progress(session, "upload", len(view)) as progress:
            over_grpc(session, header, view, progress.reach)
    return _wire.id_varint(number)


def over_grpc(session: Session, header: rpc.UploadHeader, view: memoryview, reach: Callable[[int], object]) -> None:
    """Send an upload in chunks, again from the beginning where the connection breaks. `reach` is told how many bytes
    are sent. Raises a ServerError.
    """
    header.context.session = session.secret
    _keep_freed_memory()
    opening = rpc.UploadRequest(header=header).SerializeToString()

    def attempt() -> None:
        _check_alive(session)
        try:
            chunks = _chunks(opening, view, chunk_bytes(session))
            response = session.connection.upload(_counted(chunks, reach, view))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                return  # it had arrived; only the answer was lost
            limit = message_limit(error)
            if limit is None or limit >= session.max_message:
                raise
            session.bound_messages(limit)
            attempt()
            return
        if response.received_bytes != len(view):
            raise ServerFailed(f"upload: sent {len(view)} bytes, but the server received {response.received_bytes}")

    again(attempt, session.address, session.lease_s)


def _check_alive(session: Session) -> None:
    """Raises: SessionLost and its kin; TimeoutError."""
    check()
    if session.dead is not None:
        raise session.dead


@functools.cache
def _keep_freed_memory() -> None:
    """Let the C library keep some freed memory. Else the kernel maps each chunk anew: that is slower than a copy."""
    # glibc takes the size of the largest block freed so far, up to 32 MiB, for what is usual here. Never touched.
    bytearray((32 << 20) - 8192)


def chunk_bytes(session: Session) -> int:
    """The size of the chunks of an upload."""
    most = min(_CHUNK_BYTES, session.max_message - FRAME_BYTES)
    return max(1, min(most, session.limits.max_chunk_bytes or most))


def _chunks(opening: bytes, view: memoryview, chunk_bytes: int) -> Iterator[bytes]:
    yield opening
    for start in range(0, len(view), chunk_bytes):
        yield chunk_message(view[start : start + chunk_bytes])


def _counted(messages: Iterator[bytes], reach: Callable[[int], object], view: memoryview) -> Iterator[bytes]:
    yield next(messages)
    done = 0
    for message in messages:
        yield message
        done += len(message)
        reach(min(done, len(view)))


def download(session: Session, id_bytes: bytes, out: Array | None = None) -> Fetched:
    """Fetch a staged copy: its dtype code, its shape, and its bytes, which are those of `out` where that can be filled
    as it is. Raises a ServerError; TypeError and ValueError if `out` does not fit.
    """
    reference = pb.Ref.FromString(b"\x08" + id_bytes)
    request = rpc.DownloadRequest(tensor=reference, without_crc32=not session.checksums)
    session.stats.downloads += 1
    with transferring(session, "download"):
        return _download(session, request, out)


def _download(session: Session, request: rpc.DownloadRequest, out: Array | None) -> Fetched:
    if not session.checksums:
        buffer = np.empty(0, np.uint8)

        def memory(answer: rpc.OpenTransferResponse) -> memoryview:
            nonlocal buffer
            buffer = _memory(answer.dtype, answer.shape, answer.size_bytes, out)
            return buffer.data

        answer = _data_endpoint.receive(session, request, memory)
        if answer is not None:
            return answer.dtype, tuple(answer.shape), buffer

    request.context.session = session.secret
    _keep_freed_memory()

    def attempt() -> Fetched:
        _check_alive(session)
        return _receive(session, session.connection.download(request), out)

    found: Fetched = again(attempt, session.address, session.lease_s)
    return found


def check_out(out: Array, dtype_code: int, shape: Sequence[int]) -> None:
    """Raises: TypeError or ValueError if `out` is not an array for these elements."""
    wanted = BY_CODE[dtype_code]
    if wanted.numpy != out.dtype:
        raise TensorTypeError(f"numpy: out has dtype {out.dtype}, but the tensor is {wanted}")
    if tuple(shape) != out.shape:
        raise TensorValueError(f"numpy: out has shape {out.shape}, but the tensor has shape {tuple(shape)}")
    if not out.flags.writeable:
        raise TensorValueError("numpy: out is read-only; give an array that can be written")


def _memory(dtype_code: int, shape: Sequence[int], size_bytes: int, out: Array | None) -> Array:
    """Where the bytes go."""
    if dtype_code not in BY_CODE:
        raise ServerFailed(f"download: dtype {dtype_code} is not known to this client")
    if out is not None:
        check_out(out, dtype_code, shape)
        if out.flags.c_contiguous and out.nbytes == size_bytes:
            return out.reshape(-1).view(np.uint8)
    return np.empty(size_bytes, np.uint8)


def _receive(session: Session, messages: Any, out: Array | None) -> Fetched:
    header: rpc.DownloadHeader | None = None
    trailer: rpc.DownloadTrailer | None = None
    buffer = np.empty(0, np.uint8)
    view = memoryview(b"")
    position = checksum = 0
    progress = Progress(session, "download", 0)
    try:
        for message in messages:
            chunk = chunk_of(message)
            if chunk is not None and header is not None:
                if position + len(chunk) > len(view):
                    raise ServerFailed(f"download: more bytes came than the {len(view)} announced")
                view[position : position + len(chunk)] = chunk
                if session.checksums:
                    checksum = zlib.crc32(chunk, checksum)
                position += len(chunk)
                progress.reach(position)
                continue
            response = _parsed(message)
            if response.HasField("header"):
                header = response.header
                buffer = _memory(header.dtype, header.shape, header.total_bytes, out)
                view = buffer.data
                progress = Progress(session, "download", len(view))
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
        raise ServerFailed(f"download: the server at {session.address} ended it after {position} of {len(view)} bytes")
    if session.checksums and trailer.HasField("crc32") and trailer.crc32 != checksum:
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
