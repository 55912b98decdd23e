"""What every example needs around its own few lines: the options, a server to talk to, and the connection.

An example is a function of the folder that its pictures go to. It uses the server at --address or TCLIENT_ADDRESS;
without either, a server is started on a free port of this machine and stopped at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import tclient

LISTENING = "listening on "
STOP_TIMEOUT_S = 15.0


def run(example: Callable[[Path], None], description: str | None) -> None:
    """Read the command line, connect, and run the example."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="host:port of a running server; without it one is started and stopped")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for pictures (default: %(default)s)")
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    address = options.address or os.environ.get("TCLIENT_ADDRESS")
    with contextlib.ExitStack() as stack:
        if not address:
            address = stack.enter_context(server())
        try:
            stack.enter_context(tclient.connect(address))
        except tclient.ConnectFailed as error:
            raise SystemExit(str(error)) from None
        example(options.out)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A server of our own on a free port: its address. It is stopped when the block ends."""
    command = [sys.executable, "-P", "-m", "tserver", "serve", "--listen", "127.0.0.1:0", "--log-level", "warning"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith(LISTENING):
                break
        else:
            raise SystemExit(
                f"the server ended with status {process.wait()} before it listened; is it installed? "
                "(make install, or pip install 'tclient[server]'). Or name a running server with --address."
            )
        # Nobody reads what else it may print, so it must not fill the pipe.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield line.removeprefix(LISTENING).strip()
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
