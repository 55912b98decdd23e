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
from tests.fuzz import texts, words
from tests.fuzz.draw import NAMES
from tests.fuzz.journal import Journal, Record
from tests.fuzz.planted import FAULTS, MISSING_CHECKS
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
    said = [line.split(" -> ") for line in _run("tests.fuzz.planted", timeout_s=200.0).stdout.splitlines()]
    assert said.pop(0) == ["nothing", ""]
    assert [fault for fault, _ in said] == [*FAULTS, *MISSING_CHECKS]
    for fault, told in said:
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
    add = NAMES.index("add")
    general = pb.Call(id=7, operation=add, args=map(encode, arguments), frees=[3])
    written = words.written([pb.Call(id=8, operation=add, args=[encode(Kept(7)), encode(2)], frees=[3])], chance)
    batches = [pb.Batch(calls=[general]), pb.Batch(), written]
    texts.save(tmp_path / "calls.json", "a fault", batches)
    assert texts.load(tmp_path / "calls.json") == batches
    assert "%7 = add(%3, [%4.1, 9223372036854775807]" in texts.batch_text(batches[0])
    assert texts.batch_text(written).endswith("free %3; %8 = add(%7, 2)")


def test_what_is_written_as_words_is_read_as_the_same_calls() -> None:
    chance = random.Random(0)
    calls = [
        pb.Call(id=1, operation=3, args=map(encode, [Kept(7), -5, 2.5, (1 << 47) - 1]), context=2, frees=[4, 5]),
        pb.Call(id=2, operation=4, args=map(encode, [Kept(7), 1 << 47])),
        pb.Call(id=3, operation=4, kwargs=[pb.NamedValue(name="out", value=encode(Kept(7)))]),
        pb.Call(operation=5, free_parts=[pb.Ref(id=4, path=[1, 0])]),
    ]
    kept = broken = 0
    for _ in range(200):
        batch = words.written(calls, chance)
        assert words.calls_of(batch) == calls
        assert words.keeps_rules(batch)
        if words.keeps_rules(words.tampered(batch, chance, 100)):
            kept += 1
        else:
            broken += 1
    assert min(kept, broken) > 20
