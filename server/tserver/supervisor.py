"""Starts the serving process, and starts it again when a fault took it down or it hung. Never imports torch.

    supervisor (this process)  --- holds nothing, forwards SIGTERM and SIGINT
        └── server             --- gRPC, sessions, torch; ends when the supervisor does

What ended one run is told to the next, which tells it to clients whose sessions were lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import selectors
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from tensorcompute.wire import polling
from tensorcompute.wire.address import parse
from tserver.config import Config

log = logging.getLogger("tserver.supervisor")

_PR_SET_PDEATHSIG = 1
# A server that ends sooner than this after its start would only end again.
_HEALTHY_AFTER_S = 5.0
_MAX_QUICK_ENDS = 3
# How often it is looked at, and how much later than by itself it is ended.
_TICK_S = 1.0
_GRACE_S = 5.0


# What comes before "listening on", and the setting that it tells of; the main listener is the last to say it.
_LISTENERS = {"": "listen", "oip ": "oip_listen", "http ": "http_listen", "metrics ": "metrics_listen"}

# gRPC listens on unix sockets too.
_UNIX_LISTENERS = ("--listen", "--oip-listen")


# What the server's libraries are told, unless somebody has told them already.
_ENVIRONMENT = {
    # Threads of a kernel that wait for each other must not keep gRPC from the core while they do: they look a few
    # microseconds long, which most waits end within, and then sleep. By default it is a millisecond, and more than that
    # when the core is not free at all.
    "GOMP_SPINCOUNT": "1000",
    # The C library keeps freed chunks of bulk data for the next ones: for the kernel to map each anew, page by page,
    # takes longer than to copy it.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    # torch's allocator on CUDA grows its segments in place: sessions come and go with tensors of all sizes, and
    # segments of fixed sizes would in the end hold much memory that fits none of them.
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
}
# torch's older name for it. Both at once contradict each other.
_ALLOCATOR_WAS = "PYTORCH_CUDA_ALLOC_CONF"


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What the server's process is given: all that this one was given, and what nobody has set."""
    own = dict(_ENVIRONMENT)
    waiting = polling.choice()
    if waiting is not None:
        own[polling.VARIABLE] = waiting
    if _ALLOCATOR_WAS in given:
        del own["PYTORCH_ALLOC_CONF"]
    return {**own, **given}


class PortTaken(Exception):
    """Another process listens on the port already."""


def reserve(listen: str, option: str = "--listen", *, unix: bool = True) -> None:
    """See that an address can be listened on; with port 0 a port is found by who listens.

    Raises: PortTaken, ValueError for what is no address, or names a unix socket where that is not possible.
    """
    try:
        address = parse(listen, listening=True)
    except ValueError as error:
        raise ValueError(f"{option} {error}") from None
    if address.path and not unix:
        raise ValueError(f"{option} {listen!r} is a unix socket; this listener takes HOST:PORT")
    family = socket.AF_UNIX if address.path else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            if address.path:
                _clear(address.path, probe)
                probe.bind(address.path)
                os.unlink(address.path)
            else:
                # As gRPC binds: a port whose last connections are only timing out is free, one that is listened on is
                # not.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # Port 0 stays 0: the server itself takes one, so that nobody can take it in between.
                probe.bind((address.host, address.port))
        except socket.gaierror as error:
            raise ValueError(f"{option} {listen!r}: the host {address.host!r} is not known ({error})") from error
        except OSError as error:
            remedy = "another path" if address.path else "another port"
            raise PortTaken(
                f"cannot listen on {option} {listen}: {error.strerror}; stop the other server, or choose {remedy}"
            ) from error


