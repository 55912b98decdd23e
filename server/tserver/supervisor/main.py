"""The child that listens at the address: a server, or the front of a house. With it all begins, and ends."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tserver.config import Config
from tserver.supervisor.addresses import reserve
from tserver.supervisor.engines import Engines
from tserver.supervisor.process import GRACE_S, HEALTHY_AFTER_S, Process, log
from tserver.supervisor.watch import Watch

_MAX_QUICK_ENDS = 3

# What comes before "listening on", and the setting that it tells of; the main listener is the last to say it.
_LISTENERS = {"": "listen", "oip ": "oip_listen", "http ": "http_listen", "metrics ": "metrics_listen"}

# gRPC listens on unix sockets too.
_UNIX_LISTENERS = ("--listen", "--oip-listen")


def supervise(config: Config, *, module: str = "tserver.child") -> int:
    """Keep a server running until told to stop; the exit code. Raises: PortTaken, ValueError.

    `module` is what is run as the server or the front.
    """
    for option, address in config.listeners().items():
        reserve(address, option, unix=option in _UNIX_LISTENERS)
    folder = tempfile.mkdtemp(prefix="tserver-")
    try:
        return _Supervisor(config, module, Path(folder)).run()
    finally:
        # Here alone: what is forked from this process ends without it.
        shutil.rmtree(folder, ignore_errors=True)


class _Supervisor:
    def __init__(self, config: Config, module: str, folder: Path) -> None:
        self._config = config
        self._module = module
        self._watch = Watch()
        numbers = itertools.count()

        def new_process(name: str) -> Process:
            return Process(self._watch, name, folder / f"cause-{next(numbers)}", config.hang_s)

        self._new_process: Callable[[str], Process] = new_process
        self._engines: Engines | None = None
        if config.is_house:
            self._engines = Engines(config, self._watch, new_process, self._finish)
        self._name, self._role = ("the front", "front") if config.is_house else ("the server", "server")
        self._main: Process | None = None
        self._printed = _Printed(self._watch, self._pass_on)
        self._quick_ends = 0
        self._announced = False
        self._stopping = False
        # The first signal that it was told to stop by.
        self._told = 0
        # The exit code, once nothing is started any more.
        self._result: int | None = None

    def run(self) -> int:
        if self._engines is not None:
            self._engines.begin()
        self._begin("")
        while self._result is None or self._main is not None or not (self._engines is None or self._engines.is_over):
            for number in self._watch.turn():
                self._forward(number)
        # As one that a signal has ended, where a signal came before a server had begun to take it.
        return 128 + self._told if self._told and self._result == 128 + signal.SIGTERM else self._result

    def _begin(self, cause: str) -> None:
        main = self._main = self._new_process(self._name)
        settings: dict[str, Any] = {
            **asdict(self._config),
            "role": self._role,
            "previous_end": cause,
            "cause_file": str(main.cause_file),
            "beats": main.beats_to,
        }
        control = None
        if self._engines is not None:
            control = self._engines.meet()
            settings["control"] = control.fileno()
        with control or contextlib.nullcontext():
            child = main.begin(
                self._module,
                json.dumps(settings),
                pass_fds=[] if control is None else [control.fileno()],
                is_read=True,
            )
        assert child.stdout is not None
        self._printed.read(child.stdout.fileno())
        main.at_end(child.pid, lambda code: self._ended(main, child, code))

    def _ended(self, main: Process, child: subprocess.Popen[bytes], code: int) -> None:
        child.returncode = code
        assert child.stdout is not None
        self._printed.finish()
        child.stdout.close()
        self._main = None
        if self._stopping or self._result is not None or code == 0:
            self._finish(code if code >= 0 else 128 - code)
        elif not self._announced:
            # It never came up: starting it again would give the same error again.
            self._finish(code if code > 0 else 128 - code)
        else:
            cause = main.cause(code)
            self._quick_ends = self._quick_ends + 1 if main.age_s < HEALTHY_AFTER_S else 0
            if self._quick_ends >= _MAX_QUICK_ENDS:
                log.critical("%s ended %d times in a row soon after its start; giving up", self._name, self._quick_ends)
                self._finish(1)
            else:
                log.error("%s ended, starting it again", self._name, extra={"cause": cause})
                self._begin(cause)

    def _forward(self, number: int) -> None:
        """It is to stop; a front tells the engines.

        Children are told by SIGTERM, whatever it was here: a Python that has only begun takes SIGINT for an error.
        """
        self._told = self._told or number
        self._stop_in_time()
        if self._engines is not None:
            self._engines.close()
        if self._main is not None:
            self._main.tell_to_stop()

    def _finish(self, result: int) -> None:
        """All is to end, with this exit code."""
        if self._result is None:
            self._result = result
        self._stop_in_time()
        if self._main is not None:
            self._main.tell_to_stop()
        if self._engines is not None:
            self._engines.stop()

    def _stop_in_time(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._watch.after(self._config.drain_s + GRACE_S, self._end)

    def _end(self) -> None:
        if self._main is not None:
            self._main.end("it did not stop in time")
        if self._engines is not None:
            self._engines.end_all("it did not stop in time")

    def _pass_on(self, line: str) -> None:
        # The lines that say where it listens are printed once, however often it is started again.
        kind, found, address = line.strip().partition("listening on ")
        if found and kind in _LISTENERS:
            if self._announced:
                return
            # A free port that was found once stays the port.
            found_free: dict[str, Any] = {_LISTENERS[kind]: address}
            self._config = replace(self._config, **found_free)
            self._announced = not kind
        print(line, flush=True)


class _Printed:
    """What a child prints, as lines."""

    def __init__(self, watch: Watch, pass_on: Callable[[str], None]) -> None:
        self._watch, self._pass_on = watch, pass_on
        self._fd = -1
        self._text = b""

    def read(self, fd: int) -> None:
        """From there, from now on."""
        os.set_blocking(fd, False)
        self._fd, self._text = fd, b""
        self._watch.read(fd, self._take)

    def finish(self) -> None:
        """The child has ended. Whatever still holds its output open is no part of the server."""
        self._take()
        self._watch.forget(self._fd)

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 1 << 16):
                *lines, self._text = (self._text + data).split(b"\n")
                for line in lines:
                    self._pass_on(line.decode(errors="replace"))
            self._watch.forget(self._fd)
