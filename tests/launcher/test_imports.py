"""What `import torch` means once it means tclient: torch's own paths, and names that are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tclient
from tclient._launcher.version import TorchVersion
from tests.launcher.running import launched, run
from tests.support.serving import ServerProcess

# Lines as programs have them; each must import, and give the object of tclient that stands behind it.
PATHS = {
    "from torch import nn, optim, Tensor": "Tensor",
    "from torch.autograd import grad": "autograd.grad",
    "from torch.autograd.grad_mode import no_grad": "no_grad",
    "from torch.autograd.grad_mode import inference_mode": "inference_mode",
    "from torch.cuda import is_available": "cuda.is_available",
    "from torch.fft import fft": "fft.fft",
    "from torch.functional import einsum": "einsum",
    "from torch.linalg import norm": "linalg.norm",
    "from torch.nn import Module": "nn.Module",
    "from torch.nn.functional import relu": "nn.functional.relu",
    "from torch.nn.init import xavier_uniform_": "nn.init.xavier_uniform_",
    "from torch.nn.modules import Linear": "nn.Linear",
    "from torch.nn.modules.activation import ReLU": "nn.ReLU",
    "from torch.nn.modules.activation import MultiheadAttention": "nn.MultiheadAttention",
    "from torch.nn.modules.batchnorm import BatchNorm2d": "nn.BatchNorm2d",
    "from torch.nn.modules.batchnorm import _BatchNorm": "nn.batchnorm._BatchNorm",
    "from torch.nn.modules.container import Sequential": "nn.Sequential",
    "from torch.nn.modules.conv import Conv2d": "nn.Conv2d",
    "from torch.nn.modules.conv import _ConvNd": "nn.conv._ConvNd",
    "from torch.nn.modules.lazy import LazyModuleMixin": "nn.lazy.LazyModuleMixin",
    "from torch.nn.modules.distance import CosineSimilarity": "nn.CosineSimilarity",
    "from torch.nn.modules.dropout import Dropout": "nn.Dropout",
    "from torch.nn.modules.flatten import Flatten": "nn.Flatten",
    "from torch.nn.modules.instancenorm import InstanceNorm2d": "nn.InstanceNorm2d",
    "from torch.nn.modules.linear import Identity": "nn.Identity",
    "from torch.nn.modules.loss import CrossEntropyLoss": "nn.CrossEntropyLoss",
    "from torch.nn.modules.loss import _Loss": "nn.loss._Loss",
    "from torch.nn.modules.module import Module": "nn.Module",
    "from torch.nn.modules.normalization import LayerNorm": "nn.LayerNorm",
    "from torch.nn.modules.padding import ZeroPad2d": "nn.ZeroPad2d",
    "from torch.nn.modules.pixelshuffle import PixelShuffle": "nn.PixelShuffle",
    "from torch.nn.modules.pooling import MaxPool2d": "nn.MaxPool2d",
    "from torch.nn.modules.rnn import LSTM": "nn.LSTM",
    "from torch.nn.modules.sparse import Embedding": "nn.Embedding",
    "from torch.nn.modules.transformer import Transformer": "nn.Transformer",
    "from torch.nn.modules.upsampling import Upsample": "nn.Upsample",
    "from torch.nn.modules.utils import _pair": "nn.modules.utils._pair",
    "from torch.nn.modules.module import register_module_forward_hook": "nn.module.register_module_forward_hook",
    "from torch.nn.parameter import Parameter": "nn.Parameter",
    "from torch.nn.utils import clip_grad_norm_": "nn.utils.clip_grad_norm_",
    "from torch.nn.utils.clip_grad import clip_grad_value_": "nn.utils.clip_grad_value_",
    "from torch.nn.utils.parametrizations import weight_norm": "nn.utils.parametrizations.weight_norm",
    "from torch.nn.utils.parametrize import register_parametrization": "nn.utils.parametrize.register_parametrization",
    "from torch.nn.utils.prune import l1_unstructured": "nn.utils.prune.l1_unstructured",
    "from torch.nn.utils.convert_parameters import parameters_to_vector": "nn.utils.parameters_to_vector",
    "from torch.optim import AdamW": "optim.AdamW",
    "from torch.optim.adam import Adam": "optim.Adam",
    "from torch.optim.lr_scheduler import StepLR": "optim.lr_scheduler.StepLR",
    "from torch.optim.optimizer import Optimizer": "optim.Optimizer",
    "from torch.optim.sgd import SGD": "optim.SGD",
    "from torch.random import manual_seed": "manual_seed",
    "from torch.serialization import load": "load",
    "from torch.special import expit": "special.expit",
    "from torch.testing import assert_close": "testing.assert_close",
    "from torch.utils.data import DataLoader": "utils.data.DataLoader",
    "from torch.utils.data._utils.collate import default_collate": "utils.data.default_collate",
    "from torch.utils.data.dataloader import DataLoader": "utils.data.DataLoader",
    "from torch.utils.data.dataset import Dataset": "utils.data.Dataset",
    "from torch.utils.data.dataset import random_split": "utils.data.random_split",
    "from torch.utils.data.sampler import RandomSampler": "utils.data.RandomSampler",
    "from torch.utils.hooks import RemovableHandle": "utils.hooks.RemovableHandle",
}

REPORT = """
import json, sys, warnings
warnings.simplefilter("ignore")
found = {}
for line in json.loads(sys.argv[1]):
    names = {}
    try:
        exec(line, names)
    except Exception as error:
        found[line] = f"{type(error).__name__}: {error}"
    else:
        found[line] = "imported"
