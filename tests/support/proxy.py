"""A TCP proxy on loopback that is a network: far, slow or lossy as a Link says, and broken on demand.

On demand it cuts, delays, stalls, and drops one direction. Knows bytes only; does not know gRPC, and passes TLS on as
it is. Runs an event loop in a thread of its own, so a blocked test does not block it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CHUNK_BYTES = 64 * 1024
# Where bytes take time, connections take turns after so many of them.
_SLOW_CHUNK_BYTES = 4 * 1024
# Chunks of one connection that may be on their way.
_MAX_CHUNKS = 1024
OTHER_LOOPBACKS = tuple(f"127.0.0.{number}" for number in range(2, 20))


class Direction(Enum):
    """Which way bytes go."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


@dataclass(frozen=True)
class Link:
    """A network between two machines."""

    round_trip_s: float = 0.0
    # Each chunk takes up to so much longer, one way; order is kept.
    jitter_s: float = 0.0
    # Each way, of all connections together; 0 is without limit.
    bytes_per_s: float = 0.0
    # The share of connections that are reset, somewhere in their first mebibyte.
    cut_fraction: float = 0.0
    seed: int = 0


MBIT = 125_000.0
LOOPBACK = Link()


class _Faults:
    """What is done to the bytes of one direction."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        # When the last byte that was taken has left, where bytes take time.
        self.free_at = 0.0
        self.drop = False
        self.cut_after_bytes: int | None = None
        self.passed_bytes = 0
        self.open = asyncio.Event()
        self.open.set()


class Proxy:
    """Passes connections on to a target, and breaks them as it is told. A context manager."""

    def __init__(self, target: str, link: Link = LOOPBACK, *, data_port: int = 0) -> None:
        """With `data_port` that port of the target is passed on, too, under its own number on another address."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._data_port = data_port
        self._link = link
        self._random = random.Random(link.seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._faults: dict[Direction, _Faults] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._refused: set[int] = set()
        # How often the connections were forgotten.
        self._forgotten = 0
        self.accepted = 0
        self.cuts = 0
        self.cut_by_link = 0
        self.address = ""
        self._servers: list[asyncio.Server] = []

    # --- what a test asks for; all are done when they return

    def cut(self) -> None:
        """Reset every connection, both ways, losing whatever is on its way."""
        self._on_loop(self._cut)

    def cut_after(self, size_bytes: int, direction: Direction) -> None:
        """Reset every connection, once, as soon as that many more bytes have passed in the direction."""
        self._on_loop(lambda: setattr(self._faults[direction], "cut_after_bytes", size_bytes))

    def refuse(self, refusing: bool = True, *, data_only: bool = False) -> None:
        """Reset new connections at once, or accept them again; all, or those to the data port."""
        ports = {self._data_port} if data_only else {self._data_port, self._target[1]}
        self._on_loop(lambda: self._refused.update(ports) if refusing else self._refused.difference_update(ports))

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

    def black_hole(self, swallowing: bool = True) -> None:
        """Swallow all bytes of both directions, of new connections too. Cut before passing bytes again."""
        for direction in Direction:
            self.drop(direction, swallowing)

    def forget(self) -> None:
        """Swallow all bytes of the connections that there are, for ever: they are half open. New ones are not."""
        self._on_loop(lambda: setattr(self, "_forgotten", self._forgotten + 1))

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

    async def _accept(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if port in self._refused:
            writer.transport.abort()
            return
        pair = {writer}
        pumps: set[asyncio.Task[None]] = set()
        # How many more bytes pass before the connection is reset, if it is one of those that are.
        cut = [2.0 ** self._random.uniform(0, 20)] if self._random.random() < self._link.cut_fraction else []
        self._writers.add(writer)
        try:
            # The packets that open a connection travel too: the client could speak from here on, the server hears it
            # half a round trip later.
            await asyncio.sleep(self._link.round_trip_s)
            there = asyncio.create_task(self._reach(port))
            pumps = {asyncio.create_task(self._pump(reader, there, Direction.TO_SERVER, cut))}
            self._pumps |= pumps
            there_reader, there_writer = await asyncio.shield(there)
            pair.add(there_writer)
            self._writers.add(there_writer)
            if port in self._refused:
                raise ConnectionError
            here = asyncio.get_running_loop().create_future()
            here.set_result((reader, writer))
            back = asyncio.create_task(self._pump(there_reader, here, Direction.TO_CLIENT, cut))
            pumps.add(back)
            self._pumps.add(back)
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            for end in pair:
                end.transport.abort()
        is_cut = bool(cut) and cut[0] < 0
        self.cut_by_link += is_cut
        for end in pair:
            if is_cut:
                end.transport.abort()
            end.close()
        for pump in pumps:
            pump.cancel()
        self._writers -= pair
        self._pumps -= pumps

    async def _reach(self, port: int) -> Ends:
        await asyncio.sleep(self._link.round_trip_s / 2)
        return await asyncio.open_connection(self._target[0], port)

    async def _pump(
        self, reader: asyncio.StreamReader, to: asyncio.Future[Ends], direction: Direction, cut: list[float]
    ) -> None:
        """Pass on what comes; ends with the connection."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MAX_CHUNKS)
        epoch = self._forgotten
        taking = asyncio.create_task(self._take(reader, queue, self._faults[direction]))
        try:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.shield(to)
                await self._give(queue, writer, self._faults[direction], cut, epoch)
        finally:
            taking.cancel()

    async def _take(
        self, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]], faults: _Faults
    ) -> None:
        """Take chunks, no faster than the link does, and say when each arrives; the last one is empty."""
        link = self._link
        arrives_at = 0.0
        chunk = b"-"
        while chunk:
            try:
                chunk = await reader.read(_SLOW_CHUNK_BYTES if link.bytes_per_s else CHUNK_BYTES)
            except OSError:
                chunk = b""
            now = time.monotonic()
            if link.bytes_per_s:
                faults.free_at = max(now, faults.free_at) + len(chunk) / link.bytes_per_s
                await asyncio.sleep(faults.free_at - now)
                now = faults.free_at
            arrives_at = max(arrives_at, now + faults.delay_s + self._random.uniform(0, link.jitter_s))
            await queue.put((arrives_at, chunk))

    async def _give(
        self,
        queue: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        faults: _Faults,
        cut: list[float],
        epoch: int,
    ) -> None:
        while True:
            arrives_at, chunk = await queue.get()
            if (wait_s := arrives_at - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            if not chunk:
                return
            await faults.open.wait()
            if faults.drop or epoch < self._forgotten:
                continue
            if cut:
                cut[0] -= len(chunk)
                if cut[0] < 0:
                    return
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
        self._faults = {direction: _Faults(self._link.round_trip_s / 2) for direction in Direction}
        # The client looks for the data endpoint where it found the server, under the port that the server names: on an
        # address of loopback where that port is free.
        host = await self._listen_beside() if self._data_port else "127.0.0.1"
        self.address = f"{host}:{await self._listen(host, 0, self._target[1])}"

    async def _listen_beside(self) -> str:
        for host in OTHER_LOOPBACKS:
            try:
                await self._listen(host, self._data_port, self._data_port)
            except OSError:
                continue
            return host
        raise OSError(f"port {self._data_port} is in use on every address of loopback")

    async def _listen(self, host: str, port: int, to: int) -> int:
        listener = socket.create_server((host, port), backlog=128)
        if self._link.bytes_per_s:
            # What waits for the link waits in the sender's memory, as everywhere.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK_BYTES)
        self._servers.append(await asyncio.start_server(functools.partial(self._accept, to), sock=listener))
        return int(listener.getsockname()[1])

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
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
