"""The children that are forked: engines, started and ended as the front asks, and started again when a fault ends them.

They outlive the front, and each other. Which there are is known here alone; a new front is told of all.
"""

from __future__ import annotations

import resource
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from tserver.config import Config
from tserver.engines.control import message_of, wanted_by
from tserver.engines.fleet import Ended, Event, Launch, Serving
from tserver.engines.house import new_key
from tserver.supervisor.fork_server import ForkServer, pause_s
from tserver.supervisor.process import GRACE_S, Process, adopt, log
from tserver.supervisor.watch import Packets, Watch

# How many ends a new front is told of.
_REMEMBERED = 4096
# What ends sooner than this after its start would only end again; to start takes an engine some tenths of that.
_HEALTHY_AFTER_S = 2.0
# The longest pause before an engine that has served comes again: what took it down was asked of it, and others wait.
_SERVED_PAUSE_S = 1.0
# After so many runs in a row that never served, an engine may listen on another port than its predecessors.
_ANOTHER_PORT_AFTER = 3


class _Engine:
    """One engine, through all of its runs."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        # Its run; None while it waits for the next one.
        self.process: Process | None = None
        self.report: Packets | None = None
        self.serving: Serving | None = None
        # Where a run of it was found listening.
        self.listen = ""
        self.previous_end = ""
        # In a row: runs that ended soon, and those that never served.
        self.quick_ends = self.failed_starts = 0
        # Why it is to end for good, and what is to be there then.
        self.last = ""
        self.again: Launch | None = None


class Engines:
    """All engines of a house, and the fork server that makes them."""

    def __init__(
        self,
        config: Config,
        watch: Watch,
        new_process: Callable[[str], Process],
        on_failure: Callable[[int], None],
    ) -> None:
        """`on_failure` is given the exit code if none can be made at all."""
        self._config = config
        self._watch = watch
        self._new_process = new_process
        self._forks = ForkServer(watch, new_process, config, self._forks_ended, on_failure)
        self._key = new_key()
        self._engines: dict[str, _Engine] = {}
        self._remembered: deque[Ended] = deque(maxlen=_REMEMBERED)
        self._front: Packets | None = None
        # Nothing is started any more; all are told to end; it is late, and they are ended.
        self._is_closed = self._is_stopping = self._is_late = False
        # Whether all have ended.
        self.is_over = False

    def begin(self) -> None:
        """Start the fork server, whose grandchildren are to be children of this process."""
        adopt()
        # Each engine takes some descriptors here, for as long as it runs.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._forks.begin()

    def meet(self) -> socket.socket:
        """A new front's end of the socket by which it asks, and is told what becomes of engines; first of all that is
        known.
        """
        if self._front is not None:
            self._front.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        front = self._front = Packets(self._watch, ours, self._asked)
        front.send({"is": "house", "key": self._key})
        for ended in self._remembered:
            front.send(message_of(ended))
        for engine in self._engines.values():
            if engine.serving is not None:
                front.send(message_of(engine.serving))
            elif engine.process is None:
                front.send(message_of(Ended(engine.launch.engine, "", engine.previous_end, comes_again=True)))
        front.send({"is": "all"})
        return theirs

    def close(self) -> None:
        """Start none any more."""
        self._is_closed = True

    def stop(self) -> None:
        """End all, in their own time, and then the fork server."""
        if not self._is_stopping:
            self._is_closed = self._is_stopping = True
            for engine in list(self._engines.values()):
                self._end(engine, "the server is stopping")
            self._stop_forks()

    def end_all(self, cause: str) -> None:
        """End those at once that have not ended by now."""
        self._is_late = True
        self.stop()
        for engine in self._engines.values():
            if engine.process is not None:
                engine.process.end(cause)
        self._forks.stop()

    def _asked(self, message: dict[str, Any]) -> None:
        wanted = wanted_by(message)
        if isinstance(wanted, Launch):
            if not self._is_closed:
                self._launch(wanted)
        elif (engine := self._engines.get(wanted.engine)) is not None:
            self._end(engine, wanted.cause)

    def _launch(self, wanted: Launch) -> None:
        there = self._engines.get(wanted.engine)
        if there is None:
            engine = self._engines[wanted.engine] = _Engine(wanted)
            self._begin(engine)
        elif there.last:
            there.again = wanted

    def _begin(self, engine: _Engine) -> None:
        if self._engines.get(engine.launch.engine) is not engine or self._is_closed:
            return
        launch = engine.launch
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            process = engine.process = self._new_process(f"engine {launch.engine}")
        except OSError as error:
            # There are too many open files, say; another engine may end.
            self._over(engine, f"engine {launch.engine} could not be started: {error}", 0.0)
            return
        engine.report = Packets(
            self._watch, ours, partial(self._told, engine, process), partial(self._hung_up, engine, process)
        )
        config = launch.config
        if engine.listen and engine.failed_starts < _ANOTHER_PORT_AFTER:
            config = replace(config, listen=engine.listen)
        request = {
            "config": asdict(config),
            "house": launch.house.message(),
            "gpus": launch.gpus,
            "previous_end": engine.previous_end,
            "cause_file": str(process.cause_file),
        }
        self._forks.ask(request, (process.beats_to, theirs.detach()))

    def _told(self, engine: _Engine, process: Process, message: dict[str, Any]) -> None:
        """By the engine itself: first that it is there, and later that it serves."""
        if "pid" in message:
            process.at_end(message["pid"], partial(self._ended, engine, process))
            if self._is_late:
                process.end("it did not stop in time")
            elif engine.last:
                process.tell_to_stop()
            return
        launch = engine.launch
        engine.listen = message["endpoint"]
        engine.serving = Serving(
            launch.engine,
            message["boot_id"],
            message["internal"],
            message["endpoint"],
            launch.house.device,
            pid=process.pid,
        )
        self._tell(engine.serving)

    def _hung_up(self, engine: _Engine, process: Process) -> None:
        """Nobody has the other end. If nobody ever had, the fork server has ended in between."""
        if not process.has_begun:
            process.over()
            self._over(engine, f"{process.name} could not be started", process.age_s)

    def _ended(self, engine: _Engine, process: Process, code: int) -> None:
        report, engine.report = engine.report, None
        if report is not None:
            report.receive()
            report.close()
        cause = process.cause(code)
        process.cause_file.unlink(missing_ok=True)
        self._over(engine, engine.last or cause, process.age_s)

    def _over(self, engine: _Engine, cause: str, age_s: float) -> None:
        """A run of it has ended, at that age."""
        launch = engine.launch
        engine.process = None
        comes_again = launch.is_kept and not engine.last and not self._is_closed
        ended = Ended(launch.engine, "" if engine.serving is None else engine.serving.boot_id, cause, comes_again)
        has_served = engine.serving is not None
        engine.failed_starts = 0 if has_served else engine.failed_starts + 1
        engine.quick_ends = engine.quick_ends + 1 if age_s < _HEALTHY_AFTER_S else 0
        engine.serving = None
        engine.previous_end = cause
        if ended.boot_id:
            self._remembered.append(ended)
        if comes_again:
            # The first time at once.
            wait_s = pause_s(engine.quick_ends - 1) if engine.quick_ends else 0.0
            wait_s = min(wait_s, _SERVED_PAUSE_S) if has_served else wait_s
            log.error("engine %s ended, starting it again", launch.engine, extra={"cause": cause, "pause_s": wait_s})
            self._watch.after(wait_s, partial(self._begin, engine))
        else:
            log.info("engine %s ended", launch.engine, extra={"cause": cause})
            del self._engines[launch.engine]
        self._tell(ended)
        if not comes_again and engine.again is not None and not self._is_closed:
            self._launch(engine.again)
        self._stop_forks()

    def _end(self, engine: _Engine, cause: str) -> None:
        """For good, in its own time."""
        if engine.last:
            return
        engine.last = cause
        process = engine.process
        if process is None:
            del self._engines[engine.launch.engine]
            self._tell(Ended(engine.launch.engine, "", cause, comes_again=False))
            return
        process.tell_to_stop()
        self._watch.after(self._config.drain_s + GRACE_S, lambda: process.end("it did not stop in time"))

    def _tell(self, event: Event) -> None:
        if self._front is not None:
            self._front.send(message_of(event))

    def _stop_forks(self) -> None:
        if self._is_stopping and not self._engines:
            self._forks.stop()

    def _forks_ended(self) -> None:
        self.is_over = not self._engines
