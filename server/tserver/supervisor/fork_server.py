"""The child that forks engines: started, started again, and asked."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from tserver.config import Config
from tserver.supervisor.process import HEALTHY_AFTER_S, Process, log
from tserver.supervisor.watch import Packets, Watch


def pause_s(quick_ends: int) -> float:
    """How long to wait before what has ended so often in a row soon after its start is started again."""
    return min(30.0, 0.25 * 2.0**quick_ends) if quick_ends else 0.0


class ForkServer:
    """Who forks engines, as long as there is one; requests wait for the next one."""

    def __init__(
        self,
        watch: Watch,
        new_process: Callable[[str], Process],
        config: Config,
        on_end: Callable[[], None],
        on_failure: Callable[[int], None],
    ) -> None:
        """`on_end` is called when it has ended after it was told to stop; `on_failure` with its exit code where it
        never came up.
        """
        self._watch, self._new_process, self._config = watch, new_process, config
        self._on_end, self._on_failure = on_end, on_failure
        self._process: Process | None = None
        self._socket: Packets | None = None
        self._waiting: list[tuple[dict[str, Any], tuple[int, ...]]] = []
        self._is_ready = self._was_ready = self._is_over = False
        self._quick_ends = 0

    def begin(self) -> None:
        """Start it."""
        if self._is_over:
            return
        process = self._process = self._new_process("the fork server")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = Packets(self._watch, ours, self._ready)
        with theirs:
            logs = {"log_level": self._config.log_level, "log_format": self._config.log_format}
            argument = {"asked": theirs.fileno(), "beats": process.beats_to, **logs}
            child = process.begin("tserver.fork_server", json.dumps(argument), pass_fds=[theirs.fileno()])

        def ended(code: int) -> None:
            child.returncode = code
            self._ended(process, code)

        process.at_end(child.pid, ended)

    def ask(self, request: dict[str, Any], fds: tuple[int, ...]) -> None:
        """Have an engine forked that is given these descriptors, which are closed here. If that does not come about,
        nobody has them any more.
        """
        if self._is_ready and self._socket is not None:
            self._socket.send(request, fds)
        else:
            self._waiting.append((request, fds))

    def stop(self) -> None:
        """End it for good: it holds nothing."""
        self._is_over = True
        self._drop()
        if self._process is None:
            self._on_end()
        elif self._process.pid:
            self._process.is_stopping = True
            os.kill(self._process.pid, signal.SIGKILL)

    def _ready(self, message: dict[str, Any]) -> None:
        self._is_ready = self._was_ready = True
        waiting, self._waiting = self._waiting, []
        for request, fds in waiting:
            self.ask(request, fds)

    def _ended(self, process: Process, code: int) -> None:
        self._process = None
        self._is_ready = False
        if self._socket is not None:
            self._socket.close()
        if self._is_over:
            self._on_end()
        elif not self._was_ready:
            # Starting it again would give the same error again.
            self._is_over = True
            self._drop()
            self._on_failure(code if code > 0 else 128 - code)
        else:
            self._quick_ends = self._quick_ends + 1 if process.age_s < HEALTHY_AFTER_S else 0
            log.error("the fork server ended, starting it again", extra={"cause": process.cause(code)})
            self._watch.after(pause_s(self._quick_ends), self.begin)

    def _drop(self) -> None:
        for _, fds in self._waiting:
            for fd in fds:
                os.close(fd)
        self._waiting.clear()
