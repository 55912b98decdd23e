"""A TCP proxy on loopback that breaks connections on demand: cuts, delays, stalls, and drops one direction.

Knows bytes only; does not know gRPC. Runs an event loop in a thread of its own, so a blocked test does not block it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from enum import Enum
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
CHUNK_BYTES = 64 * 1024


class Direction(Enum):
    """Which way bytes go."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


class _Faults:
    """What is done to the bytes of one direction."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.drop = False
        self.cut_after_bytes: int | None = None
        self.passed_bytes = 0
        self.open = asyncio.Event()
        self.open.set()


class Proxy:
    """Passes connections on to a target, and breaks them as it is told. A context manager."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._faults: dict[Direction, _Faults] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._refusing = False
        self.accepted = 0
        self.cuts = 0
        self.address = ""

    # --- what a test asks for; all are done when they return

    def cut(self) -> None:
        """Reset every connection, both ways, losing whatever is on its way."""
        self._on_loop(self._cut)

    def cut_after(self, size_bytes: int, direction: Direction) -> None:
        """Reset every connection, once, as soon as that many more bytes have passed in the direction."""
        self._on_loop(lambda: setattr(self._faults[direction], "cut_after_bytes", size_bytes))

    def refuse(self, refusing: bool = True) -> None:
        """Reset new connections at once, or accept them again."""
        self._on_loop(lambda: setattr(self, "_refusing", refusing))

    def delay(self, delay_s: float, direction: Direction) -> None:
        """Hold back every chunk of the direction for so long; they stay in order."""
        self._on_loop(lambda: setattr(self._faults[direction], "delay_s", delay_s))

    def stall(self, direction: Direction) -> None:
        """Pass nothing in the direction until `resume`; nothing is lost."""
        self._on_loop(self._faults[direction].open.clear)

    def resume(self, direction: Direction) -> None:
        """End a stall."""
        self._on_loop(self._faults[direction].open.set)

    def drop(self, direction: Direction, dropping: bool = True) -> None:
        """Swallow the bytes of the direction, as a network does that is gone. Cut before passing bytes again."""
        self._on_loop(lambda: setattr(self._faults[direction], "drop", dropping))

    def passed_bytes(self, direction: Direction) -> int:
        """How many bytes have passed in the direction."""
        return self._faults[direction].passed_bytes

    # --- the loop's side

    def _on_loop(self, action: Callable[[], T]) -> T:
        async def run() -> T:
            return action()

        return self._wait(run())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

    def _cut(self) -> None:
        self.cuts += 1
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refusing:
            writer.transport.abort()
            return
        try:
            there_reader, there_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        if self._refusing:
            writer.transport.abort()
            there_writer.transport.abort()
            return
        pair = {writer, there_writer}
        self._writers |= pair
        pumps = {
            asyncio.create_task(self._pump(reader, there_writer, Direction.TO_SERVER)),
            asyncio.create_task(self._pump(there_reader, writer, Direction.TO_CLIENT)),
        }
        self._pumps |= pumps
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for end in pair:
            end.close()
        for pump in pumps:
            pump.cancel()
        self._writers -= pair
        self._pumps -= pumps

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        faults = self._faults[direction]
        with contextlib.suppress(ConnectionError, OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                await faults.open.wait()
                if faults.delay_s:
                    await asyncio.sleep(faults.delay_s)
                if faults.drop:
                    continue
                if faults.cut_after_bytes is not None:
                    passing, left = chunk[: faults.cut_after_bytes], faults.cut_after_bytes - len(chunk)
                    faults.cut_after_bytes = left if left > 0 else None
                    writer.write(passing)
                    faults.passed_bytes += len(passing)
                    if faults.cut_after_bytes is None:
                        self._cut()
                        return
                    continue
                writer.write(chunk)
                faults.passed_bytes += len(chunk)
                await writer.drain()

    async def _start(self) -> None:
        self._faults = {direction: _Faults() for direction in Direction}
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"

    async def _stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for pump in list(self._pumps):
            pump.cancel()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.wait(others, timeout=5.0) if others else None

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._wait(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()
