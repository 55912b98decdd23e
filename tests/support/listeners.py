"""Where the other listeners of a server are: what it prints before its main address."""

from __future__ import annotations

from tests.support.serving import ServerProcess


def listener(server: ServerProcess, kind: str) -> str:
    """The address of a listener, "oip" or "metrics"; it is told exactly once."""
    told = [line.removeprefix(f"{kind} listening on ") for line in server.stdout if line.startswith(f"{kind} ")]
    assert len(told) == 1, server.log()
    return told[0]
