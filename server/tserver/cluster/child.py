"""The process that an actor starts, with its settings as JSON on its standard input: an engine, or the front of a host.

The key is among the settings, which is why they are no argument. It ends when the actor does.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

from tserver import logs
from tserver.child import serve_engine, serve_front
from tserver.config import Config
from tserver.engines.house import House

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve; the exit code."""
    settings = json.loads(sys.stdin.readline())
    die_with(settings.pop("parent"))
    role, config = settings.pop("role"), Config(**settings.pop("config"))
    logs.set_up(config.log_level, config.log_format)
    if role == "front":
        return serve_front(config, **settings)
    report = settings.pop("report")

    def told(boot_id: str, address: str) -> None:
        os.write(report, json.dumps({"boot_id": boot_id, "address": address}).encode() + b"\n")

    return serve_engine(config, house=House(**settings.pop("house")), report=told, **settings)


def die_with(parent: int) -> None:
    """End when the thread of the actor ends that started this."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
