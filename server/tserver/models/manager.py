"""The models, for whoever serves callers over a network: requests are awaited, changes are put in order.

One object for all listeners of a process; every method runs on the event loop's thread. Knows asyncio; knows neither
gRPC nor sessions, and leaves tensors to the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.engine import Engine
from tserver.engine.memory import is_out_of_memory, telling_of_memory
from tserver.engine.models.forwards import check_names, rows_and_form
from tserver.engine.models.model import Content, Model
from tserver.engine.models.spec import bind
from tserver.engine.shares import Share
from tserver.engine.values import dtype_of
from tserver.errors import Exhausted, InvalidArgument, ModelNotReady, NotFound, ServerError
from tserver.models import names, store
from tserver.models.batcher import DynamicBatcher
from tserver.models.batching import BatchingConfig
from tserver.models.changes import Changes
from tserver.models.registry import Registry, ServedModel
from tserver.models.requests import Given, Request, notify
from tserver.tracing.tracer import TRACER

T = TypeVar("T")
log = logging.getLogger("tserver.models")


class ModelManager:
    """Forward passes of models, and changes to them."""

    def __init__(
        self, engine: Engine, registry: Registry, stored: store.Store | None = None, model_dir: str = ""
    ) -> None:
        self.registry = registry
        self.registry.deliver = self._deliver
        self._engine = engine
        self._store = stored
        self._model_dir = model_dir
        self._loop = asyncio.get_running_loop()
        self._to_wake: set[DynamicBatcher] = set()
        changes = Changes()
        self.lock, self.whole = changes.lock, changes.whole

    # --- forward passes ---

    def request(self, served: ServedModel, dtype: pb.DType, shape: Sequence[int], data: bytes | memoryview) -> Request:
        """A request by value for a row of layers, checked: any shape of rows.

        `data` is row-major, and must not change until the request was run. Raises: ModelNotReady, InvalidArgument.
        """
        if dtype != served.dtype:
            # What no dtype is, no model refuses.
            dtype_of(dtype)
        with _counting(served):
            model = served.row_of_layers()
            rows = model.check(dtype, shape)
            wanted = rows * model.in_bytes
            if len(data) != wanted:
                raise InvalidArgument(
                    f"inputs have {len(data)} bytes, but shape {list(shape)} of {str(model.dtype)[6:]} needs {wanted}"
                )
        return Request(rows, (data,), ((rows, model.in_features),), wanted)

    def request_by_name(self, served: ServedModel, given: Mapping[str, Given]) -> Request:
        """A request by value for any model, checked; as `request`."""
        with _counting(served):
            model = served.ready()
            ordered = [given[name] for name in check_names(names.bare(served.name), model.inputs, given)]
            sizes = bind(model.inputs, [dtype_of(each.dtype) for each in ordered], [each.shape for each in ordered])
            for spec, each in zip(model.inputs, ordered, strict=True):
                wanted = math.prod(each.shape) * spec.torch_dtype.itemsize
                if len(each.data) != wanted:
                    raise InvalidArgument(
                        f"input {spec.name!r} has {len(each.data)} bytes, but shape {list(each.shape)} of "
                        f"{str(spec.torch_dtype)[6:]} needs {wanted}"
                    )
        rows, form = rows_and_form(model, sizes)
        return Request(
            rows,
            [each.data for each in ordered],
            [each.shape for each in ordered],
            sum(len(each.data) for each in ordered),
            form=form,
        )

    def share_of(self, principal: str) -> Share:
        """Who is charged with forward passes that a principal asks for, in no session."""
        return self._engine.share_of(principal)

    async def run(self, served: ServedModel, request: Request, principal: str) -> None:
        """Queue a request and wait until it was run; who asks for it outside of a session is named here, and charged.

        Raises: what became of it.
        """
        if request.share is None:
            request.share = self._engine.share_of(principal)
        future: asyncio.Future[None] = self._loop.create_future()
        request.on_done = lambda _: None if future.done() else future.set_result(None)
        if request.traced is None and TRACER.is_on:
            # Its caller has sent what there is of a trace with the RPC, in which this is.
            request.traced = TRACER.request(f"forward {names.bare(served.name)}", "", may_choose=False)
        self.put(served, request)
        try:
            await future
        except asyncio.CancelledError:
            self.take_back(served, request)
            raise
        if request.error is not None:
            raise request.error

    def put(self, served: ServedModel, request: Request) -> None:
        """Queue a request; `request.on_done` is called when it was run. Raises: Exhausted if the queue is full.

        On the event loop, or the engine's thread for a request whose answer is taken there.
        """
        try:
            if (share := request.share) is not None and (account := share.account) is not None and account.is_timed:
                account.check_compute()
            served.batcher.queue.put(request)
        except ServerError as error:
            served.statistics.rejected += 1
            served.statistics.failed(error.reason)
            raise
        if request.on_engine:
            served.batcher.wake()
            return
        if not self._to_wake:
            # Behind the requests that have come in with this one.
            self._loop.call_soon(self._wake)
        self._to_wake.add(served.batcher)

    def take_back(self, served: ServedModel, request: Request) -> None:
        """Nobody waits for the request any more: it leaves the queue, if it is still there."""
        if served.batcher.queue.remove(request):
            served.statistics.cancelled += 1
            if request.traced is not None:
                request.traced.end("CANCELLED")

    def _wake(self) -> None:
        batchers, self._to_wake = self._to_wake, set()
        for batcher in batchers:
            batcher.wake()

    def _deliver(self, requests: list[Request]) -> None:
        """One hand-over for a whole batch. At the very end there may be no loop to tell."""
        if here := [request for request in requests if request.on_engine]:
            self._engine.call(lambda: notify(here))
            requests = [request for request in requests if not request.on_engine]
            if not requests:
                return
        try:
            self._loop.call_soon_threadsafe(notify, requests)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    # --- changes ---

    def restore(self) -> None:
        """Let all models on disk serve. Damaged ones are set aside and reported in the log, and the others serve.

        Before the engine is started.
        """
        disk = self._store
        for name, version in list(disk.names()) if disk is not None else []:
            assert disk is not None
            try:
                self.registry.check_free(name, version)
                stored = disk.read(name, version)
                served = self.registry.add(name, version, self.made(stored.content), stored.batching)
                served.is_persistent, served.replicas, served.owner = True, stored.replicas, stored.owner
            except ServerError as error:
                log.error("a model is not served", extra={"model": name, "version": version, "cause": error.message})
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                log.error("a model is not served", extra={"model": name, "version": version, "cause": str(error)})

    async def persist(self, served: ServedModel) -> None:
        """Bring a model that was added to disk, if there is one; where that fails, it is taken back.

        Raises: ServerError if it could not be written, NotFound if it is gone already.
        """
        if self._store is not None:
            await self.whole(self._persist(served, self._store))

    async def update(
        self, name: str, version: int, batching: BatchingConfig, replicas: int | None = None
    ) -> ServedModel:
        """Change how requests are batched, and on how many engines it is to be.

        Raises: NotFound, ModelNotReady if what is on disk is damaged.
        """
        return await self.whole(self._update(self.registry.find_here(name, version), batching, replicas))

    async def unload(self, name: str, version: int = 0) -> None:
        """Take weights off the device once no request waits; version 0 is all. Raises: NotFound."""
        await self.whole(self._unload(name, self._named(name, version)))

    async def load(self, name: str, version: int = 0) -> ServedModel:
        """Bring weights to the device, anew where they are there already; version 0 is the highest.

        Raises: NotFound, ModelNotReady if what is on disk is damaged, Exhausted.
        """
        return await self.whole(self._load(name, version))

    async def delete(self, name: str, version: int = 0) -> None:
        """Forget a model once no request waits, on disk too; version 0 is all. Raises: NotFound."""
        await self.whole(self._delete(name, self._named(name, version)))

    async def export(self, served: ServedModel) -> bytes:
        """A model as a safetensors file. Raises: ModelNotReady."""
        content = await self.content_of(served)
        return await self.in_thread(content.file)

    async def content_of(self, served: ServedModel, *, also_unloaded: bool = False) -> Content:
        """What a model is made of. Raises: ModelNotReady."""
        if also_unloaded and served.unloaded is not None:
            return served.unloaded
        return await self.on_engine(served.ready().content)

    async def read_file(self, path: str) -> bytes:
        """A file of the model directory. Raises: InvalidArgument, NotFound, Exhausted."""
        return await self.in_thread(store.read_within, self._model_dir, path)

    async def counted(self, served: ServedModel) -> ms.MlpStatistics:
        """How often and how fast a version was run."""
        return served.statistics.message(served.name, served.version, served.waiting)

    async def on_engine(self, function: Callable[[], T]) -> T:
        """Run a function on the engine's thread. Raises: Exhausted where memory is short."""
        with telling_of_memory():
            return await asyncio.shield(asyncio.wrap_future(self._engine.run(function)))

    def by_engine(self, function: Callable[[], None]) -> None:
        """Call a function on the engine's thread, at once if this is it."""
        self._engine.call(function)

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function that takes a while on a thread of its own. Raises: Exhausted where memory is short."""
        with telling_of_memory():
            return await asyncio.to_thread(function, *arguments)

    def _named(self, name: str, version: int) -> list[ServedModel]:
        return [self.registry.find_here(name, version)] if version else self.registry.versions(name)

    async def _persist(self, served: ServedModel, disk: store.Store) -> None:
        async with self.lock(served.name):
            if served.is_persistent:
                return
            self._check_kept(served)
            try:
                model, content = served.batcher.model, served.unloaded
                if model is not None:
                    content = await self.on_engine(model.content)
                assert content is not None
                await self.in_thread(
                    disk.save, served.name, served.version, content, served.batching, served.replicas, served.owner
                )
            except OSError as error:
                self.registry.remove(served)
                log.error("a model could not be written", extra={"model": served.name, "cause": str(error)})
                raise Exhausted(
                    f"the network could not be written to the data directory: {error.strerror}", reason="DISK"
                ) from error
            except BaseException:
                self.registry.remove(served)
                raise
            served.is_persistent = True

    async def _update(self, served: ServedModel, batching: BatchingConfig, replicas: int | None) -> ServedModel:
        async with self.lock(served.name):
            self._check_kept(served)
            wanted = served.replicas if replicas is None else replicas
            if self._store is not None and served.is_persistent:
                with _noting_damage(served):
                    await self.in_thread(self._store.update, served.name, served.version, batching, wanted)
            served.configure(batching)
            served.replicas = wanted
        return served

    def _check_kept(self, served: ServedModel) -> None:
        """Whether a version is still there, now that it can be changed. Raises: NotFound."""
        if self.registry.find_here(served.name, served.version) is not served:
            raise NotFound(
                f"version {served.version} of {names.bare(served.name)!r} was deleted meanwhile, and made anew"
            )

    async def _unload(self, name: str, targets: list[ServedModel]) -> None:
        async with self.lock(name):
            for served in targets:
                model = served.batcher.model
                if served.state != "READY" or model is None:
                    continue
                served.state = "UNLOADING"
                await self._drained(served)
                if not served.is_persistent:
                    served.unloaded = await self.on_engine(model.content)
                served.batcher.use(None)
                served.state, served.reason = "UNAVAILABLE", "unloaded"

    async def _load(self, name: str, version: int) -> ServedModel:
        async with self.lock(name):
            try:
                served = self.registry.find_here(name, version) if version else self.registry.versions(name)[-1]
            except NotFound:
                return await self._load_new(name, version)
            model: Model | None = None
            if self._store is not None and served.is_persistent:
                with _noting_damage(served):
                    stored = await self.in_thread(self._store.read, served.name, served.version)
                content: Content | None = stored.content
            else:
                content = served.unloaded
            if content is not None:
                model = await self.on_engine(functools.partial(self.made, content))
            if model is not None:
                served.use(model)
                served.unloaded = None
                served.state, served.reason = "READY", ""
            return served

    async def _load_new(self, name: str, version: int) -> ServedModel:
        """A model that came to the disk by itself."""
        disk = self._store
        versions = [found for other, found in disk.names() if other == name] if disk is not None else []
        version = version or max(versions, default=0)
        if disk is None or version not in versions:
            raise names.unknown_anywhere(names.bare(name), version)
        self.registry.check_free(name, version)
        stored = await self.in_thread(disk.read, name, version)
        model = await self.on_engine(lambda: self.made(stored.content))
        served = self.registry.add(name, version, model, stored.batching)
        served.is_persistent, served.replicas, served.owner = True, stored.replicas, stored.owner
        return served

    async def _delete(self, name: str, targets: list[ServedModel]) -> None:
        async with self.lock(name):
            for served in targets:
                self.registry.remove(served)
                if served.state == "READY":
                    served.state, served.reason = "UNLOADING", "deleted"
                    await self._drained(served)
                if self._store is not None:
                    await asyncio.to_thread(self._store.delete, served.name, served.version)
                served.batcher.use(None)
                served.state = "UNAVAILABLE"

    def made(self, content: Content) -> Model:
        """A model on the device. On the engine's thread."""
        return content.model(self._engine.open_store, self._engine.device)

    async def _drained(self, served: ServedModel) -> None:
        drained: asyncio.Future[None] = self._loop.create_future()

        def tell() -> None:
            self._loop.call_soon_threadsafe(drained.set_result, None)

        served.batcher.when_drained(tell)
        await drained


@contextlib.contextmanager
def _counting(served: ServedModel) -> Iterator[None]:
    """Count what is refused."""
    try:
        yield
    except ServerError as error:
        served.statistics.failed(error.reason)
        raise


@contextlib.contextmanager
def _noting_damage(served: ServedModel) -> Iterator[None]:
    """Know of a version that is not on disk any more, once it was set aside."""
    try:
        yield
    except ModelNotReady as error:
        if error.reason == "MODEL_CORRUPT":
            served.is_persistent = False
            if served.state != "READY":
                served.reason = error.message
        raise
