"""How far a house goes: many engines, hosts and sessions, with the placement and the directory that a front has.

Time is counted, not waited for: what an engine and a front take for a request are figures that were measured with one
of each. What placement takes, and what a directory weighs, is measured here. `python -m tests.engines.simulation`
prints the table of docs/engines.md.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from dataclasses import dataclass, field

from tserver.engines.directory import Directory
from tserver.engines.fleet import Ended, Serving
from tserver.engines.placement import Load, choose

ENGINES_PER_HOST = 8
SESSIONS_PER_ENGINE = 100
# Measured with one engine on one core: what opening a session takes there, and what a request takes that a front
# passes on.
OPEN_S = 1.5e-3
FORWARD_S = 0.5e-3
# Engines tell how loaded they are once a second, and fronts are told of all then.
TOLD_EVERY_S = 1.0
# Sessions that clients of the whole house open in a second.
OPENED_PER_S = 2000
GIB = 1 << 30


@dataclass
class Engine:
    """One engine as it is, whatever fronts know of it."""

    name: str
    host: int
    free_bytes: int
    sessions: int = 0
    # When it has done what it was given until now.
    done_at: float = 0.0


@dataclass
class Front:
    """One front: what it knows, which is a moment old, and how busy it is."""

    directory: Directory = field(default_factory=Directory)
    done_at: float = 0.0

    def loads(self) -> list[Load]:
        """Of all engines that serve."""
        return [entry.load for entry in self.directory.engines.values()]


class House:
    """All hosts, each with engines and a front."""

    def __init__(self, engines: int, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.engines = {
            f"{number}": Engine(f"{number}", number // ENGINES_PER_HOST, self.random.randrange(40, 80) * GIB)
            for number in range(engines)
        }
        self.fronts = [Front() for _ in range(-(-engines // ENGINES_PER_HOST))]
        # Between processes: what is told of loads, and what is told because something happened.
        self.told = 0
        self.messages = 0
        for engine in self.engines.values():
            self._register(engine)

    def _register(self, engine: Engine) -> None:
        event = serving(engine)
        self.messages += 1 + len(self.fronts)
        for front in self.fronts:
            front.directory.note(event)

    def tell(self) -> None:
        """Each engine says that it goes on, and what it has to do; each front passes that on, and is told of all."""
        for front in self.fronts:
            for name, entry in front.directory.engines.items():
                engine = self.engines[name]
                entry.load.sessions, entry.load.placed = engine.sessions, 0
                entry.load.free_bytes = engine.free_bytes
        self.told += 2 * (len(self.engines) + len(self.fronts))

    def open(self, now: float) -> float:
        """A client opens a session, at any front; when it has it."""
        front = self.random.choice(self.fronts)
        load = choose(front.loads(), draw=self.random.sample)
        load.placed += 1
        engine = self.engines[load.engine]
        engine.sessions += 1
        front.done_at = max(now, front.done_at) + FORWARD_S
        engine.done_at = max(front.done_at, engine.done_at) + OPEN_S
        self.messages += 2
        return engine.done_at

    def fill(self, sessions: int) -> float:
        """Open so many sessions, as clients come; when the last has it."""
        last = now = 0.0
        for opened in range(sessions):
            if opened % int(OPENED_PER_S * TOLD_EVERY_S) == 0:
                self.tell()
            now = opened / OPENED_PER_S
            last = max(last, self.open(now))
        return last

    def lose(self, host: int) -> tuple[int, int, float]:
        """A host goes, and the clients of its sessions come back at once: how many sessions that costs, and how many
        messages and seconds until all are opened again.
        """
        gone = [engine for engine in self.engines.values() if engine.host == host]
        before = self.messages
        self.tell()
        for engine in self.engines.values():
            engine.done_at = 0.0
        for front in self.fronts:
            front.done_at = 0.0
        for engine in gone:
            del self.engines[engine.name]
            event = Ended(engine.name, boot_of(engine), "its host is gone", comes_again=True)
            self.messages += len(self.fronts)
            for front in self.fronts:
                front.directory.note(event)
        lost = sum(engine.sessions for engine in gone)
        until = 0.0
        for _ in range(lost):
            # One request is answered with what became of the session; the next one opens another.
            front = self.random.choice(self.fronts)
            front.done_at += FORWARD_S
            self.messages += 1
            until = max(until, self.open(0.0))
        return lost, self.messages - before, until

    def evenness(self) -> float:
        """Sessions of the fullest engine, as a multiple of the mean."""
        counts = [engine.sessions for engine in self.engines.values()]
        return max(counts) * len(counts) / sum(counts)


def boot_of(engine: Engine) -> str:
    """The boot id of its run."""
    return f"{int(engine.name):016x}"


def serving(engine: Engine) -> Serving:
    """What a fleet tells of it."""
    address = f"10.0.{engine.host}.1:{51000 + int(engine.name) % ENGINES_PER_HOST}"
    return Serving(engine.name, boot_of(engine), address, address, "cuda:0", node=f"{engine.host}", pid=1)


def bytes_of_a_directory(engines: int) -> int:
    """The memory that a front takes to know so many engines."""
    events = [serving(Engine(f"{number}", number // ENGINES_PER_HOST, 0)) for number in range(engines)]
    tracemalloc.start()
    directory = Directory()
    for event in events:
        directory.note(Serving(**{name: getattr(event, name) for name in event.__slots__}))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size


def placement_s(engines: int, times: int = 100) -> float:
    """Seconds to place one session on so many engines, with all that a front does for it, while nothing else runs."""
    front = House(engines).fronts[0]
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(times):
            choose(front.loads()).placed += 1
        best = min(best, (time.perf_counter() - began) / times)
    return best


def main() -> None:
    """Print the table."""
    print("| engines, hosts | sessions | placing one | directory | messages a second | fullest engine | a host goes |")
    print("|---|---|---|---|---|---|---|")
    for engines in (8, 64, 256, 1000):
        house = House(engines)
        sessions = engines * SESSIONS_PER_ENGINE
        took = house.fill(sessions)
        per_s = house.told / max(1.0, took)
        even = house.evenness()
        if len(house.fronts) > 1:
            lost, messages, until = house.lose(0)
            goes = f"{lost} sessions, {messages:,} messages, {until:.2f} s"
        else:
            goes = "all"
        print(
            f"| {engines:,}, {len(house.fronts)} | {sessions:,} | {placement_s(engines) * 1e6:.0f} µs "
            f"| {bytes_of_a_directory(engines) / 1024:.0f} KiB | {per_s:,.0f} | {even:.2f} × the mean | {goes} |"
        )


if __name__ == "__main__":
    main()
