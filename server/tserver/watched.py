"""Files that are read again when they change; what cannot be read, or is no good, changes nothing and is logged.

They belong together: what is made of them is made of all. Knows nothing of what is in them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger("tserver.files")

# How long a change may be overlooked, where not every look is to see it.
LOOK_S = 0.25


class Watched(Generic[T]):
    """What is in some files."""

    def __init__(self, name: str, paths: Sequence[str | Path], read: Callable[[], T], complaint: str) -> None:
        """`name` is what the files are called, with their options. `read` makes of them what they mean, or raises
        OSError or ValueError; `complaint` is what is logged of that later. Raises: OSError with that name.
        """
        self._name, self._paths, self._read, self._complaint = name, paths, read, complaint
        self._lock = threading.Lock()
        self._seen = self._state()
        self._look_at = time.monotonic() + LOOK_S
        try:
            self._current = read()
        except (OSError, ValueError) as error:
            raise OSError(f"{name} cannot be used: {_words(error)}") from error

    def current(self) -> T:
        """What counts now; the same object as before, unless a file has changed. From any thread."""
        if self._state() != self._seen:
            with self._lock:
                state = self._state()
                if state != self._seen:
                    self._renew(state)
        return self._current

    def lately(self) -> T:
        """The same, for who asks very often: a change may be overlooked for a moment."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            return self.current()
        return self._current

    def _renew(self, state: tuple[object, ...]) -> None:
        try:
            found = self._read()
        except (OSError, ValueError) as error:
            # Told once for each state of the files.
            self._seen = state
            log.warning(self._complaint, extra={"files": self._name, "cause": _words(error)})
            return
        if self._state() == state:  # else they are being written, and the next look sees more
            self._seen, self._current = state, found
            log.info("files were read again", extra={"files": self._name})

    def _state(self) -> tuple[object, ...]:
        """What differs whenever a file was written or replaced, without reading it."""
        found: list[object] = []
        for path in self._paths:
            status = None
            with contextlib.suppress(OSError):
                status = os.stat(path)
            found.append(status and (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size))
        return tuple(found)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
