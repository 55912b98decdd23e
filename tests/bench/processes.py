"""The processes of a benchmark: the server under test, yardstick servers, and sides. Started on free ports, ended by
pid.

Knows command lines and pipes; does not know what is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .side import Order

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 90.0
ANSWER_TIMEOUT_S = 600.0
END_TIMEOUT_S = 10.0
LAST_WORDS_BYTES = 2000
LISTENING = "listening on "


class ProcessFailed(RuntimeError):
    """A process ended, was silent for too long, or answered with an error."""


def environment() -> dict[str, str]:
    """The environment of every process: the packages of this tree come first."""
    paths = [str(ROOT / part) for part in ("client", "server", "proto")] + [str(ROOT)]
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, inherited] if inherited else paths)}


@dataclass
class Process:
    """A child process that is read line by line."""

    name: str
    popen: subprocess.Popen[str]
    log: IO[bytes]  # its stderr, shown only if it fails
    _pending: str = field(default="", repr=False)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.popen.pid

    def line(self, timeout_s: float) -> str:
        """The next line of its stdout."""
        assert self.popen.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.popen.stdout, selectors.EVENT_READ)
            deadline = time.monotonic() + timeout_s
            while "\n" not in self._pending:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise ProcessFailed(f"{self.name}: no answer within {timeout_s:g} s\n{self.last_words()}")
                chunk = os.read(self.popen.stdout.fileno(), 1 << 20).decode()
                if not chunk:
                    code = self.popen.wait(END_TIMEOUT_S)
                    raise ProcessFailed(f"{self.name}: ended with exit code {code}\n{self.last_words()}")
                self._pending += chunk
        line, _, self._pending = self._pending.partition("\n")
        return line

    def last_words(self) -> str:
        """The end of what it wrote on stderr."""
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
        return self.log.read().decode(errors="replace")

    def end(self) -> None:
        """Ask it to stop, and make it stop."""
        if self.popen.stdin:
            with contextlib.suppress(OSError):
                self.popen.stdin.close()
        self.popen.terminate()
        try:
            self.popen.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        if self.popen.stdout:
            self.popen.stdout.close()
        self.log.close()


def start(name: str, module: str, arguments: Sequence[str] = (), *, cpu: int | None = None) -> Process:
    """Start `python -m module`, on one core if one is named."""
    command = [sys.executable, "-m", module, *arguments]

    log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process is ended
    with _on(cpu):
        popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
    return Process(name, popen, log)


@contextlib.contextmanager
def _on(cpu: int | None) -> Iterator[None]:
    """Have a process that is started within run on one core, which it inherits.

    Not by a function that runs in the copy of this process: where this one uses gRPC, that starts threads in a copy,
    and they abort it when their descriptors are closed.
    """
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Server:
    """A server that listens."""

    process: Process
    address: str


@contextlib.contextmanager
def server(device: str, *options: str, cpu: int | None = None) -> Iterator[Server]:
    """The server under test."""
    process = start("server", "tserver", ["serve", "--listen", "127.0.0.1:0", "--device", device, *options], cpu=cpu)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (line := process.line(max(0.0, deadline - time.monotonic()))).startswith(LISTENING):
            continue
        yield Server(process, line.removeprefix(LISTENING).strip())
    finally:
        process.end()


@contextlib.contextmanager
def peer(name: str, *, cpu: int | None = None) -> Iterator[Server]:
    """A yardstick server of `tests.bench.peers`."""
    process = start(name, f"tests.bench.peers.{name}", cpu=cpu)
    try:
        yield Server(process, f"127.0.0.1:{int(process.line(START_TIMEOUT_S))}")
    finally:
        process.end()


@dataclass(frozen=True)
class Side:
    """One side of a comparison, ready to take orders."""

    name: str
    process: Process

    def run(self, order: Order) -> list[float]:
        """Let it work; its figures."""
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.write(json.dumps(order) + "\n")
        self.process.popen.stdin.flush()
        return [float(figure) for figure in _answer(self.process)["figures"]]


@contextlib.contextmanager
def side(
    module: str,
    name: str,
    *,
    address: str = "",
    threads: int = 1,
    cpu: int | None = None,
    more: dict[str, Any] | None = None,
) -> Iterator[Side]:
    """A side that a workload's file offers."""
    arguments = [name, "--address", address, "--threads", str(threads), "--more", json.dumps(more or {})]
    process = start(f"{module.rpartition('.')[2]}:{name}", module, arguments, cpu=cpu)
    try:
        _answer(process, START_TIMEOUT_S)
        yield Side(name, process)
    finally:
        process.end()


def _answer(process: Process, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(process.line(timeout_s))
    if "error" in answer:
        raise ProcessFailed(f"{process.name}: {answer['error']}")
    return answer