print(json.dumps(found))
"""

BEHIND = """
import json, pkgutil, sys, tclient
wrong = []
for line, path in json.loads(sys.argv[1]).items():
    names = {}
    exec(line, names)
    mine = pkgutil.resolve_name(f"tclient.{path}")
    if names[line.split()[-1]] is not mine:
        wrong.append(line)
print(wrong)
"""


def _in(folder: Path, text: str) -> str:
    (folder / "program.py").write_text(text)
    return "program.py"


def test_every_path_gives_what_stands_behind_it(server: ServerProcess, tmp_path: Path) -> None:
    assert len({line.split()[1] for line in PATHS}) >= 40
    done = launched(server.address, _in(tmp_path, BEHIND), json.dumps(PATHS), folder=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")


LINES = [
    *PATHS,
    "import torch.jit",
    "import torch.distributed as dist",
    "import torch.backends.cudnn as cudnn",
    "import torch.utils.checkpoint",
    "from torch.optim import SparseAdam",
    "from torch.fx import GraphModule",
    "from torch.jit import script",
    "from torch.nn.utils import parametrize",
    "from torch.nn import nonsense",
    "from torch import nonsense",
    "import torch.nonsense",
    "import torch.nn.nonsense",
    "from torch.nonsense import x",
]


def test_what_torch_imports_is_imported_and_nothing_else(server: ServerProcess, tmp_path: Path) -> None:
    program = _in(tmp_path, REPORT)
    theirs = json.loads(run(program, json.dumps(LINES), folder=tmp_path).stdout)
    ours = json.loads(launched(server.address, program, json.dumps(LINES), folder=tmp_path).stdout)

    def kinds(found: dict[str, str]) -> dict[str, str]:
        return {line: said.partition(":")[0] for line, said in found.items()}

    assert kinds(ours) == kinds(theirs)


MISSING = """
import torch
import torch.jit
from torch.fx import GraphModule
from torch.nn import LinearCrossEntropyLoss as Absent

def annotated(graph: GraphModule | None, other: "list[Absent]") -> Absent: ...

print(hasattr(torch.nn, "LinearCrossEntropyLoss"), isinstance(1, Absent), hasattr(torch, "nonsense"))
def derived():
    class Mine(Absent): ...
    print("derived")
    Mine(3)
for use in (lambda: Absent(3), lambda: Absent.convert, derived, lambda: torch.nn.LinearCrossEntropyLoss,
            lambda: GraphModule(),
            lambda: torch.jit.save, lambda: torch.sparse_csr_tensor, lambda: torch.nonsense):
    try:
        use()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


def test_a_missing_name_says_so_when_it_is_used(server: ServerProcess, tmp_path: Path) -> None:
    done = launched(server.address, _in(tmp_path, MISSING), folder=tmp_path)
    code = "no code of a caller runs on the server; call the function as it is"
    instead = "use nn.Linear and nn.CrossEntropyLoss"
    absent = f"tclient does not have torch.nn.LinearCrossEntropyLoss: {instead}"
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "False False False",
        f"NotImplementedError: {absent}",
        f"AttributeError: {absent}",
        "derived",
        f"NotImplementedError: {absent}",
        "AttributeError: module 'torch.nn' has no attribute 'LinearCrossEntropyLoss': tclient does not have it: "
        f"{instead}",
        f"NotImplementedError: tclient does not have torch.fx.GraphModule: {code}",
        "AttributeError: module 'torch.jit' has no attribute 'save': tclient does not have it: no code is kept in "
        "files; use save and load with a state_dict",
        "AttributeError: module 'torch' has no attribute 'sparse_csr_tensor': tclient does not have it: sparse tensors "
        "are those of torch.sparse_coo here, whose indices can be checked; use sparse_coo_tensor",
        "AttributeError: module 'torch' has no attribute 'nonsense'",
    ]


