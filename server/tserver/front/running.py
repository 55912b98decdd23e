"""How a process that serves runs: its event loop, its garbage collector, and how it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where that is installed: a lone round trip then costs a tenth less. None: asyncio's own."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


def quiet_collector() -> None:
    """Spare the garbage collector torch and gRPC: what was imported stays, and to go through it takes milliseconds."""
    gc.collect()
    gc.freeze()
    # Requests make few cycles; by default they would be looked for after every 700 objects.
    gc.set_threshold(10_000, 20, 50)


async def until_told_to_stop() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
