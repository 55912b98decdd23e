"""A child of an actor without torch: an engine that says that it serves, or a front that notes what it is told."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
import threading
from pathlib import Path

from tserver.cluster.child import die_with

MODULE = __name__


def main() -> int:
    """Serve until told to stop; the exit code."""
    settings = json.loads(sys.stdin.readline())
    die_with(settings["parent"])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    folder = Path(settings["config"]["model_dir"])
    if settings["role"] == "engine":
        (folder / f"engine-{os.getpid()}").write_text(json.dumps(settings))
        host, _, port = settings["config"]["listen"].rpartition(":")
        with socket.create_server((host, int(port))) as server:
            said = {"boot_id": secrets.token_hex(8), "address": f"{host}:{server.getsockname()[1]}"}
            os.write(settings["report"], json.dumps(said).encode() + b"\n")
            wait(stop)
        return 0
    control = socket.socket(fileno=settings["control"])
    print("listening on 127.0.0.1:5", flush=True)
    threading.Thread(target=write_down, args=(control, folder / f"front-{os.getpid()}"), daemon=True).start()
    wait(stop)
    return 0


def write_down(control: socket.socket, file: Path) -> None:
    """Every message is a line."""
    with file.open("ab", buffering=0) as lines:
        while message := control.recv(1 << 16):
            lines.write(message + b"\n")


def wait(stop: threading.Event) -> None:
    """Until told to stop. Signals are handled between looks."""
    while not stop.wait(0.05):
        pass


if __name__ == "__main__":
    sys.exit(main())