def test_a_setting_that_has_no_effect_says_so(server: ServerProcess, tmp_path: Path) -> None:
    text = "import torch._dynamo\ntorch._dynamo.verbose = True\nprint(torch._dynamo.verbose)\n"
    done = launched(server.address, _in(tmp_path, text), folder=tmp_path)
    assert done.stdout == "True\n"
    assert "program.py:2: UserWarning: torch._dynamo.verbose is set to no effect" in done.stderr


def test_what_is_set_in_a_module_of_torch_is_set_in_tclient(server: ServerProcess, tmp_path: Path) -> None:
    text = (
        "import torch, tclient\ntorch.backends.cudnn.benchmark = True\n"
        "print(torch.backends.cudnn.benchmark, tclient.backends.cudnn.benchmark)\n"
        "print(torch.nn.functional.relu is tclient.nn.functional.relu)\n"
        "torch.nn.functional.relu = len\nprint(torch.nn.functional.relu([]), tclient.nn.functional.relu([]))\n"
    )
    done = launched(server.address, _in(tmp_path, text), folder=tmp_path)
    assert (done.stdout, done.stderr) == ("True True\nTrue\n0 0\n", "")


def test_a_notebook_imports_torch_by_two_lines(server: ServerProcess, tmp_path: Path) -> None:
    text = (
        "import tclient\ntclient.load_ipython_extension(None)\ntclient.as_torch()\nimport torch\n"
        "from torch.nn import *\nprint(Linear is tclient.nn.Linear, torch.ones(2).tolist(), 'add' in dir(torch))\n"
    )
    done = run(_in(tmp_path, text), folder=tmp_path, address=server.address)
    assert (done.stdout, done.stderr) == ("True [1.0, 1.0] True\n", "")


def test_torch_itself_is_not_replaced_once_it_is_imported() -> None:
    import torch

    assert torch.ones(1).item() == 1
    with pytest.raises(RuntimeError, match="torch itself is imported in this process already"):
        tclient.as_torch()


VERSIONS = [
    "2.13.0+cpu",
    "2.9",
    "2.10",
    "2.10.0",
    "2.10.0a0",
    "2.10.0rc1",
    "2.10.0+cu130",
    "10.1",
    "1.13.1",
    "nonsense",
]


@pytest.mark.parametrize("mine", VERSIONS[:-1])
def test_a_version_compares_as_torch_s(mine: str) -> None:
    from torch import torch_version

    def answers(version: Any) -> list[Any]:
        others = [*VERSIONS, (2, 10), (2, 10, 0), (1,)]
        return [
            [version < o, version <= o, version == o, version >= o, version > o, version != o] for o in others[:9]
        ] + [[version >= o, version < o] for o in others[10:]]

    assert answers(TorchVersion(mine)) == answers(torch_version.TorchVersion(mine))
    assert TorchVersion(mine).split("+") == mine.split("+")


START = """
import torch, torch.nn as nn, torch.nn.functional as F, torch.optim as optim
from torch.utils.data import DataLoader
print(nn.Linear(2, 2)(torch.ones(1, 2)).shape, F.relu(torch.ones(1)), optim.SGD, DataLoader)
import sys
print(sorted(name for name in sys.modules if name.startswith(tuple(sys.argv[1:]))))
"""
# What a program that trains a network does not need before it asks for it: each takes a while to import.
LATER = [
    *(
        "tclient.distributions",
        "tclient.models",
        "tclient.testing",
        "tclient._torch_files",
        "tclient._launcher.profile",
    ),
    *("torch._", "tserver", "scipy", "pandas", "matplotlib", "PIL", "unittest", "email", "http", "xml", "sqlite3"),
    *("multiprocessing.queues", "multiprocessing.pool", "multiprocessing.connection", "pdb", "doctest", "torchvision"),
]


def test_a_program_that_trains_imports_little_before_it_begins(server: ServerProcess, tmp_path: Path) -> None:
    done = launched(server.address, _in(tmp_path, START), *LATER, folder=tmp_path)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "[]"
