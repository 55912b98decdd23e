"""Lists in pieces: searched, in an order, from some row on. Knows no rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tserver.errors import InvalidArgument

_MOST_ROWS = 500
_ROWS = 100
_MOST_OFFSET = 10_000_000

Row = Mapping[str, Any]


def number(asked: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A number of a query. Raises: InvalidArgument."""
    text = asked.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) > most:
        raise InvalidArgument(f"{name} is {text[:50]!r}, not a whole number of at most {most}")
    return int(text)


def window(asked: Mapping[str, str]) -> slice:
    """The rows of a list that are asked for. Raises: InvalidArgument."""
    offset = number(asked, "offset", 0, _MOST_OFFSET)
    return slice(offset, offset + number(asked, "limit", _ROWS, _MOST_ROWS))


def of_first(asked: Mapping[str, str]) -> dict[str, str]:
    """The same question for all rows to the last one that is asked for, which lists of several engines are made of."""
    stop = window(asked).stop
    if stop > _MOST_ROWS:
        raise InvalidArgument(f"of several engines at most the first {_MOST_ROWS} rows are listed; search for less")
    return {**asked, "offset": "0", "limit": str(stop)}


def ordered(rows: Sequence[Row], asked: Mapping[str, str], default: str) -> list[Row]:
    """The rows by one of their columns; with the search, those that have its words in a text or a number of theirs.

    Raises: InvalidArgument for a column that there is not.
    """
    found = list(rows)
    if words := asked.get("search", "").lower().split():
        found = [row for row in found if _has(row, words)]
    column = asked.get("sort", "") or default
    if found and column not in found[0]:
        raise InvalidArgument(f"there is no column {column[:50]!r}; there are {', '.join(found[0])}")
    found.sort(key=lambda row: row[column], reverse=asked.get("descending", "") == "1")
    return found


def _has(row: Row, words: Sequence[str]) -> bool:
    text = " ".join(str(each) for each in row.values() if isinstance(each, str | int)).lower()
    return all(word in text for word in words)


def page(rows: Sequence[Row], asked: Mapping[str, str], default: str) -> dict[str, Any]:
    """One piece of a list. Raises: InvalidArgument."""
    found = ordered(rows, asked, default)
    return {"total": len(found), "rows": found[window(asked)]}
