"""Processes that a program begins: they have torch's name, too, and get tensors by value."""

from __future__ import annotations

from tests.launcher.running import launched, run
from tests.support.serving import ServerProcess

_LINES_OF_ONE_WAY = 2


def test_processes_of_all_kinds_compute_what_they_compute_with_torch(server: ServerProcess) -> None:
    theirs = run("processes.py", "fork")
    ours = launched(server.address, "processes.py", "fork", "spawn", "forkserver")
    expected = theirs.stdout.splitlines()
    assert (ours.stderr, ours.returncode) == ("", 0)
    assert ours.stdout.splitlines() == expected[:_LINES_OF_ONE_WAY] * 3 + expected[_LINES_OF_ONE_WAY:]
