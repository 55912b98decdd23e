"""The README's example in JavaScript runs against the server: the contract serves languages that have no SDK."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from tests.models.programs import convolution, convolved, create_program
from tests.support.node import node_with_packages
from tests.support.raw import Raw
from tests.support.serving import HasAddress

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def node() -> str:
    """node, with the packages of package.json at hand."""
    return node_with_packages()


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
