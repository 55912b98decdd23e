"""Libraries that work with arrays of many kinds: the same with torch, with tclient by its name, and by the launcher."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.launcher.running import PROGRAMS, TIMEOUT_S
from tests.support.serving import ServerProcess, server_environment

FOLDER = PROGRAMS / "libraries"


def _said(*command: str, address: str) -> str:
    env = server_environment(SCIPY_ARRAY_API="1", TCLIENT_ADDRESS=address)
    done = subprocess.run(
        [sys.executable, *command], env=env, cwd=FOLDER, text=True, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


PROGRAM_NAMES = ["rearranged.py", "learned.py"]


@pytest.fixture(scope="module", params=PROGRAM_NAMES)
def compared(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A program, and what it says with torch."""
    return request.param, _said(request.param, "torch", address="")


@pytest.mark.parametrize("command", [["{}", "tclient"], ["-m", "tclient", "run", "{}", "torch"]], ids=["named", "run"])
def test_a_library_gives_the_same_as_with_torch(
    server: ServerProcess, compared: tuple[str, str], command: list[str]
) -> None:
    program, theirs = compared
    assert theirs
    assert _said(*(each.format(program) for each in command), address=server.address) == theirs


LATE = """
import sys
import einops, opt_einsum
import numpy as np
einops.rearrange(np.ones((2, 3)), "a b -> b a")
import tclient
print(einops.rearrange(tclient.ones(2, 3), "a b -> b a").shape)
print(opt_einsum.contract("ij,jk->ik", tclient.ones(2, 3), tclient.ones(3, 1)).tolist())
"""
UNASKED = """
import sys
import tclient
tclient.ones(2).sum().item()
print(sorted({"einops", "opt_einsum", "scipy", "sklearn", "tclient.array_api"} & set(sys.modules)))
"""


def test_a_library_may_be_imported_first(server: ServerProcess) -> None:
    assert _said("-c", LATE, address=server.address) == "torch.Size([3, 2])\n[[3.0], [3.0]]\n"


def test_no_library_is_imported_unasked(server: ServerProcess) -> None:
    assert _said("-c", UNASKED, address=server.address) == "[]\n"
