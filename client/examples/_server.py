"""What every example needs around its own few lines: the options, a server to talk to, and the connection.

An example is a function of the folder that its pictures go to, and of its own options where it has some. It uses the
server at --address or TCLIENT_ADDRESS; without either, a server is started on a free port of this machine and stopped
at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import tclient
from tclient._launcher.local import local_server


def run(
    example: Callable[..., None],
    description: str | None,
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """Read the command line, connect, and run the example. It gets the options that are added by their names."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="host:port of a running server; without it one is started and stopped")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for pictures (default: %(default)s)")
    if add_options is not None:
        add_options(parser)
    options = vars(parser.parse_args())

    out: Path = options.pop("out")
    out.mkdir(parents=True, exist_ok=True)
    address = options.pop("address") or os.environ.get("TCLIENT_ADDRESS")
    with contextlib.ExitStack() as stack:
        if not address:
            address = stack.enter_context(local_server())
        try:
            stack.enter_context(tclient.connect(address))
        except tclient.ConnectFailed as error:
            raise SystemExit(str(error)) from None
        example(out, **options)
