"""Networks as safetensors files of the client: sent and received in chunks, with a bar where that takes a while.

Knows the transfer; does not read what is in the files.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tclient._exceptions import ServerFailed, make_error
from tclient._transfer.progress import bar
from tclient._transfer.transfers import Transfers
from tclient._transport.limits import moved, transferring
from tensorcompute.v1 import model_service_pb2 as rpc
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as session_rpc


def upload(transfers: Transfers, number: int, path: Path, progress: bool) -> None:
    """Send a file's bytes under an id. Raises: ValueError, ServerError."""
    size = path.stat().st_size
    if not size:
        raise make_error("ValueError", f"{path} is empty; it is no safetensors file")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        view = memoryview(content)
        try:
            header = session_rpc.UploadHeader(
                id=number,
                dtype=pb.D_TYPE_UINT8,
                shape=[size],
                crc32=zlib.crc32(view),
            )
            with (
                transferring(transfers.channel, "upload"),
                bar(path.name, size, is_wanted=progress, stays=True) as shown,
            ):
                tell = moved()
                transfers.upload_chunks(header, view, lambda done: (shown.update(done - shown.n), tell()))
        finally:
            view.release()
    transfers.channel.stats.uploads += 1


def save(messages: Iterable[bytes], target: Path, progress: bool) -> None:
    """Write a download to a file, which is there whole or not at all. Raises: ServerFailed, grpc.RpcError, OSError."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            _receive(messages, file, target.name, progress)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _receive(messages: Iterable[bytes], file: Any, name: str, progress: bool) -> None:
    total = received = checksum = 0
    expected: int | None = None
    shown: Any = None
    tell = moved()
    try:
        for raw in messages:
            message = rpc.DownloadMlpResponse.FromString(raw)
            part = message.WhichOneof("part")
            if part == "header":
                total = message.header.total_bytes
                shown = bar(name, total, is_wanted=progress, stays=True)
            elif part == "chunk":
                tell()
                file.write(message.chunk)
                received += len(message.chunk)
                checksum = zlib.crc32(message.chunk, checksum)
                shown.update(len(message.chunk))
            elif part == "trailer":
                expected = message.trailer.crc32
    finally:
        if shown is not None:
            shown.close()
    if received != total or checksum != expected:
        raise ServerFailed(f"export: {received} of {total} bytes came, or their checksum differs; try again")