def _clear(path: str, probe: socket.socket) -> None:
    """Remove a socket that nobody listens on any more: what a server leaves that was killed."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            try:
                with socket.socket(socket.AF_UNIX) as caller:
                    caller.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)


def supervise(config: Config) -> int:
    """Keep a server running until told to stop; the exit code. Raises: PortTaken, ValueError."""
    for option, address in config.listeners().items():
        reserve(address, option, unix=option in _UNIX_LISTENERS)
    with tempfile.TemporaryDirectory(prefix="tserver-") as folder:
        return _Supervisor(config, Path(folder) / "cause").run()


class _Supervisor:
    def __init__(self, config: Config, cause_file: Path) -> None:
        self._config = config
        self._cause_file = cause_file
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False
        # When it must have ended, once it was told to stop; and why it was ended here, if it was.
        self._stop_by = float("inf")
        self._silence_s = config.hang_s + min(config.hang_s, _GRACE_S)
        self._ended_for = ""
        self._announced = False

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._forward)
        cause = ""
        quick_ends = 0
        while True:
            started_at = time.monotonic()
            code = self._run_child(cause)
            if self._stopping or code == 0:
                return code if code >= 0 else 128 - code
            if not self._announced:
                # It never came up: starting it again would give the same error again.
                return code if code > 0 else 128 - code
            cause = self._cause(code)
            quick_ends = quick_ends + 1 if time.monotonic() - started_at < _HEALTHY_AFTER_S else 0
            if quick_ends >= _MAX_QUICK_ENDS:
                log.critical("the server ended %d times in a row soon after its start; giving up", quick_ends)
                return 1
            log.error("the server ended, starting it again", extra={"cause": cause})

    def _run_child(self, cause: str) -> int:
        beats, beats_to = os.pipe()
        settings = json.dumps(
            {
                **asdict(self._config),
                "previous_end": cause,
                "cause_file": str(self._cause_file),
                "beats": beats_to,
            }
        )
        self._cause_file.unlink(missing_ok=True)
        self._ended_for = ""
        parent = os.getpid()
        try:
            child = subprocess.Popen(
                # -P: what lies in the working directory is not imported.
                [sys.executable, "-P", "-m", "tserver.child", settings],
                stdout=subprocess.PIPE,
                pass_fds=[beats_to],
                # A stop signal to the terminal's process group must reach the child through us, once.
                start_new_session=True,
                env=environment(os.environ),
                preexec_fn=lambda: _die_with(parent),  # noqa: PLW1509 - no threads have been started yet
            )
        finally:
            os.close(beats_to)
        self._child = child
        if self._stopping:
            child.terminate()
        try:
            self._watch(child, beats)
        finally:
            os.close(beats)
        code = child.wait()
        self._child = None
        return code

    def _watch(self, child: subprocess.Popen[bytes], beats: int) -> None:
        """Pass on what the child prints, until it has ended; end it if it hangs, or does not stop when it was told."""
        assert child.stdout is not None
        printed = child.stdout.fileno()
        text = b""
        # Counted in looks, not by the clock: if this process was stopped itself, it has missed nothing.
        silent, is_alive = 0, False
        with selectors.DefaultSelector() as ready:
            ready.register(printed, selectors.EVENT_READ)
            ready.register(beats, selectors.EVENT_READ)
            while child.poll() is None or printed in ready.get_map():
                found = [key.fd for key, _ in ready.select(_TICK_S)]
                silent += not found
                for fd in found:
                    data = os.read(fd, 1 << 16)
                    if not data:
                        ready.unregister(fd)
                        if fd == printed:
                            with contextlib.suppress(subprocess.TimeoutExpired):
                                child.wait(_TICK_S)
                    elif fd == beats:
                        silent, is_alive = 0, True
                    else:
                        *lines, text = (text + data).split(b"\n")
                        for line in lines:
                            self._pass_on(line.decode(errors="replace"))
                if child.poll() is not None and not found:
                    # Whatever still holds its output open is no part of the server.
                    return
                if time.monotonic() > self._stop_by:
                    self._end(child, "it did not stop in time")
                elif is_alive and not self._stopping and 0 < self._silence_s < silent * _TICK_S:
                    self._end(child, f"the server hung: nothing of it has run for {silent * _TICK_S:.0f} s")

    def _end(self, child: subprocess.Popen[bytes], cause: str) -> None:
        if not self._ended_for:
            self._ended_for = cause
            log.error("the server is ended", extra={"cause": cause})
            child.kill()

    def _pass_on(self, line: str) -> None:
        # The lines that say where it listens are printed once, however often the server is started again.
        kind, found, address = line.strip().partition("listening on ")
        if found and kind in _LISTENERS:
            if self._announced:
                return
            # A free port that was found once stays the port.
            found_free: dict[str, Any] = {_LISTENERS[kind]: address}
            self._config = replace(self._config, **found_free)
            self._announced = not kind
        print(line, flush=True)

    def _cause(self, code: int) -> str:
        if self._ended_for:
            return self._ended_for
        with contextlib.suppress(OSError):
            text = self._cause_file.read_text().strip()
            if text:
                return text
        if code < 0:
            return f"the server was ended by {signal.Signals(-code).name}"
        return f"the server ended with exit code {code}"

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        self._stop_by = min(self._stop_by, time.monotonic() + self._config.drain_s + _GRACE_S)
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(number)


def _die_with(parent: int) -> None:
    """In the child, before it becomes Python again: end when the supervisor ends, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
