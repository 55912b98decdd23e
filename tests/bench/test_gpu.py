"""The measurements for a GPU run here too, small and on the CPU; without a GPU the command says what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.bench import gpu
from tests.bench.bench import Bench
from tests.bench.processes import Side
from tests.bench.report import table, write_json, write_picture
from tests.bench.side import Options, Run
from tests.support.serving import HasAddress


class Here(Side):
    """A side in this process: quicker to start."""

    def __init__(self, name: str, run: Run) -> None:
        super().__init__(name, cast(Any, None))
        object.__setattr__(self, "run", run)


def test_every_row_is_measured_and_reported(server: HasAddress, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    options = Options(server.address, more={"device": "cpu"})
    before = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(before))
    torch.set_num_threads(1)  # several would wait for each other where other tests have the cores
    with (
        gpu.with_tclient(options) as ours,
        gpu.with_tclient(options, lane=False) as over_grpc,
        gpu.with_torch(options) as theirs,
    ):
        sides = (Here("tclient", ours), Here("tclient over gRPC", over_grpc), Here("torch", theirs))
        outcomes = list(gpu.measure(Bench(quick=True), *sides, tiny=True))
    assert [outcome.id for outcome in outcomes] == [
        *("G1", *["G2"] * 4, *["G-W2"] * 2, *["G3"] * 4),
        *("G-P1", "G-bulk", "G-bulk", "G-batch", "G-batch-torch"),
    ]
    roads = [outcome.what.rpartition(", ")[2] for outcome in outcomes[1:11]]
    assert roads == ["lane", "gRPC"] * 5
    text = table(outcomes)
    assert "TFLOP/s" in text
    assert "forwards/s" in text
    write_json(outcomes, {}, "", tmp_path / "gpu.json")
    assert write_picture(outcomes, tmp_path / "gpu.png")


def test_the_checks_find_what_is_wrong() -> None:
    assert gpu.checks(torch, "cpu") == []
    if not torch.cuda.is_available():
        with pytest.raises((AssertionError, RuntimeError), match="CUDA"):
            gpu.checks(torch, "cuda:0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what to do where there is no GPU")
def test_without_a_gpu_the_command_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert gpu.main() == 1
    assert "--device cpu --tiny" in capsys.readouterr().err
