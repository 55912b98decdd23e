"""Models on disk, for the server that runs them itself: their bytes are `disk`'s, what those mean the engine's.

Every method blocks on the disk and may be called from any thread, but not twice at a time for one model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tserver.engine.memory import check_host_bytes, is_out_of_memory
from tserver.engine.models import contents, files
from tserver.engine.models.model import Content
from tserver.errors import InvalidArgument, NotFound
from tserver.models.batching import BatchingConfig
from tserver.models.disk import Disk


@dataclass(frozen=True, slots=True)
class Stored:
    """A model as it was on disk."""

    content: Content
    batching: BatchingConfig
    replicas: int
    owner: str


class Store(Disk):
    """The models in one directory."""

    def save(
        self, name: str, version: int, content: Content, batching: BatchingConfig, replicas: int = 0, owner: str = ""
    ) -> None:
        """Write a model. Raises: as `write`."""
        self.write(name, version, content.manifest(), content.file(), batching, replicas, owner)

    def read(self, name: str, version: int) -> Stored:
        """A model from disk. One that is damaged is set aside first. Raises: ModelNotReady saying what is wrong."""
        folder = self._folder(name, version)
        with self._judging(folder, name, version):
            kept = self._kept(folder, name, version)
            return Stored(contents.read(kept.manifest, kept.data), kept.batching, kept.replicas, kept.owner)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """See Disk."""
        return is_out_of_memory(error)


def read_within(directory: str, path: str) -> bytes:
    """A safetensors file below a directory of the server, read no further than its header where that lies.

    Raises: NotFound; InvalidArgument for a path that leads out of it, and for what is no such file; torch's
    OutOfMemoryError before memory is taken.
    """
    if not directory:
        raise InvalidArgument("the server has no model directory (--model-dir); upload the file")
    root = Path(directory).resolve()
    told = repr(path[:200])
    if "\0" in path:
        raise InvalidArgument("the path has a null character in it")
    try:
        found = (root / path).resolve()
        if not found.is_relative_to(root):
            raise InvalidArgument(f"the path {told} leads out of the model directory; name a file in it")
        if not found.is_file():
            raise NotFound(f"there is no file {told} in the model directory")
        with found.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            files.check_header(file, size)
            check_host_bytes(f"the file {told}", size)
            file.seek(0)
            return file.read(size)
    except (OSError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        # A loop of links is an OSError to the system, and a RuntimeError to pathlib before Python 3.13.
        cause = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidArgument(f"the file {told} cannot be read: {cause}") from None
