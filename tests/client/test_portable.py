"""The client needs nothing that only Linux has: it is tried with such names taken away, and its code is searched."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.serving import ROOT, ServerProcess, server_environment

# Not on Windows, or not on macOS, as the documentation of the modules says under "Availability".
ELSEWHERE = {
    "os": {
        "register_at_fork",
        "fork",
        "memfd_create",
        "eventfd",
        "sched_setaffinity",
        "sched_getaffinity",
        "sched_setscheduler",
        "getuid",
        "geteuid",
        "getpgid",
        "killpg",
        "setsid",
        "mkfifo",
        "pread",
        "pwrite",
        "sendfile",
        "splice",
        "uname",
        "wait4",
        "waitid",
        "posix_fadvise",
        "posix_fallocate",
        "O_DIRECT",
        "O_CLOEXEC",
    },
    "socket": {
        "AF_UNIX",
        "MSG_DONTWAIT",
        "MSG_NOSIGNAL",
        "MSG_WAITALL",
        "SO_RCVTIMEO",
        "SO_SNDTIMEO",
        "SO_REUSEPORT",
        "SO_PEERCRED",
        "TCP_QUICKACK",
        "TCP_USER_TIMEOUT",
        "TCP_KEEPIDLE",
        "recv_fds",
        "send_fds",
        "socketpair",
    },
    "mmap": {"MAP_SHARED", "MAP_PRIVATE", "MAP_ANONYMOUS", "MAP_POPULATE", "MADV_HUGEPAGE", "PROT_READ", "PROT_WRITE"},
    "signal": {"SIGALRM", "SIGKILL", "SIGSTOP", "SIGUSR1", "SIGHUP", "setitimer", "pthread_kill", "pthread_sigmask"},
    "select": {"poll", "epoll", "kqueue"},
    "time": {"clock_gettime", "tzset", "CLOCK_MONOTONIC"},
}
FOREIGN_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "posix", "syslog"}
# What is used where the name was looked for before: the file, and the name that is looked for there.
GUARDED = {
    ("current.py", "register_at_fork"),
    ("connections.py", "MSG_WAITALL"),
    ("connections.py", "SO_RCVTIMEO"),
    ("connections.py", "SO_SNDTIMEO"),
    ("connections.py", "AF_UNIX"),
    ("connections.py", "recv_fds"),
    ("lane.py", "AF_UNIX"),
    ("looking.py", "AF_UNIX"),
    ("lane.py", "eventfd"),
    ("lane.py", "poll"),
}

_LINUX_ALONE = """
import os, select, signal, socket, sys
for module, names in {names!r}.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
"""
_WORK = """
import numpy as np
import tclient as torch

with torch.connect(sys.argv[1], shared_memory=True) as session:
    assert session.transfers.endpoint.address
    x = torch.ones(3)
    for _ in range(500):
        x = x + 1
    assert x.tolist() == [501.0] * 3
    array = np.arange(1 << 19, dtype=np.float64)
    for _ in range(3):
        assert (torch.from_numpy(array).numpy() == array).all()
    assert session.transfers.endpoint.resting, "nothing went over the data endpoint"
    served = torch.models.create("portable", torch.nn.MLP([2, 2]))
    assert served(np.ones((1, 2), np.float32)).shape == (1, 2)
    served.delete()
print("done")
"""


def test_the_client_works_without_what_only_linux_has(server: ServerProcess) -> None:
    # gRPC and subprocess take some of these when they are imported, as they would not on another system.
    taken = {
        module: sorted(ELSEWHERE[module] - {"getuid", "geteuid"}) for module in ("os", "socket", "signal", "select")
    }
    script = "import sys, grpc, numpy, asyncio, subprocess, ssl, mmap, urllib.request\n"
    script += _LINUX_ALONE.format(names=taken) + _WORK
    done = subprocess.run(
        [sys.executable, "-c", script, server.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=server_environment(),
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


FILES = sorted([*(ROOT / "client/tclient").rglob("*.py"), *(ROOT / "proto/tensorcompute/wire").rglob("*.py")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_the_client_uses_what_is_not_everywhere_without_looking(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & FOREIGN_MODULES
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} & FOREIGN_MODULES
            found |= {alias.name for alias in node.names} & ELSEWHERE.get(node.module, set())
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= {node.attr} & ELSEWHERE.get(node.value.id, set())
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} & {"/proc", "/dev/shm"}
    assert {name for name in found if (path.name, name) not in GUARDED} == set()
