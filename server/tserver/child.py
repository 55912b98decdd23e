"""The entry of the serving process, which the supervisor starts with its settings as one JSON argument."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from tserver import logs
from tserver.config import Config
from tserver.errors import ServerError
from tserver.extras import told


def main() -> int:
    """Serve; the exit code."""
    settings = json.loads(sys.argv[1])
    previous_end = settings.pop("previous_end")
    cause_file = settings.pop("cause_file")
    beats = settings.pop("beats")
    config = Config(**settings)
    logs.set_up(config.log_level)
    # Only now: a mistake in the settings is told without waiting for torch.
    try:
        from tserver.engines.in_process import InProcessEngine
        from tserver.front.server import serve
    except ModuleNotFoundError as error:
        print(told(error), file=sys.stderr)
        return 1

    def make_engine(on_fatal: Callable[[str], None]) -> InProcessEngine:
        return InProcessEngine(config, previous_end=previous_end, on_fatal=on_fatal, beats=beats)

    try:
        return serve(config, make_engine, cause_file=cause_file)
    except ModuleNotFoundError as error:
        # What only some listeners need is imported with them.
        print(told(error), file=sys.stderr)
        return 1
    except (ServerError, OSError, RuntimeError) as error:
        print(f"tserver: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
