"""Tables, for people and for programs: by rich on a terminal where it is installed, else as aligned text; or JSON."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
# With a unit, if it has one.
_NUMBER = re.compile(r"([\d.]+(e[+-]?\d+)?( [A-Za-z/]+)?)?")


def is_rich() -> bool:
    """Whether what is printed goes to a terminal, and rich is there to draw it."""
    return sys.stdout.isatty() and importlib.util.find_spec("rich") is not None


def print_json(value: Any) -> None:
    """Print a value."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(title: str, rows: Sequence[Row]) -> None:
    """Print rows under the names of what is in them; nothing where there are none."""
    if not rows:
        return
    if is_rich():
        from rich.console import Console

        Console().print(rich_table(title, rows))
    else:
        print("\n".join(text_table(title, rows)))


def rich_table(title: str, rows: Sequence[Row]) -> Any:
    """The rows, as rich draws them."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(rows[0] if rows else ()):
        # By what stands first, others are asked for: it is there as a whole.
        least = max(len(_on_one_line(row[name])) for row in rows) if position == 0 else None
        justify: Any = "right" if _is_numeric(rows, name) else "left"
        table.add_column(name, justify=justify, no_wrap=True, min_width=least)
    for row in rows:
        # Names that others chose are text, and no markup.
        table.add_row(*(Text(_on_one_line(value)) for value in row.values()))
    return table


def text_table(title: str, rows: Sequence[Row]) -> list[str]:
    """The rows as lines: a title, the names, and the values, each column as wide as it needs to be."""
    if not rows:
        return []
    lines = [title] if title else []
    names = list(rows[0])
    cells = [names, *([_on_one_line(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    right = [_is_numeric(rows, name) for name in names]
    for line in cells:
        padded = (
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return lines


def _is_numeric(rows: Sequence[Row], name: str) -> bool:
    return all(_NUMBER.fullmatch(str(row[name])) for row in rows)


def _on_one_line(value: Any) -> str:
    """The text of a value, in which nothing moves the cursor, whatever others have named."""
    text = str(value)
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} d"
