"""The client is thin: it needs neither torch nor the server, and is quick to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.serving import ROOT, ServerProcess

_PATHS = [str(ROOT / "client"), str(ROOT / "proto")]


def run(script: str, *arguments: str) -> str:
    """What a script prints in a fresh interpreter that sees the client and the contract only."""
    prologue = f"import sys; sys.path[:0] = {_PATHS!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", prologue + script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path("/"),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_FORBIDDEN = (
    "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'tserver', 'scipy', 'asyncio'}))"
)


def test_importing_the_client_brings_in_neither_torch_nor_the_server() -> None:
    script = (
        "import tclient, tclient.nn.functional, tclient.optim, tclient.utils.data, tclient.testing\n"
        + _FORBIDDEN.replace(", 'asyncio'", "")
    )
    assert run(script).strip() == "[]"


def test_using_the_client_brings_in_neither_torch_nor_the_server(server: ServerProcess) -> None:
    script = (
        "import tclient\n"
        "with tclient.connect(sys.argv[1]):\n"
        "    assert (tclient.ones(3) + 1).tolist() == [2.0, 2.0, 2.0]\n"
        "    try:\n"
        "        (tclient.ones(2) + tclient.ones(3)).tolist()\n"
        "    except RuntimeError:\n"
        "        pass\n"
    ) + _FORBIDDEN.replace(", 'asyncio'", "")
    assert run(script, server.address).strip() == "[]"


_WITHOUT_EVENT_ENGINES = (
    "import os\n"
    "import {first}\n"
    "import tclient\n"
    "with tclient.connect(sys.argv[1]):\n"
    "    assert (tclient.ones(3) + 1).tolist() == [2.0, 2.0, 2.0]\n"
    "    from tclient._polling import chosen\n"
    "    print(chosen, os.environ.get('GRPC_EXPERIMENTS'))\n"
)


@pytest.mark.parametrize(
    ("first", "given", "told"),
    [
        pytest.param("os", None, "True None", id="as it comes"),
        pytest.param("grpc", None, "False None", id="a program that has gRPC already"),
        pytest.param("os", "", "False ", id="a choice of the user's"),
    ],
)
def test_the_choice_of_how_grpc_waits_leaves_no_trace(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch, first: str, given: str | None, told: str
) -> None:
    if given is None:
        monkeypatch.delenv("GRPC_EXPERIMENTS", raising=False)
    else:
        monkeypatch.setenv("GRPC_EXPERIMENTS", given)
    assert run(_WITHOUT_EVENT_ENGINES.format(first=first), server.address) == told + "\n"


_COSTS = (
    "import time\n"
    "began = time.process_time()\n"
    "import numpy, grpc\n"
    "between = time.process_time()\n"
    "import tclient\n"
    "print((time.process_time() - between) / (between - began))"
)


def test_import_costs_no_more_than_twice_what_numpy_and_grpc_cost() -> None:
    # Measured beside them in one process, so that a busy machine slows both; in milliseconds it is I1 of `make bench`.
    assert min(float(run(_COSTS)) for _ in range(3)) <= 2.0
