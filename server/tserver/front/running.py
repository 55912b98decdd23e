"""How a process that serves runs: its event loop, its garbage collector, and how it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

log = logging.getLogger("tserver")

# What the supervisor takes as "start me again": the process is of no more use.
_EXIT_FAILED = 75
# More than the listeners take connections.
_FILES = 65536


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where that is installed: a lone round trip then costs a tenth less. None: asyncio's own."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


def take_files() -> None:
    """Have as many files open as the system lets this process: each connection is one."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(most, _FILES)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def quiet_collector() -> None:
    """Spare the garbage collector torch and gRPC: what was imported stays, and to go through it takes milliseconds."""
    gc.collect()
    gc.freeze()
    # Requests make few cycles; by default they would be looked for after every 700 objects.
    gc.set_threshold(10_000, 20, 50)


async def until_told_to_stop() -> None:
    """Wait for SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def end_at_once(cause: str, cause_file: str) -> NoReturn:
    """This process cannot go on: leave the cause for the next one where there is a file for it. From any thread."""
    log.critical("%s", cause)
    if cause_file:
        with contextlib.suppress(OSError):
            Path(cause_file).write_text(cause)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(_EXIT_FAILED)
