"""Whole sessions under names, for callers: to disk, and into a session that was just opened.

They are among the names of the store, and have files of their own. A session is written into a folder beside, by the
engine, from where threads that may wait for the disk bring it to its name. Knows sessions and the store on disk.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from tensorcompute.v1 import storage_service_pb2 as ss
from tserver.engine.memory import is_out_of_memory
from tserver.engine.object_store import ObjectStore
from tserver.engine.snapshots.files import TENSORS, TEXT, Saved, Told, load, save
from tserver.errors import Exhausted, InvalidArgument, ServerError
from tserver.session.keeping import KeptSessions
from tserver.session.session import Session
from tserver.storage import files
from tserver.storage.store import Kept, Reading, Store

T = TypeVar("T")
KIND = "checkpoint"
# What the files of a snapshot are called among names, where others are that are recalled.
_NAMES = {TENSORS: "session.safetensors", TEXT: "session.json"}
_PIECE_BYTES = 4 << 20


class Run(Protocol):
    """Runs a function on a thread that may wait for the disk."""

    def __call__(self, function: Callable[[], T]) -> Awaitable[T]:
        """What it returns."""


class Checkpoints:
    """Those in the store of a data directory."""

    def __init__(self, store: Store, beside: KeptSessions, run: Run) -> None:
        self._store, self._beside, self._run = store, beside, run

    async def write(self, request: ss.CheckpointRequest, session: Session, principal: str) -> tuple[Kept, list[str]]:
        """Keep a session under a name; what is not in it. Raises: as Store.write."""
        with files.telling_of_the_disk(f"checkpoint {request.name!r}"):
            folder = await self._run(self._beside.begin)
            try:
                saved = await session.run_in_pieces(lambda held: save(held, folder))
                return await self._run(lambda: self._put(request, principal, folder, saved)), saved.left_out
            finally:
                await self._run(lambda: self._beside.drop(folder))

    def _put(self, request: ss.CheckpointRequest, principal: str, folder: Path, saved: Saved) -> Kept:
        return self._store.write(
            principal,
            request.name,
            {_NAMES[name]: _pieces(folder / name) for name in saved.files},
            size_bytes=sum(size for size, _ in saved.files.values()),
            kind=KIND,
            about={KIND: True},
            overwrite=request.overwrite,
            token=request.token,
        )

    async def read(self, name: str, session: Session, principal: str) -> Kept:
        """Fill a session. Raises: NotFound, InvalidArgument, Exhausted, StorageFailed."""
        with files.telling_of_the_disk(f"resume {name!r}"):
            folder = await self._run(self._beside.begin)
            try:
                kept, told = await self._run(lambda: self._fetch(name, principal, folder))
                await self._fill(session, name, folder, told)
                return kept
            finally:
                await self._run(lambda: self._beside.drop(folder))

    def _fetch(self, name: str, principal: str, folder: Path) -> tuple[Kept, Told]:
        """The files of a checkpoint, compared with what was written."""
        with self._store.reading(principal, name) as reading:
            if not is_checkpoint(reading):
                raise InvalidArgument(f"{name!r} is no checkpoint of a session, but a {reading.kept.kind}; recall it")
            told = {}
            for file, kept_as in _NAMES.items():
                written = files.write(folder / file, reading.chunks(kept_as))
                told[file] = written.size_bytes, written.sha256
            return reading.kept, told

    async def _fill(self, session: Session, name: str, folder: Path, told: Told) -> None:
        def fill(held: ObjectStore) -> Generator[None, None, None]:
            if held.objects or held.operations or session.received:
                raise InvalidArgument("the session is in use: a checkpoint is resumed in one that was just opened")
            yield from load(held, folder, told)

        try:
            await session.run_in_pieces(fill)
        except (ServerError, OSError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise Exhausted(f"resume {name!r}: {error}", reason="OUT_OF_MEMORY") from error
            with self._store.reading(session.principal, name) as reading:
                raise reading.damaged(str(error)) from error


def is_checkpoint(reading: Reading) -> bool:
    """Whether a session is kept under a name, and not tensors."""
    return reading.kept.about.get(KIND) is True


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
