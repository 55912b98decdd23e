"""The engine that runs in this very process: the first form of the port, and the one without an extra hop."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver.config import Config
from tserver.engine.device import check_device, device_status
from tserver.engine.engine import Engine, Usage
from tserver.engine.gpu import GpuStatus, gpu_status
from tserver.engine.modes import draw_anew
from tserver.engines.disk_use import DiskUse
from tserver.engines.model_calls import ModelCalls
from tserver.engines.port import Counts
from tserver.engines.storage_calls import StorageCalls
from tserver.engines.watchdog import Watchdog
from tserver.models.manager import ModelManager
from tserver.models.owners import Owners
from tserver.models.registry import Registry
from tserver.models.replicas import Replicas
from tserver.models.store import Store
from tserver.session.keeping import KeptSessions
from tserver.session.registry import Sessions
from tserver.storage import store as storage


class InProcessEngine:
    """Sessions, models and the thread that runs torch, put together. Made on the event loop that serves."""

    def __init__(
        self,
        config: Config,
        *,
        previous_end: str,
        on_fatal: Callable[[str], None],
        beats: int | None,
        house_dir: str = "",
    ) -> None:
        """`previous_end` is why the run before this one ended; `on_fatal` is told why this one must. `beats`, if
        given, is a pipe that is written to while this process goes on. `house_dir` is the data directory of the house
        that this engine is of.
        """
        engine = self._engine = Engine(config, on_fatal=on_fatal)
        self._hang_s, self._on_fatal, self._beats = config.hang_s, on_fatal, beats
        self._watchdog: Watchdog | None = None
        self.device = str(engine.device)
        self.torch_version = engine.torch_version
        self.operations_digest = engine.operations.digest
        self.counts: Counts = engine.executor
        self.accounts = engine.accounts
        data_dir = config.data_dir or house_dir
        data = Path(data_dir) if data_dir else None
        self.sessions = Sessions(
            config,
            engine,
            previous_end=previous_end,
            accounts=engine.accounts,
            kept=KeptSessions(data) if data is not None and config.checkpoint_on_drain else None,
            is_of_house=bool(house_dir),
        )
        registry = Registry(engine)
        self.owners = Owners(registry.has)
        engine.find_model = lambda namespace, name, version: registry.find(self.owners.within(namespace, name), version)
        stored = Store(Path(config.data_dir)) if config.data_dir else None
        self.disk_use = None if data is None else DiskUse(data, engine.accounts)
        if self.disk_use is not None and stored is not None:
            stored.check = self.disk_use.check_model
        self.storage_calls = StorageCalls(
            None if data is None or self.disk_use is None else storage.Store(data, check=self.disk_use.check_names),
            KeptSessions(data) if data is not None else None,
        )
        self.models = ModelManager(engine, registry, stored, config.model_dir)
        self.models.restore()
        self.replicas = Replicas(self.models)
        self.model_calls = ModelCalls(
            self.sessions, self.models, engine.open_store, engine.device, config.max_output_bytes
        )

    def start(self) -> None:
        """See the port."""
        self._engine.start()

    def watch(self, on_stall: Callable[[bool], None]) -> None:
        """See the port."""
        self._watchdog = Watchdog(
            self._engine, self._hang_s, on_hang=self._on_fatal, on_stall=on_stall, beats=self._beats
        )
        self._watchdog.start()

    def stop_watching(self) -> None:
        """See the port."""
        if self._watchdog is not None:
            self._watchdog.stop()

    def stop(self, timeout_s: float) -> str:
        """See the port."""
        return self.storage_calls.at_work() if self._engine.stop(timeout_s) else self._engine.at_work()

    def devices(self) -> list[ts.DeviceInfo]:
        """See the port."""
        return device_status()

    def gpus(self) -> list[GpuStatus]:
        """See the port."""
        return gpu_status()

    def usage(self) -> Future[Usage]:
        """See the port."""
        return self._engine.usage()

    def check_device(self, name: str) -> None:
        """See the port."""
        check_device(name)


def forked() -> None:
    """This process was forked from one that has imported all this: it is to draw other numbers than its siblings."""
    draw_anew()
