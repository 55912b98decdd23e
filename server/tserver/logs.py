"""Structured logs: one JSON object a line on stderr. Knows only the standard library."""

from __future__ import annotations

import json
import logging
import sys
import time

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as a JSON object: time, level, logger, message, and whatever `extra` held."""

    def __init__(self, **of_all: str) -> None:
        """`of_all` is in every line."""
        super().__init__()
        self._of_all = of_all

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            **self._of_all,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def set_up(level: str, **of_all: str) -> None:
    """Send all logs from `level` on to stderr, each with these fields besides its own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(**of_all))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
