"""A house of engines with real processes, and the front's part of models in this one.

engine of a house: python -m tests.models.house SETTINGS
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc

from tensorcompute.v1 import model_service_pb2
from tests.support.serving import ROOT, is_alive, server_environment, wait_until
from tserver.config import Config
from tserver.engines import placement
from tserver.engines.directory import Directory, Entry
from tserver.engines.fleet import Ended, Serving
from tserver.engines.house import House, new_key
from tserver.front import listeners
from tserver.front.binding import bind
from tserver.front.interceptor import Interceptor
from tserver.front.replicas.choosing import Choosing
from tserver.front.replicas.coordinator import ModelCoordinator
from tserver.front.replicas.links import Links
from tserver.front.replicas.servicer import HouseModels
from tserver.front.rpc import Rpc

T = TypeVar("T")
TIMEOUT_S = 40.0
_SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]


class EngineProcess:
    """One engine, forked from a process that has imported torch."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._forker = _forker()
        self.pid, self._told = self._forker.fork(house)
        self.boot_id = self.address = ""

    def wait(self) -> EngineProcess:
        """Wait until it serves."""
        self.boot_id, self.address = self._told.get(timeout=TIMEOUT_S)
        return self

    def kill(self) -> None:
        """End it, without a chance to say goodbye."""
        os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(self.pid), 10.0, "the end of an engine")

    def stop(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGTERM)
        wait_until(lambda: not is_alive(self.pid), 20.0, "the end of an engine")


class _Forker:
    """The process that engines are forked from, and what they tell."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.models.house"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=server_environment(),
        )
        atexit.register(self._process.kill)
        self._pids: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._told: dict[tuple[str, str], queue.SimpleQueue[tuple[str, str]]] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def fork(self, house: House) -> tuple[int, queue.SimpleQueue[tuple[str, str]]]:
        """An engine: its process, and where its boot id and its address come."""
        told = self._told[house.key, house.engine] = queue.SimpleQueue()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(house.message()) + "\n")
        self._process.stdin.flush()
        return self._pids.get(timeout=TIMEOUT_S), told

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, *told = line.split()
            if what == "forked":
                self._pids.put(int(told[0]))
            elif what == "serving":
                key, engine, boot_id, address = told
                self._told[key, engine].put((boot_id, address))


@functools.cache
def _forker() -> _Forker:
    return _Forker()


class Front:
    """What the front of a house does for models, with a listener for callers and one for engines."""

    def __init__(self, key: str, internal: str, directory: Directory, config: Config) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.directory = directory
        self.address = ""
        self.run(self._start(key, internal, config))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the front's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)

    def call(self, function: Callable[[], T]) -> T:
        """The same of a function."""
        done: Future[T] = Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(function()))
        return done.result(TIMEOUT_S)

    def stop(self) -> None:
        """End it at once, as a process that is killed."""
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _start(self, key: str, internal: str, config: Config) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}
        self.coordinator = ModelCoordinator(config, self.directory, Links(self._channel, key, config.max_message_bytes))
        server = self._server = grpc.aio.server(
            options=listeners.options(config.max_message_bytes), interceptors=[Interceptor(key=key)]
        )
        choosing = Choosing(self.coordinator)
        servicer = HouseModels(self.coordinator, choosing, self.directory, self._home, self._of_session)
        server.add_generic_rpc_handlers((bind(_SERVICE, servicer),))
        self.address = listeners.listen(server, "--listen", "127.0.0.1:0", config)
        listeners.listen_within(server, internal)
        await server.start()
        await self.coordinator.start()

    async def _stop(self) -> None:
        await self._server.stop(0)
        self.coordinator.stop()
        for channel in self._channels.values():
            await channel.close()

    def _channel(self, entry: Entry) -> grpc.aio.Channel:
        channel = self._channels.get(entry.info.boot_id)
        if channel is None:
            options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
            channel = self._channels[entry.info.boot_id] = grpc.aio.insecure_channel(entry.info.internal, options)
        return channel

    async def _of_session(self, secret: bytes, rpc: Rpc) -> Entry:
        return self.directory.of_secret(secret)

    async def _home(self, principal: str) -> Entry:
        return self.directory.engines[placement.home(self.directory.engines, principal)]


class HouseUnderTest:
    """Engines and a front. A context manager."""

    def __init__(self, count: int = 2, data_dir: Path | None = None) -> None:
        # Who has it speaks for callers.
        self.key = new_key()
        self._name = self.key[:12]
        self._internal = f"unix-abstract:tserver-test-{self._name}-front"
        self._config = Config(data_dir=str(data_dir) if data_dir else "")
        begun = [EngineProcess(self._house(number)) for number in range(count)]
        self.engines = {each.house.engine: each.wait() for each in begun}
        self.front = self._new_front()

    @property
    def address(self) -> str:
        """Where callers reach the front."""
        return self.front.address

    def kill(self, engine: str) -> None:
        """An engine ends, and the front is told a moment later."""
        ended = self.engines.pop(engine)
        ended.kill()
        self.front.call(lambda: self.front.directory.note(Ended(engine, ended.boot_id, "it was killed", True)))

    def start(self, engine: str) -> EngineProcess:
        """An engine begins, and has what it is to have."""
        begun = self.engines[engine] = EngineProcess(self._house(int(engine))).wait()
        self.front.call(lambda: self.front.directory.note(self._serving(begun)))
        self.settle()
        return begun

    def settle(self) -> None:
        """Wait until all engines have what they are to have."""

        async def wait() -> None:
            for entry in list(self.front.directory.engines.values()):
                await self.front.coordinator.welcomed(entry)

        self.front.run(wait())

    def restart_front(self) -> None:
        """The front ends, and another one begins."""
        self.front.stop()
        self.front = self._new_front()

    def _new_front(self) -> Front:
        directory = Directory()
        for each in self.engines.values():
            directory.note(self._serving(each))
        front = self.front = Front(self.key, self._internal, directory, self._config)
        self.settle()
        return front

    def _serving(self, engine: EngineProcess) -> Serving:
        house = engine.house
        return Serving(house.engine, engine.boot_id, house.internal, engine.address, "cpu")

    def _house(self, number: int) -> House:
        internal = f"unix-abstract:tserver-test-{self._name}-{number}"
        return House(str(number), self.key, internal, self._internal)

    def __enter__(self) -> HouseUnderTest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.front.stop()
        for each in self.engines.values():
            each.stop()


def _say(line: str) -> None:
    """At once, since others write to the same pipe."""
    os.write(1, line.encode() + b"\n")


def main() -> int:
    """Fork an engine for each line."""
    from tserver.engines.in_process import InProcessEngine
    from tserver.front.server import serve

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if pid := os.fork():
            _say(f"forked {pid}")
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        house = House(**json.loads(line))
        config = Config(listen="127.0.0.1:0", device="cpu", threads=1)

        def tell(boot_id: str, address: str, house: House = house) -> None:
            _say(f"serving {house.key} {house.engine} {boot_id} {address}")

        def make(fatal: Callable[[str], None], config: Config = config) -> InProcessEngine:
            return InProcessEngine(config, previous_end="", on_fatal=fatal, beats=None)

        return serve(config, make, cause_file="", house=house, report=tell)
    return 0


if __name__ == "__main__":
    sys.exit(main())
