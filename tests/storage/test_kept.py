"""`tclient.keep` and `recall` beside torch.save and torch.load: what comes back is the same, also after a restart."""

from __future__ import annotations

import io
import pickle
import signal
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import tclient
from tests.support.serving import ServerProcess


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of the server of these tests."""
    return tmp_path_factory.mktemp("kept") / "data"


@pytest.fixture(scope="module")
def server(data_dir: Path) -> Iterator[ServerProcess]:
    """A server that keeps names."""
    with ServerProcess("--data-dir", str(data_dir)) as running:
        yield running


@pytest.fixture
def tc(server: ServerProcess) -> Iterator[ModuleType]:
    """`tclient`, with a session of its own; what it has kept is forgotten."""
    with tclient.connect(server.address) as session:
        yield tclient
        for kept in session.names():
            session.forget(kept.name)


def of_torch(obj: Any) -> Any:
    """What torch.load gives of what torch.save wrote."""
    file = io.BytesIO()
    torch.save(obj, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def elements(x: Any) -> Any:
    """In numbers that compare, NaN too."""
    return str(x.detach().to_dense().tolist() if x.layout is not _strided(x) else x.detach().tolist())


def _strided(x: Any) -> Any:
    return torch.strided if isinstance(x, torch.Tensor) else tclient.strided


def told(obj: Any) -> Any:
    """An object in words that are the same for torch and for tclient."""
    if isinstance(obj, torch.Tensor | tclient.Tensor):
        stride = obj.stride() if obj.layout is _strided(obj) else None
        facts = (type(obj).__name__, str(obj.dtype), tuple(obj.shape), stride, obj.requires_grad, obj.is_leaf)
        return (*facts, str(obj.device), elements(obj))
    if isinstance(obj, dict):
        return type(obj).__name__, [(key, told(each)) for key, each in obj.items()], getattr(obj, "_metadata", None)
    if isinstance(obj, list | tuple):
        return type(obj).__name__, [told(each) for each in obj]
    if isinstance(obj, np.ndarray):
        return "ndarray", obj.dtype, obj.tolist()
    return type(obj).__name__, str(obj)


def shared(obj: Any) -> list[tuple[int, ...]]:
    """Which of the tensors of a dict share memory, and how far apart they begin."""
    by_storage: dict[int, list[tuple[int, int]]] = {}
    for index, each in enumerate(obj.values()):
        by_storage.setdefault(each.untyped_storage().data_ptr(), []).append((index, each.data_ptr()))
    return [
        tuple(part for index, start in group for part in (index, start - min(start for _, start in group)))
        for group in by_storage.values()
    ]


def tied(lib: Any) -> Any:
    lib.manual_seed(0)
    net = lib.nn.Sequential(lib.nn.Linear(3, 3, bias=False), lib.nn.ReLU(), lib.nn.Linear(3, 3, bias=False))
    net[2].weight = net[0].weight
    return net


def trained(lib: Any) -> Any:
    lib.manual_seed(0)
    net = lib.nn.Sequential(lib.nn.Linear(3, 4), lib.nn.BatchNorm1d(4), lib.nn.Linear(4, 1))
    optimizer = lib.optim.Adam(net.parameters(), lr=0.125)
    net(lib.arange(6.0).reshape(2, 3)).sum().backward()
    optimizer.step()
    return {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "best": None, "name": "größe"}


DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)
OBJECTS: dict[str, Callable[[Any], Any]] = {
    "every dtype": lambda lib: {each: lib.tensor([0, 1, 0, 3]).to(getattr(lib, each)) for each in DTYPES},
    "numbers that are none": lambda lib: lib.tensor([float("nan"), float("inf"), -0.0]),
    "no dimensions": lambda lib: lib.tensor(3.5),
    "no elements": lambda lib: lib.zeros(2, 0, 3),
    "no elements, and no dtype of floats": lambda lib: lib.zeros(0, dtype=lib.int16),
    "a transposed one": lambda lib: lib.arange(6.0).reshape(2, 3).t(),
    "channels last": lambda lib: lib.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=lib.channels_last),
    "an expanded one": lambda lib: lib.tensor([[1.0], [2.0]]).expand(2, 3),
    "a sparse one": lambda lib: lib.tensor([[0.0, 2.0], [3.0, 0.0]]).to_sparse(),
    "a leaf with gradients": lambda lib: lib.ones(2).requires_grad_(),
    "a result with gradients": lambda lib: lib.ones(2).requires_grad_() * 2,
    "a parameter": lambda lib: lib.nn.Parameter(lib.ones(2)),
    "a frozen parameter": lambda lib: lib.nn.Parameter(lib.ones(2), requires_grad=False),
    "a state_dict": lambda lib: trained(lib)["model"],
    "a training": trained,
    "what is around": lambda lib: {
        "list": [1, 2.5, "three", None, True, (lib.ones(1), lib.zeros(1))],
        7: {"nested": OrderedDict(a=lib.ones(2), b=1)},
        "size": lib.Size([2, 3]),
        "dtype": lib.float16,
        "device": lib.device("cpu"),
        "complex": 1 + 2j,
        "bytes": b"\0\xff",
    },
    "a name twice": lambda lib: {"a.b": lib.ones(1), "a": {"b": lib.zeros(1)}},
    "a dict in another order": lambda lib: {"b": lib.ones(1), "a": lib.ones(2), "c": lib.ones(1, dtype=lib.int8)},
    "an empty dict": lambda lib: {},
    "a number": lambda lib: 5,
}


@pytest.mark.parametrize("case", OBJECTS)
def test_what_comes_back_is_what_torch_loads(tc: ModuleType, case: str) -> None:
    make = OBJECTS[case]
    tc.keep("object", make(tc))
    assert told(tc.recall("object")) == told(of_torch(make(torch)))


def parts(x: Any, *indices: Any) -> dict[str, Any]:
    return {str(index): x[index] for index in indices}


VIEWS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "rows of one": lambda lib: parts(lib.arange(12.0).reshape(4, 3), ..., 1, slice(2, None)),
    "columns without the whole": lambda lib: parts(lib.arange(12.0).reshape(4, 3), (..., 0), (..., slice(1, None))),
    "the same one twice": lambda lib: {**dict.fromkeys("ab", lib.arange(3)), "other": lib.ones(2)},
    "weights that are tied": lambda lib: dict(tied(lib).state_dict()),
}


@pytest.mark.parametrize("case", VIEWS)
def test_tensors_that_share_memory_share_it_again(tc: ModuleType, case: str) -> None:
    tc.keep("views", VIEWS[case](tc))
    found, expected = tc.recall("views"), of_torch(VIEWS[case](torch))
    assert told(found) == told(expected)
    assert [len(group) for group in shared(found)] == [len(group) for group in shared(expected)]
    for mine, its in zip(found.values(), expected.values(), strict=True):
        mine.add_(1)
        its.add_(1)
    assert told(found) == told(expected)


def test_of_a_module_its_state_dict_is_kept(tc: ModuleType) -> None:
    net = tied(tc)
    tc.keep("net", net)
    again = tc.recall("net")
    assert told(again) == told(of_torch(tied(torch).state_dict()))
    assert str(tied(tc).load_state_dict(again)) == "<All keys matched successfully>"
    assert [(kept.name, kept.kind, kept.tensors) for kept in tc.names()] == [("net", "module", 1)]


def test_a_recalled_tensor_is_a_new_one(tc: ModuleType) -> None:
    x = tc.ones(3)
    tc.keep("x", x)
    first, second = tc.recall("x"), tc.recall("x")
    first.add_(1)
    x.zero_()
    assert second.tolist() == [1.0, 1.0, 1.0]
    assert (first + tc.recall("x")).tolist() == [3.0, 3.0, 3.0]


def test_what_waits_to_be_run_is_kept_as_it_will_be(tc: ModuleType) -> None:
    x = tc.zeros(1000)
    for _ in range(200):
        x.add_(1)
    tc.keep("x", x)
    x.add_(1)
    assert tc.recall("x").sum().item() == 200_000


def test_the_error_of_a_call_that_failed_is_raised_and_nothing_is_kept(tc: ModuleType) -> None:
    x = tc.ones(2) @ tc.ones(3)
    with pytest.raises(RuntimeError) as expected:
        torch.ones(2) @ torch.ones(3)
    with pytest.raises(RuntimeError) as found:
        tc.keep("x", {"x": x})
    assert str(found.value) == str(expected.value)
    assert tc.names() == []


def test_names_tell_what_there_is(tc: ModuleType) -> None:
    for name, obj in {"b": tc.ones(1000), "a/1": {"x": tc.ones(1)}, "C": [1]}.items():
        tc.keep(name, obj)
    found = tc.names()
    assert [(each.name, each.kind, each.tensors) for each in found] == [
        ("C", "list", 0),
        ("a/1", "state_dict", 1),
        ("b", "tensor", 1),
    ]
    assert 4000 < found[2].size_bytes < 5000
    assert all(abs(datetime.now() - each.when) < timedelta(minutes=5) for each in found)


def test_a_name_is_overwritten_unless_that_is_ruled_out(tc: ModuleType) -> None:
    tc.keep("x", tc.ones(1))
    tc.keep("x", tc.zeros(1))
    with pytest.raises(ValueError, match="the name 'x' is taken; overwrite it"):
        tc.keep("x", tc.ones(1), overwrite=False)
    assert tc.recall("x").tolist() == [0.0]
    tc.forget("x")
    tc.keep("x", tc.ones(1), overwrite=False)
    assert tc.recall("x").tolist() == [1.0]


REFUSALS: dict[str, tuple[type[Exception], str, Callable[[Any], object]]] = {
    "nothing has the name": (KeyError, "nothing is kept under the name 'never'", lambda lib: lib.recall("never")),
    "forgotten twice": (KeyError, "nothing is kept under the name 'never'", lambda lib: lib.forget("never")),
    "an empty name": (ValueError, "the name is empty", lambda lib: lib.keep("", lib.ones(1))),
    "a long name": (ValueError, "201 characters; at most 200", lambda lib: lib.keep("x" * 201, 1)),
    "a line": (ValueError, "control character", lambda lib: lib.recall("a\nb")),
    "half a character": (ValueError, "is no text", lambda lib: lib.recall("\ud800")),
    "no text": (TypeError, "a name is a str, not int", lambda lib: lib.keep(5, lib.ones(1))),
    "no data": (TypeError, "cannot pickle", lambda lib: lib.keep("x", {"lock": __import__("threading").Lock()})),
    "no such device": (
        ValueError,
        "no device 'cuda:7'",
        lambda lib: (lib.keep("x", lib.ones(1)), lib.recall("x", device="cuda:7")),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_says_what_is_wrong(tc: ModuleType, case: str) -> None:
    kind, text, act = REFUSALS[case]
    with pytest.raises(kind) as found:
        act(tc)
    assert text in str(found.value)


def test_the_session_of_the_tensors_keeps_them(tc: ModuleType, server: ServerProcess) -> None:
    x = tc.ones(2)
    with tclient.connect(server.address) as other:
        with pytest.raises(ValueError, match="'tensor' is a tensor of another session"):
            other.keep("x", x)
        x._ref.session.keep("x", x)
        assert other.recall("x").tolist() == [1.0, 1.0]
        assert [each.name for each in other.names()] == ["x"]
        other.forget("x")


def test_a_class_of_the_program_s_own_is_made_only_where_that_is_allowed(tc: ModuleType) -> None:
    tc.keep("x", {"when": timedelta(hours=1), "x": tc.ones(1)})
    with pytest.raises(Exception, match="timedelta") as refused:
        tc.recall("x")
    assert isinstance(refused.value, pickle.UnpicklingError)
    assert tc.recall("x", weights_only=False)["when"] == timedelta(hours=1)


def test_arrays_and_generators_are_kept_too(tc: ModuleType) -> None:
    generator = tc.Generator().manual_seed(3)
    tc.keep("x", {"array": np.arange(6, dtype=np.int16).reshape(2, 3), "g": generator})
    found = tc.recall("x", weights_only=False)
    assert told(found["array"]) == ("ndarray", np.dtype("int16"), [[0, 1, 2], [3, 4, 5]])
    assert tc.equal(tc.rand(3, generator=found["g"]), tc.rand(3, generator=generator))


def test_the_file_is_one_that_load_reads(tc: ModuleType, data_dir: Path) -> None:
    tc.keep("net", trained(tc))
    (path,) = (data_dir / "names" / "local" / "net").glob("*.safetensors")
    assert told(tc.load(path)) == told(tc.recall("net"))


def test_what_was_kept_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with ServerProcess("--data-dir", data) as server:
        session = tclient.connect(server.address)
        tclient.keep("training", trained(tclient))
        server.signal(signal.SIGKILL)
        server.wait()
        session.die(tclient.NotConnectedError("its server was killed"))
        session.close()
    with ServerProcess("--data-dir", data) as server, tclient.connect(server.address):
        assert told(tclient.recall("training")) == told(of_torch(trained(torch)))


def test_without_a_data_directory_the_option_is_named() -> None:
    with ServerProcess() as server, tclient.connect(server.address) as session:
        with pytest.raises(tclient.RequestRefused, match="start it with --data-dir") as told:
            session.keep("x", tclient.ones(1))
        assert told.value.reason == "NO_DATA_DIR"
