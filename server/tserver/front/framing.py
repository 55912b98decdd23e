"""Bulk bytes put into messages by hand: the protobuf `bytes` field is framed around them, and they are copied once."""

from __future__ import annotations

from tensorcompute.wire.varint import varint

_CHUNK_FIELD = 2


def chunk_frame(chunk: memoryview) -> bytes:
    """A DownloadResponse (or UploadRequest: the field has the same number) with the chunk in it."""
    return b"".join((bytes((_CHUNK_FIELD << 3 | 2,)), varint(len(chunk)), chunk))


def chunk_of(message: bytes) -> memoryview | None:
    """The chunk in a message that is one chunk field and nothing else; None for any other message."""
    length = shift = 0
    for position in range(1, min(len(message), 6)):
        byte = message[position]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if message[0] == _CHUNK_FIELD << 3 | 2 and position + 1 + length == len(message):
                return memoryview(message)[position + 1 :]
            return None
    return None
