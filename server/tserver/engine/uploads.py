"""The uploads of one session: under way, or complete and not used yet. From any thread."""

from __future__ import annotations

import threading

import torch

from tserver.engine.host_memory import HostMemory
from tserver.errors import AlreadyExists, Exhausted, InvalidArgument, UnknownId

# Uploads of one session that are under way, or not used yet.
MAX_UPLOADS = 65_536


class Upload:
    """Elements that come from a client, in memory that is counted from the beginning."""

    __slots__ = ("complete", "data", "dtype", "id", "shape")

    def __init__(self, upload_id: int, dtype: torch.dtype, shape: list[int], data: memoryview) -> None:
        self.id, self.dtype, self.shape, self.data = upload_id, dtype, shape, data
        # Set when all bytes are there; by whichever thread receives them.
        self.complete = False


class Uploads:
    """Those that a session has."""

    def __init__(self, memory: HostMemory) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        # Those that calls may name, complete or not.
        self._named: dict[int, Upload] = {}
        # Those that are under way and not among these.
        self._incoming: set[Upload] = set()
        self._is_over = False
        # The memory of all of them.
        self.held_bytes = 0

    def begin(self, what: str, upload_id: int, dtype: torch.dtype, shape: list[int], size: int) -> Upload:
        """Memory for an upload, which counts from now on. Raises: Exhausted."""
        if (count := len(self._incoming) + len(self._named)) >= MAX_UPLOADS:
            raise Exhausted(f"{count} uploads wait to be used, which is the limit; use or forget some", reason="LIMIT")
        try:
            data = self._memory.take(size).data
        except (MemoryError, RuntimeError) as error:
            raise Exhausted(f"{what} needs {size} bytes, which are not free", reason="OUT_OF_MEMORY") from error
        upload = Upload(upload_id, dtype, shape, data)
        with self._lock:
            self._incoming.add(upload)
            self.held_bytes += len(data)
        return upload

    def give_way(self, upload_id: int) -> None:
        """Another upload of this name begins: one that has not arrived was given up by its sender."""
        with self._lock:
            before = self._named.get(upload_id)
            if before is not None and not before.complete:
                self._remove(before)

    def name(self, upload: Upload) -> None:
        """Let calls name an upload, once it is complete. Raises: InvalidArgument, AlreadyExists; it is dropped then."""
        with self._lock:
            self._remove(upload)
            if not upload.id:
                raise InvalidArgument("the upload has the id 0; choose another")
            before = self._named.get(upload.id)
            # One that has not arrived gives way: its sender has lost the connection, and begins anew.
            if before is not None:
                if before.complete:
                    raise AlreadyExists(f"upload id {upload.id} is in use; choose another")
                self._remove(before)
            self._named[upload.id] = upload
            self.held_bytes += len(upload.data)

    def drop(self, upload: Upload) -> None:
        """An upload has failed, or is used up."""
        with self._lock:
            self._remove(upload)

    def forget(self, upload_ids: list[int]) -> None:
        """Let those go of these names, complete or not, that are there."""
        with self._lock:
            for upload_id in upload_ids:
                if upload_id in self._named:
                    self._remove(self._named[upload_id])

    def take(self, upload_id: int) -> Upload:
        """A complete one, which is used up. Raises: UnknownId."""
        with self._lock:
            found = self._named.get(upload_id)
            if found is None or not found.complete:
                raise UnknownId(f"upload {upload_id} is not complete, or was used already; upload it first")
            self._remove(found)
            return found

    def finish(self, upload: Upload) -> None:
        """All bytes of one are there. Raises: ConnectionError where it came too late to be kept."""
        with self._lock:
            if self._is_over:
                raise ConnectionError("the server is stopping")
            upload.complete = True

    def over(self) -> None:
        """What is complete is kept for another process; nothing more is."""
        with self._lock:
            self._is_over = True

    def complete(self) -> list[Upload]:
        """Those that calls may name and that are all there."""
        with self._lock:
            return [upload for upload in self._named.values() if upload.complete]

    def clear(self) -> None:
        """Let those go that calls may name; the others go with their senders."""
        with self._lock:
            for upload in list(self._named.values()):
                self._remove(upload)

    def trim(self) -> None:
        """Give back the memory of those that are gone, which is kept for others for a while."""
        self._memory.trim(idle_s=0.0)

    def _remove(self, upload: Upload) -> None:
        if upload in self._incoming:
            self._incoming.discard(upload)
        elif self._named.get(upload.id) is upload:
            del self._named[upload.id]
        else:
            return
        self.held_bytes -= len(upload.data)
