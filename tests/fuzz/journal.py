"""Memory that a child shares with its parent, in which it says what it is about to do before it does it."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

_HEAD = struct.Struct("=qqq")
_RECORD = struct.Struct("=cI")
_SIZE_BYTES = 48 << 20
# Room for one more sequence, whatever its arguments.
_SPARE_BYTES = 8 << 20


@dataclass(frozen=True)
class Record:
    """One entry: b"s" a sequence begins (its name), b"c" a batch of calls, b"f" a finding, b"t" how long a slow call
    took, b"g" whether an operation had a gradient.
    """

    kind: bytes
    content: bytes


class Journal:
    """What one child has done so far."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE_BYTES)
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._end, self._calls, self._tampered = _HEAD.size, 0, 0
        self._touch()

    def _touch(self) -> None:
        _HEAD.pack_into(self._memory, 0, self._end, self._calls, self._tampered)

    def write(self, kind: bytes, content: bytes, *, drawn: int = 0, tampered: int = 0) -> None:
        """Add an entry; it is there for the parent whatever happens next."""
        start = self._end + _RECORD.size
        self._memory[start : start + len(content)] = content
        _RECORD.pack_into(self._memory, self._end, kind, len(content))
        self._end = start + len(content)
        self._calls += drawn
        self._tampered += tampered
        self._touch()

    def is_full(self) -> bool:
        """Whether another sequence may not find room."""
        return self._end > _SIZE_BYTES - _SPARE_BYTES

    def position(self) -> int:
        """How far it is written."""
        position: int = _HEAD.unpack_from(self._memory)[0]
        return position

    def counts(self) -> tuple[int, int]:
        """How many drawn calls and how many tampered backwards were begun."""
        _, calls, tampered = _HEAD.unpack_from(self._memory)
        return calls, tampered

    def records(self) -> list[Record]:
        """All entries."""
        end, position = _HEAD.unpack_from(self._memory)[0], _HEAD.size
        found = []
        while position < end:
            kind, size = _RECORD.unpack_from(self._memory, position)
            position += _RECORD.size
            found.append(Record(kind, self._memory[position : position + size]))
            position += size
        return found
