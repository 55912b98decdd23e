"""What a program does with `tclient` alone, in an environment that holds nothing but the wheel and what it asks for.

    python smoke.py HOST:PORT

Uses no test framework: there is none.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import tclient as torch
from tclient import nn
from tclient._native import COMPILED


def main(address: str) -> None:
    """Run all parts. Raises: AssertionError."""
    for absent in ("torch", "click", "pytest", "safetensors"):
        assert importlib.util.find_spec(absent) is None, f"{absent} is there; this is no bare environment"
    _the_package_describes_itself()
    _the_server_says_what_it_needs()
    with torch.connect(address):
        _tensors()
        _training()
        _errors()
        asyncio.run(_waiting_in_an_event_loop())
    core = "compiled" if COMPILED else "pure Python"
    print(f"the wheel works on Python {sys.version.split()[0]}; its core is {core}")


def _the_package_describes_itself() -> None:
    about = importlib.metadata.metadata("tclient").json
    assert about["version"] == torch.__version__
    assert about["description_content_type"] == "text/markdown"
    description = str(about["description"])
    assert "import tclient as torch" in description
    # Nothing that it points to may need the tree that the wheel was built from.
    assert re.findall(r"\]\((?!https:)", description) == []


def _the_server_says_what_it_needs() -> None:
    for command in ([str(Path(sys.executable).with_name("tserver"))], [sys.executable, "-m", "tserver"]):
        done = subprocess.run([*command, "serve"], capture_output=True, text=True, check=False)
        assert done.returncode == 1, done
        assert "pip install 'tclient[server]'" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr, done.stderr


def _tensors() -> None:
    x = torch.arange(12.0).reshape(3, 4)
    y = torch.add(x, torch.ones(4), alpha=10).t()
    y[0, 1] = 100
    assert y.shape == (4, 3)
    assert str(y[0]) == "tensor([ 10., 100.,  18.])"
    # Above what a message may hold.
    array = np.random.default_rng(0).random((1024, 1024))
    assert (torch.from_numpy(array).t().numpy() == array.T).all()


def _training() -> None:
    torch.manual_seed(0)
    points = torch.rand(64, 2)
    target = points.sum(1, keepdim=True)
    model = nn.MLP([2, 8, 1], activation="tanh")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    first = loss = None
    for _ in range(60):
        optimizer.zero_grad()
        loss = ((model(points) - target) ** 2).mean()
        first = first if first is not None else loss.item()
        loss.backward()
        optimizer.step()
    assert loss is not None
    assert first is not None
    assert loss.item() < first / 10
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        torch.save(model.state_dict(), path)
        again = nn.MLP([2, 8, 1], activation="tanh")
        again.load_state_dict(torch.load(path))
        torch.testing.assert_close(again(points), model(points))
    served = torch.models.create("smoke", model)
    try:
        rows = points.numpy()
        np.testing.assert_allclose(served(rows), model(points).detach().numpy(), rtol=1e-5, atol=1e-6)
    finally:
        served.delete()


def _errors() -> None:
    failure: Exception | None = None
    try:
        (torch.ones(2, 3) @ torch.ones(2, 3)).sum().item()
    except RuntimeError as error:
        failure = error
    assert "mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)" in str(failure)
    assert isinstance(failure, torch.TensorError)
    assert failure.filename == __file__


async def _waiting_in_an_event_loop() -> None:
    assert (await torch.ones(3).numpy_async()).tolist() == [1, 1, 1]


if __name__ == "__main__":
    main(sys.argv[1])
