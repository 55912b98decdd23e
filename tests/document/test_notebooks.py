"""The notebooks run from beginning to end on a server, and what they show is what a notebook shows best."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.support.serving import ROOT, server_environment, serving

NOTEBOOKS = sorted(path.name for path in (ROOT / "docs/notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(ROOT / "docs/notebooks" / name, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] for cell in code), "results are made by who runs it, and are not kept"
    with serving("--data-dir", str(tmp_path / "data")) as server:
        for key, value in server_environment(TCLIENT_ADDRESS=server.address).items():
            monkeypatch.setenv(key, value)
        client = nbclient.NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(tmp_path)}})
        client.execute()  # raises what a cell raises
    kinds = {kind for cell in code for output in cell.outputs for kind in output.get("data", {})}
    assert "image/png" in kinds
    shown = [output.data.get("text/html", "") for cell in code for output in cell.outputs if "data" in output]
    assert any("tclient.Session" in html for html in shown)
    assert any("<table>" in html and "Linear" in html for html in shown)
    assert any("1 models" in html or "version 1" in html for html in shown)
