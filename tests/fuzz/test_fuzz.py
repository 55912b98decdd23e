"""The fuzz finds nothing in a fixed selection of calls, and would find what it looks for.

It runs as a program of its own: it forks, and starts anew with settings of the C library.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tests.fuzz import texts
from tests.fuzz.draw import NAMES
from tests.fuzz.journal import Journal, Record
from tests.fuzz.planted import FAULTS
from tests.fuzz.stage import misfit
from tests.support.serving import ROOT, server_environment
from tests.support.values import Kept, encode


def _run(*arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=server_environment(), capture_output=True, text=True, timeout=timeout_s, check=False
    )


@pytest.mark.timeout(400)
def test_a_fixed_selection_of_calls_finds_nothing() -> None:
    bounds = ("--seed", "fixed", "--calls", "8000", "--minutes", "2", "--samples", "1", "--served", "500")
    done = _run("tests.fuzz", *bounds, timeout_s=360.0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "; 0 findings" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
def test_no_drawn_call_finds_anything(seed: int) -> None:
    done = _run("tests.fuzz", "--seed", f"slow-{seed}", "--calls", "100000", "--minutes", "30", timeout_s=3000.0)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(240)
def test_planted_faults_are_found() -> None:
    said = dict(line.split(" -> ") for line in _run("tests.fuzz.planted", timeout_s=200.0).stdout.splitlines())
    assert said.pop("nothing") == ""
    assert list(said) == list(FAULTS)
    for fault, told in said.items():
        assert told.startswith(fault.removesuffix(" to another") + ": ")


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")  # said by torch once in a process
def test_the_extent_of_a_tensor_is_added_up_without_wrapping() -> None:
    inside = torch.zeros(10).as_strided((3, 2), (4, 1), 0)
    assert misfit(inside) == ""
    beyond = torch.zeros(10).as_strided((3, 2), (4, 1), 0)
    beyond.untyped_storage().resize_(36)
    assert "from 0 to 9 in a storage of 9 elements" in misfit(beyond)
    assert misfit(torch.zeros(4).as_strided((0, 3), (2**61, 1), 0)) == ""
    assert misfit(torch.ones(2, 2).to_sparse()) == ""
    assert "found index 5" in misfit(torch.sparse_coo_tensor(torch.tensor([[5]]), torch.ones(1), (3,)))
    assert "sparse_csr" in misfit(torch.ones(2, 2).to_sparse_csr())


def test_what_a_child_wrote_down_is_read_in_order() -> None:
    journal = Journal()
    journal.write(b"s", b"one")
    journal.write(b"c", bytes(range(256)), drawn=1, tampered=1)
    assert journal.records() == [Record(b"s", b"one"), Record(b"c", bytes(range(256)))]
    assert journal.counts() == (1, 1)
    journal.clear()
    assert journal.records() == []


def test_calls_come_back_from_their_file(tmp_path: Path) -> None:
    chance = random.Random(0)
    number = chance.choice([float("nan"), float("inf"), 1.5])
    arguments = [Kept(3), [Kept(4, (1,)), 2**63 - 1], torch.ones(2), number, None, (1, 2), slice(None, 3)]
    calls = [
        pb.Call(id=7, operation=NAMES.index("add"), args=map(encode, arguments), frees=[3]),
        pb.Call(operation=len(NAMES)),
    ]
    texts.save(tmp_path / "calls.json", "a fault", calls)
    assert texts.load(tmp_path / "calls.json") == calls
    assert "%7 = add(%3, [%4.1, 9223372036854775807]" in texts.call_text(calls[0])
