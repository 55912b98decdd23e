"""Small replies, read by hand as far as every one of them must be.

Most replies hold a value that one thread waits for and descriptions that nobody asks for: each stays encoded until
someone does. Knows the wire format of a reply; what is not in its usual form is left to the generated classes.
"""

from __future__ import annotations

from tensorcompute.wire.varint import read_varint

# Beyond this the generated parser is quicker.
SMALL_BYTES = 512


def values_of(raw: bytes) -> tuple[int, list[tuple[int, bytes]]] | None:
    """The seq of a reply, and for each result its call index and its encoded Value.

    None if there is anything else in the ExecuteStreamResponse: an error, a warning, fields of a newer server.
    """
    try:
        if raw[0] != 0x0A:
            return None
        size, at = read_varint(raw, 1)
        end = len(raw)
        if at + size != end or raw[at] != 0x08:
            return None
        seq, at = read_varint(raw, at + 1)
        values = []
        # Most numbers in here have one byte, and are read without a call.
        while at < end:
            if raw[at] != 0x12:
                return None
            size = raw[at + 1]
            at += 2
            if size >= 0x80:
                size, at = read_varint(raw, at - 1)
            stop = at + size
            index = 0
            if raw[at] == 0x08:
                index = raw[at + 1]
                at += 2
                if index >= 0x80:
                    index, at = read_varint(raw, at - 1)
            if raw[at] != 0x12:
                return None
            size = raw[at + 1]
            at += 2
            if size >= 0x80:
                size, at = read_varint(raw, at - 1)
            if at + size != stop:
                return None
            values.append((index, raw[at:stop]))
            at = stop
    except (IndexError, ValueError):
        return None
    return (seq, values) if at == end else None
