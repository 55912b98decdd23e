"""Structured logs on stderr, a record a line: JSON objects, or text for people. Knows only the standard library."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator

FORMATS = ("auto", "text", "json")
LEVELS = ("debug", "info", "warning", "error")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def moment(seconds: float) -> str:
    """A time since 1970 as logs have it, to the millisecond, in UTC."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"


class _Formatter(logging.Formatter):
    """What both have: what is in every line beside what `extra` held."""

    def __init__(self, **of_all: str) -> None:
        """`of_all` is in every line."""
        super().__init__()
        self._of_all = of_all

    def _extra(self, record: logging.LogRecord) -> Iterator[tuple[str, object]]:
        yield from ((key, value) for key, value in vars(record).items() if key not in _STANDARD)


class JsonFormatter(_Formatter):
    """A record as a JSON object: time, level, logger, message, and whatever `extra` held."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        entry: dict[str, object] = {
            "time": moment(record.created),
            "level": record.levelname.lower(),
            **self._of_all,
            "logger": record.name,
            "message": record.getMessage(),
            **dict(self._extra(record)),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        line = json.dumps(entry, default=str, ensure_ascii=False)
        # JSON leaves some as they are that end a line to readers, or tell a terminal what to do.
        return line if line.isprintable() else json.dumps(entry, default=str)


class TextFormatter(_Formatter):
    """A record as a line for people: time, level, message, and KEY=VALUE of what `extra` held.

    What callers have named may be in it: no text makes a line of its own, but in a traceback, whose lines are set in.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        words = [moment(record.created), f"{record.levelname.lower():8}", _on_one_line(record.getMessage())]
        words += [f"{key}={_as_a_word(value)}" for key, value in [*self._of_all.items(), *self._extra(record)]]
        lines = [" ".join(words)]
        if record.exc_info:
            lines += ["    " + _on_one_line(line) for line in self.formatException(record.exc_info).split("\n")]
        return "\n".join(lines)


def _on_one_line(text: str) -> str:
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _as_a_word(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    is_plain = text.isprintable() and text and not set(text) & set(' "=')
    return text if is_plain or not isinstance(value, str) else _on_one_line(json.dumps(text, ensure_ascii=False))


class _Shown(logging.Filter):
    """Lets records through by what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: frozenset[str] = frozenset(LEVELS)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written."""
        return _kind(record.levelno) in self.kinds


_SHOWN = _Shown()


def _kind(level: int) -> str:
    return next((name for name in LEVELS if level <= logging.getLevelNamesMapping()[name.upper()]), LEVELS[-1])


def shown() -> frozenset[str]:
    """Which kinds of records are written, of LEVELS."""
    least = LEVELS.index(_kind(logging.getLogger().level))
    return _SHOWN.kinds & frozenset(LEVELS[least:])


def show(kinds: frozenset[str]) -> None:
    """Write records of these kinds from now on, and no others; from any thread."""
    _SHOWN.kinds = kinds
    least = min((LEVELS.index(kind) for kind in kinds), default=len(LEVELS) - 1)
    logging.getLogger().setLevel(LEVELS[least].upper())


def set_up(level: str, form: str = "auto", **of_all: str) -> None:
    """Send all logs from `level` on to stderr, each with these fields besides its own.

    `form` is one of FORMATS; auto is text where stderr is a terminal, and JSON elsewhere.
    """
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter(**of_all) if is_text else JsonFormatter(**of_all))
    handler.addFilter(_SHOWN)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
