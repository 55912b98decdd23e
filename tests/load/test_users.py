"""locust runs the users against a real server, and leaves CSV files and a report."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from tests.support.serving import ROOT, HasAddress, server_environment


def locust(*options: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
    """locust, in a process of its own: it patches Python on import."""
    command = [sys.executable, "-m", "locust", "--locustfile", "tests/load/locustfile.py", "--headless", *options]
    return subprocess.run(
        command, cwd=ROOT, env=server_environment(), capture_output=True, text=True, timeout=timeout_s, check=False
    )


def test_both_kinds_of_users_work_without_failures(server: HasAddress, tmp_path: Path) -> None:
    files = ("--csv", str(tmp_path / "users"), "--html", str(tmp_path / "users.html"))
    ran = locust("--host", server.address, "--users", "4", "--spawn-rate", "4", "--run-time", "2s", *files)
    assert ran.returncode == 0, ran.stderr
    with (tmp_path / "users_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    assert {"MlpForward", "OpenSession"} <= set(rows)
    assert all(int(row["Failure Count"]) == 0 for row in rows.values())
    assert int(rows["MlpForward"]["Request Count"]) > 0
    assert "<html" in (tmp_path / "users.html").read_text()


def test_a_server_that_is_not_there_is_told_and_fails_the_run(tmp_path: Path) -> None:
    ran = locust("--host", "127.0.0.1:1", "--users", "1", "--run-time", "1s", "TensorUser")
    assert ran.returncode != 0
    assert "UNAVAILABLE" in ran.stdout + ran.stderr
