"""What both sides share needs nothing but Python."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import tensorcompute.tables
import tensorcompute.wire
from tests.support.serving import ROOT

_MODULES = [
    module.name
    for package in (tensorcompute.tables, tensorcompute.wire)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("name", _MODULES)
def test_a_module_that_both_sides_share_imports_neither_side_nor_torch_nor_grpc(name: str) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'proto')!r}); import {name}\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}\n"
        "             & {'torch', 'grpc', 'google', 'numpy', 'tclient', 'tserver'}))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
