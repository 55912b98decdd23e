"""A file that is read again when it changes; what cannot be read or is no good changes nothing, and is logged."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger("tserver.credentials")

# How long a change may be overlooked.
LOOK_S = 0.25


class Watched(Generic[T]):
    """What is in a file."""

    def __init__(self, option: str, path: str, parse: Callable[[bytes], T]) -> None:
        """`parse` makes of its bytes what they mean, or raises ValueError. Raises: OSError that names the option."""
        self._name = f"{option} {path}"
        self._path = Path(path)
        self._parse = parse
        self._seen = self._state()
        self._look_at = time.monotonic() + LOOK_S
        try:
            self._current = parse(self._path.read_bytes())
        except OSError as error:
            raise OSError(f"{self._name} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise OSError(f"{self._name} cannot be used: {error}") from error

    def current(self) -> T:
        """What counts now; the same object as before, unless the file has changed."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            state = self._state()
            if state != self._seen:
                self._renew(state)
        return self._current

    def _renew(self, state: object) -> None:
        try:
            found = self._parse(self._path.read_bytes())
        except (OSError, ValueError) as error:
            # Told once for each state of the file.
            self._seen = state
            cause = error.strerror if isinstance(error, OSError) else str(error)
            log.error(
                "a file of credentials has changed and cannot be used; what was read before stays in use",
                extra={"file": self._name, "cause": cause},
            )
            return
        if self._state() == state:  # else it is being written, and the next look sees more
            self._seen, self._current = state, found
            log.info("a file of credentials was read again", extra={"file": self._name})

    def _state(self) -> object:
        """What differs whenever the file was written or replaced, without reading it."""
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
