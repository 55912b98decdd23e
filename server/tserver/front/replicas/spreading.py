"""Where the models of a house are, and how they come there: on all engines at once, as far as anybody can see.

Knows what each model is to be; who changes that has the lock of its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.errors import Exhausted, InvalidArgument, ModelNotReady, NotFound, ServerError, Unreachable
from tserver.front.replicas.links import Content, Links
from tserver.front.replicas.records import Record, Records, Replica, state_of
from tserver.models.disk import Disk
from tserver.models.names import bare, owner_in

if TYPE_CHECKING:
    from tserver.config import Config
    from tserver.engines.directory import Directory, Entry

log = logging.getLogger("tserver.models")

# As engines say that a file is no model.
_DAMAGED = "MODEL_DAMAGED"
# The part of an engine's free memory that a model may take to be put there unasked.
_SMALL = 1 / 8
AGAIN_S = 0.5
"""When an engine that does not answer is asked again."""


class Spreading:
    """The engines that have models. On the event loop alone; changes to one name come one after the other."""

    def __init__(
        self,
        config: Config,
        directory: Directory,
        links: Links,
    ) -> None:
        self.records = Records()
        self.links = links
        self._directory = directory
        # Whose each engine is, where principals have engines of their own; empty is nobody's.
        self._owner_of: Callable[[str], str] | None = None
        self._data_dir = config.data_dir
        self._disk: Disk | None = None
        # Runs of engines that have been asked what they have, and those that are about to be ended.
        self._learned: set[str] = set()
        self._leaving: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tell_locks: dict[str, asyncio.Lock] = {}
        # Set and made anew whenever a model comes to serve somewhere, or an engine has ended.
        self._news = asyncio.Event()
        self._is_over = False

    # --- engines ---

    def entry_of(self, replica: Replica) -> Entry | None:
        """The engine of a replica, if that run of it serves."""
        return self._directory.of_boot(replica.boot_id)

    async def on_all(self, record: Record, ask: Callable[[Entry], Awaitable[Any]]) -> list[Any]:
        """Ask all engines that have a model. One that ends meanwhile is no failure. Raises: ServerError."""
        entries = [entry for replica in record.replicas.values() if (entry := self.entry_of(replica)) is not None]
        answers = await asyncio.gather(*map(ask, entries), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, Unreachable):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def news(self) -> None:
        """Wait until a model comes to serve somewhere, or an engine has ended."""
        await self._news.wait()

    def _tell_news(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        if self._is_over:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- where models are ---

    def _targets(self, record: Record) -> list[Entry]:
        """The engines that are to have a model, those first that have it."""
        known = [entry for entry in self._directory.engines.values() if entry.info.boot_id in self._learned]
        living = [entry for entry in known if entry.info.boot_id not in self._leaving]
        has = {replica.boot_id for replica in record.serving()}
        living = [entry for entry in living if entry.info.boot_id in has or self._may_have(entry, record)]
        if not record.wanted:
            small = [entry for entry in living if entry.info.boot_id in has or _has_room(entry, record)]
            return small or living[:1]
        counts = dict.fromkeys((entry.info.engine for entry in living), 0)
        for each in self.records.index():
            for engine in each.replicas.keys() & counts.keys():
                counts[engine] += 1
        living.sort(
            key=lambda entry: (entry.info.boot_id not in has, -entry.load.free_bytes, counts[entry.info.engine])
        )
        return living[: record.wanted]

    def _may_have(self, entry: Entry, record: Record) -> bool:
        """Whether an engine may be given a model: one of a principal's own is in no process of another."""
        if entry.info.boot_id in record.refused:
            return False
        owner = owner_in(record.name)
        return not owner or self._owner_of is None or self._owner_of(entry.info.engine) == owner

    async def _spread(self, record: Record) -> None:
        """Bring a model to the engines that are to have it and do not. With the lock of its name.

        Raises: ServerError if it is nowhere then.
        """
        self._forget_ended(record)
        if record.state != "READY":
            return
        has = {replica.boot_id for replica in record.serving()}
        missing = [entry for entry in self._targets(record) if entry.info.boot_id not in has]
        if not missing:
            return
        content = await self._content(record)
        brought = await asyncio.gather(
            *(self._bring(entry, record, content) for entry in missing), return_exceptions=True
        )
        for entry, failure in zip(missing, brought, strict=True):
            if failure is None:
                continue
            if not isinstance(failure, ServerError):
                raise failure
            if not isinstance(failure, Unreachable):
                record.refused.add(entry.info.boot_id)
            cause = {"model": record.name, "version": record.version, "engine": entry.info.engine}
            log.warning("a model is not on an engine", extra={**cause, "cause": failure.message})
            if next(record.serving(), None) is None:
                raise self._judged(record, failure)
        self._tell_news()

    async def _bring(self, entry: Entry, record: Record, content: Content) -> None:
        await self._prepare(entry, record, content)
        summary = await self.links.commit(entry, record.name, record.version)
        if not record.is_known:
            record.know(summary)
        record.replicas[entry.info.engine] = kept_replica(record.replicas, entry, summary)
        record.parked = None

    async def _prepare(self, entry: Entry, record: Record, content: Content) -> None:
        await self.links.prepare(
            entry,
            record.name,
            record.version,
            content,
            record.batching,
            record.wanted,
            is_persistent=record.is_persistent,
            owner=record.owner,
        )

    async def _replace(self, record: Record, content: Content) -> None:
        """Bring weights to all engines that are to have them, and only when all have them, let them serve.

        Raises: ServerError where one refuses: then all go on with those that they have.
        """
        name, version = record.name, record.version
        there = [entry for replica in record.replicas.values() if (entry := self.entry_of(replica)) is not None]
        entries = list({entry.info.engine: entry for entry in (*there, *self._targets(record))}.values())
        if not entries:
            raise Unreachable("no engine serves now; try again later")
        prepared = await asyncio.gather(
            *(self._prepare(entry, record, content) for entry in entries), return_exceptions=True
        )
        ready = [entry for entry, failure in zip(entries, prepared, strict=True) if failure is None]
        failures = [failure for failure in prepared if failure is not None]
        serious = [each for each in failures if not isinstance(each, Unreachable)]
        # An engine that never had it may be short of memory.
        is_optional = all(
            isinstance(failure, (Unreachable, Exhausted)) and entry not in there
            for entry, failure in zip(entries, prepared, strict=True)
            if failure is not None
        )
        if failures and (not ready or (serious and not is_optional)):
            await asyncio.gather(*(self.links.drop(entry, name, version) for entry in ready), return_exceptions=True)
            raise self._judged(record, (serious or failures)[0])
        committed = await asyncio.gather(
            *(self.links.commit(entry, name, version) for entry in ready), return_exceptions=True
        )
        for entry, summary in zip(ready, committed, strict=True):
            if isinstance(summary, ms.MlpSummary):
                record.know(summary)
                record.replicas[entry.info.engine] = kept_replica(record.replicas, entry, summary)
            elif not isinstance(summary, Unreachable):
                raise summary
        self._tell_news()

    def _judged(self, record: Record, error: BaseException) -> BaseException:
        """What is told of a refusal; a model on disk that is none is set aside."""
        is_damaged = isinstance(error, InvalidArgument) and error.reason == _DAMAGED
        if not is_damaged or self._disk is None or not record.is_persistent:
            return error
        told = self._disk.condemn(record.name, record.version, InvalidArgument(str(error)))
        with contextlib.suppress(ModelNotReady), self._noting_damage(record):
            raise told
        return told

    async def _content(self, record: Record) -> Content:
        """What a model is made of, from an engine that has it, or from disk. Raises: ServerError."""
        for replica in list(record.replicas.values()):
            entry = self.entry_of(replica)
            if entry is not None:
                with contextlib.suppress(Unreachable, NotFound, ModelNotReady):
                    return await self.links.export(entry, record.name, record.version)
        if record.parked is not None:
            return record.parked
        if self._disk is None or not record.is_persistent:
            raise record.not_ready()
        with self._noting_damage(record):
            kept = await asyncio.to_thread(self._disk.bytes_of, record.name, record.version)
        return Content(kept.manifest, kept.data)

    @contextlib.contextmanager
    def _noting_damage(self, record: Record) -> Any:
        """Know of a version that is not on disk any more, once it was set aside."""
        try:
            yield
        except ModelNotReady as error:
            if error.reason == "MODEL_CORRUPT":
                record.is_persistent = False
                if record.state != "READY":
                    record.reason = error.message
            raise

    async def _take_surplus(self, record: Record) -> None:
        """Take a model from engines that are not to have it any more, once all know where it is."""
        if record.wanted:
            targets = {entry.info.engine for entry in self._targets(record)}
            surplus = [engine for engine in record.replicas if engine not in targets]
            gone = [record.replicas.pop(engine) for engine in surplus]
            await self._publish(record.name)
            request = ms.DeleteMlpRequest(name=record.name, version=record.version)
            for replica in gone:
                if (entry := self.entry_of(replica)) is not None:
                    with contextlib.suppress(Unreachable):
                        await self._delete_here(request, entry)

    async def _delete_here(self, request: ms.DeleteMlpRequest, entry: Entry) -> None:
        with contextlib.suppress(NotFound):
            await self.links.ask(entry, "DeleteMlp", request, ms.DeleteMlpResponse)

    def _forget_ended(self, record: Record) -> None:
        for engine, replica in list(record.replicas.items()):
            if self.entry_of(replica) is None:
                del record.replicas[engine]

    def _check_kept(self, record: Record) -> None:
        if self.records.find(record.name, record.version) is not record:
            raise NotFound(f"version {record.version} of {bare(record.name)!r} was deleted meanwhile, and made anew")

    # --- what engines are told ---

    async def _publish(self, name: str) -> None:
        """Tell all engines where a name is, before whoever has changed that is answered."""
        entries = list(self._directory.engines.values())
        await asyncio.gather(*(self._tell(entry, [name], is_all=False) for entry in entries))

    async def _tell(self, entry: Entry, told: Iterable[str], *, is_all: bool) -> None:
        lock = self._tell_locks.setdefault(entry.info.boot_id, asyncio.Lock())
        async with lock:
            try:
                await self.links.tell(entry, {name: self.records.told(name) for name in told}, is_all=is_all)
            except ServerError as error:
                if self._directory.of_boot(entry.info.boot_id) is None or self._is_over:
                    return
                log.warning("an engine was not told", extra={"engine": entry.info.engine, "cause": error.message})
                self._begin(self._tell_again(entry))

    async def _tell_again(self, entry: Entry) -> None:
        await asyncio.sleep(AGAIN_S)
        await self._tell(entry, self.records.names(), is_all=True)


def replica_of(entry: Entry, summary: ms.MlpSummary) -> Replica:
    """A model on an engine, which describes it so."""
    return Replica(entry.info.engine, entry.info.boot_id, state_of(summary), summary.device)


def kept_replica(replicas: dict[str, Replica], entry: Entry, summary: ms.MlpSummary) -> Replica:
    """The replica on an engine as it is now, with what is under way there."""
    known = replicas.get(entry.info.engine)
    if known is None or known.boot_id != entry.info.boot_id:
        return replica_of(entry, summary)
    known.state, known.device = state_of(summary), summary.device
    return known


def _has_room(entry: Entry, record: Record) -> bool:
    """Whether a model is small beside what is free on an engine; where that is not known, it is."""
    free_bytes = entry.load.free_bytes
    return not free_bytes or record.parameter_bytes <= free_bytes * _SMALL
