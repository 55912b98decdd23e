"""A server of this machine for as long as one program runs. Knows the command line of `tserver`; does not import it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

_LISTENING = "listening on "
_STOP_TIMEOUT_S = 15.0
_PR_SET_PDEATHSIG = 1


def can_serve() -> bool:
    """Whether the server and its torch are installed here. Imports neither."""
    return all(importlib.util.find_spec(name) is not None for name in ("tserver", "torch"))


@contextlib.contextmanager
def local_server() -> Iterator[str]:
    """A server on a free port of loopback: its address. It is stopped when the block ends, and when this process does.

    Raises: SystemExit if it ends before it listens.
    """
    command = [sys.executable, "-P", "-m", "tserver", "serve", "--listen", "127.0.0.1:0", "--log-level", "warning"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # Ctrl-C is the program's, which may want the server afterwards
        preexec_fn=_ending_with(os.getpid()) if sys.platform == "linux" else None,  # noqa: PLW1509
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith(_LISTENING):
                break
        else:
            raise SystemExit(
                f"the server ended with status {process.wait()} before it listened; is it installed? "
                "(pip install 'tclient[server]'). Or name a running server with --address."
            )
        # Nobody reads what else it may print, so it must not fill the pipe.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield line.removeprefix(_LISTENING).strip()
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ending_with(parent: int) -> Callable[[], None]:
    """What has a child end when this process ends, however that happens. Loads the library before the process forks."""
    prctl = ctypes.CDLL(None).prctl

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return in_child
