"""Bulk bytes in messages: the field around a chunk is written and read by hand, so that the bytes are copied once.

UploadRequest, DownloadResponse and DownloadMlpResponse have it under the same number.
"""

from __future__ import annotations

from tensorcompute.wire.varint import read_varint, varint

_TAG = b"\x12"


def chunk_message(chunk: bytes | memoryview) -> bytes:
    """A message with the chunk in it and nothing else."""
    return b"".join((_TAG, varint(len(chunk)), chunk))


def chunk_of(message: bytes) -> memoryview | None:
    """The chunk in a message that is one chunk and nothing else; None for any other message."""
    if message[:1] != _TAG:
        return None
    try:
        length, start = read_varint(message, 1)
    except ValueError:
        return None
    return memoryview(message)[start:] if start + length == len(message) else None
