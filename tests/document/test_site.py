"""The site of the documentation is built without a warning, and asks other hosts for nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    # The theme tells of its successor at each start.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert built.returncode == 0, built.stderr
    return out


def test_every_page_of_docs_is_on_the_site(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    assert pages - {page.relative_to(site) for page in site.rglob("*.html")} == set()


def test_the_site_asks_other_hosts_for_nothing(site: Path) -> None:
    asked = re.compile(r"""<(?:script|img|iframe)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*rel=["']?stylesheet[^>]*//""")
    assert [str(page) for page in site.rglob("*.html") if asked.search(page.read_text("utf-8"))] == []


def test_every_rpc_is_in_the_reference(site: Path) -> None:
    text = (site / "reference/rpc.html").read_text("utf-8")
    protos = (ROOT / "proto/tensorcompute/v1").glob("*.proto")
    rpcs = [name for proto in protos for name in re.findall(r"^  rpc (\w+)\(", proto.read_text("utf-8"), re.MULTILINE)]
    assert len(rpcs) > 40
    assert [name for name in rpcs if f'id="{name.lower()}' not in text] == []
