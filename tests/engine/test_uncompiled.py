"""The engine needs nothing of torch's compiler, which takes as long to import as torch; who asks for it gets it."""

from __future__ import annotations

import subprocess
import sys

from tests.support.serving import server_environment

PROGRAM = """
import inspect, sys
import torch
from tserver.engine import optimizers
from tserver.engine.uncompiled import stand_in

stand_in()
other = sys.modules["torch._dynamo"]
for kind in optimizers.KINDS:
    parameter = torch.ones(3, 2, requires_grad=True)
    optimizer = optimizers.make(kind, [{"params": [parameter]}], {"lr": 0.1})
    parameter.grad = torch.ones(3, 2).to_sparse() if kind == "SparseAdam" else torch.ones(3, 2)
    optimizer.step([])
    assert not torch.equal(parameter, torch.ones(3, 2)), kind
    optimizer.load_state(*optimizer.state(), [{"params": [0]}])
    optimizer.add_group({"params": [torch.ones(2, 2, requires_grad=True)]})
    optimizer.zero_grad()
assert torch.eye(3, device="meta").sum().shape == ()
inspect.getmodule(lambda: None)  # goes through all modules
assert sys.modules["torch._dynamo"] is torch._dynamo is other
assert "torch._dynamo.eval_frame" not in sys.modules

import torch._dynamo.config as config

assert sys.modules["torch._dynamo"] is torch._dynamo is not other
assert sys.modules["torch._dynamo.config"] is torch._dynamo.config is config
assert config.__spec__.loader.name == "torch._dynamo.config"
assert other.config is config
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist() == [2, 2]
"""


def test_nothing_waits_for_torchs_compiler_and_who_needs_it_gets_it() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=server_environment(), capture_output=True, text=True, timeout=100.0, check=False)
    assert done.returncode == 0, done.stderr
