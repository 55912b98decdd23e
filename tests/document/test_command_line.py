"""The reference of the command lines is what their --help says; `python -m tests.document.test_command_line` writes it.

Of options that several commands have, which `docs/configuration.md` describes, it has none: those of `tserver serve`.
"""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import fields
from unittest import mock

import click
import pytest

from tclient._launcher.command import parser
from tests.support.serving import ROOT
from tserver.cli import main
from tserver.config import Config

PAGE = ROOT / "docs" / "command-line.md"
_WIDTH = 100
_BLOCK = r"(?ms)^### `{command}`\n\n```text\n(.*?)```\n"
_SETTINGS = {field.name for field in fields(Config)}


def of_server(command: click.Command, path: str) -> dict[str, str]:
    """What --help says of a command and those below it, without the settings of a server."""
    context = click.Context(command, info_name=path, max_content_width=_WIDTH, terminal_width=_WIDTH)
    if isinstance(command, click.Group):
        found: dict[str, str] = {}
        for name in command.list_commands(context):
            found |= of_server(command.commands[name], f"{path} {name}")
        return found
    shown = [each for each in command.params if each.name not in _SETTINGS or not _takes_all_settings(command)]
    with mock.patch.object(command, "params", shown):
        return {path: _tidy(command.get_help(context))}


def _takes_all_settings(command: click.Command) -> bool:
    return {each.name for each in command.params} >= _SETTINGS


def of_client() -> dict[str, str]:
    """The same of the client."""
    with mock.patch.dict(os.environ, {"COLUMNS": str(_WIDTH), "NO_COLOR": "1"}):
        (commands,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
        return {f"tclient {name}": _tidy(each.format_help()) for name, each in commands.choices.items()}


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


TEXTS = {**of_server(main, "tserver"), **of_client()}


@pytest.mark.parametrize("command", TEXTS)
def test_the_reference_has_what_help_says(command: str) -> None:
    found = re.search(_BLOCK.format(command=command), PAGE.read_text(encoding="utf-8"))
    assert found is not None, f"docs/command-line.md has no `### {command}`"
    # argparse's own words, and where it breaks lines, differ from one Python to the next.
    assert found[1].split() == TEXTS[command].replace("optional arguments:", "options:").split()


def test_no_other_command_is_in_it() -> None:
    assert set(re.findall(r"(?m)^### `(.*)`$", PAGE.read_text(encoding="utf-8"))) == set(TEXTS)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    for name, said in TEXTS.items():
        block = f"### `{name}`\n\n```text\n{said}```\n"
        if f"### `{name}`\n" in text:
            text = re.sub(_BLOCK.format(command=name), lambda _, block=block: block, text)  # type: ignore[misc]
        else:
            heading = f"## {name.split()[0]}\n"
            at = text.find("\n## ", text.index(heading) + 1)
            at = len(text) if at < 0 else at
            text = f"{text[:at].rstrip()}\n\n{block}{text[at:]}"
    PAGE.write_text(text, encoding="utf-8")
