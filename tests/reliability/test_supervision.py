"""What the supervisor does with what its children leave behind."""

from __future__ import annotations

import subprocess
import sys

from tests.support.serving import server_environment

# It takes the signals of its process, and collects all children.
_SCRIPT = """
import os, subprocess, sys
from tserver.supervisor.process import adopt
from tserver.supervisor.watch import Watch

adopt()
watch = Watch()
program = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
child = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, stdout=subprocess.PIPE)
grandchild = int(child.stdout.readline())
ends = []
watch.at_end(child.pid, ends.append)
while not ends:
    watch.turn()
child.returncode = ends[0]
while os.path.exists(f"/proc/{grandchild}"):
    watch.turn()
print(ends)
"""


def test_what_a_child_has_started_ends_with_it() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[0]\n", "")
