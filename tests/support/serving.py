"""A real server as a child process on a free port of loopback, ended by its pid.

Knows the command line only; does not know the contract.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

from tests.support.warm import WarmProcess

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 40.0
LISTENING = "listening on "


def server_environment(**extra: str) -> dict[str, str]:
    """The environment of a server under test: the packages of this tree, and one thread for torch."""
    here = [str(ROOT / part) for part in ("client", "server", "proto")]
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*here, inherited] if inherited else here)
    given = {name: value for name, value in os.environ.items() if not name.startswith("TSERVER_TEST_")}
    return {**given, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **extra}


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str, interval_s: float = 0.01) -> float:
    """Poll until the condition holds and return the seconds it took; fail with `what` when it does not."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(interval_s)
    return time.monotonic() - began


def children_of(pid: int) -> list[int]:
    """The pids of the direct children of a process, from /proc."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def name_of(pid: int) -> str:
    """What a process calls itself; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def child_named(pid: int, name: str) -> int:
    """The direct child of a process that calls itself so."""
    for child in children_of(pid):
        if name_of(child) == name:
            return child
    raise AssertionError(f"no {name} among the children of {pid}")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def states_of(pid: int) -> set[str]:
    """The states of the threads of a process, as /proc has them."""
    stats = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {stat.rpartition(")")[2].split()[0] for stat in stats}


class HasAddress(Protocol):
    """A server that listens: what the fixture `server` gives."""

    @property
    def address(self) -> str:
        """Where it listens, "host:port"."""


class ServerProcess:
    """`tserver serve` as a child process.

    A context manager; `address` is known once it is entered. Whatever it printed is in `stdout` and `stderr`.

    It is forked from a process that has imported torch, which saves seconds, unless it has an environment of its own,
    a GPU, or is to start `cold`: as a command does. `child` is a module that is run in the place of the server or the
    front; not where it starts cold. With `files` it starts cold, and may have no more of them open.
    """

    def __init__(
        self,
        *options: str,
        listen: str = "127.0.0.1:0",
        device: str = "cpu",
        env: dict[str, str] | None = None,
        cold: bool = False,
        child: str = "",
        files: int = 0,
    ):
        arguments = ["serve", "--listen", listen, "--device", device, *options]
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.address = ""
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[str] | WarmProcess
        bounded = ["/bin/sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"] if files else []
        if cold or env or files or device != "cpu":
            self._process = subprocess.Popen(
                [*bounded, sys.executable, "-m", "tserver", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                cwd=ROOT,
                env=server_environment(**(env or {})),
            )
        else:
            self._process = WarmProcess(arguments, server_environment(), ROOT, child=child)
        self._readers = [
            threading.Thread(target=self._read_stdout, daemon=True),
            threading.Thread(target=self._read_stderr, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_stdout(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.stdout.append(line.rstrip("\n"))
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.stderr.append(line.rstrip("\n"))

    def wait_listening(self, timeout_s: float = START_TIMEOUT_S) -> str:
        """Wait for the line that says where the server listens, and return the address."""
        deadline = time.monotonic() + timeout_s
        while not self.address:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"the server did not listen within {timeout_s} s\n{self.log()}") from None
            if line is None:
                raise AssertionError(f"the server ended before it listened\n{self.log()}")
            if line.startswith(LISTENING):
                self.address = line.removeprefix(LISTENING)
        return self.address

    def log(self) -> str:
        """All that the server has printed."""
        return "\n".join(["--- stdout", *self.stdout, "--- stderr", *self.stderr])

    @property
    def pid(self) -> int:
        """The process that was started: the supervisor."""
        return self._process.pid

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return int(self.address.rpartition(":")[2])

    def engine_pid(self) -> int:
        """The child that holds the tensors; the process itself where there is no child."""
        children = children_of(self.pid)
        return children[0] if children else self.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float = 20.0) -> int:
        """Wait for the end and return the exit code."""
        code = self._process.wait(timeout_s)
        for reader in self._readers:
            reader.join(5.0)
        return code

    def terminate(self, timeout_s: float = 20.0) -> int:
        """Ask the server to stop, and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self) -> None:
        """End the server and its child without a chance to say goodbye."""
        doomed = [self.pid, *children_of(self.pid)]
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(10.0)
        wait_until(lambda: not any(map(is_alive, doomed)), 10.0, f"the end of {doomed}")

    def __enter__(self) -> ServerProcess:
        try:
            self.wait_listening()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.kill()


@contextlib.contextmanager
def serving(
    *options: str, listen: str = "127.0.0.1:0", env: dict[str, str] | None = None, cold: bool = False
) -> Iterator[ServerProcess]:
    """A server that listens, for the length of a `with` block."""
    with ServerProcess(*options, listen=listen, env=env, cold=cold) as server:
        yield server
