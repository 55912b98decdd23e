"""Changes to the models of a house: one after the other for each name, on all engines that have it, and on disk.

The front alone writes to the data directory. A front that begins asks the engines what they have: they outlive it. An
engine that begins is brought what it is to have, from one that has it or from disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.engines.disk_use import DiskUse
from tserver.engines.fleet import Ended, Event, Serving
from tserver.errors import Exhausted, InvalidArgument, NotFound, ServerError, Unreachable
from tserver.front.replicas.links import Content, Links
from tserver.front.replicas.records import Record, Replica, state_of
from tserver.front.replicas.spreading import AGAIN_S, Spreading, kept_replica, replica_of
from tserver.front.replicas.sums import summed
from tserver.limits.account import Accounts
from tserver.limits.file import LimitsFile
from tserver.models import names
from tserver.models.batching import BatchingConfig
from tserver.models.changes import Changes
from tserver.models.disk import Disk
from tserver.models.owners import claim_of, is_of

if TYPE_CHECKING:
    from tserver.config import Config
    from tserver.engines.directory import Directory, Entry
    from tserver.identity import Identity

log = logging.getLogger("tserver.models")

# How long it is waited for an engine that has models, and for a front that ends to leave the data directory.
_FIRST_S = 60.0
_DISK_S = 10.0
_LEARN_S = 5.0
# How long it may take until it is known that an engine has ended.
_END_S = 2.0


class ModelCoordinator(Spreading):
    """The models of a house. On the event loop alone."""

    def __init__(
        self,
        config: Config,
        directory: Directory,
        links: Links,
        accounts: Accounts | None = None,
    ) -> None:
        super().__init__(config, directory, links)
        self._changes = Changes()
        # What principals may have; and how many models are being made, by their owners.
        self._accounts = accounts or Accounts(LimitsFile(None))
        self._making = Counter[str]()
        # Runs of engines that have been brought what they are to have.
        self._welcomed: set[str] = set()
        # Finds the engine of a principal, or has one begin, where principals have engines of their own.
        self._home: Callable[[str], Awaitable[Entry]] | None = None

    # --- the life of a house ---

    async def start(self) -> None:
        """Read what is on disk, and look after engines from now on. Raises: InvalidArgument where another server has
        the data directory, OSError.
        """
        if self._data_dir:
            self._disk = await self._open(Path(self._data_dir))
            self._disk.check = DiskUse(Path(self._data_dir), self._accounts).check_model
            for name, version in await asyncio.to_thread(lambda disk: list(disk.names()), self._disk):
                await self._restore(self._disk, name, version)
        self._directory.listen(self._note)
        entries = list(self._directory.engines.values())
        # First all is known that there is: what one engine lacks, another one may have.
        if learning := [asyncio.create_task(self._learn(entry)) for entry in entries]:
            await asyncio.wait(learning, timeout=_LEARN_S)
        for entry in entries:
            self._begin(self._welcome(entry))

    def keep_apart(self, owner_of: Callable[[str], str], home: Callable[[str], Awaitable[Entry]]) -> None:
        """Principals have engines of their own: whose one is says `owner_of`, and `home` has one begin. Models of their
        own are nowhere else.
        """
        self._owner_of, self._home = owner_of, home

    async def owned(self, entry: Entry, owner: str) -> None:
        """An engine is a principal's from now on: bring it the models of its own."""
        await self.welcomed(entry)
        await asyncio.gather(*(self._again(name) for name in self.records.names() if names.owner_in(name) == owner))

    def call_for(self, record: Record) -> None:
        """Nobody has a model now: where it is in its owner's engines alone, have one begin."""
        owner = names.owner_in(record.name)
        if owner and self._home is not None:
            self._begin(self._call(self._home, owner))

    async def _call(self, home: Callable[[str], Awaitable[Entry]], owner: str) -> None:
        try:
            await home(owner)
        except ServerError as error:
            log.warning("no engine for the models of a principal", extra={"principal": owner, "cause": error.message})

    def rest(self) -> None:
        """Look after engines no more: they are about to end."""
        self._is_over = True
        for task in list(self._tasks):
            task.cancel()

    def stop(self) -> None:
        """Leave the data directory to others."""
        self.rest()
        if self._disk is not None:
            self._disk.close()

    def is_welcomed(self, entry: Entry) -> bool:
        """Whether an engine has the models that it is to have."""
        return entry.info.boot_id in self._welcomed

    async def leave(self, entry: Entry) -> None:
        """An engine is about to be ended: what it alone has is brought to others."""
        self._leaving.add(entry.info.boot_id)
        # Others that have it may be about to end, too.
        alone = {
            record.name
            for record in self.records.index()
            if (serves := {replica.boot_id for replica in record.serving()}) <= self._leaving
            and entry.info.boot_id in serves
        }
        for record in self.records.index():
            if record.name in alone and not record.is_persistent and not self._targets(record):
                with contextlib.suppress(ServerError):
                    record.parked = await self._content(record)
        await asyncio.gather(*(self._again(name) for name in alone))

    async def welcomed(self, entry: Entry) -> None:
        """Wait until an engine has the models that it is to have, or has ended."""
        boot_id = entry.info.boot_id
        while boot_id not in self._welcomed and self._directory.of_boot(boot_id) is not None:
            await self.news()

    async def settled(self) -> None:
        """Wait until it is known what there is: an engine has been welcomed. Raises: Unreachable where none comes."""
        if self._welcomed:
            return
        try:
            async with asyncio.timeout(_FIRST_S):
                while not self._welcomed:
                    await self.news()
        except TimeoutError:
            raise Unreachable("no engine serves now; try again later") from None

    # --- changes ---

    async def create(
        self, method: str, request: ms.CreateMlpRequest | ms.CreateModelRequest, entry: Entry, identity: Identity
    ) -> Record:
        """Have an engine make a model of what the request gives there, and bring it to others."""
        return await self._changes.whole(self._create(method, request, entry, identity))

    async def update(self, name: str, version: int, batching: BatchingConfig, wanted: int | None) -> Record:
        """Change how requests are batched, and where it is. Raises: NotFound, ModelNotReady."""
        return await self._changes.whole(self._update(self.records.find(name, version), batching, wanted))

    async def unload(self, name: str, version: int = 0) -> None:
        """Take weights off the devices once no request waits; version 0 is all. Raises: NotFound."""
        await self._changes.whole(self._unload(name, self._named(name, version)))

    async def load(self, name: str, version: int = 0) -> Record:
        """Bring weights to the devices, anew where they are there already; version 0 is the highest.

        Raises: NotFound, ModelNotReady if what is on disk is damaged, Exhausted.
        """
        return await self._changes.whole(self._load(name, version))

    async def delete(self, name: str, version: int = 0) -> None:
        """Forget a model once no request waits, on disk too; version 0 is all. Raises: NotFound."""
        await self._changes.whole(self._delete(name, self._named(name, version)))

    async def statistics(self, record: Record) -> ms.MlpStatistics:
        """How often and how fast a model was run, by all engines that have it."""
        request = ms.GetMlpStatisticsRequest(name=record.name, version=record.version)
        ask = self.links.ask
        each = await self.on_all(
            record, lambda entry: ask(entry, "GetMlpStatistics", request, ms.GetMlpStatisticsResponse)
        )
        return summed(record.name, record.version, (answer.statistics for answer in each))

    async def has_ended(self, entry: Entry) -> bool:
        """Whether an engine that does not answer has ended, once that is known."""
        boot_id = entry.info.boot_id
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                while self._directory.of_boot(boot_id) is not None:
                    await self._directory.changed()
        return self._directory.of_boot(boot_id) is None

    def lost(self, replica: Replica) -> None:
        """It does not answer. That its engine has ended is told later; if it has not, it is asked again."""
        replica.state = "UNAVAILABLE"
        entry = self.entry_of(replica)
        if entry is not None and replica.boot_id in self._learned:
            self._learned.discard(replica.boot_id)
            self._begin(self._learn_again(entry))

    async def _create(
        self, method: str, request: ms.CreateMlpRequest | ms.CreateModelRequest, entry: Entry, identity: Identity
    ) -> Record:
        name = request.name
        async with self._changes.lock(name):
            batching = BatchingConfig.read(request.batching)
            owner = self.records.owner(name, claim_of(identity))
            taken = self.records.get(name, request.version or 1)
            # One that is numbered may be a repeat: whether it is, only its session knows.
            if not (request.context.seq and taken is not None and entry.info.engine in taken.replicas):
                request.version = names.free(name, request.version, self.records.numbers(name))
                self._check_models(owner, identity)
            with self._counting(owner):
                summary = await self._made(method, request, entry, identity)
                if (repeated := self.records.get(name, summary.version)) is not None:
                    return repeated
                record = Record(name, summary.version, batching, request.replicas, owner)
                record.know(summary)
                record.replicas[entry.info.engine] = replica_of(entry, summary)
                if self._disk is not None:
                    await self._save(record, entry, self._disk)
                self.records.add(record)
            await self._spread(record)
            await self._publish(name)
            return record

    def _check_models(self, owner: str, identity: Identity) -> None:
        """May there be one more of an owner's? Raises: Exhausted."""
        used = sum(is_of(each, owner) for each in self.records.index()) + self._making[owner]
        self._accounts.of(identity.principal).check("models", used)

    @contextlib.contextmanager
    def _counting(self, owner: str) -> Iterator[None]:
        """One is being made, and counts until it is on record."""
        self._making[owner] += 1
        try:
            yield
        finally:
            self._making[owner] -= 1

    async def _made(
        self, method: str, request: ms.CreateMlpRequest | ms.CreateModelRequest, entry: Entry, identity: Identity
    ) -> ms.MlpSummary:
        if isinstance(request, ms.CreateMlpRequest):
            made = await self.links.ask(entry, method, request, ms.CreateMlpResponse, identity=identity)
            return made.mlp
        created = await self.links.ask(entry, method, request, ms.CreateModelResponse, identity=identity)
        return created.model

    async def _save(self, record: Record, entry: Entry, disk: Disk) -> None:
        """Bring a new model to disk; where that fails, it is taken back. Raises: ServerError."""
        name, version = record.name, record.version
        try:
            content = await self.links.export(entry, name, version)
            data = bytes(content.data)
            settings = record.batching, record.wanted, record.owner
            await asyncio.to_thread(disk.write, name, version, content.manifest, data, *settings)
        except BaseException as error:
            with contextlib.suppress(ServerError):
                request = ms.DeleteMlpRequest(name=name, version=version)
                await self.links.ask(entry, "DeleteMlp", request, ms.DeleteMlpResponse)
            if not isinstance(error, OSError):
                raise
            log.error("a model could not be written", extra={"model": name, "cause": str(error)})
            raise Exhausted(
                f"the network could not be written to the data directory: {error.strerror}", reason="DISK"
            ) from error
        record.is_persistent = True

    async def _update(self, record: Record, batching: BatchingConfig, wanted: int | None) -> Record:
        name, version = record.name, record.version
        async with self._changes.lock(name):
            self._check_kept(record)
            wanted = record.wanted if wanted is None else wanted
            if self._disk is not None and record.is_persistent:
                with self._noting_damage(record):
                    await asyncio.to_thread(self._disk.update, name, version, batching, wanted)
            request = ms.UpdateMlpRequest(name=name, version=version, batching=batching.message(), replicas=wanted)
            await self.on_all(record, lambda entry: self.links.ask(entry, "UpdateMlp", request, ms.UpdateMlpResponse))
            record.batching = batching
            if wanted != record.wanted:
                record.wanted = wanted
                record.refused.clear()
                await self._spread(record)
                await self._publish(name)
                await self._take_surplus(record)
            return record

    async def _unload(self, name: str, targets: list[Record]) -> None:
        async with self._changes.lock(name):
            for record in targets:
                if record.state == "READY":
                    record.state, record.reason = "UNLOADING", ""
                    await self._unload_here(record)
                    record.state, record.reason = "UNAVAILABLE", "unloaded"
            await self._publish(name)

    async def _unload_here(self, record: Record) -> None:
        request = ms.UnloadMlpRequest(name=record.name, version=record.version)
        await self.on_all(record, lambda entry: self.links.ask(entry, "UnloadMlp", request, ms.UnloadMlpResponse))
        for replica in record.replicas.values():
            replica.state = "UNAVAILABLE"

    async def _load(self, name: str, version: int) -> Record:
        async with self._changes.lock(name):
            try:
                record = self.records.find(name, version) if version else self.records.versions(name)[-1]
            except NotFound:
                record = await self._load_new(name, version)
            else:
                if self._disk is not None and record.is_persistent:
                    with self._noting_damage(record):
                        kept = await asyncio.to_thread(self._disk.bytes_of, name, record.version)
                    await self._replace(record, Content(kept.manifest, kept.data))
                elif record.state != "READY":
                    request = ms.LoadMlpRequest(name=name, version=record.version)
                    ask = self.links.ask
                    await self.on_all(record, lambda entry: ask(entry, "LoadMlp", request, ms.LoadMlpResponse))
                    for replica in record.replicas.values():
                        replica.state = "READY"
                record.state, record.reason = "READY", ""
                record.refused.clear()
                await self._spread(record)
            await self._publish(name)
            return record

    async def _load_new(self, name: str, version: int) -> Record:
        """A model that came to the disk by itself."""
        disk = self._disk
        there = [] if disk is None else await asyncio.to_thread(lambda: list(disk.names()))
        versions = [found for other, found in there if other == name]
        version = version or max(versions, default=0)
        if disk is None or version not in versions:
            raise names.unknown_anywhere(names.bare(name), version)
        names.free(name, version, self.records.numbers(name))
        kept = await asyncio.to_thread(disk.bytes_of, name, version)
        record = Record(name, version, kept.batching, kept.replicas, kept.owner)
        record.is_persistent = True
        await self._replace(record, Content(kept.manifest, kept.data))
        self.records.add(record)
        return record

    async def _delete(self, name: str, targets: list[Record]) -> None:
        async with self._changes.lock(name):
            for record in targets:
                self.records.remove(record)
            await self._publish(name)
            for record in targets:
                request = ms.DeleteMlpRequest(name=name, version=record.version)
                await self.on_all(record, partial(self._delete_here, request))
                if self._disk is not None:
                    await asyncio.to_thread(self._disk.delete, name, record.version)

    def _named(self, name: str, version: int) -> list[Record]:
        return [self.records.find(name, version)] if version else self.records.versions(name)

    # --- engines that come and go ---

    def _note(self, event: Event) -> None:
        if isinstance(event, Serving):
            entry = self._directory.engines.get(event.engine)
            if entry is not None and event.boot_id not in self._welcomed:
                self._begin(self._welcome(entry))
        elif isinstance(event, Ended):
            self._welcomed.discard(event.boot_id)
            self._learned.discard(event.boot_id)
            self._leaving.discard(event.boot_id)
            self._tell_locks.pop(event.boot_id, None)
            for record in self.records.index():
                replica = record.replicas.get(event.engine)
                if replica is not None and replica.boot_id == event.boot_id:
                    del record.replicas[event.engine]
                    self._begin(self._again(record.name))
            self._tell_news()

    async def _again(self, name: str) -> None:
        """An engine that had models of a name has ended: others may have to take its place."""
        await self._changes.whole(self._look_after(name))

    async def _look_after(self, name: str) -> None:
        async with self._changes.lock(name):
            for number in sorted(self.records.numbers(name)):
                record = self.records.get(name, number)
                if record is None:
                    continue
                self._forget_ended(record)
                if record.is_gone:
                    log.error("a model is gone with its engine", extra={"model": name, "version": number})
                    self.records.remove(record)
                    continue
                try:
                    await self._spread(record)
                except ServerError as error:
                    self._give_up(record, error)
            await self._publish(name)

    def _give_up(self, record: Record, error: ServerError) -> None:
        """A model cannot be brought to any engine now."""
        told = {"model": record.name, "version": record.version, "cause": error.message}
        log.error("a model is not served", extra=told)
        if record.is_gone:
            # What was on disk is damaged: nothing is left of it.
            self.records.remove(record)

    async def _welcome(self, entry: Entry) -> None:
        """Bring an engine what it is to have."""
        boot_id = entry.info.boot_id
        await self._learn(entry)
        if boot_id not in self._learned:
            return
        await self._tell(entry, self.records.names(), is_all=True)
        began = time.monotonic()
        await asyncio.gather(*(self._again(name) for name in self.records.names()))
        self._welcomed.add(boot_id)
        self._tell_news()
        if self.records.names():
            took_s = round(time.monotonic() - began, 3)
            log.info("an engine has its models", extra={"engine": entry.info.engine, "seconds": took_s})

    async def _learn(self, entry: Entry) -> None:
        """Ask an engine what it has."""
        boot_id = entry.info.boot_id
        while boot_id not in self._learned and self._directory.of_boot(boot_id) is entry:
            try:
                listed = await self.links.ask(entry, "ListMlps", ms.ListMlpsRequest(), ms.ListMlpsResponse)
            except ServerError as error:
                log.warning("an engine does not answer", extra={"engine": entry.info.engine, "cause": error.message})
                await asyncio.sleep(AGAIN_S)
                continue
            for summary in listed.mlps:
                self._adopt(entry, summary)
            self._learned.add(boot_id)

    async def _learn_again(self, entry: Entry) -> None:
        await asyncio.sleep(AGAIN_S)
        await self._learn(entry)
        self._tell_news()

    def _adopt(self, entry: Entry, summary: ms.MlpSummary) -> None:
        """An engine has a model: a front before this one knew of it, or this one does."""
        record = self.records.get(summary.name, summary.version)
        state = state_of(summary)
        if record is None:
            batching = BatchingConfig.read(summary.batching)
            record = Record(summary.name, summary.version, batching, summary.wanted_replicas, summary.owner)
            self.records.add(record)
        if not record.is_known:
            record.know(summary)
            if state != "READY":
                record.state, record.reason = "UNAVAILABLE", "unloaded"
        record.replicas[entry.info.engine] = kept_replica(record.replicas, entry, summary)

    # --- the disk ---

    async def _open(self, directory: Path) -> Disk:
        """Take hold of the data directory, which the front before this one may be about to leave."""
        until = time.monotonic() + _DISK_S
        while True:
            try:
                return await asyncio.to_thread(Disk, directory)
            except InvalidArgument:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(AGAIN_S)

    async def _restore(self, disk: Disk, name: str, version: int) -> None:
        """A model is on disk."""
        try:
            names.free(name, version, self.records.numbers(name))
            batching, wanted, owner, size_bytes = await asyncio.to_thread(disk.settings_of, name, version)
        except ServerError as error:
            log.error("a model is not served", extra={"model": name, "version": version, "cause": error.message})
            return
        record = Record(name, version, batching, wanted, owner, size_bytes)
        record.is_persistent = True
        self.records.add(record)
