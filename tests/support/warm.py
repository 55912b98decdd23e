"""Servers that need not import torch, as they are forked from a process that has.

    warm (one for a process of pytest)  --- imports what a server imports, and forks
        └── keeper                      --- tells how the server ended, as only a parent can
                └── supervisor          --- the real one
                        └── server      --- forked from the supervisor, rather than begun as another Python;
                                            so are the front and the fork server of a house

From the command line on, all that runs is the product's own code. What the libraries read from the environment when
they are loaded is the same for all.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tserver import fork_server
from tserver.supervisor import environment

_READY = b"ready"
_MAX_REQUEST_BYTES = 1 << 20
_START_TIMEOUT_S = 60.0


# --- on the side of the tests ---------------------------------------------------------------------------------------


class WarmProcess:
    """A command of `tserver` that was forked: as much of subprocess.Popen as a test needs."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], cwd: Path, *, child: str = "") -> None:
        """`child` is a module that is run in the place of the server or the front."""
        out, out_of_child = os.pipe()
        err, err_of_child = os.pipe()
        self._ended, ended_of_keeper = os.pipe()
        self.stdout: io.TextIOBase = open(out, errors="replace")  # noqa: SIM115  as long as this lives
        self.stderr: io.TextIOBase = open(err, errors="replace")  # noqa: SIM115
        try:
            self.pid = _forker().fork(
                {"arguments": arguments, "env": dict(env), "cwd": str(cwd), "child": child},
                [out_of_child, err_of_child, ended_of_keeper],
            )
        finally:
            for fd in (out_of_child, err_of_child, ended_of_keeper):
                os.close(fd)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code. Raises: subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("tserver", timeout or 0.0)
            self.returncode = int(os.read(self._ended, 100))
            os.close(self._ended)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class _Forker:
    """The process that forks, from here."""

    def __init__(self, env: Mapping[str, str], cwd: Path) -> None:
        self._lock = threading.Lock()
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            # It ends when this side of the pair is closed, at the latest with this process.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(there.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                cwd=cwd,
                env=environment({**env, "PYTHONPATH": os.pathsep.join([str(cwd), env["PYTHONPATH"]])}),
            )
        self._socket = here
        here.settimeout(_START_TIMEOUT_S)
        assert here.recv(100) == _READY

    def fork(self, request: dict[str, Any], fds: Sequence[int]) -> int:
        """Run a command with those as its output, and the last to tell its end; its pid."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], list(fds))
            return int(self._socket.recv(100))


@functools.cache
def _forker() -> _Forker:
    from tests.support.serving import ROOT, server_environment

    return _Forker(server_environment(), ROOT)


# --- on the side of the process that forks --------------------------------------------------------------------------


class _Child:
    """A module, forked where the supervisor would start another Python: as much of subprocess.Popen as it uses."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdout: int | None,
        pass_fds: Sequence[int],
        start_new_session: bool,
        env: Mapping[str, str],
        preexec_fn: Callable[[], None],
    ) -> None:
        assert command[:3] == [sys.executable, "-P", "-m"]
        assert start_new_session
        module, argument = command[3:]
        out, out_of_child = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            fork_server.fresh_signals()
            os.setsid()
            preexec_fn()
            if stdout == subprocess.PIPE:
                os.dup2(out_of_child, 1)
            fork_server.close_all_but(0, 1, 2, *pass_fds)
            fork_server.become([module, argument], dict(env), import_module(module).main)
        os.close(out_of_child)
        self.stdout = open(out, "rb")  # noqa: SIM115
        self.returncode: int | None = None


def _command(child: str) -> None:
    from tserver import __main__, cli
    from tserver.supervisor import process, supervise

    # There alone: what runs within the server may start processes of its own.
    names = {**vars(subprocess), "Popen": _Child}
    vars(process)["subprocess"] = SimpleNamespace(**names)
    if child:
        vars(cli)["supervise"] = functools.partial(supervise, module=child)
    __main__.main()


def _keep(request: dict[str, Any], fds: Sequence[int], answer: int) -> None:
    """Fork the command, answer with its pid, and tell its end."""
    out, err, ended = fds
    pid = os.fork()
    if not pid:
        os.dup2(out, 1)
        os.dup2(err, 2)
        fork_server.close_all_but(0, 1, 2)
        os.chdir(request["cwd"])
        fork_server.become(["tserver", *request["arguments"]], request["env"], lambda: _command(request["child"]))
    fork_server.close_all_but(0, 1, 2, ended, answer)
    os.write(answer, str(pid).encode())
    os.close(answer)
    # Only what runs the command holds its output open.
    os.closerange(0, 3)
    _, status = os.waitpid(pid, 0)
    # Nobody may be left to hear it.
    with contextlib.suppress(BrokenPipeError):
        os.write(ended, str(os.waitstatus_to_exitcode(status)).encode())


def main() -> None:
    """Import what a server needs, and fork on demand."""
    import tserver.front.metrics  # noqa: F401

    fork_server.load()
    asked = socket.socket(fileno=int(sys.argv[1]))
    asked.send(_READY)
    while True:
        data, fds, _, _ = socket.recv_fds(asked, _MAX_REQUEST_BYTES, 3)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not data:
            return
        if not os.fork():
            _keep(json.loads(data), fds, asked.detach())
            os._exit(0)
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    main()
