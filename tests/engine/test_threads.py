"""Heavy products take all cores, and leave the number as it was; the results are torch's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tserver.engine import threads
from tserver.engine.networks import build


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of threads that were set; one usually, four for what is heavy."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads.all_cores, "few", 1)
    monkeypatch.setattr(threads.all_cores, "all", 4)
    seen: list[int] = []
    set_number = torch.set_num_threads

    def note(number: int) -> None:
        seen.append(number)
        set_number(number)

    monkeypatch.setattr(torch, "set_num_threads", note)
    yield seen
    set_number(before)


def test_a_heavy_product_takes_all_cores(taken: list[int]) -> None:
    left, right = torch.rand(512, 512), torch.rand(512, 512)
    product = threads.spread("matmul", torch.matmul)
    assert torch.equal(product(left, right), left @ right)
    assert taken == [4, 1]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        product(left, torch.rand(511, 512))
    assert taken == [4, 1, 4, 1]


@pytest.mark.parametrize("args", [(torch.rand(64, 64), torch.rand(64, 64)), (torch.rand(5), torch.rand(5)), ()])
def test_a_small_one_does_not(taken: list[int], args: tuple[Any, ...]) -> None:
    product = threads.spread("matmul", lambda *given: len(given))
    assert product(*args) == len(args)
    assert taken == []


def test_other_operations_are_as_they_were() -> None:
    assert threads.spread("add", torch.add) is torch.add


def test_a_network_takes_all_cores_for_many_rows(taken: list[int]) -> None:
    network = build([{"kind": "linear", "weight": torch.rand(256, 784), "bias": None}, {"kind": "relu"}])
    network.forward(torch.rand(16, 784))
    assert taken == []
    assert network.forward(torch.rand(1024, 784)).shape == (1024, 256)
    assert taken == [4, 1]


def test_a_number_that_is_given_holds_for_all_work(monkeypatch: pytest.MonkeyPatch, taken: list[int]) -> None:
    threads.set_up(3)
    assert not threads.is_heavy(1 << 40)
    assert taken == [3]


def test_a_number_that_is_given_holds_on_the_engines_thread_from_its_first_product_on() -> None:
    # In a process of its own: here torch has begun its threads already.
    program = """
import os, torch
from tserver.config import Config
from tserver.engine.engine import Engine

left = torch.rand(1000, 1000)
engine = Engine(Config(device="cpu", threads=1), on_fatal=print)
engine.start()
engine.run(lambda: None).result()
before = set(os.listdir("/proc/self/task"))
engine.run(lambda: torch.mm(left, left)).result()
# Those of torch's that have only begun to wait are new as well.
print(len(set(os.listdir("/proc/self/task")) - before))
engine.stop()
"""
    # What the environment says about threads holds in every thread, and would hide the fault.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.split() == ["0"], ran.stdout
