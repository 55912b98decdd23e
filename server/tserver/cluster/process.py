"""One run of a child process: started with its settings, read from, told to stop, and why it ended.

To be used by one thread, which has to live as long as the child: the kernel ends the child with it. Knows no Ray.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tserver.supervisor import environment

_MODULE = "tserver.cluster.child"
_GRACE_S = 5.0


class Process:
    """A child, from its start to its end."""

    def __init__(self, settings: dict[str, Any], theirs: dict[str, socket.socket | int], read: tuple[Any, ...]) -> None:
        """`theirs` are descriptors that the child is given, under these settings. What comes from its standard output,
        or from one of `read`, is told by `turn`.
        """
        file, path = tempfile.mkstemp(prefix="tserver-cause-")
        os.close(file)
        self._cause_file = Path(path)
        self.began_at = time.monotonic()
        self._stop_by = float("inf")
        self._ended_for = ""
        numbers = {name: one if isinstance(one, int) else one.fileno() for name, one in theirs.items()}
        self._child = subprocess.Popen(
            # -P: what lies in the working directory is not imported.
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=list(numbers.values()),
            start_new_session=True,
            env=environment(os.environ),
        )
        for one in theirs.values():
            os.close(one) if isinstance(one, int) else one.close()
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        message = {**settings, **numbers, "parent": os.getpid(), "cause_file": path}
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(json.dumps(message).encode() + b"\n")
            self._child.stdin.close()
        self._ready = selectors.DefaultSelector()
        for source in (self._child.stdout, *read):
            self._ready.register(source, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def age_s(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self.began_at

    def turn(self, wait_s: float) -> Iterator[tuple[bool, bytes]]:
        """What has come within a while: whether that was printed, and the bytes."""
        for key, _ in self._ready.select(wait_s):
            data = os.read(key.fd, 1 << 16)
            if not data:
                self._ready.unregister(key.fileobj)
            yield key.fileobj is self._child.stdout, data
        if time.monotonic() > self._stop_by:
            self.end("it did not stop in time")

    def code(self) -> int | None:
        """The exit code, once it has ended."""
        return self._child.poll()

    def stop(self, drain_s: float) -> None:
        """Tell it to stop; it is ended if it takes too long."""
        if self._stop_by == float("inf"):
            self._stop_by = time.monotonic() + drain_s + _GRACE_S
            self._child.terminate()

    def end(self, cause: str) -> None:
        """End it now."""
        self._ended_for = self._ended_for or cause
        self._child.kill()

    def close(self) -> str:
        """Why it has ended. Waits for that."""
        code = self._child.wait()
        self._ready.close()
        assert self._child.stdout is not None
        self._child.stdout.close()
        text = ""
        with contextlib.suppress(OSError):
            text = self._cause_file.read_text().strip()
        self._cause_file.unlink(missing_ok=True)
        if self._ended_for or text:
            return self._ended_for or text
        if code < 0:
            return f"the engine was ended by {signal.Signals(-code).name}"
        return f"the engine ended with exit code {code}"
