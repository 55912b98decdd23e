"""save and load, side by side with torch: what programs save comes back as from torch, or is refused in its words."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import io
import pathlib
import pickle
import re
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch


class Colour(enum.Enum):
    """An enumeration of the program's own."""

    RED = 1


class Point(NamedTuple):
    """A named tuple of the program's own."""

    x: int
    where: Any


@dataclasses.dataclass
class Options:
    """A data class with a tensor."""

    rate: float = 0.5
    weight: Any = None


@dataclasses.dataclass(slots=True, frozen=True)
class Frozen:
    """A data class without a dict."""

    count: int = 1


class Settings(dict[str, Any]):
    """A dict with attributes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.origin = "here"


class Counted:
    """A class that says itself what its state is."""

    def __init__(self) -> None:
        self.count: int = 3
        self.cache: Any = lambda: None

    def __getstate__(self) -> Any:
        return (self.count,)

    def __setstate__(self, state: Any) -> None:
        self.count, self.cache = state[0], None

    def __repr__(self) -> str:
        return f"Counted({self.count}, {self.cache})"


def scaled(x: Any) -> Any:
    """A function of the program's own."""
    return x * 2


def _networks(m: Any) -> type:
    """A network class that each library finds under one name."""

    class Net(m.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = m.nn.Linear(2, 1)
            self.act = m.nn.functional.relu
            self.config = {"scale": np.float32(2)}
            self.register_buffer("count", m.zeros((), dtype=m.int64))

        def forward(self, x: Any) -> Any:
            return self.act(self.layer(x))

    Net.__qualname__, Net.__module__ = "Net", __name__
    globals()["Net"] = Net
    return Net


def _optimizer(m: Any) -> Any:
    return m.optim.SGD([m.ones(1, requires_grad=True)], lr=0.1, momentum=0.9)


OBJECTS: dict[str, Callable[[Any], Any]] = {
    "network": lambda m: _networks(m)(),
    "layer": lambda m: m.nn.Linear(2, 1),
    "layers": lambda m: m.nn.Sequential(m.nn.Conv2d(1, 2, 3), m.nn.BatchNorm2d(2), m.nn.ReLU()),
    "state": lambda m: m.nn.Sequential(m.nn.Linear(2, 1)).state_dict(),
    "class": _networks,
    "optimiser": _optimizer,
    "optimiser-state": lambda m: _optimizer(m).state_dict(),
    "schedule": lambda m: m.optim.lr_scheduler.StepLR(_optimizer(m), 1),
    "parameter": lambda m: [m.nn.Parameter(m.ones(2)), m.nn.Parameter(m.ones(1), requires_grad=False)],
    "transposed": lambda m: m.arange(6.0).reshape(2, 3).t(),
    "expanded": lambda m: m.ones(3).expand(2, 3),
    "complex": lambda m: [m.ones(2, dtype=m.complex128) * 1j, m.ones(1, dtype=m.complex64).conj().resolve_conj()],
    "with-gradients": lambda m: [m.ones(2, requires_grad=True), m.ones(2, requires_grad=True) * 2],
    "array": lambda m: np.arange(6.0).reshape(2, 3),
    "arrays": lambda m: {
        "f": np.asfortranarray(np.ones((2, 3))),
        "t": np.array(["a", "bc"]),
        "d": np.array([3], ">i2"),
    },
    "array-of-objects": lambda m: np.array([None, 3, "x"], object),
    "array-of-records": lambda m: np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
    "dates": lambda m: np.array(["2020-01-01"], "M8[D]"),
    "numpy-number": lambda m: [np.float64(2)],
    "numpy-numbers": lambda m: [np.int8(3), np.bool_(True), np.complex64(1j)],
    "numpy-dtype": lambda m: np.dtype("f4"),
    "random-state": lambda m: np.random.RandomState(2),
    "random-generator": lambda m: np.random.default_rng(2),
    "named-tuple": lambda m: Point(1, m.ones(2)),
    "ordered": lambda m: collections.OrderedDict(b=1, a=m.ones(1)),
    "default-dict": lambda m: collections.defaultdict(list, {1: [2]}),
    "counter": lambda m: collections.Counter("aab"),
    "queue": lambda m: collections.deque([1, m.ones(1)], 4),
    "set": lambda m: {1, 2},
    "frozen-set": lambda m: frozenset([1]),
    "path": lambda m: pathlib.PurePosixPath("a/b"),
    "arguments": lambda m: argparse.Namespace(rate=0.5, weight=m.ones(1)),
    "data-class": lambda m: Options(0.25, m.ones(1)),
    "frozen-class": lambda m: Frozen(4),
    "own-state": lambda m: Counted(),
    "settings": lambda m: Settings(a=2),
    "enumeration": lambda m: Colour.RED,
    "date": lambda m: datetime.datetime(2020, 1, 1, 3),
    "decimal": lambda m: decimal.Decimal("1.5"),
    "function": lambda m: scaled,
    "functional": lambda m: m.nn.functional.relu,
    "partial": lambda m: functools.partial(scaled, x=3).keywords,
    "pattern": lambda m: re.compile("a+"),
    "error": lambda m: ValueError("x"),
    "type": lambda m: int,
    "slice": lambda m: [slice(1, 2), range(3)],
    "names-of-torch": lambda m: [m.float32, m.device("cpu"), m.Size([1]), m.strided],
    "bytes": lambda m: [b"\x00\xff", bytearray(b"a"), 1j, 1 << 80, float("inf"), None, True],
    "keys": lambda m: {(1, "a"): 3, None: 4, 2.5: m.ones(1), 7: 8},
    "generator": lambda m: m.Generator().manual_seed(4),
    "endless": lambda m: _endless(),
    "lock": lambda m: __import__("threading").Lock(),
    "lambda": lambda m: {"f": lambda: 1},
}


def _endless() -> list[Any]:
    made: list[Any] = [1]
    made.append(made)
    return made


def described(value: Any) -> Any:
    """What can be compared of an object of either library."""
    if isinstance(value, torch.nn.Module) or hasattr(value, "named_modules"):
        return repr(value), {name: tuple(x.shape) for name, x in value.state_dict().items()}, value.training
    if hasattr(value, "untyped_storage") or hasattr(value, "storage_offset"):
        return (
            type(value).__name__,
            str(value.dtype),
            value.tolist(),
            value.stride(),
            value.requires_grad,
            value.is_leaf,
        )
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.dtype.descr, value.tolist(), value.flags.f_contiguous, value.flags.writeable
    if isinstance(value, dict):
        return type(value).__name__, [(key, described(each)) for key, each in value.items()], len(vars_of(value))
    if isinstance(value, (list, tuple, collections.deque)):
        return type(value).__name__, len(value), [described(each) for each in value if each is not value]
    if hasattr(value, "param_groups"):
        return repr(value), [described(p) for group in value.param_groups for p in group["params"]]
    if hasattr(value, "get_lr"):
        return type(value).__name__, value.last_epoch, value.get_last_lr(), described(value.optimizer)
    if isinstance(value, (argparse.Namespace, Options)):
        return type(value).__name__, described(vars(value))
    if callable(value):
        return value.__name__
    if hasattr(value, "get_state") and hasattr(value, "manual_seed"):
        return value.initial_seed(), value.get_state().tolist()
    if isinstance(value, (np.random.RandomState, np.random.Generator)):
        return value.normal()
    return type(value).__name__, str(value)


def vars_of(value: Any) -> dict[str, Any]:
    """The attributes of an object, if it may have any."""
    return getattr(value, "__dict__", {})


def outcome(m: Any, make: Callable[[Any], Any], **options: Any) -> Any:
    """What comes back of an object, or which error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            m.manual_seed(0)
            file = io.BytesIO()
            m.save(make(m), file)
            file.seek(0)
            return described(m.load(file, **options))
        except Exception as error:
            kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ in ("builtins", "_pickle"))
            return "UnpicklingError" if isinstance(error, pickle.UnpicklingError) else kind, _text(error)


def _text(error: Exception) -> str:
    return re.sub(r"0x[0-9a-f]+", "0x", str(error))


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("weights_only", [None, False], ids=["weights-only", "all"])
def test_what_is_saved_comes_back_as_from_torch(tc: ModuleType, name: str, weights_only: bool | None) -> None:
    mine = outcome(tc, OBJECTS[name], weights_only=weights_only)
    assert mine == outcome(torch, OBJECTS[name], weights_only=weights_only)


def again(m: Any, value: Any, **options: Any) -> Any:
    """What is loaded of what is saved."""
    file = io.BytesIO()
    m.save(value, file)
    file.seek(0)
    return m.load(file, **options)


def shared_memory(m: Any) -> Any:
    x = m.arange(6.0)
    back = again(m, {"row": x[1:3], "all": x, "grid": x.view(2, 3), "turned": x.view(2, 3).t(), "apart": x[:0]})
    back["all"].mul_(10)
    parts = again(m, [x[:4], x[2:], m.ones(1)])
    parts[0].fill_(9)
    with pytest.raises(RuntimeError) as refused:
        again(m, [x, x.view(m.int32)])
    return [described(each) for each in (*back.values(), *parts)], str(refused.value)


def tied_parameters(m: Any) -> Any:
    net = m.nn.Sequential(m.nn.Linear(2, 2), m.nn.Linear(2, 2))
    net[1].weight = net[0].weight
    whole = again(m, net, weights_only=False)
    state = again(m, net.state_dict())
    state["0.weight"].zero_()
    return (
        whole[0].weight is whole[1].weight,
        whole[0].weight.requires_grad,
        state["1.weight"].tolist(),
        dict(state._metadata),
    )


def one_object(m: Any) -> Any:
    inner = {"k": m.ones(1)}
    first, second, x = again(m, [inner, inner, inner["k"]])
    net = m.nn.Linear(2, 1)
    optimizer = m.optim.Adam(net.parameters())
    net(m.ones(1, 2)).sum().backward()
    optimizer.step()
    twin, its = again(m, (net, optimizer), weights_only=False)
    same = its.param_groups[0]["params"][0] is twin.weight
    return first is second, first["k"] is x, same, sorted(its.state[twin.weight]), its.state_dict()["param_groups"]


def places(m: Any) -> Any:
    seen: list[Any] = []
    ways = (
        *("cpu", m.device("cpu"), {"cpu": "cpu"}, {"cuda:0": "cpu"}, "cuda", {"cpu": "cuda:0"}),
        *(lambda storage, place: storage, lambda storage, place: None, lambda storage, place: seen.append(place)),
    )
    for way in ways:
        try:
            seen.append(str(again(m, m.ones(1), map_location=way).device))
        except RuntimeError as error:
            seen.append(str(error))
    return seen


def allowed_classes(m: Any) -> Any:
    net = m.nn.Sequential(m.nn.Linear(2, 1))
    notes = []
    with m.serialization.safe_globals([m.nn.Sequential]):
        with pytest.raises(pickle.UnpicklingError) as refused:
            again(m, net)
        with m.serialization.safe_globals([m.nn.Linear]):
            notes.append(repr(again(m, net)))
    with pytest.raises(pickle.UnpicklingError):
        again(m, net)
    before = m.serialization.get_safe_globals()
    try:
        m.serialization.clear_safe_globals()
        m.serialization.add_safe_globals([Options, (Point, f"{__name__}.Point")])
        notes.append(repr(again(m, [Options(0.5), Point(1, 2)])))
    finally:
        m.serialization.clear_safe_globals()
        m.serialization.add_safe_globals(before)
    return notes, str(refused.value)


def files_that_are_none(m: Any) -> Any:
    notes = []
    for action in (
        lambda: m.save(m.ones(1), "/nonexistent/x.pt"),
        lambda: m.load("/nonexistent/x.pt"),
        lambda: m.save(m.ones(1), 3),
        lambda: m.load(3),
        lambda: again(m, m.ones(1), mmap=True),
    ):
        with pytest.raises(Exception) as refused:  # noqa: PT011 - which is what is compared
            action()
        notes.append((refused.type.__name__, str(refused.value)))
    return notes


PROGRAMS = [shared_memory, tied_parameters, one_object, places, allowed_classes, files_that_are_none]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_files_behave_as_torch_s(tc: ModuleType, program: Callable[[Any], Any]) -> None:
    torch.manual_seed(0)
    tc.manual_seed(0)
    assert program(tc) == program(torch)


def test_a_file_runs_nothing(tc: ModuleType, tmp_path: pathlib.Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return __import__("os").mkdir, (str(tmp_path / "ran"),)

    with pytest.raises(TypeError, match=r"which the function posix.mkdir makes, and a file holds data only"):
        tc.save(Hostile(), io.BytesIO())
    nodes = [["object", "call", [1], [2], None], ["name", "os", "mkdir"], ["tuple", str(tmp_path / "ran")]]
    popen = [["object", "call", [1], [2], None], ["name", "subprocess", "Popen"], ["tuple", "true"]]
    for each in (nodes, popen):
        text = tc.serialization.json.dumps({"root": [0], "nodes": each})
        header, _ = tc.serialization.header_of([], {"tclient.objects": text})
        with pytest.raises(ValueError, match="is not made of data"):
            tc.load(io.BytesIO(header), weights_only=False)
        with pytest.raises(pickle.UnpicklingError, match=r"Unsupported global: GLOBAL (os.mkdir|subprocess.Popen)"):
            tc.load(io.BytesIO(header))
    assert not list(tmp_path.iterdir())
