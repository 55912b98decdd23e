"""What the processes of a server run: a whole server, the front of a house, or an engine of one.

The supervisor starts the first two with their settings as one JSON argument; engines are forked (fork_server.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tserver import logs
from tserver.config import Config
from tserver.engines.house import House
from tserver.errors import ServerError
from tserver.extras import told
from tserver.tracing import tracer as tracing
from tserver.visible_gpus import show_own_gpus

# Says where an engine serves: its boot id, and the address that it listens on.
Report = Callable[[str, str], None]


def main() -> int:
    """Serve; the exit code."""
    settings = json.loads(sys.argv[1])
    role = settings.pop("role")
    run = {name: settings.pop(name) for name in ("previous_end", "cause_file", "beats")}
    control = settings.pop("control", None)
    config = Config(**settings)
    if role == "front":
        logs.set_up(config.log_level, config.log_format)
        return serve_front(config, control=control, **run)
    config = show_own_gpus(config, os.environ)
    logs.set_up(config.log_level, config.log_format)
    return serve_engine(config, **run)


def serve_engine(
    config: Config,
    *,
    previous_end: str,
    cause_file: str,
    beats: int | None,
    house: House | None = None,
    report: Report | None = None,
) -> int:
    """Serve with an engine in this process; the exit code. One of a house reports where it serves, in the place of
    printing it, and leaves it in its cause file if it cannot.
    """
    return _told_in_words(
        lambda: _engine(
            config, previous_end=previous_end, cause_file=cause_file, beats=beats, house=house, report=report
        ),
        lambda text: None if house is None else _leave(cause_file, text),
    )


def serve_front(config: Config, *, control: int, **run: Any) -> int:
    """Serve as the front of a house, whose engines are asked for over a socket; the exit code."""
    return _told_in_words(lambda: _front(config, control=control, **run))


def _engine(
    config: Config, *, previous_end: str, cause_file: str, beats: int | None, house: House | None, report: Report | None
) -> int:
    # Only now: a mistake in the settings is told without waiting for torch.
    from tserver.engines.in_process import InProcessEngine
    from tserver.front.server import serve

    tracing.set_up(config, **({} if house is None else {"engine": house.engine}))

    def make_engine(on_fatal: Callable[[str], None]) -> InProcessEngine:
        return InProcessEngine(
            config,
            previous_end=previous_end,
            on_fatal=on_fatal,
            beats=beats,
            house_dir="" if house is None else house.data_dir,
        )

    try:
        return serve(config, make_engine, cause_file=cause_file, house=house, report=report)
    finally:
        tracing.TRACER.stop()


def _front(config: Config, *, control: int, **run: Any) -> int:
    name_process("tserver-front")
    from tserver.engines.processes import ChildEngines
    from tserver.front.many import serve

    tracing.set_up(config)
    try:
        return serve(config, ChildEngines(control), **run)
    finally:
        tracing.TRACER.stop()


def name_process(name: str) -> None:
    """What this process is called where processes are listed by name, which shows 15 characters."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def _told_in_words(function: Callable[[], int], also: Callable[[str], None] = lambda text: None) -> int:
    """What the function returns; what is wrong with the settings or the machine is said in a line, and 1 returned."""
    try:
        return function()
    except ModuleNotFoundError as error:
        # What only some listeners need is imported with them.
        text = told(error)
    except (ServerError, ImportError, OSError, RuntimeError) as error:
        text = f"tserver: {error}"
    print(text, file=sys.stderr)
    also(text)
    return 1


def _leave(cause_file: str, text: str) -> None:
    Path(cause_file).write_text(text.removeprefix("tserver: "))


if __name__ == "__main__":
    sys.exit(main())
