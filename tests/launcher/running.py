"""Programs as people write them for torch, run by Python with torch, and by the launcher without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.serving import server_environment

PROGRAMS = Path(__file__).with_name("programs")
TIMEOUT_S = 110.0
# A torch that nobody may import: found first where the launcher's own finder does not answer.
FORBIDDEN = 'raise RuntimeError("torch itself was imported")\n'


def run(
    *command: str, folder: Path = PROGRAMS, address: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in a folder."""
    env = server_environment(**environment)
    env.pop("TCLIENT_ADDRESS", None)
    if address:
        env["TCLIENT_ADDRESS"] = address
    return subprocess.run(
        [sys.executable, *command],
        env=env,
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def launched(address: str, *command: str, folder: Path = PROGRAMS) -> subprocess.CompletedProcess[str]:
    """Run a program by the launcher on the server at an address."""
    return run("-m", "tclient", "run", "--address", address, *command, folder=folder)
