"""The one thread of an engine on which torch runs, on its one device or on several GPUs.

It gives time to the queues of sessions and the batchers of models in turn, a bounded slice each, so that a long chain
of one session does not hold up the others; in which order, shares.py says. A single long kernel does: it cannot be
interrupted.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import sys
import threading
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.config import Config
from tserver.engine import cost, threads
from tserver.engine.builtin_operations import builtin_operations
from tserver.engine.completions import Awaited, Completions
from tserver.engine.device import choose_device, device_status, devices_beside, limit_device
from tserver.engine.device_guards import guarded_on_device
from tserver.engine.executor import Executor
from tserver.engine.failures import DeviceFailure
from tserver.engine.host_memory import HostMemory
from tserver.engine.ledger import Totals
from tserver.engine.models.forwards import FindWithin, Servable
from tserver.engine.object_store import ObjectStore
from tserver.engine.operations import Operations
from tserver.engine.passes import PassThreads
from tserver.engine.programs import RUNNING
from tserver.engine.reads import deferring
from tserver.engine.ready import ReadyQueue, Runnable
from tserver.engine.room import Room
from tserver.engine.session_queue import SessionQueue
from tserver.engine.shares import Share
from tserver.engine.streams import StreamPair
from tserver.engine.uncompiled import stand_in
from tserver.errors import NotFound
from tserver.host import resident_bytes
from tserver.limits.account import Accounts
from tserver.limits.file import LimitsFile

T = TypeVar("T")
log = logging.getLogger("tserver.engine")

# From so many pieces on (some 25,000 tensors) what sessions hold is not counted again for every caller who asks: to
# count takes at most one part in so many of the engine's time.
_MANY_PIECES = 100
_REST = 20


@dataclass(frozen=True, slots=True)
class Usage:
    """What all sessions hold together, and the devices."""

    # Storages: views of one are counted once.
    tensors: int
    # By the device.
    tensor_bytes: dict[str, int]
    devices: list[ts.DeviceInfo]
    # Of the host, all that this process has, and may have.
    memory_bytes: int = 0
    max_memory_bytes: int = 0
    # The bytes and the tensors that the sessions of each principal hold.
    by_principal: dict[str, tuple[int, int]] = field(default_factory=dict)


class Engine:
    """The thread that runs torch."""

    def __init__(self, config: Config, *, on_fatal: Callable[[str], None]) -> None:
        # Where new tensors go, and the other GPUs that may be named.
        self.device = choose_device(config.device)
        self._beside = devices_beside(self.device, config.devices_per_engine)
        cost.set_up(config.max_call_elements)
        self.torch_version: str = torch.__version__
        self.memory = HostMemory(self.device)
        # On the host; beside a GPU most of what is counted as this process's own there is memory of the GPU.
        on_cpu = self.device.type == "cpu"
        self.room = Room(config.max_memory_bytes, config.engines, *(() if on_cpu else (resident_bytes,)))
        self.room.trim = lambda: self.memory.trim(idle_s=0.0)
        self.room.on_change = self._full
        # Finds models by namespace, name and version, for calls that run them. Set by whoever keeps models.
        self.find_model: FindWithin = _no_model
        # Whose limits hold for whose sessions.
        self.accounts = Accounts(LimitsFile.of(config))
        self.ready = ReadyQueue()
        # Also a server whose own device is the CPU may be told to use a GPU that is there.
        has_gpu = torch.cuda.is_available()
        self.operations = Operations(
            builtin_operations(
                single_owner=config.single_owner,
                find_model=self._find_model,
                has_gpu=has_gpu,
            ),
            later=deferring if has_gpu else None,
            guard=guarded_on_device if has_gpu else None,
            single_owner=config.single_owner,
        )
        self.completions = Completions(on_fatal)
        self._pass_threads = PassThreads(self._begin_thread)
        # Who is due at a moment of time.monotonic; the number orders those of one moment.
        self._alarms: list[tuple[float, int, Runnable]] = []
        self._alarm_numbers = itertools.count()
        self._config = config
        self._on_fatal = on_fatal
        self.executor = Executor()
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        # Whose time it is, and a count by which it is seen that work goes on.
        self._running: Runnable | None = None
        self.slices = 0
        self._current: ObjectStore | None = None
        self._queues: weakref.WeakSet[SessionQueue] = weakref.WeakSet()
        # What was counted last, and when it is to be counted again.
        self._storages, self._held = 0, Counter[str]()
        self._by_principal: dict[str, tuple[int, int]] = {}
        self._count_again_at = 0.0
        # What is asked for and has not begun.
        self._usage_to_come: Future[Usage] | None = None
        self._lock_of_usage = threading.Lock()
        self._prepare()
        self._own_queue = self.open_queue()

    def start(self) -> None:
        """Begin to take work."""
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> bool:
        """End after the jobs that wait now; whether that came about in time."""
        self.ready.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self.completions.stop()
        return True

    def progress(self) -> object:
        """Another value whenever work has gone on; None while there is none. From any thread."""
        running = self._running
        if running is None:
            return None
        run = self.executor.current
        call = None if run is None else run.index
        return self.slices, self.executor.steps, run, call, RUNNING.step

    def at_work(self) -> str:
        """What is being done, in words. From any thread."""
        running, step = self._running, RUNNING.step
        if step is not None:
            return f"{step.operation.name}, a call of a program"
        return "nothing" if running is None else running.at_work()

    def open_queue(self, principal: str = "", namespace: str = "") -> SessionQueue:
        """A new queue with an empty store, of a session of that principal, whose own models are named within that."""
        store = self._open_store(self._config.max_session_bytes, self._beside)
        opened = SessionQueue(self, store, self.device, self.share_of(principal))
        opened.store.principal, opened.store.namespace = principal, namespace
        if (account := opened.share.account) is not None:
            opened.store.open_account(account)
        self._queues.add(opened)
        return opened

    def share_of(self, principal: str) -> Share:
        """A new share of a principal's in the engine's time. From any thread."""
        share = self.ready.turns.share(principal)
        share.account = self.accounts.of(principal) if principal else None
        return share

    def open_store(self) -> ObjectStore:
        """An empty store without a quota, of no session: its new tensors go to the engine's own device."""
        return self._open_store(0, ())

    def _open_store(self, max_bytes: int, beside: Sequence[torch.device]) -> ObjectStore:
        config = self._config
        return ObjectStore(
            self.operations,
            default_device=self.device,
            devices_beside=beside,
            memory=self.memory,
            max_nesting=config.max_nesting,
            max_inline_bytes=config.max_inline_bytes,
            max_bytes=max_bytes,
            room=self.room,
            pass_threads=self._pass_threads,
        )

    def run(self, function: Callable[[], T]) -> Future[T]:
        """Run a function on the engine's thread, in the name of no session."""
        return self._own_queue.run(lambda _: function())

    def call(self, function: Callable[[], None]) -> None:
        """Call a function on the engine's thread: at once if this is it, in its turn if not."""
        if threading.current_thread() is self._thread:
            function()
        else:
            self.run(function)

    def schedule(self, runnable: Runnable) -> None:
        """See Scheduler."""
        self.ready.put(runnable)

    def wake_at(self, runnable: Runnable, when: float) -> None:
        """See Scheduler."""
        heapq.heappush(self._alarms, (when, next(self._alarm_numbers), runnable))

    def when_arrived(self, pair: StreamPair | None, awaited: Sequence[Awaited], finish: Callable[[], None]) -> None:
        """See Scheduler."""
        self.completions.put(0 if pair is None else pair.index, awaited, finish)

    def usage(self) -> Future[Usage]:
        """What all sessions hold, seen from the engine's thread.

        Where that is very much, it is not counted again at once: what was counted last is told for a while.
        """
        with self._lock_of_usage:
            # All who ask before it begins are told the same, so that there is one to come at most.
            if self._usage_to_come is None or self._usage_to_come.cancelled():
                self._usage_to_come = self._own_queue.run_in_pieces(lambda _: self._usage())
            return self._usage_to_come

    def _find_model(self, namespace: str, name: str, version: int) -> Servable:
        return self.find_model(namespace, name, version)

    def _usage(self) -> Generator[None, None, Usage]:
        with self._lock_of_usage:
            self._usage_to_come = None
        if time.monotonic() >= self._count_again_at:
            yield from self._count()
        held = self._held
        # Where it is bounded, it is known exactly at any time.
        bounded = {each.principal: each.held() for each in self.accounts.all() if each.counts_memory}
        return Usage(
            self._storages,
            dict(held),
            device_status(held["cpu"]),
            self.room.used_bytes,
            self.room.limit_bytes,
            self._by_principal | bounded,
        )

    def _count(self) -> Generator[None, None, None]:
        held = Counter[str]()
        by_principal: dict[str, tuple[int, int]] = {}
        storages = counted = 0
        took_s = 0.0
        for each in list(self._queues):
            counting = each.store.count()
            while True:
                began = time.perf_counter()
                try:
                    next(counting)
                except StopIteration as end:
                    totals: Totals = end.value
                    break
                finally:
                    took_s += time.perf_counter() - began
                counted += 1
                yield
            storages += totals.storages
            if principal := each.store.principal:
                size, tensors = by_principal.get(principal, (0, 0))
                size += totals.held_bytes + each.store.uploads.held_bytes
                by_principal[principal] = size, tensors + totals.tensors
            for device, size in totals.tensor_bytes.items():
                held[str(device)] += size
        self._storages, self._held, self._by_principal = storages, held, by_principal
        if counted > _MANY_PIECES:
            self._count_again_at = time.monotonic() + took_s * _REST

    def _prepare(self) -> None:
        threads.set_up(self._config.threads)
        if self.device.type == "cuda":
            torch.cuda.init()
            torch.cuda.set_device(self.device)
            for device in (self.device, *self._beside):
                limit_device(device)
        else:
            self.room.enforce()
        stand_in()
        # Every session must hear torch's warnings, not only the first one that causes them.
        torch.set_warn_always(True)
        warnings.simplefilter("always")
        warnings.showwarning = self._relay_warning

    def limits_changed(self) -> None:
        """Principals may use more or less than before. From any thread."""

        def change() -> None:
            for each in list(self._queues):
                each.store.limits_changed()

        self.run(change)

    def _full(self, full: bool) -> None:
        """From now on the calls of all sessions are looked at, or no more."""
        log.warning("the memory is full" if full else "there is memory again", extra={"limit": self.room.limit_bytes})
        if full:
            for each in list(self._queues):
                each.store.watched = True

    def _relay_warning(self, message: Warning | str, category: type[Warning], *rest: Any, **kwargs: Any) -> None:
        run = self.executor.current
        thread = threading.current_thread()
        if run is None or not (thread is self._thread or self._pass_threads.is_one(thread)):
            log.debug("%s: %s", category.__name__, message)
            return
        run.reply.warnings.add(category=category.__name__, message=str(message), call_index=run.index)

    def _next(self) -> Runnable | None:
        """Who is next: whoever is ready, or has an alarm that is due."""
        alarms = self._alarms
        while alarms:
            wait_s = alarms[0][0] - time.monotonic()
            if wait_s <= 0:
                self.ready.put(heapq.heappop(alarms)[2])
                continue
            try:
                return self.ready.get(wait_s)
            except TimeoutError:
                continue
        return self.ready.get()

    def _begin_thread(self) -> None:
        """How many threads its kernels take and which device is the current one, each thread has to say for itself."""
        threads.take_few()
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def _loop(self) -> None:
        _do_not_preempt()
        self._begin_thread()
        ready = self.ready
        executor = self.executor
        room = self.room

        while True:
            runnable = self._next()
            if runnable is None:
                self._pass_threads.stop()
                return
            store = runnable.store
            account = None if store is None else store.account
            if account is not None and account.is_timed and (resumes_at := account.resumes_at()):
                self.wake_at(runnable, resumes_at)
                continue
            if store is not None and store is not self._current:
                if self._current is not None:
                    self._current.state.save()
                store.state.load()
                self._current = store
            self._running = runnable
            calls = executor.calls
            try:
                more = runnable.run_slice(executor, ready.others_wait)
            except DeviceFailure as error:
                self._on_fatal(f"the device failed: {error}")
                return
            except BaseException:
                log.exception("the engine failed")
                self._on_fatal("the engine failed; its log says why")
                return
            executor.leave_mode()
            took_s = ready.charge()
            self._running = None
            self.slices += 1
            room.look()
            if account is not None:
                account.total_calls += executor.calls - calls
                account.total_s += took_s
                if account.is_timed:
                    account.compute(took_s)
            if more:
                ready.put(runnable)


def _no_model(namespace: str, name: str, version: int) -> Servable:
    raise NotFound(f"no network is named {name[:200]!r}; this engine serves none")


def _do_not_preempt() -> None:
    """Let who gives this thread work go on until it has nothing to do.

    Woken at once on the same core, the engine would only wait for the interpreter lock that its waker holds: two
    switches for nothing, a tenth of a lone round trip. Batch scheduling takes nothing else away from it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
