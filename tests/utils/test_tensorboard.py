"""SummaryWriter: the events of a run are torch's; without the package tensorboard it says what to install."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch


def events(folder: Path) -> list[Any]:
    """What the files of a run say, without their times."""
    loader: Any = importlib.import_module("tensorboard.backend.event_processing.event_file_loader")
    found = []
    for path in sorted(folder.rglob("events.*")):
        for event in loader.LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                name = "" if path.parent == folder else path.parent.name
                found.append((name, event.step, str(value)))
    return sorted(found)


def write(m: Any, folder: Path) -> None:
    """A run."""
    writer_of: Any = importlib.import_module(f"{m.__name__}.utils.tensorboard").SummaryWriter
    with writer_of(str(folder)) as writer:
        for step in range(3):
            writer.add_scalar("loss", m.tensor(1.0 / (step + 1)), step)
        writer.add_scalar("rate", 0.5, m.tensor(4), new_style=True)
        writer.add_scalars("both", {"a": 1, "b": m.ones(1)}, 2)
        values = m.linspace(-2, 3, 50)
        writer.add_histogram("weights", values, 1)
        writer.add_histogram("few", values.to(m.int64), 1, bins=np.array([-1, 0, 1, 2, 5.0]))
        writer.add_histogram("many", values.bfloat16(), 1, max_bins=5)
        image = m.arange(24.0).reshape(3, 2, 4) / 24
        writer.add_image("image", image, 0)
        writer.add_image("grey", image[0], 0, dataformats="HW")
        writer.add_images("grid", m.stack([image] * 9), 0)
        writer.add_image("bytes", (image * 255).to(m.uint8), 0)
        writer.add_text("note", "größer", 3)
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=(1, 1))
        figure.gca().plot([1, 2])
        writer.add_figure("figure", figure, 5)
        with pytest.raises(AssertionError, match="Tensor should contain one element"):
            writer.add_scalar("several", m.ones(2))
        with pytest.raises(ValueError, match="no element"):
            writer.add_histogram("none", m.ones(0))


def test_a_run_is_written_as_torch_writes_it(tc: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="an optional package, which `make install` leaves out")
    write(tc, tmp_path / "mine")
    write(torch, tmp_path / "theirs")
    assert events(tmp_path / "mine") == events(tmp_path / "theirs")


def test_hyperparameters_have_a_run_of_their_own(tc: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="an optional package, which `make install` leaves out")
    made: Any = importlib.import_module("tclient.utils.tensorboard")
    with made.SummaryWriter(str(tmp_path)) as writer:
        writer.add_hparams({"lr": 0.1, "batch": 4}, {"accuracy": tc.tensor(0.5)}, run_name="first")
        with pytest.raises(NotImplementedError, match=r"SummaryWriter\.add_graph: there is no traced graph"):
            writer.add_graph(tc.nn.Linear(1, 1))
    found = events(tmp_path)
    assert {name for name, _, _ in found} == {"first"}
    assert any("accuracy" in text and "0.5" in text for _, _, text in found)
    assert any("_hparams_/session_start_info" in text for _, _, text in found)


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("tclient.utils.tensorboard", "tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard"):
        importlib.import_module("tclient.utils.tensorboard")
