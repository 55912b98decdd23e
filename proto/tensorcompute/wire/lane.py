"""What is said on a lane: messages of a stream, each behind its length, both ways. Knows no sockets."""

from __future__ import annotations

from tensorcompute.wire.data_endpoint import LENGTH


class TooLong(ValueError):
    """A message is longer than is taken."""


class Frames:
    """Puts what comes over a connection, in pieces of any size, together to messages."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` is what a message may have."""
        self._max_bytes = max_bytes
        # The beginning of a message, and how many bytes it takes until there is more to find out.
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = LENGTH.size

    def add(self, data: bytes) -> list[bytes]:
        """The messages that are complete with these bytes. Raises: TooLong; then nothing more can be made of it."""
        if self._have:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._pieces)
            self._pieces.clear()
        messages = []
        at, size = 0, len(data)
        need = LENGTH.size
        while size - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, at)
            if length > self._max_bytes:
                raise TooLong(f"a message of {length} bytes; at most {self._max_bytes} are taken")
            end = at + LENGTH.size + length
            if end > size:
                need = LENGTH.size + length
                break
            messages.append(data[at + LENGTH.size : end])
            at = end
        self._have, self._need = size - at, need
        if at < size:
            self._pieces.append(data[at:])
        return messages
