"""An address and a data directory, where one server follows another; and a program that trains meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.engines.house import info
from tests.support.serving import ServerProcess, server_environment
from tserver.session.keeping import SESSIONS

PROGRAM = Path(__file__).parent / "programs" / "training.py"
END_S = 60.0


class Place:
    """An address and a data directory, and the server that is there at the time."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self._options = ("--data-dir", str(folder), "--checkpoint-on-drain", *options)
        self.server = self._begin("127.0.0.1:0")
        self.address = self.server.address

    def _begin(self, listen: str) -> ServerProcess:
        return ServerProcess(*self._options, listen=listen).__enter__()

    def stop(self) -> None:
        """Tell it to stop, and wait for that."""
        assert self.server.terminate() == 0, self.server.log()

    def start(self) -> None:
        """Start the next one."""
        self.server = self._begin(self.address)

    def restart(self) -> None:
        """Both."""
        self.stop()
        self.start()

    def kept(self) -> list[Path]:
        """What is on disk of sessions."""
        return list((self.folder / SESSIONS).iterdir())

    def info(self) -> ts.GetServerInfoResponse:
        """What the server says of itself."""
        return info(self.server)


def trained(address: str, kind: str, steps: int, reads: str, *, waits: bool = False) -> subprocess.Popen[str]:
    """The training loop, in a process of its own; one that waits ends its session when its input ends."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), address, kind, str(steps), reads],
        stdin=subprocess.PIPE if waits else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=server_environment(),
    )
