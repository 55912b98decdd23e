"""What is forked from a process that has imported torch: it computes, and draws other numbers than its siblings."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.serving import server_environment
from tserver.fork_server import _shown

_SCRIPT = """
import json, os, sys, threading
from tserver import fork_server
fork_server.load()
import random, tempfile, uuid
import numpy, torch
from tserver.engines.in_process import forked
assert len(os.listdir("/proc/self/task")) == threading.active_count() == 1
assert not torch.cuda.is_initialized()

def child(to):
    def told():
        fork_server.fresh_signals()
        forked()
        torch.set_num_threads(2)
        product = torch.ones(600, 600) @ torch.ones(600, 600)
        assert (product == 600).all()
        found = [torch.rand(1).item(), random.random(), numpy.random.rand(), uuid.uuid4().hex, tempfile.mktemp()]
        os.write(to, json.dumps(found).encode())
    fork_server.become([], None, told)

for _ in range(2):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        child(write)
    os.close(write)
    print(os.read(read, 1000).decode())
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_forked_engines_compute_and_draw_numbers_of_their_own() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env=server_environment(OMP_NUM_THREADS="2"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    one, other = map(json.loads, ran.stdout.splitlines())
    assert set(one).isdisjoint(other)


@pytest.mark.parametrize(
    ("gpus", "given", "shown"),
    [((1,), None, "1"), ((0, 2), "3, 4,5", "3,5"), ((1,), "GPU-a,GPU-b", "GPU-b"), ((), None, "")],
)
def test_an_engine_is_shown_gpus_of_those_that_the_server_is_shown(
    gpus: tuple[int, ...], given: str | None, shown: str
) -> None:
    assert _shown(gpus, given) == shown
