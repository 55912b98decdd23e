"""Bulk bytes put into messages by hand: the protobuf `bytes` field is framed around them, and they are copied once."""

from __future__ import annotations

_CHUNK_FIELD = 2


def varint(number: int) -> bytes:
    """A number in protobuf's variable-length encoding."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def chunk_frame(chunk: memoryview) -> bytes:
    """A DownloadResponse (or UploadRequest: the field has the same number) with the chunk in it."""
    return b"".join((bytes((_CHUNK_FIELD << 3 | 2,)), varint(len(chunk)), chunk))
