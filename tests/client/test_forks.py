"""Processes that fork while they are connected: the children connect themselves, and the parent lives on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import ServerProcess, server_environment, serving

# A pool of workers, again and again, from a parent whose session works on meanwhile.
POOLS = """
import concurrent.futures, multiprocessing, sys
import tclient as torch

address, kind, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])


def work(number):
    if address != "environment":
        torch.connect(address, timeout_s=30)
    return (torch.ones(3) + number).tolist()


def pool():
    if kind == "executor":
        return concurrent.futures.ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork"))
    return multiprocessing.get_context(kind).Pool(3)


if __name__ == "__main__":
    if address != "environment":
        torch.connect(address)
    x = torch.ones(3)
    for done in range(1, rounds + 1):
        x = x + 1  # on its way while the workers are made
        with pool() as workers:
            assert list(workers.map(work, range(6))) == [[1.0 + number] * 3 for number in range(6)]
        assert x.tolist() == [1.0 + done] * 3
    print("done")
"""

# Threads that fork, whose children fork too, among threads that are inside gRPC in every way there is.
BUSY = """
import os, sys, threading, traceback
import numpy as np
import tclient as torch

address, forks = sys.argv[1], int(sys.argv[2])
torch.connect(address)
stop, failures = threading.Event(), []
served = torch.models.create(f"forks-{os.getpid()}", torch.nn.MLP([4, 2]))
row = np.ones((1, 4), np.float32)
expected = served(row)
big = np.arange(1 << 19, dtype=np.float32)


def chain():
    y = torch.zeros(3)
    for _ in range(50):
        y = y + 1
    assert y.tolist() == [50.0] * 3


def forward():
    assert np.allclose(served(row), expected)


def bulk():
    assert (torch.tensor(big).numpy() == big).all()


def repeat(work):
    try:
        while not stop.is_set():
            work()
    except BaseException:
        failures.append(traceback.format_exc())


def child(depth):
    torch.connect(address, timeout_s=30)
    assert (torch.ones(2) + 1).tolist() == [2.0, 2.0]
    if depth:
        fork(depth - 1)
    assert (torch.ones(2) + 2).tolist() == [3.0, 3.0]
    torch.disconnect()


def fork(depth):
    pid = os.fork()
    if pid == 0:
        try:
            child(depth)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def fork_often():
    try:
        for _ in range(forks):
            fork(1)
    except BaseException:
        failures.append(traceback.format_exc())


workers = [threading.Thread(target=repeat, args=(work,)) for work in (chain, chain, forward, forward, bulk)]
forkers = [threading.Thread(target=fork_often) for _ in range(2)]
for thread in workers + forkers:
    thread.start()
for thread in forkers:
    thread.join()
stop.set()
for thread in workers:
    thread.join()
served.delete()
print(*failures or ["done"])
"""

# A fork while another thread waits in an RPC that nobody answers, and for longer than a fork does.
TORN = """
import os, socket, sys, threading
import tclient as torch
from tclient._transport import forks as _forks

_forks._PATIENCE_S = 0.3
torch.connect(sys.argv[1])
x = torch.ones(3)
silent = socket.create_server(("127.0.0.1", 0))


def wait_for_nobody():
    try:
        torch.Session.open(f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=5)
    except torch.ConnectFailed:
        pass


waiting = threading.Thread(target=wait_for_nobody)
waiting.start()
connection = silent.accept()
reader, writer = os.pipe()
for depth in range(2):
    pid = os.fork()
    if pid:
        break
    try:
        torch.connect(sys.argv[1])
        os.write(writer, b"connected")
    except torch.ConnectFailed as error:
        os.write(writer, b"refused; " if "gRPC cannot be used here" in str(error) else repr(error).encode())
    if depth == 1:
        os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
if depth:
    os._exit(0)
waiting.join()
assert (x + 1).tolist() == [2.0] * 3
assert os.read(reader, 4096) == b"refused; " * 2
print("done")
"""

# Children under gRPC's own support for forks, with a message on its way at each fork.
SUPPORTED = """
import os, sys
import tclient as torch

torch.connect(sys.argv[1])
x = torch.ones(3)
for done in range(1, 5):
    x = x + 1
    pid = os.fork()
    if pid == 0:
        try:
            torch.connect(sys.argv[1], timeout_s=30)
            right = (torch.ones(2) + 1).tolist() == [2.0, 2.0]
        except torch.ConnectFailed as error:
            right = "gRPC cannot be used here" in str(error)
        os._exit(not right)
    assert os.waitpid(pid, 0)[1] == 0
    assert x.tolist() == [1.0 + done] * 3
print("done")
"""


def _run(
    tmp_path: Path,
    script: str,
    *arguments: str,
    timeout_s: float = 90.0,
    stderr: str | None = "",
    **environment: str,
) -> None:
    """Run a script, which must print "done" and nothing else, also not to stderr, unless that may be anything."""
    path = tmp_path / "script.py"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, "-P", str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=server_environment(**environment),
        check=False,
    )
    said = done.stderr if stderr is None else stderr
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "done", said)


@pytest.mark.parametrize("kind", ["fork", "forkserver", "spawn", "executor"])
def test_the_workers_of_a_pool_connect_themselves(server: ServerProcess, tmp_path: Path, kind: str) -> None:
    _run(tmp_path, POOLS, server.address, kind, "4" if kind in ("fork", "executor") else "1")


def test_the_workers_of_a_pool_find_the_server_in_the_environment(server: ServerProcess, tmp_path: Path) -> None:
    _run(tmp_path, POOLS, "environment", "fork", "3", TCLIENT_ADDRESS=server.address)


def test_forks_among_busy_threads_harm_neither_side(server: ServerProcess, tmp_path: Path) -> None:
    _run(tmp_path, BUSY, server.address, "8")


def test_a_child_of_a_fork_that_could_not_wait_is_refused_and_its_parent_lives(
    server: ServerProcess, tmp_path: Path
) -> None:
    # gRPC says that a thread was inside.
    _run(tmp_path, TORN, server.address, stderr=None)


def test_under_grpc_s_own_support_for_forks_a_child_works_or_is_refused_and_none_hangs(
    server: ServerProcess, tmp_path: Path
) -> None:
    # That support gives up now and then, when a message is on its way.
    _run(tmp_path, SUPPORTED, server.address, stderr=None, GRPC_ENABLE_FORK_SUPPORT="1")


@pytest.fixture(scope="module")
def roomy() -> Iterator[ServerProcess]:
    """A server that outlives the sessions of some thousand workers that are ended as they are."""
    with serving("--max-sessions", "16384", "--lease-s", "20") as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["fork", "executor"])
def test_a_hundred_pools_in_a_row_work(roomy: ServerProcess, tmp_path: Path, kind: str) -> None:
    _run(tmp_path, POOLS, roomy.address, kind, "100", timeout_s=500)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_forks_of_busy_threads_in_a_row_work(roomy: ServerProcess, tmp_path: Path) -> None:
    _run(tmp_path, BUSY, roomy.address, "100", timeout_s=500)
