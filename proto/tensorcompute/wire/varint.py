"""Numbers in protobuf's variable-length encoding."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A number, encoded."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
