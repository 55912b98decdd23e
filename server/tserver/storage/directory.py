"""The data directory: one server or house has it at a time, and nobody else reads it."""

from __future__ import annotations

import os
from pathlib import Path

from tserver.errors import InvalidArgument
from tserver.storage import files

MODELS, NAMES = "models", "names"
_LOCK = "lock"


class DataDirectory:
    """Held until it is closed."""

    def __init__(self, path: Path) -> None:
        """Take hold of a directory, which is made if it is not there. What others could read in it before, they cannot
        any more. Raises: OSError, InvalidArgument if another server has it.
        """
        self.path = path
        path.mkdir(mode=files.PRIVATE_FOLDER, parents=True, exist_ok=True)
        lock = files.take_lock(path / _LOCK, waits=False)
        if lock is None:
            raise InvalidArgument(f"another server uses the data directory {path}; stop it, or name another directory")
        self._lock = lock
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the directory to others."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _prepare(self) -> None:
        path = self.path
        # The directory itself may be a link that somebody has set up; what is in it may not.
        files.tighten_one(path, is_link=True)
        files.tighten_one(path / _LOCK)
        for room in (MODELS, NAMES):
            files.make_folder(path / room)
            files.tighten(path / room)
        files.sync(path)
        files.sync(path.parent)
