"""The audit log: who asked for what, how it ended, and when. A line of JSON for each, in a file of the operator's.

Contents, tokens and secrets of sessions are in no line: a session is told by the beginning of a digest of its secret.
Lines are made where requests pass (front.interceptor) and written by one thread, a whole line at once, so that all
processes of a house share a file. Nobody waits for the disk: what finds the queue full is counted, and the next line
says how many are missing. A file that was moved away, as logrotate does, is made anew.

Knows neither gRPC nor torch.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import queue
import threading
import time
from pathlib import Path
from typing import Any

from tserver.identity import Identity
from tserver.logs import moment

log = logging.getLogger("tserver.audit")

_QUEUED = 10_000
"""Lines that may wait for the disk."""
_MAX_TEXT = 200
"""Characters of a text that a caller chose."""
_REFUSED_PER_S = 50
"""Lines a second about callers that nobody knows: they are not to fill the disk."""
_LOOK_S = 1.0


class Audit:
    """An audit log. All methods may be called from any thread."""

    def __init__(self, path: str) -> None:
        """Raises: OSError that names the option."""
        self._path = path
        self._lines: queue.Queue[bytes | None] = queue.Queue(_QUEUED)
        self._lock = threading.Lock()
        self._missing = 0
        self._refused_at, self._refused = 0, 0
        try:
            self._file = opened(path)
        except OSError as error:
            raise OSError(f"--audit-log {path} cannot be used: {error.strerror}") from error
        self._look_at = 0.0
        self._thread = threading.Thread(target=self._write_all, name="audit", daemon=True)
        self._thread.start()

    def add(self, what: str, identity: Identity | None, host: str, **told: Any) -> None:
        """A line: what was asked for, by whom, where from; and what else there is to say, but for what is empty."""
        now = time.time()
        if identity is None and not self._may_tell_of_a_stranger(int(now)):
            return
        line: dict[str, Any] = {"time": moment(now), "what": what}
        if identity is not None:
            line |= {"principal": identity.principal, "role": identity.role.name.lower(), "how": identity.how}
            host = identity.host or host
        line["host"] = host
        line |= {name: value for name, value in told.items() if value not in ("", None)}
        line = {name: value[:_MAX_TEXT] if isinstance(value, str) else value for name, value in line.items()}
        with self._lock:
            if self._missing:
                line["missing"] = self._missing
            try:
                self._lines.put_nowait((json.dumps(line) + "\n").encode())
            except queue.Full:
                self._missing += 1
            else:
                self._missing = 0

    def close(self) -> None:
        """Write what waits, and end."""
        self._lines.put(None)
        self._thread.join(10.0)

    def _may_tell_of_a_stranger(self, second: int) -> bool:
        with self._lock:
            if second != self._refused_at:
                self._refused_at, self._refused = second, 0
            self._refused += 1
            if self._refused > _REFUSED_PER_S:
                self._missing += 1
                return False
        return True

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._look()
                os.write(self._file, line)
            except OSError as error:
                with self._lock:
                    is_first = not self._missing
                    self._missing += 1
                if is_first:
                    log.error("the audit log cannot be written", extra={"file": self._path, "cause": error.strerror})
        os.close(self._file)

    def _look(self) -> None:
        """Go on in a new file where the one that is open has been moved away or removed."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        mine = os.fstat(self._file)
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(self._path)
            if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                return
        new = opened(self._path)
        os.close(self._file)
        self._file = new


def opened(path: str | Path) -> int:
    """The file, private and open for lines to be added. Raises: OSError, also for a link in its place."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


@functools.lru_cache(4)
def of(path: str) -> Audit | None:
    """The audit log that the settings ask for, one for each process. Raises: OSError that names the option."""
    return Audit(path) if path else None
