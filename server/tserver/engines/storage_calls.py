"""What is kept under names, for callers: tensors of a session to disk, and back into one.

A session gives copies, or takes memory that is filled, in its place among the calls; the disk is waited for by threads
of its own. Knows sessions, the store on disk, and the engine in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tensorcompute.v1 import storage_service_pb2 as ss
from tensorcompute.wire.safetensors import LENGTH_BYTES, Damaged, Entry, header_of, length_of_header, parse
from tserver.engine import keeping
from tserver.engines.checkpoints import Checkpoints, is_checkpoint
from tserver.errors import Exhausted, InvalidArgument, NotConfigured
from tserver.session.keeping import KeptSessions
from tserver.session.session import Session
from tserver.storage.store import Kept, Reading, Store

T = TypeVar("T")

FILE = "tensors.safetensors"
# How many read or write at once: more would only wait for each other, on the same disk.
_THREADS = 4
# Of one principal, those that wait for a thread too: each holds copies.
_MOST_AT_ONCE = 16
_MAX_TENSOR_NAME = 4096
_MAX_KIND = _MAX_TOKEN = 64
_MAX_PAGE = 1000
_MOST_LEFT_OUT = 100


class StorageCalls:
    """Requests of StorageService. A caller is known by its principal."""

    def __init__(self, store: Store | None, beside: KeptSessions | None = None) -> None:
        """Without a store nothing is kept. `beside` has folders to write sessions into."""
        self._checkpoints: Checkpoints | None = None
        if store is not None and beside is not None:
            self._checkpoints = Checkpoints(store, beside, self._run)
        self._store = store
        self._threads = ThreadPoolExecutor(_THREADS, "storage")
        # By principal, what takes long.
        self._under_way = Counter[str]()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def keep(self, request: ss.KeepRequest, session: Session, principal: str) -> ss.KeepResponse:
        """Raises: NotConfigured, InvalidArgument, UnknownId, CallFailed, AlreadyExists, Exhausted, StorageFailed."""
        store = self._configured()
        names = _tensor_names(request)
        return await self._admit(principal, lambda: self._keep(store, request, names, session, principal))

    async def _keep(
        self, store: Store, request: ss.KeepRequest, names: Sequence[str], session: Session, principal: str
    ) -> ss.KeepResponse:
        refs = [each.tensor for each in request.tensors]
        taken = await session.run_in_pieces(lambda held: keeping.take(held, refs))
        return ss.KeepResponse(
            kept=_described(await self._run(lambda: _write(store, principal, request, names, taken)))
        )

    async def recall(self, request: ss.RecallRequest, session: Session, principal: str) -> ss.RecallResponse:
        """Raises: NotConfigured, InvalidArgument, NotFound, Exhausted, StorageFailed."""
        store = self._configured()
        keeping.check_id(request.id)
        return await self._admit(principal, lambda: self._recall(store, request, session, principal))

    async def _recall(
        self, store: Store, request: ss.RecallRequest, session: Session, principal: str
    ) -> ss.RecallResponse:
        opened = contextlib.ExitStack()
        try:
            reading = await self._run(lambda: opened.enter_context(store.reading(principal, request.name)))
            if is_checkpoint(reading):
                raise InvalidArgument(f"{request.name!r} is a checkpoint of a session; resume it")
            entries, metadata, begin = await self._run(lambda: _header(reading))
            devices = _devices(reading, entries, request.device)
            reserved = await session.run_in_pieces(lambda held: keeping.reserve(held, entries, devices))
            try:
                # Memory is taken in the order in which they were kept, and filled in that of the file.
                in_file = sorted(zip(entries, reserved, strict=True), key=lambda pair: pair[0].start)
                targets = [upload.data for _, upload in in_file]
                await self._run(lambda: reading.read_into(FILE, begin, targets))
                made = await session.run_in_pieces(lambda held: keeping.restore(held, request.id, reserved, devices))
            finally:
                keeping.drop(session.queue.store, reserved)
        finally:
            opened.close()
        told = zip(entries, made, strict=True)
        return ss.RecallResponse(
            tensors=[ss.RecalledTensor(name=entry.name, tensor=meta) for entry, meta in told],
            metadata=metadata,
            kept=_described(reading.kept),
        )

    async def checkpoint(
        self, request: ss.CheckpointRequest, session: Session, principal: str
    ) -> ss.CheckpointResponse:
        """Raises: NotConfigured, InvalidArgument, AlreadyExists, Exhausted, StorageFailed."""
        store = self._of_sessions()
        kept, left_out = await self._admit(principal, lambda: store.write(request, session, principal))
        return ss.CheckpointResponse(kept=_described(kept), left_out=[each[:200] for each in left_out[:_MOST_LEFT_OUT]])

    async def resume(self, request: ss.ResumeRequest, session: Session, principal: str) -> ss.ResumeResponse:
        """Raises: NotConfigured, InvalidArgument, NotFound, Exhausted, StorageFailed."""
        store = self._of_sessions()
        kept = await self._admit(principal, lambda: store.read(request.name, session, principal))
        return ss.ResumeResponse(kept=_described(kept))

    async def names(self, request: ss.ListNamesRequest, principal: str) -> ss.ListNamesResponse:
        """Raises: NotConfigured, StorageFailed."""
        store = self._configured()
        found = await self._run(lambda: store.names(principal))
        rest = [kept for kept in found if kept.name > request.page_token]
        page = rest[: min(request.page_size or _MAX_PAGE, _MAX_PAGE)]
        token = page[-1].name if len(page) < len(rest) else ""
        return ss.ListNamesResponse(names=map(_described, page), next_page_token=token)

    async def forget(self, request: ss.ForgetRequest, principal: str) -> ss.ForgetResponse:
        """Raises: NotConfigured, InvalidArgument, NotFound, StorageFailed."""
        store = self._configured()
        await asyncio.shield(self._run(lambda: store.forget(principal, request.name)))
        return ss.ForgetResponse()

    def _of_sessions(self) -> Checkpoints:
        self._configured()
        assert self._checkpoints is not None
        return self._checkpoints

    def _configured(self) -> Store:
        if self._store is None:
            raise NotConfigured(
                "this server keeps nothing under names, as it has no data directory; start it with --data-dir",
                reason="NO_DATA_DIR",
            )
        return self._store

    async def _admit(self, principal: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do what takes long. A caller who leaves does not undo what was accepted, and has it counted until it is done.

        Raises: Exhausted.
        """
        if self._under_way[principal] >= _MOST_AT_ONCE:
            raise Exhausted(
                f"{_MOST_AT_ONCE} names of this caller are being kept or recalled, which is the limit; retry later",
                retry_after_s="1",
            )
        self._under_way[principal] += 1
        task = asyncio.ensure_future(work())
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._over(principal, done))
        return await asyncio.shield(task)

    def _over(self, principal: str, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._under_way[principal] -= 1
        if not self._under_way[principal]:
            del self._under_way[principal]
        if not task.cancelled():
            # Where the caller is gone, there is nobody to be told.
            task.exception()

    def at_work(self) -> str:
        """What is being done, in words; empty if nothing is."""
        return "names that are kept or recalled" if self._tasks else ""

    async def idle(self, timeout_s: float) -> None:
        """Wait until nothing is being kept or recalled, or the time is up."""
        if self._tasks and timeout_s > 0:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    def _run(self, function: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, function)


def _tensor_names(request: ss.KeepRequest) -> list[str]:
    """What the tensors are called. Raises: InvalidArgument."""
    if len(request.kind) > _MAX_KIND or len(request.token) > _MAX_TOKEN:
        raise InvalidArgument(f"kind and token have at most {_MAX_KIND} characters")
    names = [each.name for each in request.tensors]
    for each in request.tensors:
        if not 0 < len(each.name) <= _MAX_TENSOR_NAME or each.name == "__metadata__":
            raise InvalidArgument(
                f"a tensor cannot be called {each.name[:60]!r}; give it 1 to {_MAX_TENSOR_NAME} characters"
            )
        if not each.HasField("tensor"):
            raise InvalidArgument(f"KeepRequest.tensors: {each.name[:60]!r} has no tensor; set it")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InvalidArgument(f"two tensors are called {twice[0][:60]!r}; call them differently")
    return names


def _write(
    store: Store, principal: str, request: ss.KeepRequest, names: Sequence[str], taken: Sequence[keeping.Taken]
) -> Kept:
    """On a thread that may wait for the disk."""
    by_name = dict(zip(names, taken, strict=True))
    header, entries = header_of([(name, each.dtype, each.shape) for name, each in by_name.items()], request.metadata)

    def content() -> Iterator[bytes]:
        yield header
        for entry in entries:
            yield from by_name[entry.name].chunks()

    return store.write(
        principal,
        request.name,
        {FILE: content()},
        size_bytes=len(header) + sum(each.size_bytes for each in taken),
        kind=request.kind,
        tensors=len(taken),
        about={"devices": {name: each.device for name, each in by_name.items()}},
        overwrite=request.overwrite,
        token=request.token,
    )


def _header(reading: Reading) -> tuple[list[Entry], Mapping[str, str], int]:
    """The tensors of a file, its metadata, and where elements begin. Raises: StorageFailed."""
    size = reading.size_of(FILE)
    try:
        length = length_of_header(reading.head(FILE, LENGTH_BYTES), size)
        begin = LENGTH_BYTES + length
        return *parse(reading.head(FILE, begin)[LENGTH_BYTES:], size), begin
    except Damaged as error:
        raise reading.damaged(f"{FILE} is no safetensors file: {error}") from None


def _devices(reading: Reading, entries: Sequence[Entry], wanted: str) -> list[str]:
    """Where each tensor goes."""
    if wanted:
        return [wanted] * len(entries)
    were = reading.kept.about.get("devices")
    if not isinstance(were, dict):
        were = {}
    return [str(were.get(entry.name, "cpu")) for entry in entries]


def _described(kept: Kept) -> ss.KeptName:
    return ss.KeptName(
        name=kept.name,
        kind=kept.kind,
        size_bytes=kept.size_bytes,
        kept_unix_s=kept.kept_unix_s,
        tensors=kept.tensors,
    )
