"""Numbers and fields in protobuf's wire format, for the messages that are written and read by hand.

Little is done for a small call beside this, so short numbers come from a table.
"""

from __future__ import annotations

SHORT = [bytes((number,)) for number in range(0x80)]
"""The numbers of one byte, for what is quicker without a call."""

_MAX_BYTES = 10
_MASK = 0xFFFF_FFFF_FFFF_FFFF


def varint(number: int) -> bytes:
    """An unsigned number. Raises: ValueError for a negative one."""
    if number < 0x80:
        if number >= 0:
            return SHORT[number]
        raise ValueError(f"{number} is negative")
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    if number < 0x200000:
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(tag: bytes, content: bytes) -> bytes:
    """A length-delimited field."""
    length = len(content)
    return tag + (SHORT[length] if length < 0x80 else varint(length)) + content


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """An unsigned number of 64 bits, and where what is behind it begins.

    What is above 64 bits is lost, as in protobuf. Raises: ValueError for a number without an end.
    """
    try:
        number = data[position]
        if number < 0x80:
            return number, position + 1
        byte = data[position + 1]
        number = number & 0x7F | (byte & 0x7F) << 7
        if byte < 0x80:
            return number, position + 2
        for index in range(2, _MAX_BYTES):
            byte = data[position + index]
            number |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                return number & _MASK, position + index + 1
    except IndexError:
        pass
    raise ValueError("a number without an end")
